"""The tone curve."""

from __future__ import annotations

import numpy as np
import pytest

from asi_watch.hdr.frame_checks import sample_frame
from asi_watch.hdr.merging import bracket_scale, curve_scale
from asi_watch.hdr.tone import GammaCurve, ToneScale, code_maximum
from tests.hdr.brackets import TIMES, curve, opened, settings, shoot


def test_is_its_formula():
    a, b, gamma = -9.0, -2.0, 2.2
    ln = np.linspace(-12, 0, 1001)
    wanted = ((np.exp(ln) - np.exp(a)) / (np.exp(b) - np.exp(a))).clip(0, 1) ** (1 / gamma)
    np.testing.assert_allclose(GammaCurve(a, b, gamma).levels(ln), wanted, atol=1e-12)


def test_ends_are_black_and_white():
    curve = GammaCurve(-800.0, -790.0, 2.2)  # exp() of either is zero
    assert curve.codes([-800.0, -790.0, -700.0], 65535).tolist() == [0, 65535, 65535]


@pytest.mark.parametrize("maximum", [255, 65535])
def test_codes_begin_where_the_inverse_says(maximum):
    curve = GammaCurve(-10.0, -1.0, 2.2)
    codes = np.arange(1, maximum)
    begins = curve.begins(codes / maximum)
    assert (np.diff(begins) > 0).all()
    np.testing.assert_array_equal(curve.codes(begins + 1e-12, maximum), codes)
    np.testing.assert_array_equal(curve.codes(begins[5:] - 1e-9, maximum), codes[5:] - 1)


def test_pictures_have_8_or_16_bits():
    with pytest.raises(ValueError, match="uint8 or uint16"):
        code_maximum(np.float32)


def test_the_scale_of_a_bracket_is_that_of_its_radiance():
    frames = shoot(TIMES, shape=(60, 80, 3))
    radiance = opened(settings(algorithm="debevec_exact"), frames).radiance()
    seen = radiance.ln_radiance[radiance.validity != 1]
    scale = bracket_scale([sample_frame(f) for f in frames], TIMES, curve())
    assert scale == pytest.approx((seen.mean(), np.quantile(seen, 0.999)), abs=1e-4)


def test_the_scale_of_a_curve_is_the_median_of_its_brackets():
    brackets = [[sample_frame(f * np.uint8(k)) for f in shoot(TIMES)] for k in (1, 1, 0)]
    scale = curve_scale([(samples, TIMES) for samples in brackets], curve())
    assert scale == bracket_scale(brackets[0], TIMES, curve())
    assert curve_scale([(brackets[2], TIMES)], curve()) is None


def test_a_scale_is_carried_to_another_curve():
    samples = [sample_frame(f) for f in shoot(TIMES)]
    before, now = (curve_scale([(samples, TIMES)], g) for g in (curve(), curve() + np.float32(1)))
    carried = ToneScale(-6.0, -2.0).carried(before, now)
    assert carried == pytest.approx((-5.0, -1.0), abs=1e-4)
