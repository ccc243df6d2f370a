from __future__ import annotations

import json
import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg

from asi_watch.errors import BracketError, ResponseFileError
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.merging import open_merge
from asi_watch.images import read_image
from asi_watch.pipeline import (
    ArchiveRules,
    ArchiveSummary,
    merge_archive,
    process_directory,
    save_response_curve,
)
from asi_watch.products import ProductSpec, read_provenance
from tests.pipeline.making import (
    files_of,
    products,
    true_curve,
    write_archive,
    write_bracket,
    write_curve,
)

NAMES = [
    "2026/06/21/08/20260621085930_hdr",
    "2026/06/21/09/20260621090000_hdr",
    "2026/06/21/09/20260621090030_hdr",
]
CUSTOM = MergeSettings("debevec_custom", "triangle", 5, 250, 2.2, None, 255, True)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_archive(tmp_path / "a", 3)
    write_curve(tmp_path / "r.npz")
    return tmp_path / "a"


def jpgs(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in products(folder)]


def test_every_bracket_becomes_a_picture_in_its_own_folder(archive: Path, tmp_path: Path) -> None:
    done = process_directory(str(archive), str(tmp_path / "b"), response_file=tmp_path / "r.npz")
    assert done is None
    assert products(tmp_path / "b") == [f"{name}.jpg" for name in NAMES]
    noted = read_provenance(tmp_path / "b" / f"{NAMES[0]}.jpg")
    assert (noted.algorithm, noted.curve_id) == ("debevec_custom", true_curve().curve_id)
    assert (noted.camera, noted.complete, noted.expected) == ("a", True, 5)
    assert [s.path.rpartition("_")[2] for s in noted.sources] == [
        "80.jpg", "160.jpg", "320.jpg", "640.jpg", "1280.jpg",
    ]  # fmt: skip
    source = archive / noted.sources[0].path
    assert (noted.sources[0].size, noted.sources[0].mtime_ns) == (
        source.stat().st_size,
        source.stat().st_mtime_ns,
    )


def test_the_pixels_are_those_of_the_one_merge(archive: Path, tmp_path: Path) -> None:
    process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz", filetype="png")
    frames = sorted((archive / "2026/06/21/08").iterdir())
    images = [read_image(path).pixels for path in frames]
    merge = open_merge(CUSTOM, true_curve().log_response, images[0].shape)
    for path, image in zip(frames, images, strict=True):
        merge.add(image, float(path.stem.rpartition("_")[2]))
    made = cv2.imread(str(tmp_path / "b" / f"{NAMES[0]}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(made, merge.picture(np.uint16))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_threads_change_nothing(archive: Path, tmp_path: Path, workers: int) -> None:
    process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz", n_workers=2)
    process_directory(archive, tmp_path / "c", response_file=tmp_path / "r.npz", n_workers=workers)
    assert jpgs(tmp_path / "b") == jpgs(tmp_path / "c")


@pytest.mark.parametrize("below", ["", "hdr", "2026"])
def test_products_may_lie_among_the_exposures(archive: Path, tmp_path: Path, below: str) -> None:
    for _ in range(2):
        process_directory(archive, archive / below, response_file=tmp_path / "r.npz")
        assert products(archive / below) == [f"{name}.jpg" for name in NAMES]
    assert len(read_provenance(archive / below / f"{NAMES[0]}.jpg").sources) == 5


def test_without_a_response_one_curve_is_calibrated_for_all(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process_directory(archive, tmp_path / "b")
    noted = [read_provenance(tmp_path / "b" / f"{name}.jpg") for name in NAMES]
    assert len({n.curve_id for n in noted}) == 1
    assert noted[0].curve_id is not None
    assert "no response curve given" in caplog.text
    picture = cv2.imread(str(tmp_path / "b" / f"{NAMES[0]}.jpg"))
    process_directory(archive, tmp_path / "c", response_file=tmp_path / "r.npz")
    with_truth = cv2.imread(str(tmp_path / "c" / f"{NAMES[0]}.jpg"))
    assert np.abs(picture.astype(int) - with_truth).mean() < 20


@pytest.mark.parametrize("algorithm", ["debevec", "debevec_exact", "mertens"])
def test_other_algorithms_are_there_for_the_asking(
    archive: Path, tmp_path: Path, algorithm: str
) -> None:
    file = None if algorithm == "mertens" else tmp_path / "r.npz"
    process_directory(archive, tmp_path / "b", response_file=file, algorithm=algorithm)
    noted = read_provenance(tmp_path / "b" / f"{NAMES[0]}.jpg")
    assert noted.algorithm == algorithm
    assert (noted.curve_id is None) == (algorithm == "mertens")


def test_keywords_reach_the_merge(archive: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "weight_type": "sine",
        "low_clip": 8,
        "high_clip": 240,
        "gamma": 1.8,
        "lnE_range": (-12.0, -3.0),
        "saturation": 254,
        "apply_tonemapping": False,
    }
    process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz", **asked)
    noted = read_provenance(tmp_path / "b" / f"{NAMES[0]}.jpg").parameters
    low, high = asked.pop("lnE_range")
    asked |= {"lnE_min": low, "lnE_max": high, "tonemapping": asked.pop("apply_tonemapping")}
    assert noted == asked
    with pytest.raises(TypeError, match="gama"):
        process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz", gama=1)


def test_a_file_of_asi_core_is_merged_in_its_own_channel_order(
    archive: Path, tmp_path: Path
) -> None:
    swapped = true_curve().log_response[:, ::-1]
    np.savez(tmp_path / "old.npz", response=swapped, metadata=json.dumps({"seed": 1}))
    process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz")
    process_directory(archive, tmp_path / "c", response_file=tmp_path / "old.npz")
    assert jpgs(tmp_path / "b") == jpgs(tmp_path / "c")


def short(root: Path) -> str:
    for path in write_bracket(root, 3)[1:]:
        path.unlink()
    return "is the only exposure"


def cut(root: Path) -> str:
    path = write_bracket(root, 3)[1]
    path.write_bytes(path.read_bytes()[:-900])
    return path.name


def small(root: Path) -> str:
    path = write_bracket(root, 3)[1]
    path.write_bytes(files_of(0, 128)[160])
    return rf"{path.name} has 128×128×3 pixels, .* of the same bracket 96×96×3"


def grey(root: Path) -> str:
    for path in write_bracket(root, 3):
        pixels = read_image(path).pixels[:, :, :1].copy()
        path.write_bytes(simplejpeg.encode_jpeg(pixels, colorspace="GRAY"))
    return "1 channel, the response curve 3"


def equal(root: Path) -> str:
    first, second = write_bracket(root, 3)[:2]
    for path in first.parent.glob("202606210901*"):
        if path not in (first, second):
            path.unlink()
    second.rename(second.with_name(second.name.replace("_160", "_80")))
    return "all 2 exposures .* have the same exposure time"


@pytest.mark.parametrize("spoil", [short, cut, small, grey, equal])
def test_one_bad_bracket_never_stops_the_rest(
    archive: Path, tmp_path: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reason = spoil(archive)
    caplog.set_level(logging.INFO)
    process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz")
    assert products(tmp_path / "b") == [f"{name}.jpg" for name in NAMES]
    told = [r.getMessage() for r in caplog.records if "not merged:" in r.getMessage()]
    assert len(told) == 1
    assert re.search(reason, told[0])
    assert "3 of 4 brackets merged" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING


def summarised(archive: Path, tmp_path: Path, **kwargs: Any) -> ArchiveSummary:
    return merge_archive(
        archive,
        tmp_path / "b",
        rules=ArchiveRules(round_to=timedelta(seconds=30)),
        settings=CUSTOM,
        curves=[true_curve()],
        products=(ProductSpec("jpg"),),
        **kwargs,
    )


def test_the_summary_counts(archive: Path, tmp_path: Path) -> None:
    summary = summarised(archive, tmp_path, workers=2)
    assert (summary.brackets, summary.merged, summary.products) == (3, 3, 3)
    assert summary.flawless
    assert summary.sentence().startswith("3 of 3 brackets merged in ")


def test_a_disk_that_refuses_is_told_for_each_bracket(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/2026").write_text("in the way")
    summary = summarised(archive, tmp_path)
    assert (summary.merged, len(summary.failures)) == (0, 3)
    assert "not a folder" in summary.failures[0][1]


def test_nothing_to_merge_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(BracketError, match="a: no images"):
        process_directory(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="x: no such folder"):
        process_directory(tmp_path / "x", tmp_path / "b")


def test_wrong_responses_are_told(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ResponseFileError, match=r"none\.npz"):
        process_directory(archive, tmp_path / "b", response_file=tmp_path / "none.npz")
    g = true_curve().log_response
    with pytest.raises(ValueError, match="not both"):
        process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz", response=g)
    with pytest.raises(ValueError, match="channel_order"):
        process_directory(
            archive, tmp_path / "b", response_file=tmp_path / "r.npz", channel_order="RGB"
        )
    save_response_curve(tmp_path / "grey.npz", g[:, :1], save_plot=False)
    process_directory(archive, tmp_path / "b", response_file=tmp_path / "grey.npz")
    assert products(tmp_path / "b") == []


def test_a_bracket_over_two_folders_lies_in_that_of_its_first_image(tmp_path: Path) -> None:
    for name, us in (("08/20260621085959_1280.jpg", 1280), ("09/20260621090000_80.jpg", 80)):
        (tmp_path / "a" / name).parent.mkdir(parents=True)
        (tmp_path / "a" / name).write_bytes(files_of(0)[us])
    write_curve(tmp_path / "r.npz")
    process_directory(tmp_path / "a", tmp_path / "b", "2h", response_file=tmp_path / "r.npz")
    assert products(tmp_path / "b") == ["08/20260621080000_hdr.jpg"]


def test_times_in_the_wrong_order_are_told(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz")
    assert "darker" not in caplog.text
    paths = sorted(archive.rglob("20260621090000_*")) + sorted(
        archive.rglob("2026062109000[1-4]_*")
    )
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[::-1], strict=True):
        path.write_bytes(content)
    process_directory(archive, tmp_path / "b", response_file=tmp_path / "r.npz")
    told = [m for m in caplog.messages if "get darker" in m]
    assert len(told) == 1
    assert "bracket 2026-06-21 09:00:00" in told[0]
