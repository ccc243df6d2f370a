"""Stated exposure times that contradict the images are named, or at least doubted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asi_watch.hdr.calibration import calibrate_response
from asi_watch.hdr.calibration.times import judge_times
from tests.hdr.calibration_scenes import error_stops, sampled, true_gamma_response

CLIPS = [(5, 250)] * 3


def exposed(stops, exposures, brackets=2, **scene):
    times = 60.0 * 2.0 ** (stops * np.arange(exposures))
    return sampled(technique="flat", count=300, brackets=brackets, times=times, seed=7, **scene)


def mislabelled(samples, exposure, factor, brackets=None):
    out = list(samples)
    for number in range(len(samples)) if brackets is None else brackets:
        times = samples[number].exposure_times.copy()
        times[exposure] *= factor
        out[number] = replace(samples[number], exposure_times=times)
    return out


@pytest.mark.parametrize("stops", [0.6, 1.0, 1.6, 2.0])
@pytest.mark.parametrize("exposures", [3, 4, 6])
def test_true_times_are_not_doubted(stops, exposures):
    for drift in (0, 4):
        samples = exposed(stops, exposures, drift=drift, quality=75)
        verdict = judge_times(samples, CLIPS)
        assert (verdict.sure, verdict.suspects) == (None, ())


@pytest.mark.parametrize("stops", [1.0, 1.6, 2.0])
@pytest.mark.parametrize(("exposure", "factor"), [(0, 0.7), (1, 1.3), (2, 0.6), (3, 1.5)])
def test_of_four_exposures_the_false_one_is_named(stops, exposure, factor):
    samples = mislabelled(exposed(stops, 4), exposure, factor)
    verdict = judge_times(samples, CLIPS)
    assert verdict.sure is not None
    assert verdict.sure.exposure_time == samples[0].exposure_times[exposure]
    assert verdict.sure.bracket is None
    assert verdict.sure.time_factor == pytest.approx(1 / factor, rel=0.05)


def test_a_false_time_is_left_out_where_exposures_are_far_apart():
    calibration = calibrate_response(mislabelled(exposed(1.6, 4), 2, 0.55))
    suspects = calibration.report.suspected_times
    assert [c.bracket for c in suspects] == [0, 1]
    assert all(c.time_factor == pytest.approx(1 / 0.55, rel=0.05) for c in suspects)
    assert error_stops(calibration.log_response, true_gamma_response()) < 0.03
    assert calibration.report.fits


def test_a_false_time_of_one_bracket_is_named_with_its_bracket():
    verdict = judge_times(mislabelled(exposed(1.6, 4, brackets=3), 1, 1.6, brackets=[2]), CLIPS)
    assert verdict.sure is not None
    assert verdict.sure.bracket == 2
    assert verdict.sure.time_factor == pytest.approx(1 / 1.6, rel=0.05)


def test_of_three_exposures_all_are_suspect_and_the_curve_is_not_trusted():
    samples = mislabelled(exposed(2.0, 3), 1, 0.6)
    report = calibrate_response(samples).report
    times = {doubt.exposure_time for doubt in report.time_doubts}
    assert times == set(samples[0].exposure_times)
    middle = next(d for d in report.time_doubts if d.exposure_time == samples[0].exposure_times[1])
    assert middle.time_factor == pytest.approx(1 / 0.6, rel=0.05)
    assert not report.suspected_times
    assert not report.fits
    assert any("contradict the images" in warning for warning in report.warnings)


def test_thin_data_is_reported_with_numbers():
    few = [s.every(100) for s in exposed(1.0, 5)]
    (warning,) = calibrate_response(few).report.warnings
    assert warning.startswith(f"thin data: {few[0].count * 2} places")
    assert "nan" not in warning
    assert not calibrate_response(exposed(1.0, 5)).report.warnings
