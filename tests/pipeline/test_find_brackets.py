"""Names, slots and brackets of an archive."""

from __future__ import annotations

import os
import random
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.pipeline import (
    _EXPO_RE,
    ArchiveSummary,
    _group_files_by_time,
    _parse_exposure_from_name,
    merge_archive,
)
from asi_watch.pipeline.find_brackets import (
    ArchiveRules,
    find_brackets,
    parse_name,
    parse_timestamp,
    slot_length,
)
from asi_watch.products import ProductSpec, read_provenance
from tests.pipeline.making import products, true_curve, write_bracket

NINE = datetime(2026, 6, 21, 9, 0, 5)


@pytest.mark.parametrize(
    ("name", "exposure"),
    [
        ("20260621090005_80.jpg", 80),
        ("a/b_5/20260621090005_1280.JPEG", 1280),
        ("20260621_090005_160.png", 160),
        ("x_00320.jp2", 320),
        ("20260621090005.jpg", None),
        ("20260621_090005.jpg", None),
        ("20260621090005_80", None),
        ("20260621090005_80us.jpg", None),
        ("20260621090005_80_hdr.jpg", None),
        ("20260621090005_.jpg", None),
        ("_" + "9" * 200 + ".jpg", None),
        ("", None),
    ],
)
def test_the_exposure_is_the_number_at_the_end(name: str, exposure: int | None) -> None:
    assert _parse_exposure_from_name(name) == exposure


def test_the_expression_is_there_for_scripts() -> None:
    found = _EXPO_RE.search("20260621090005_80.jpg")
    assert found is not None
    assert found.group(1) == "80"


@pytest.mark.parametrize(
    "name",
    [
        "20260621090005_80.jpg",
        "roof20260621090005_80.jpg",
        "roof_20260621_090005_80.jpg",
        "20260621090005123_80.jpg",
        "0007_20260621090005_80.jpg",
        "720260621090005_80.jpg",
        "1999/20260621090005.png",
    ],
)
def test_a_timestamp_is_found_anywhere(name: str) -> None:
    assert parse_timestamp(name) == NINE


@pytest.mark.parametrize(
    "name", ["", "sky.jpg", "20261321090005_80.jpg", "2026062109000_80.jpg", "20260621-090005.jpg"]
)
def test_what_is_no_date_is_no_timestamp(name: str) -> None:
    assert parse_timestamp(name) is None


def test_a_name_needs_both_and_an_exposure_above_zero() -> None:
    assert parse_name("d/20260621090005_80.jpg") == (NINE, 80.0)
    assert parse_name("20260621090005_0.jpg") is None
    assert parse_name("20260621_090005.jpg") is None
    assert parse_name("sky_80.jpg") is None


@pytest.mark.parametrize(
    ("name", "exposure_us"),
    [
        ("20260621090005_640_1.jpg", None),
        ("a/20260621_090005_1280_2.png", None),
        ("20260621090005_640 (1).jpg", None),
        ("20260621090005_640 - Copy.jpg", None),
        ("._20260621090005_640.jpg", None),
        (".20260621090005_640.jpg", None),
        ("20260621090005_1_640.jpg", 640),
        ("roof_2_20260621090005_640.jpg", 640),
        ("20260621090005_640_1280.jpg", 1280),
    ],
)
def test_copies_and_hidden_files_are_no_exposures(name: str, exposure_us: float | None) -> None:
    parsed = parse_name(name)
    assert (None if parsed is None else parsed.exposure_us) == exposure_us


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_are_grouped_by_the_time_rounded_down(tmp_path: Path) -> None:
    touch(tmp_path, "20260621090029_80.jpg", "20260621090030_80.jpg", "20260621090059_160.jpg")
    groups = _group_files_by_time(tmp_path)
    assert {str(t): len(g) for t, g in groups} == {
        "2026-06-21 09:00:00": 1,
        "2026-06-21 09:00:30": 2,
    }
    assert groups.keys == "timestamp_rounded"
    second = groups.get_group(pd.Timestamp("2026-06-21 09:00:30"))
    assert list(second["filepath"]) == [
        f"{tmp_path}/20260621090030_80.jpg",
        f"{tmp_path}/20260621090059_160.jpg",
    ]
    assert second["timestamp"].iloc[1] == pd.Timestamp("2026-06-21 09:00:59")
    assert len(_group_files_by_time(str(tmp_path), "1min")) == 1


def test_every_image_extension_and_sub_folder_but_no_product(tmp_path: Path) -> None:
    endings = ("jpg", "JPG", "jpeg", "png", "jp2")
    touch(tmp_path, *(f"a/b{i}/20260621090000_{i + 1}.{e}" for i, e in enumerate(endings)))
    touch(tmp_path, "20260621090000_hdr.jpg", "20260621090000_80.txt", ".x/20260621090000_9.jpg")
    ((_, group),) = _group_files_by_time(tmp_path)
    assert len(group) == len(endings)


def test_names_without_a_timestamp_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "20260621090000_80.jpg", "response_curve.jpg", "sky_80.png")
    assert len(_group_files_by_time(tmp_path)) == 1
    assert "2 files skipped" in caplog.text
    assert "response_curve.jpg" in caplog.text


def test_an_empty_folder_gives_an_empty_groupby(tmp_path: Path) -> None:
    groups = _group_files_by_time(tmp_path)
    assert len(groups) == 0
    assert list(groups) == []
    assert {"filepath", "timestamp"} <= set(groups.obj.columns)


def test_undecodable_names_are_no_obstacle(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9_20260621090000_80.jpg"
    Path(os.fsdecode(name)).touch()
    ((_, group),) = _group_files_by_time(tmp_path)
    assert os.fsencode(group["filepath"].iloc[0]) == name


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        _group_files_by_time(tmp_path / "nowhere")
    for text in ("fortnight", "1ME", "-30s", "0s"):
        with pytest.raises(ValueError, match="round_ts_to"):
            _group_files_by_time(tmp_path, text)
    assert slot_length("2h") == timedelta(hours=2)


def test_brackets_have_each_exposure_once_and_the_newer_file_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "20260621090000_160.jpg", "20260621090001_80.jpg", "20260621090002_80.png")
    os.utime(tmp_path / "20260621090001_80.jpg", (2e9, 2e9))
    os.utime(tmp_path / "20260621090002_80.png", (1e9, 1e9))
    ((bracket,), _) = find_brackets(tmp_path, ArchiveRules())
    assert [e.path for e in bracket.exposures] == [
        "20260621090001_80.jpg",
        "20260621090000_160.jpg",
    ]
    assert len(bracket.files) == 3
    assert bracket.first.path == "20260621090000_160.jpg"
    assert "20260621090002_80.png is not used" in caplog.text


def test_completeness_is_learned_from_the_archive(tmp_path: Path) -> None:
    whole = [f"2026062109{m:02d}00_{t}.jpg" for m in range(3) for t in (80, 160, 320)]
    touch(tmp_path, *whole, "20260621090300_80.jpg", "20260621090300_160.jpg")
    brackets, _ = find_brackets(tmp_path, ArchiveRules())
    assert [(b.expected, b.complete) for b in brackets] == [(3, True)] * 3 + [(3, False)]
    by_rule, _ = find_brackets(tmp_path, ArchiveRules(expected=(80.0, 160.0)))
    assert [(b.expected, b.complete) for b in by_rule] == [(2, True)] * 4


def merged(root: Path, out: Path, round_to: float) -> ArchiveSummary:
    return merge_archive(
        root,
        out,
        rules=ArchiveRules(round_to=timedelta(seconds=round_to)),
        settings=MergeSettings("debevec_custom"),
        curves=[true_curve()],
        products=[ProductSpec("jpg")],
        workers=0,
    )


def sources(out: Path) -> list[list[str]]:
    made = [read_provenance(out / name) for name in products(out)]
    return [[s.path.rpartition("/")[2][8:14] for s in p.sources] for p in made if p]


def test_of_two_brackets_in_a_slot_one_is_merged_and_the_summary_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [path for n in range(1, 5) for path in write_bracket(tmp_path / "a", n, folders="%H")]
    dice = random.Random(3)
    for path in paths:
        os.utime(path, (1e9, 1e9 + dice.randint(0, 99)))
    summary = merged(tmp_path / "a", tmp_path / "b", 60)
    seconds = [f"{s:02}" for s in range(30, 35)]
    assert sources(tmp_path / "b") == [[f"09{m:02}{s}" for s in seconds] for m in (0, 1)]
    assert (summary.brackets, summary.merged, summary.flawless) == (2, 2, False)
    advice = "2 slots held two brackets, of which one is merged; use round_to 30s"
    assert advice in summary.sentence()
    assert advice in caplog.text
    assert "is of the bracket merged" in caplog.text or "written later" in caplog.text
    assert "and 4 more files" in caplog.text
    assert merged(tmp_path / "a", tmp_path / "c", 30).flawless


def test_two_cameras_under_one_folder_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        write_bracket(tmp_path / "a" / "north", n, folders="")
    shutil.copytree(tmp_path / "a" / "north", tmp_path / "a" / "south")
    summary = merged(tmp_path / "a", tmp_path / "b", 30)
    assert (summary.merged, summary.flawless, len(summary.doubts)) == (3, False, 1)
    told = [m for m in caplog.messages if "two cameras" in m]
    assert len(told) == 1
    assert told[0].startswith(("north and south hold", "south and north hold"))
    assert "merge each folder by itself" in summary.sentence()
