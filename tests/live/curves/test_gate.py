from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from asi_watch.calibrate_brackets import BracketFiles
from asi_watch.hdr.calibration import evidence
from asi_watch.hdr.merge_settings import Tone
from asi_watch.hdr.merging import open_merge
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.curves import gate
from asi_watch.live.curves.gate import CalibrationRequest, CalibrationVerdict, calibrate_candidate
from asi_watch.response_files import load_curve, response_bytes
from benchmarks.gate import MORNING, Camera, Day, adversaries, camera_of, drifted, error, keep_curve
from tests.hdr.brackets import settings
from tests.pipeline.making import true_curve, write_archive


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CalibrationRequest:
    monkeypatch.setattr(gate, "_SAMPLES_PER_BRACKET", 300)
    brackets = tuple(
        BracketFiles(
            tuple(str(path) for path in bracket),
            tuple(float(path.stem.rpartition("_")[2]) for path in bracket),
        )
        for bracket in write_archive(tmp_path / "a", 2)
    )
    request = CalibrationRequest("roof", brackets, str(tmp_path / "curves"))
    return pickle.loads(pickle.dumps(request))  # it goes to another process


def test_a_first_curve_from_inside_the_sky_disc(request_: CalibrationRequest) -> None:
    verdict = calibrate_candidate(request_)
    assert (verdict.accepted, verdict.brackets, verdict.channels) == (True, 2, 3)
    metadata = load_curve(verdict.path).metadata
    assert 35 < metadata["sky_disc"][2] < 48
    assert Path(verdict.path).with_suffix(".png").exists()
    assert verdict.provisional
    assert "2 brackets alone" in verdict.reason


@pytest.mark.parametrize("given", [None, (40.0, 50.0, 30.0)])
def test_the_configured_disc_is_used(
    request_: CalibrationRequest, given: tuple[float, float, float] | None
) -> None:
    verdict = calibrate_candidate(replace(request_, sky_disc=given))
    found = load_curve(verdict.path).metadata["sky_disc"]
    assert found == (None if given is None else list(given))


def test_times_that_contradict_the_images_make_no_curve(request_: CalibrationRequest) -> None:
    false = {320.0: 500.0}
    brackets = tuple(
        replace(
            b, paths=b.paths[::2], exposure_us=tuple(false.get(t, t) for t in b.exposure_us[::2])
        )
        for b in request_.brackets
    )
    verdict = calibrate_candidate(replace(request_, brackets=brackets))
    assert not verdict.accepted
    assert "contradict the images" in verdict.reason
    assert not Path(verdict.path).exists()


def test_a_vanished_exposure_is_passed_over(request_: CalibrationRequest) -> None:
    gone = Path(request_.brackets[0].paths[1])
    gone.unlink()
    verdict = calibrate_candidate(request_)
    assert (verdict.accepted, verdict.brackets) == (True, 2)
    assert [str(gone) in text for text in verdict.passed_over] == [True]


def test_a_present_curve_of_other_channels_is_no_rival(
    request_: CalibrationRequest, tmp_path: Path
) -> None:
    present = tmp_path / "grey.npz"
    present.write_bytes(response_bytes(true_curve().log_response[:, :1]))
    verdict = calibrate_candidate(replace(request_, present=(str(present),)))
    assert (verdict.accepted, verdict.present_residual) == (True, None)


def made_by(folder: Path, day: Day, seed: int = 1) -> tuple[BracketFiles, ...]:
    return day.write(folder / f"in{len(list(folder.iterdir()))}", seed)


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CalibrationVerdict]:
    """Calibrate from a day's brackets, as the daemon would beside these curves."""
    monkeypatch.setattr(gate, "_SAMPLES_PER_BRACKET", 800)

    def asked(day: Day, *present: str, **more: object) -> CalibrationVerdict:
        curves = str(tmp_path / "curves")
        request = CalibrationRequest("roof", made_by(tmp_path, day), curves, present, sky_disc=None)
        return calibrate_candidate(replace(request, **more))  # type: ignore[arg-type]

    return asked


CAMERA = camera_of(1)
TURNED_OFF = ("night", "swapped labels", "automatic gain", "dawn and dusk", "three brackets")


@pytest.mark.parametrize("situation", TURNED_OFF)
def test_brackets_that_tell_too_little_replace_no_curve(
    ask: Callable[..., CalibrationVerdict], tmp_path: Path, situation: str
) -> None:
    own = keep_curve(tmp_path / "own.npz", CAMERA)
    verdict = ask(adversaries(CAMERA)[situation], own)
    assert not verdict.accepted
    assert not list((tmp_path / "curves").glob("*.npz"))


def _mean(bracket: BracketFiles, curve: ResponseCurve) -> float:
    frames = [cv2.imread(path) for path in bracket.paths]
    how = settings(algorithm="debevec_exact", tone=Tone("photographic"))
    merge = open_merge(how, curve.log_response, frames[0].shape, scale=curve.tone_scale)
    for frame, time in zip(frames, bracket.exposure_us, strict=True):
        merge.add(frame, time)
    return float(merge.picture().mean())


def test_a_slow_drift_is_followed_and_a_swap_keeps_the_scale(
    ask: Callable[..., CalibrationVerdict], tmp_path: Path
) -> None:
    old = drifted(CAMERA, 0.04, np.random.default_rng(2))
    present = tmp_path / "present.npz"
    shifted = old.response() + np.array([2.0, -1.0, 0.5])
    present.write_bytes(response_bytes(shifted, {"tone_scale": [-7.0, -2.0]}))
    verdict = ask(Day(CAMERA), str(present))
    assert verdict.accepted, verdict.reason
    assert not verdict.provisional
    curve = load_curve(verdict.path)
    assert error(curve.log_response, CAMERA) < 0.03 < error(old.response(), CAMERA)
    middle = (curve.log_response - shifted)[64:193] / np.log(2)
    assert np.abs(np.median(middle, axis=0)).max() < 0.02
    bracket = made_by(tmp_path, Day(CAMERA, brackets=1))[0]
    brightness = [_mean(bracket, load_curve(path)) for path in (present, verdict.path)]
    assert brightness[1] == pytest.approx(brightness[0], rel=0.01)
    again = ask(Day(CAMERA), verdict.path)
    assert (again.accepted, again.unchanged) == (False, True), again.reason


def test_a_first_curve_of_the_dark_is_provisional_until_it_is_day(
    ask: Callable[..., CalibrationVerdict],
) -> None:
    night = adversaries(CAMERA)["night with a moon"]
    first = ask(night)
    assert (first.accepted, first.provisional) == (True, True), first.reason
    assert load_curve(first.path).provisional
    assert not ask(night, first.path).accepted
    by_day = ask(Day(CAMERA), first.path)
    assert (by_day.accepted, by_day.provisional) == (True, False), by_day.reason
    assert error(load_curve(by_day.path).log_response, CAMERA) < 0.03


def test_what_looks_like_another_camera_must_come_again_on_other_days(
    ask: Callable[..., CalibrationVerdict], tmp_path: Path
) -> None:
    other = keep_curve(tmp_path / "other.npz", Camera((1.7, 1.7, 1.7)))
    day = Day(CAMERA)
    first = ask(day, other)
    assert not first.accepted
    assert "another camera, or false times" in first.reason
    assert not ask(day, other).accepted, "the same day says nothing new"
    later = replace(day, start=day.start + timedelta(days=1))
    second = ask(later, other)
    assert second.accepted, second.reason
    assert "2 days" in second.reason
    asked_for = ask(day, other, manual=True)
    assert asked_for.accepted


def test_codes_that_no_sample_covers_are_kept_from_the_present_curve() -> None:
    present, candidate = (np.linspace(0, top, 256)[:, np.newaxis] for top in (5.0, 10.0))
    covered = np.zeros((256, 1), dtype=bool)
    covered[50:101] = True
    steps = np.diff(evidence.completed(candidate, present, covered)[:, 0])
    np.testing.assert_allclose(steps[50:100], 10.0 / 255, rtol=1e-4)
    np.testing.assert_allclose(np.delete(steps, range(50, 100)), 5.0 / 255, rtol=1e-4)


def test_the_first_brackets_chosen_are_spread_over_the_day() -> None:
    slots = [(MORNING + timedelta(minutes=k)).isoformat() for k in range(600)]
    order = gate._spread([BracketFiles((), (), slot) for slot in slots])
    assert sorted(b.name for b in order) == slots
    assert order[0].name == slots[-1]
    for most in (6, 10, 17):
        places = sorted(slots.index(b.name) for b in order[:most])
        assert np.diff(places).max() < 2.2 * 600 / most
