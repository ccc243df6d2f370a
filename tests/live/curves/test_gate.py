from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from asi_watch.calibrate_brackets import BracketFiles
from asi_watch.hdr.merge_settings import Tone
from asi_watch.hdr.merging import open_merge
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.curves import gate
from asi_watch.live.curves.gate import CalibrationRequest, _judged, calibrate_candidate
from asi_watch.response_files import load_curve, response_bytes
from tests.hdr.brackets import opened, settings
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


def test_a_swap_keeps_the_scale_of_the_products(
    request_: CalibrationRequest, tmp_path: Path
) -> None:
    """One bracket merged with the present curve and with the candidate."""
    scale = np.array([2.0, -1.0, 0.5])
    bend = np.linspace(0, 1, 256)[:, None] * np.linspace(-1, 1, 256)[:, None] * 0.3
    present = tmp_path / "present.npz"
    present.write_bytes(response_bytes(true_curve().log_response + scale + bend))
    verdict = calibrate_candidate(replace(request_, present=(str(present),)))
    assert verdict.accepted
    assert 0.01 < (verdict.drift or 0) < 0.3
    files = request_.brackets[0]
    frames = [simplejpeg.decode_jpeg(Path(p).read_bytes(), "BGR") for p in files.paths]
    both = []
    for path in (present, verdict.path):
        g = load_curve(path).log_response
        how = settings(algorithm="debevec_exact")
        both.append(opened(how, frames, files.exposure_us, g).radiance().ln_radiance)
    stops = (both[1] - both[0]) / np.log(2)
    assert np.abs(np.median(stops, axis=(0, 1))).max() < 0.1


def test_a_candidate_must_fit_be_no_worse_and_know_enough_codes() -> None:
    assert _judged(0.1, None, 40)[0]
    assert _judged(0.1, 0.1, 200)[0]
    assert not _judged(0.11, 0.1, 200)[0]
    assert not _judged(0.6, 0.9, 200)[0]
    assert not _judged(np.nan, None, 200)[0]
    # Brackets from the dark replace no curve, however well they are explained.
    accepted, reason = _judged(0.001, 0.1, 60)
    assert not accepted
    assert "in the dark" in reason


def test_codes_without_samples_do_not_count(request_: CalibrationRequest) -> None:
    verdict = calibrate_candidate(replace(request_, low_clip=5, high_clip=90))
    present = (verdict.path,)
    verdict = calibrate_candidate(replace(request_, present=present, low_clip=5, high_clip=90))
    assert not verdict.accepted
    assert "too few to replace a curve" in verdict.reason
    assert calibrate_candidate(replace(request_, present=present)).accepted


def test_pictures_keep_their_brightness_over_a_swap(
    request_: CalibrationRequest, tmp_path: Path
) -> None:
    """Whatever the light was when the new curve was made; a provisional curve's is not kept."""
    first = load_curve(calibrate_candidate(request_).path)
    darker = (first.tone_scale[0] + 0.7, first.tone_scale[1] + 0.7)

    def brightness(**metadata: object) -> tuple[float, float]:
        """Before and after."""
        g = first.log_response * np.float32(1.01) + np.float32(0.4)
        shift = tuple(number + 0.4 for number in darker)
        present = tmp_path / "present.npz"
        present.write_bytes(response_bytes(g, {**first.metadata, "tone_scale": shift, **metadata}))
        verdict = calibrate_candidate(replace(request_, present=(str(present),)))
        return _mean(request_, load_curve(present)), _mean(request_, load_curve(verdict.path))

    before, after = brightness()
    assert after == pytest.approx(before, rel=0.01)
    before, after = brightness(provisional=True)
    assert after > 1.15 * before


def _mean(request: CalibrationRequest, curve: ResponseCurve) -> float:
    bracket = request.brackets[0]
    frames = [cv2.imread(path) for path in bracket.paths]
    how = settings(algorithm="debevec_exact", tone=Tone("photographic"))
    merge = open_merge(how, curve.log_response, frames[0].shape, scale=curve.tone_scale)
    for frame, time in zip(frames, bracket.exposure_us, strict=True):
        merge.add(frame, time)
    return float(merge.picture().mean())
