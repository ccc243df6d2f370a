"""Scenes and cameras on which earlier estimates went wrong."""

from __future__ import annotations

import cv2
import numpy as np

from asi_watch.hdr.calibration import calibrate_response, sample_bracket
from tests.hdr.calibration_scenes import (
    TIMES,
    error_stops,
    gamma,
    log_irradiance,
    true_gamma_response,
)


def photographs(rng, scene, times, *, tone=gamma, noise=0.0, quality=None):
    """The scene (ln irradiance) as a bracket; quality None: without the losses of JPEG."""
    images = []
    for time in times:
        exposure = np.exp(scene) * time
        exposure = exposure + noise * np.sqrt(exposure + 0.01) * rng.normal(size=exposure.shape)
        codes = np.rint(255.0 * tone(np.clip(exposure, 0.0, 1.0))).astype(np.uint8)
        if quality is not None:
            data = cv2.imencode(".jpg", codes, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            codes = cv2.imdecode(data, cv2.IMREAD_COLOR)
        images.append(codes)
    return images


def sampled(images, times, *, technique="flat", count=800):
    rng = np.random.default_rng(1)
    return sample_bracket(images, times, technique=technique, count=count, rng=rng)


def test_a_camera_that_is_white_at_235():
    rng = np.random.default_rng(3)
    samples = []
    for _ in range(2):
        scene = log_irradiance(rng, 160, 200) + 1.0  # much of it white in the longer exposures
        images = photographs(
            rng, scene, TIMES, tone=lambda x: gamma(x) * 235 / 255, noise=0.005, quality=75
        )
        samples.append(sampled(images, TIMES))
    calibration = calibrate_response(samples)
    highest = calibration.report.settings["highest_responsive_codes"]
    assert all(224 < code < 235 for code in highest)
    assert error_stops(calibration.log_response, true_gamma_response(), 15, 225) < 0.03


def test_white_needs_pixels_that_stay_so():
    rng = np.random.default_rng(3)
    images = photographs(rng, log_irradiance(rng, 160, 200), TIMES, quality=92)
    calibration = calibrate_response([sampled(images, TIMES)])
    assert min(calibration.report.settings["highest_responsive_codes"]) >= 245
    assert not calibration.report.warnings


def test_texture_that_no_mean_stands_for():
    """Every pixel on its own: of such a picture the bare codes tell more than any surroundings."""
    rng = np.random.default_rng(5)
    for times in (TIMES, TIMES[1:3]):
        scene = np.log(rng.uniform(0.02, 1.0, (160, 200, 3)) / TIMES[2])
        samples = sampled(photographs(rng, scene, times, noise=0.003), times, technique="random")
        calibration = calibrate_response([samples])
        assert calibration.report.settings["made_from"] == ["codes"] * 3
        assert error_stops(calibration.log_response, true_gamma_response(), 25, 235) < 0.03


def test_ordinary_scenes_keep_their_levels():
    rng = np.random.default_rng(5)
    for quality in (None, 92):
        images = photographs(rng, log_irradiance(rng, 160, 200), TIMES, quality=quality)
        report = calibrate_response([sampled(images, TIMES)]).report
        assert report.settings["made_from"] == ["levels"] * 3


def test_surroundings_that_are_all_clipped_leave_the_codes():
    rng = np.random.default_rng(6)
    scene = np.log(rng.uniform(0.02, 1.0, (120, 120, 1)) / TIMES[2])
    scene[::2, ::2] = -20.0  # black holes everywhere
    samples = sampled(photographs(rng, scene, TIMES), TIMES, technique="random")
    assert np.isnan(samples.levels).all()
    calibration = calibrate_response([samples])
    assert calibration.report.settings["made_from"] == ["codes"]
    assert error_stops(calibration.log_response, true_gamma_response(), 25, 235) < 0.03


def test_noise_in_the_dark_is_no_dark_floor():
    rng = np.random.default_rng(8)
    times = 80.0 * 1.3 ** np.arange(4)
    samples = []
    for _ in range(3):
        scene = 0.15 * log_irradiance(rng, 160, 200) - 8.8
        images = photographs(rng, scene, times, noise=0.02, quality=75)
        for image in images:
            image[::7, ::7] = 255  # hot pixels stay what they are
        samples.append(sampled(images, times, technique="random"))
    assert calibrate_response(samples).report.settings["lowest_responsive_codes"] == [5, 5, 5]


def test_a_kink_of_the_tone_curve_is_followed():
    """As cameras of wide dynamic range have it, where the bright half is compressed."""

    def kinked(exposure):
        return np.interp(exposure, [0.0, 0.05, 0.25, 1.0], [0.0, 0.35, 0.75, 1.0])

    rng = np.random.default_rng(9)
    samples = []
    for _ in range(2):
        scene = log_irradiance(rng, 160, 200) + 0.7
        images = photographs(rng, scene, TIMES, tone=kinked, noise=0.003, quality=92)
        samples.append(sampled(images, TIMES))
    codes = np.arange(256) / 255
    truth = np.log(np.interp(codes, [0.0, 0.35, 0.75, 1.0], [1e-6, 0.05, 0.25, 1.0]))
    calibration = calibrate_response(samples)
    assert calibration.report.settings["method"].startswith("robust")
    assert error_stops(calibration.log_response, truth, 25, 235) < 0.025


def test_a_white_below_the_clip_does_not_bend_the_curve():
    rng = np.random.default_rng(3)
    samples = []
    for _ in range(2):
        scene = log_irradiance(rng, 160, 200) + 1.0
        images = photographs(
            rng, scene, TIMES, tone=lambda x: gamma(x) * 220 / 255, noise=0.005, quality=92
        )
        samples.append(sampled(images, TIMES))
    calibration = calibrate_response(samples)
    assert calibration.report.settings["method"].startswith("robust")
    assert error_stops(calibration.log_response, true_gamma_response(), 25, 212) < 0.03
