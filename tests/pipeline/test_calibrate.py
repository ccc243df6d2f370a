from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from asi_watch import calibrate_brackets
from asi_watch.errors import BracketError
from asi_watch.hdr.calibration import BracketSamples, Calibration, CalibrationReport
from asi_watch.pipeline import calibrate_camera, get_lne_range, load_response_curve
from tests.hdr.test_frame_checks import shoot
from tests.pipeline.making import (
    files_of,
    slot,
    stops_apart,
    true_curve,
    write_archive,
    write_bracket,
    write_curve,
)
from tests.skies import EXPOSURES_US

KEYS = {
    "timestamp_utc",
    "input_directory",
    "samples_per_image",
    "sample_technique",
    "max_processed_groups",
    "smoothness",
    "weight_type",
    "low_clip",
    "high_clip",
    "seed",
    "num_groups_used",
    "channels",
    "lnE_range",
    "file_format",
    "algorithm",
    "channel_order",
    "report",
    "sky_disc",
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    write_archive(root, 4)
    return root


@pytest.mark.parametrize("technique", ["random", "histogram", "flat"])
def test_the_true_curve_is_found_channel_by_channel(
    archive: Path, tmp_path: Path, technique: str
) -> None:
    path = tmp_path / "r.npz"
    g = calibrate_camera(archive, path, sample_technique=technique, seed=1)
    assert (g.shape, g.dtype) == ((256, 1, 3), np.float32)
    truth = true_curve().log_response
    assert stops_apart(g[:, 0], truth) < 0.1
    assert stops_apart(g[:, 0], truth) < 0.5 * stops_apart(g[:, 0, ::-1], truth)
    np.testing.assert_array_equal(g[128], 0.0)
    saved, metadata = load_response_curve(path)
    np.testing.assert_array_equal(saved, g[:, 0])
    assert set(metadata) >= KEYS
    assert (metadata["channel_order"], metadata["file_format"]) == ("BGR", "log-response")
    assert (metadata["num_groups_used"], metadata["sample_technique"]) == (4, technique)
    assert (tmp_path / "response_curve.jpg").stat().st_size > 1000


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[BracketSamples]]:
    """What each calibration is made from; solving is left out, the plainest curve comes back."""
    made: list[list[BracketSamples]] = []

    def stand_in(samples: list[BracketSamples], **_settings: object) -> Calibration:
        made.append(list(samples))
        g = true_curve().log_response[:, : samples[0].channels]
        return Calibration(g, report_of(samples))

    monkeypatch.setattr(calibrate_brackets, "calibrate_response", stand_in)
    return made


def report_of(samples: list[BracketSamples]) -> CalibrationReport:
    values = dict.fromkeys((f.name for f in fields(CalibrationReport)), ())
    values |= {"brackets": len(samples), "channels": 3, "samples": 0, "outlier_share": 0.0}
    return CalibrationReport(**values)  # type: ignore[arg-type]


def test_the_seed_decides_everything(
    archive: Path, tmp_path: Path, drawn: list[list[BracketSamples]]
) -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - it must not be touched
    for seed in (5, 5, 6):
        calibrate_camera(archive, tmp_path / "r.npz", max_processed_groups=2, seed=seed)
    first, again, other = drawn
    assert len(first) == 2
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.codes, b.codes)
    assert not np.array_equal(first[0].positions, other[0].positions)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_clips_are_honoured(archive: Path, tmp_path: Path) -> None:
    calibrate_camera(archive, tmp_path / "r.npz", low_clip=40, high_clip=200, seed=1)
    _, metadata = load_response_curve(tmp_path / "r.npz")
    for counts in metadata["report"]["samples_per_code"]:
        used = np.flatnonzero(counts)
        assert used.min() >= 40
        assert used.max() <= 200


def test_a_high_clip_above_the_cameras_white_is_named_and_lowered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        for time, pixels in zip(EXPOSURES_US, shoot(EXPOSURES_US, number, white=235), strict=True):
            name = f"{slot(number):%Y%m%d%H%M%S}_{time:.0f}.png"
            cv2.imwrite(str(tmp_path / name), pixels)
    path = tmp_path / "curve.npz"
    calibrate_camera(tmp_path, path, sample_technique="flat", seed=1, sky_disc=None)
    assert 229 <= load_response_curve(path)[1]["high_clip"] <= 231
    assert "high_clip 250 does not fit: the camera saturates at code 23" in caplog.text


def test_a_bad_exposure_is_named_and_its_bracket_used_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, drawn: list[list[BracketSamples]]
) -> None:
    written = write_archive(tmp_path / "a", 3)
    broken = written[2][2]
    broken.write_bytes(broken.read_bytes()[:700])
    calibrate_camera(tmp_path / "a", tmp_path / "r.npz", seed=0)
    _, metadata = load_response_curve(tmp_path / "r.npz")
    assert (metadata["num_groups_used"], metadata["num_exposures_left_out"]) == (3, 1)
    assert f"exposure not used for calibration: {broken}" in caplog.text
    assert sorted(len(s.exposure_times) for s in drawn[0]) == [4, 5, 5]


def test_a_bracket_with_one_exposure_left_is_named_and_another_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, drawn: list[list[BracketSamples]]
) -> None:
    broken = write_archive(tmp_path / "a", 4)[3][1:]
    for path in broken:
        path.write_bytes(path.read_bytes()[:700])
    calibrate_camera(tmp_path / "a", tmp_path / "r.npz", seed=0)
    _, metadata = load_response_curve(tmp_path / "r.npz")
    assert (metadata["num_groups_used"], metadata["num_groups_rejected"]) == (3, 1)
    assert broken[0].name in caplog.text
    assert len(drawn[0]) == 3


@pytest.mark.parametrize(("grey", "channels"), [((0,), 3), ((0, 1, 2), 1)])
def test_grey_and_colour_brackets_get_a_curve_of_most(
    tmp_path: Path, drawn: list[list[BracketSamples]], grey: tuple[int, ...], channels: int
) -> None:
    written = write_archive(tmp_path / "a", 4)
    for number in grey:
        for path in written[number]:
            cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    calibrate_camera(tmp_path / "a", tmp_path / "r.npz", seed=0)
    _, metadata = load_response_curve(tmp_path / "r.npz")
    assert {s.channels for s in drawn[0]} == {channels}
    assert (metadata["num_groups_used"], metadata["num_groups_rejected"]) == (3, 1)


def test_complete_brackets_come_first(tmp_path: Path, drawn: list[list[BracketSamples]]) -> None:
    for bracket in write_archive(tmp_path / "a", 4)[1:2]:
        bracket[4].unlink()
    for seed in range(4):
        calibrate_camera(tmp_path / "a", tmp_path / "r.npz", max_processed_groups=3, seed=seed)
        _, metadata = load_response_curve(tmp_path / "r.npz")
        assert slot(1).isoformat() not in metadata["groups"]
    assert len(drawn) == 4


def full_frame(root: Path, brackets: int) -> None:
    """The sky of a lens that fills the frame: the middle of the disc."""
    for paths in write_archive(root, brackets):
        for path in paths:
            cv2.imwrite(str(path), cv2.imread(str(path))[24:72, 24:72])


def test_places_are_inside_the_sky_disc(
    archive: Path, tmp_path: Path, drawn: list[list[BracketSamples]]
) -> None:
    calibrate_camera(archive, tmp_path / "r.npz", samples_per_image=3000, seed=1)
    _, metadata = load_response_curve(tmp_path / "r.npz")
    x, y, radius = metadata["sky_disc"]
    assert abs(x - 47.5) < 3
    assert abs(y - 47.5) < 3
    assert 38 < radius < 48
    for samples in drawn[0]:
        rows, columns = samples.positions.T
        assert np.hypot(rows - y, columns - x).max() <= radius
        assert samples.count > 2000


def test_a_picture_without_a_disc_is_used_whole(
    tmp_path: Path, drawn: list[list[BracketSamples]]
) -> None:
    full_frame(tmp_path / "a", 2)
    for choice in ("auto", None):
        calibrate_camera(tmp_path / "a", tmp_path / "r.npz", seed=1, sky_disc=choice)
        assert load_response_curve(tmp_path / "r.npz")[1]["sky_disc"] is None
    for found, whole in zip(*drawn, strict=True):
        np.testing.assert_array_equal(found.positions, whole.positions)
        assert np.ptp(found.positions, axis=0).min() > 45


def test_one_bracket_without_a_disc_follows_the_others(
    tmp_path: Path, drawn: list[list[BracketSamples]]
) -> None:
    night = write_archive(tmp_path / "a", 3)[1]
    rng = np.random.default_rng(0)
    for path in night:
        cv2.imwrite(str(path), rng.integers(0, 20, (96, 96, 3)).astype(np.uint8))
    calibrate_camera(tmp_path / "a", tmp_path / "r.npz", samples_per_image=5000, seed=1)
    x, y, radius = load_response_curve(tmp_path / "r.npz")[1]["sky_disc"]
    assert [s.disc for s in drawn[0]] == [drawn[0][0].disc] * 3
    for samples in drawn[0]:
        rows, columns = samples.positions.T
        assert np.hypot(rows - y, columns - x).max() <= radius


def test_a_disc_may_be_given(
    archive: Path, tmp_path: Path, drawn: list[list[BracketSamples]]
) -> None:
    calibrate_camera(archive, tmp_path / "r.npz", seed=1, sky_disc=(60, 40, 12.5))
    assert load_response_curve(tmp_path / "r.npz")[1]["sky_disc"] == [60, 40, 12.5]
    rows, columns = drawn[0][0].positions.T
    assert np.hypot(rows - 40, columns - 60).max() <= 12.5
    with pytest.raises(BracketError, match=r"sky_disc 600, .* outside of pictures of 96×96; give"):
        calibrate_camera(archive, tmp_path / "r.npz", sky_disc=(600, 40, 12.5))


def make_nothing(root: Path) -> None:
    root.mkdir()


def make_single(root: Path) -> None:
    for path in write_bracket(root, 0)[1:]:
        path.unlink()


def make_equal(root: Path) -> None:
    root.mkdir()
    for k, data in enumerate(list(files_of(0).values())[:2]):
        (root / f"2026062109000{k}_80.jpg").write_bytes(data)


def make_unreadable(root: Path) -> None:
    for path in write_bracket(root, 0)[1:]:
        path.write_bytes(b"no image at all")


def make_sizes(root: Path) -> None:
    write_bracket(root, 0)[0].write_bytes(files_of(0, 128)[80])


def make_dark(root: Path) -> None:
    root.mkdir()
    for us in (80, 160):
        cv2.imwrite(str(root / f"20260621090000_{us}.png"), np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_nothing, "no images"),
        (make_single, r"20260621085930_80\.jpg: is the only exposure"),
        (make_equal, r"_80\.jpg: all 2 exposures .* same exposure time \(80 µs\)"),
        (make_unreadable, r"_160\.jpg: .*; 1 of 5 exposures of its bracket can be read"),
        (make_sizes, r"_80\.jpg.*\(96, 96, 3\).*\(128, 128, 3\)|_160\.jpg.*one size"),
        (make_dark, "no usable sample"),
    ],
)
def test_without_a_usable_bracket_the_reasons_are_told(
    tmp_path: Path, make: object, reason: str
) -> None:
    make(tmp_path / "a")  # type: ignore[operator]
    with pytest.raises(BracketError, match=reason):
        calibrate_camera(tmp_path / "a", tmp_path / "r.npz")
    assert not (tmp_path / "r.npz").exists()


def test_impossible_choices_are_refused(archive: Path, tmp_path: Path) -> None:
    for choice in (
        {"sample_technique": "best"},
        {"samples_per_image": 0},
        {"max_processed_groups": 0},
        {"round_ts_to": "soon"},
        {"samples_per_image": 1.5},
        {"low_clip": None},
        {"low_clip": 200, "high_clip": 100},
        {"smoothness": 0},
        {"smoothness": "much"},
        {"weight_type": "foo"},
        {"seed": -3},
        {"sky_disc": "somewhere"},
        {"sky_disc": (1, 2)},
        {"sky_disc": (10, 10, -1)},
    ):
        with pytest.raises(ValueError, match=next(iter(choice)).replace("_type", ".type")) as told:
            calibrate_camera(archive, tmp_path / "r.npz", **choice)  # type: ignore[arg-type]
        # An argument is wrong, not a bracket: nothing was read.
        assert not isinstance(told.value, BracketError)


def test_the_range_of_ln_e_covers_all_exposures(archive: Path, tmp_path: Path) -> None:
    g = write_curve(tmp_path / "r.npz").log_response.astype(float)
    low, high = get_lne_range(archive, tmp_path / "r.npz")
    assert low == pytest.approx(g.min() - np.log(1280))
    assert high == pytest.approx(g.max() - np.log(80))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BracketError, match="empty: no images"):
        get_lne_range(tmp_path / "empty", tmp_path / "r.npz")
