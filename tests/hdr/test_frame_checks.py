"""Frames that contradict their exposure times, and cameras that saturate below 250."""

from __future__ import annotations

import itertools
import re
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from asi_watch.hdr.frame_checks import (
    Findings,
    camera_white,
    check_frames,
    fits_high_clip,
    sample_frame,
)
from asi_watch.hdr.merge_settings import OVER
from asi_watch.hdr.merging import open_merge
from tests.hdr.brackets import merge_frames, settings

TIMES = (80.0, 160.0, 320.0, 640.0, 1280.0)
SIDE = 192
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
SUN = np.hypot(COLUMNS - 140, ROWS - 50) < 5
Frames = list[NDArray[np.uint8]]


def gamma_curve(gamma: float = 2.2) -> NDArray[np.float32]:
    """Give g(z) of a camera whose codes are a power of the light."""
    g = gamma * np.log(np.maximum(np.arange(256), 0.5) / 128)
    return np.repeat(g[:, np.newaxis], 3, axis=1).astype(np.float32)


CURVE = gamma_curve()


def sky(seed: int, scale: float = 1.0, shift: int = 0) -> NDArray[np.float64]:
    """Irradiance of a sky with waves of cloud, a sun and its glare; clouds moved by `shift`."""
    rng = np.random.default_rng(seed)
    columns = COLUMNS + shift
    waves = sum(
        np.sin(columns * a + ROWS * b + c)
        for a, b, c in rng.uniform((0.01, 0.01, 0), (0.12, 0.12, 6), (6, 3))
    )
    glare = 0.03 * np.exp(-((np.hypot(COLUMNS - 140, ROWS - 50) / 12) ** 2))
    light = 0.15e-3 + 2e-3 * np.clip(0.5 + waves / 7, 0, 1) ** 2 + 20.0 * SUN + glare
    return scale * light[..., np.newaxis] * (1.3, 1.0, 0.8)


def photograph(
    light: NDArray[np.float64],
    time: float,
    *,
    black: int = 0,
    white: int = 255,
    noise: float = 1.0,
    quality: int = 92,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Photograph by a camera of gamma 2.2, as its JPEG leaves it."""
    codes = black + np.minimum((light * time) ** (1 / 2.2), 1) * (white - black)
    noisy = codes + np.random.default_rng(seed).normal(0, noise, codes.shape)
    codes = np.where(codes < white, noisy, codes)
    pixels = np.rint(np.clip(codes, 0, white)).astype(np.uint8)
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def shoot(times: Any = TIMES, seed: int = 3, scale: float = 1.0, **camera: Any) -> Frames:
    light = sky(seed, scale)
    return [photograph(light, time, seed=i, **camera) for i, time in enumerate(times)]


def check(frames: Frames, times: Any = TIMES, curve: Any = CURVE, **changes: Any) -> Findings:
    options = {"high_clip": 250, "exclude": True} | changes
    return check_frames([sample_frame(f) for f in frames], times, curve, **options)


FALSE_TIMES = {
    "longest as short as the shortest": ((80, 160, 320, 640, 80), {4: 80}),
    "second as short as the first": ((80, 80, 320, 640, 1280), {1: 80}),
    "shortest as long as the longest": ((1280, 160, 320, 640, 1280), {0: 1280}),
    "two swapped": ((80, 640, 320, 160, 1280), {1: 640, 3: 160}),
    "half a stop": ((80, 160, 470, 640, 1280), {2: 470}),
    "twice as long": ((80, 160, 320, 1280, 1280), {3: 1280}),
}


@pytest.mark.parametrize("quality", [60, 95])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("true", "false"), FALSE_TIMES.values(), ids=FALSE_TIMES)
def test_a_false_time_is_named_with_the_time_that_fits(true, false, seed, quality):
    findings = check(shoot(true, seed, quality=quality))
    assert {found.index for found in findings.excluded} == set(false)
    for found in findings.contradictions:
        assert found.exposure_time == TIMES[found.index]
        assert found.fitting_time == pytest.approx(false[found.index], rel=0.2)
        said = re.search(r": ([0-9.]+) µs would fit", found.reason("µs"))
        assert float(said[1]) == pytest.approx(found.fitting_time, rel=0.01)
    assert all("left out" in note for note in findings.notes("µs"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "camera", [{}, {"quality": 50}, {"noise": 4.0}, {"white": 240}, {"noise": 3.0, "quality": 40}]
)
def test_sound_frames_contradict_nothing(camera, seed):
    for scale in (1.0, 0.1, 0.01, 1e-4, 10.0):
        frames = shoot(TIMES, seed, scale, **camera)
        findings = check(frames)
        assert findings.contradictions == ()
        assert findings.curve_misfit is None
        assert check(frames, curve=None).contradictions == ()


@pytest.mark.parametrize("shift", [2, 6, 12])
def test_moving_clouds_are_no_contradiction(shift):
    for seed in range(4):
        frames = [photograph(sky(seed, shift=shift * i), t, seed=i) for i, t in enumerate(TIMES)]
        for curve in (CURVE, None):
            assert check(frames, curve=curve).contradictions == ()


@pytest.mark.parametrize("gamma", [1.4, 1.8, 2.7, 3.5])
def test_a_curve_that_does_not_fit_blames_no_frame(gamma):
    findings = check(shoot(), curve=gamma_curve(gamma))
    assert findings.excluded == ()
    assert findings.curve_misfit == pytest.approx(gamma / 2.2 - 1, abs=0.08)
    assert "calibrate" in findings.notes("µs")[0]


def test_frames_of_one_brightness_are_not_said_to_get_darker():
    (note,) = check(shoot((320,) * 5)).notes("µs")
    assert "do not get brighter" in note
    (note,) = check(shoot(TIMES[::-1])).notes("µs")
    assert "get darker" in note


def test_without_a_majority_nothing_is_left_out():
    two = check(shoot((80, 640)), (80.0, 160.0))
    assert len(two.contradictions) == 2
    assert two.excluded == ()
    four = check(shoot((80, 160, 1280, 2560)), (80.0, 160.0, 320.0, 640.0))
    assert len(four.contradictions) >= 2
    assert four.excluded == ()
    assert all("merged nevertheless" in note for note in four.notes("µs"))
    assert four.notes("µs") != ()
    assert check(shoot(FALSE_TIMES["two swapped"][0]), exclude=False).excluded == ()


def test_times_too_far_apart_to_compare_codes_are_still_checked():
    """Linear cameras: three stops apart no code of both frames lies in the middle."""
    linear = gamma_curve(1.0)
    light = np.minimum(sky(3), 0.1) * 0.3
    for true, wrong in (((100, 800), False), ((100, 100), True), ((800, 800), True)):
        frames = [np.rint(np.clip(255 * light * t, 0, 255)).astype(np.uint8) for t in true]
        found = check(frames, (100.0, 800.0), linear).contradictions
        assert len(found) == (2 if wrong else 0)
        assert all(one.fitting_time is None for one in found)


def test_without_a_curve_the_order_is_compared():
    findings = check(shoot((80, 160, 320, 640, 80)), curve=None)
    assert [found.index for found in findings.excluded] == [4]
    assert findings.contradictions[0].fitting_time is None
    falling = check(shoot(TIMES[::-1]), curve=None)
    assert len(falling.contradictions) == 5
    assert falling.excluded == ()
    assert falling.notes("s") == (
        "the exposures of 80, 160, 320, 640, 1280 s contradict each other, and none can be"
        " blamed; merged nevertheless: are the exposure times right and in order?",
    )


def test_nothing_to_compare_is_no_contradiction():
    dark = [np.zeros((SIDE, SIDE, 3), np.uint8)] * 5
    bright = [np.full((SIDE, SIDE, 3), 255, np.uint8)] * 5
    for frames in (dark, bright, [dark[0], bright[0]], dark[:1]):
        for curve in (CURVE, None):
            assert check(frames, TIMES[: len(frames)], curve) == Findings()


def test_order_of_arrival_changes_no_finding():
    frames = shoot(FALSE_TIMES["two swapped"][0], white=240)
    wanted = check(frames)
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 23):
        found = check([frames[i] for i in order], [TIMES[i] for i in order])
        assert found.white == wanted.white
        assert {order[c.index]: c.fitting_time for c in found.excluded} == {
            c.index: c.fitting_time for c in wanted.excluded
        }


@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec_exact", "debevec", "mertens"])
def test_a_merge_leaves_the_frame_out(algorithm):
    frames = shoot((80, 160, 320, 640, 80))
    how = settings(algorithm=algorithm)
    picture = merge_frames(frames, TIMES, how, CURVE)
    without = merge_frames(frames[:4], TIMES[:4], how, CURVE)
    np.testing.assert_array_equal(picture, without)
    warned = merge_frames(frames, TIMES, settings(algorithm=algorithm, contradiction="warn"), CURVE)
    assert (warned != without).any()
    with pytest.raises(ValueError, match="contradiction"):
        settings(contradiction="ignore")


@pytest.mark.parametrize("quality", [60, 75, 95])
@pytest.mark.parametrize(
    ("black", "white"), [(0, 252), (0, 245), (0, 240), (16, 235), (0, 220), (30, 210)]
)
def test_a_low_white_is_found(black, white, quality):
    for seed in range(3):
        frames = shoot(seed=seed, black=black, white=white, quality=quality)
        assert abs(camera_white([sample_frame(f) for f in frames]) - white) <= 1


def test_where_nothing_is_saturated_no_white_is_found():
    full = [sample_frame(f) for f in shoot()]
    assert camera_white(full) is None  # white is 255
    dim = [sample_frame(photograph(sky(3) * ~SUN[..., None] * 0.02, t)) for t in TIMES]
    assert camera_white(dim) is None
    overcast = np.full((SIDE, SIDE, 3), 0.5e-3)
    assert camera_white([sample_frame(photograph(overcast, t)) for t in TIMES]) is None
    ramp = np.repeat(np.linspace(1e-5, 0.9 / 1280, SIDE)[:, None, None], 3, 2) * np.ones((1, 99, 1))
    assert camera_white([sample_frame(photograph(ramp, t)) for t in TIMES]) is None


@pytest.mark.parametrize("code", [220, 235, 255])
def test_text_in_the_picture_is_no_white(code):
    frames = [photograph(sky(3) * 0.02, t) for t in TIMES]
    for frame in frames:
        for line in range(4):
            place = (5, 20 + 40 * line)
            text = "2026-06-21 12:00"
            cv2.putText(frame, text, place, cv2.FONT_HERSHEY_PLAIN, 1.2, (code, code, code), 2)
    assert camera_white([sample_frame(f) for f in frames]) is None


@pytest.mark.parametrize("slope", [0.1, 0.3])
def test_a_knee_in_the_curve_is_no_white(slope):
    """Highlights compressed above code 200, but not saturated."""
    light = np.repeat(np.geomspace(1e-5, 1.0, SIDE)[:, None, None], 3, 2) * np.ones((1, 99, 1))
    frames = []
    for i, time in enumerate(TIMES):
        codes = 255 * (light * time / 2) ** (1 / 2.2)
        codes = np.where(codes > 200, 200 + slope * (codes - 200), codes)
        codes += np.random.default_rng(i).normal(0, 1, codes.shape)
        frames.append(np.rint(np.clip(codes, 0, 254)).astype(np.uint8))
    white = camera_white([sample_frame(f) for f in frames])
    assert white is None or white > 250


@pytest.mark.parametrize(
    ("algorithm", "given"),
    [("debevec_custom", True), ("debevec_exact", True), ("debevec", True), ("debevec", False)],
)
@pytest.mark.parametrize(("black", "white"), [(0, 255), (0, 245), (0, 240), (16, 235)])
def test_a_saturated_sun_is_flagged_and_the_brightest(algorithm, black, white, given):
    frames = shoot(black=black, white=white)
    merge = open_merge(settings(algorithm=algorithm), CURVE if given else None, frames[0].shape)
    for pixels, time in zip(frames, TIMES, strict=True):
        merge.add(pixels, time)
    radiance = merge.radiance()
    core = np.hypot(COLUMNS - 140, ROWS - 50) < 4
    assert (radiance.validity[core] == OVER).mean() > 0.99
    rest = radiance.ln_radiance[~core]
    assert np.isfinite(rest).all()
    assert (radiance.ln_radiance[core].min(axis=0) >= rest.max(axis=0) - 1e-6).all()
    findings = merge.findings()
    assert findings.white == (None if white == 255 else pytest.approx(white, abs=1))
    if findings.white is not None:
        assert any("set merge.high_clip to" in note for note in findings.notes("µs"))


def test_high_clip_that_fits_is_proposed():
    def brackets(white: int) -> list[Any]:
        return [[sample_frame(f) for f in shoot(seed=s, white=white)] for s in range(3)]

    assert fits_high_clip(brackets(235), 250) in (229, 230, 231)
    assert fits_high_clip(brackets(235), 230) is None
    assert fits_high_clip(brackets(255), 250) is None
    assert fits_high_clip([], 250) is None


def test_a_sample_is_small_and_even():
    sample = sample_frame(np.zeros((2048, 2048, 3), np.uint8))
    assert 20_000 < len(sample) <= 40_000
    assert sample_frame(np.zeros((5, 7, 1), np.uint8)).shape == (35, 1)
