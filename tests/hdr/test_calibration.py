from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from asi_watch.hdr.calibration import (
    BracketSamples,
    Calibration,
    calibrate_response,
    response_residual,
    sample_bracket,
)
from asi_watch.hdr.calibration.estimate import fit_plain
from asi_watch.hdr.calibration.samples import observe
from asi_watch.hdr.lookup_tables import weight_table
from tests.hdr.calibration_scenes import TIMES, bracket, error_stops, sampled, true_gamma_response


@cache
def calibrated(**scene) -> Calibration:
    """One calibration for all tests that look at the same."""
    return calibrate_response(sampled(**scene))


def dense_solution(samples, channel, smoothness, low, high):
    """The published equations as one tall matrix, a row per observation."""
    z = np.arange(256)
    hat = np.where(z <= 127.5, z, 255 - z).astype(float)
    places = sum(s.count for s in samples)
    rows, values = [], []
    place = 0
    for s in samples:
        for codes in s.codes[:, :, channel]:
            for code, time in zip(codes, s.exposure_times, strict=True):
                weight = hat[code] if low <= code <= high else 0.0
                row = np.zeros(256 + places)
                row[code], row[256 + place] = weight, -weight
                rows.append(row)
                values.append(weight * np.log(time))
            place += 1
    scale = smoothness * np.sqrt(places / 10_000)
    for code in range(1, 255):
        row = np.zeros(256 + places)
        row[code - 1 : code + 2] = scale * hat[code] * np.array([1.0, -2.0, 1.0])
        rows.append(row)
        values.append(0.0)
    anchor = np.zeros(256 + places)
    anchor[128] = 1.0
    rows.append(anchor)
    values.append(0.0)
    return np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0][:256]


def test_plain_solution_is_that_of_the_published_equations():
    samples = sampled(count=80, brackets=2)
    weight = weight_table("triangle")[:, 0]
    for channel in range(3):
        curve = fit_plain(observe(samples, channel, (5, 250), fine=False), weight, 300.0)
        expected = dense_solution(samples, channel, 300.0, 5, 250)
        assert (np.diff(expected) > 1e-4).all()  # else the constraint would make a difference
        np.testing.assert_allclose(curve, expected, atol=1e-5)


@pytest.mark.parametrize("technique", ["random", "flat"])
def test_static_scene(technique):
    curve = calibrated(technique=technique).log_response
    assert curve.shape == (256, 3)
    assert curve.dtype == np.float32
    assert (curve[128] == 0).all()
    assert error_stops(curve, true_gamma_response()) < 0.02


def test_drifting_scene_is_followed():
    samples = sampled(drift=6)
    curve = calibrate_response(samples).log_response
    assert error_stops(curve, true_gamma_response()) < 0.03
    motion = samples[0].motion
    assert motion is not None
    np.testing.assert_allclose(motion[-1] - motion[0], [0.0, -24.0], atol=1.0)


def test_wrong_pixels_are_outvoted():
    rng = np.random.default_rng(8)
    samples = []
    for _ in range(2):
        images = bracket(rng)
        for image in images:
            bad = rng.random(image.shape[:2]) < 0.02
            image[bad] = rng.integers(0, 256, (int(bad.sum()), 3))
        samples.append(sample_bracket(images, TIMES, technique="random", count=600, rng=rng))
    curve = calibrate_response(samples).log_response
    assert error_stops(curve, true_gamma_response()) < 0.03


def test_curve_does_not_depend_on_the_number_of_samples():
    few, many = (calibrate_response(sampled(count=count)).log_response for count in (500, 4_000))
    moved = (many - few)[15:241] / np.log(2)
    assert np.abs(moved - moved.mean(axis=0)).max() < 0.05
    assert (moved - moved.mean(axis=0)).std() < 0.01


def test_smoothness_means_the_same_for_any_number_of_samples():
    samples = sampled(count=300, brackets=1)
    weight = weight_table("triangle")[:, 0]
    once, tenfold = (
        fit_plain(observe(some, 1, (5, 250), fine=False), weight, 50.0)
        for some in (samples, samples * 10)
    )
    np.testing.assert_allclose(once, tenfold, atol=1e-5)


def test_order_and_unit_of_exposures_do_not_matter():
    rng = np.random.default_rng(2)
    images = bracket(rng)
    one = sample_bracket(images, TIMES, technique="random", count=300, rng=np.random.default_rng(1))
    other = sample_bracket(
        images[::-1], TIMES[::-1] / 1e6, technique="random", count=300, rng=np.random.default_rng(1)
    )
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_allclose(
        calibrate_response([one]).log_response, calibrate_response([other]).log_response, atol=1e-4
    )


def test_any_input_gives_a_monotone_curve():
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 256, (150, 3, 3)).astype(np.uint8)
    samples = [BracketSamples(codes, np.array([1.0, 2.0, 4.0]), np.zeros((150, 2), np.int32))]
    calibration = calibrate_response(samples)
    assert (np.diff(calibration.log_response, axis=0) > 0).all()
    assert np.isfinite(calibration.log_response).all()
    assert calibration.report.warnings  # no curve fits noise, and the report says so


def test_curve_goes_straight_on_above_the_clip_of_a_scene_that_moved():
    """There the bare codes say nothing of what lies above; else white itself goes straight on."""
    curve = calibrate_response(sampled(drift=6)).log_response
    slope = np.diff(curve[242:251], axis=0).mean(axis=0)
    np.testing.assert_allclose(np.diff(curve[250:], axis=0) / slope, 1.0, atol=0.01)
    curve = calibrated(technique="random").log_response
    slope = (curve[254] - curve[246]) / 8
    np.testing.assert_allclose((curve[255] - curve[254]) / slope, 1.0, atol=0.01)


def test_one_false_time_is_named():
    samples = sampled(brackets=3)
    false = samples[1].exposure_times.copy()
    false[3] = 1000.0  # in truth 640
    samples[1] = replace(samples[1], exposure_times=false)
    report = calibrate_response(samples).report
    assert [(c.bracket, c.exposure_time) for c in report.suspected_times] == [(1, 1000.0)]
    assert report.suspected_times[0].time_factor == pytest.approx(0.64, abs=0.05)
    assert any("1000" in warning and "bracket 1" in warning for warning in report.warnings)


def test_times_that_cannot_be_true_are_named():
    samples = sampled(count=200)
    shuffled = [s.codes[:, [2, 0, 4, 1, 3]] for s in samples]
    false = [
        BracketSamples(codes, s.exposure_times, s.positions)
        for codes, s in zip(shuffled, samples, strict=True)
    ]
    report = calibrate_response(false).report
    assert any("cannot be true" in warning for warning in report.warnings)
    assert not calibrated(technique="random").report.warnings


def test_report_is_json_and_complete():
    calibration = calibrated(technique="random")
    plain = json.loads(json.dumps(calibration.report.to_dict(), allow_nan=False))
    assert plain["samples"] == 1200
    assert len(plain["samples_per_code"]) == 3
    assert [0, 4] in plain["extrapolated"][0] or plain["extrapolated"][0][0][1] >= 4
    assert max(plain["residual_stops"]) < 0.1
    assert len(plain["exposures"]) == 10


def test_cloud_is_bounded_repeatable_and_lies_on_the_curve():
    samples = sampled(count=3_000)
    one, two = (calibrate_response(samples) for _ in range(2))
    assert len(one.cloud) == 3
    for channel, points in enumerate(one.cloud):
        assert 1_500 < len(points) <= 3_000
        np.testing.assert_array_equal(points, two.cloud[channel])
        on_curve = np.interp(points[:, 0], np.arange(256), one.log_response[:, channel])
        assert np.median(np.abs(points[:, 1] - on_curve)) < 0.05
        assert np.ptp(points[:, 0]) > 200
    assert "cloud" not in one.report.to_dict()


def test_one_false_label_on_every_bracket_is_named_and_left_out():
    samples = sampled(technique="flat", count=200, brackets=3)
    false = [replace(s, exposure_times=np.append(s.exposure_times[:-1], 5120.0)) for s in samples]
    calibration = calibrate_response(false)
    suspects = calibration.report.suspected_times
    assert [(c.bracket, c.exposure_time) for c in suspects] == [(b, 5120.0) for b in range(3)]
    assert all(c.time_factor == pytest.approx(0.25, abs=0.03) for c in suspects)
    assert calibration.report.fits  # the exposures that the curve was made from
    assert error_stops(calibration.log_response, true_gamma_response()) < 0.03


def test_texture_in_the_dark_does_not_bend_the_curve():
    """Where only rough ground is dark, its mean exposure must be what counts."""
    rng = np.random.default_rng(5)
    samples = []
    for _ in range(2):
        scene = rng.normal(-6.3, 0.4, (12, 16, 1)) + rng.normal(0.0, 0.1, (12, 16, 3))
        scene = cv2.resize(scene, (400, 300), interpolation=cv2.INTER_CUBIC)
        scene[180:] += rng.normal(-1.6, 0.7, (120, 400, 1))
        images = []
        for time in TIMES:
            exposure = np.minimum(np.exp(scene) * time, 1.0)
            codes = np.rint(255.0 * exposure ** (1 / 2.2)).astype(np.uint8)
            images.append(cv2.imdecode(cv2.imencode(".jpg", codes)[1], cv2.IMREAD_COLOR))
        samples.append(sample_bracket(images, TIMES, technique="flat", count=800, rng=rng))
    curve = calibrate_response(samples).log_response
    dark = (curve[18:40] - true_gamma_response()[18:40, np.newaxis]) / np.log(2)
    green = dark[:, 1] - dark[-1, 1]  # the others are blurred over the texture by JPEG
    assert np.abs(green).max() < 0.04


@pytest.mark.parametrize("times", [TIMES[::2], TIMES])
def test_clean_still_scenes_keep_the_robust_curve(times):
    calibration = calibrate_response(sampled(technique="flat", times=times))
    assert calibration.report.settings["method"].startswith("robust")
    assert error_stops(calibration.log_response, true_gamma_response()) < 0.02


def whitened(exposure):
    """A camera that is white at 247."""
    return exposure ** (1 / 2.2) * (247 / 255)


def test_codes_that_are_white_below_255_get_the_mean_of_what_they_show():
    calibration = calibrated(technique="flat", tone=whitened)
    assert "mean" in calibration.report.settings["method"]
    curve = calibration.log_response
    true = 2.2 * np.log(np.maximum(np.arange(256), 0.5) / 128)
    assert error_stops(curve, true) < 0.02
    assert (curve[250] - curve[240] > 2 * (true[250] - true[240])).all()


def test_weight_type_decides_how_the_ends_are_judged():
    samples = sampled(technique="flat", tone=whitened)
    one = calibrated(technique="flat", tone=whitened).log_response
    other = calibrate_response(samples, weight_type="sine").log_response
    np.testing.assert_array_equal(one[10:240], other[10:240])  # noise alone weighs in the fit
    assert not np.array_equal(one[240:], other[240:])


def test_dark_floor_is_left_out():
    def lifted(exposure):
        return np.maximum(exposure ** (1 / 2.2), 0.2)

    report = calibrate_response(sampled(tone=lifted)).report
    assert all(20 < code < 64 for code in report.settings["lowest_responsive_codes"])
    untouched = calibrated(technique="random").report
    assert untouched.settings["lowest_responsive_codes"] == [5, 5, 5]


def test_residual_tells_a_right_curve_from_a_wrong_one():
    samples = sampled()
    right = calibrated(technique="random").log_response
    assert response_residual(right, samples) < 0.5 * response_residual(right * 1.2, samples)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smoothness": 0.0}, "smoothness"),
        ({"weight_type": "flat"}, "weight type"),
        ({"low_clip": 200, "high_clip": 100}, "low_clip"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        calibrate_response(sampled(count=50, brackets=1), **settings)


def test_nothing_usable_is_an_error():
    codes = np.full((50, 3, 3), 255, np.uint8)
    samples = [BracketSamples(codes, np.array([1.0, 2.0, 4.0]), np.zeros((50, 2), np.int32))]
    with pytest.raises(ValueError, match="no usable samples"):
        calibrate_response(samples)
    codes[..., 1:] = np.arange(150, dtype=np.uint8).reshape(50, 3, 1) + 50
    with pytest.raises(ValueError, match="no usable samples in blue"):
        calibrate_response(samples)
    with pytest.raises(ValueError, match="no bracket"):
        calibrate_response([])
