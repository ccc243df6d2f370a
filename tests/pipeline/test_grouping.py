from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from asi_watch.pipeline import _group_files_by_time
from asi_watch.pipeline.find_brackets import ArchiveRules, find_brackets, slot_length


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
    (bracket,) = find_brackets(tmp_path, ArchiveRules())
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
    brackets = find_brackets(tmp_path, ArchiveRules())
    assert [(b.expected, b.complete) for b in brackets] == [(3, True)] * 3 + [(3, False)]
    by_rule = find_brackets(tmp_path, ArchiveRules(expected=(80.0, 160.0)))
    assert [(b.expected, b.complete) for b in by_rule] == [(2, True)] * 4
