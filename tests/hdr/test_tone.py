"""The tone curve."""

from __future__ import annotations

import numpy as np
import pytest

from asi_watch.hdr.tone import ToneCurve, code_maximum


def test_is_its_formula():
    a, b, gamma = -9.0, -2.0, 2.2
    ln = np.linspace(-12, 0, 1001)
    wanted = ((np.exp(ln) - np.exp(a)) / (np.exp(b) - np.exp(a))).clip(0, 1) ** (1 / gamma)
    np.testing.assert_allclose(ToneCurve(a, b, gamma).levels(ln), wanted, atol=1e-12)


def test_ends_are_black_and_white():
    curve = ToneCurve(-800.0, -790.0, 2.2)  # exp() of either is zero
    assert curve.codes([-800.0, -790.0, -700.0], 65535).tolist() == [0, 65535, 65535]


@pytest.mark.parametrize("maximum", [255, 65535])
def test_codes_begin_where_the_inverse_says(maximum):
    curve = ToneCurve(-10.0, -1.0, 2.2)
    codes = np.arange(1, maximum)
    begins = curve.begins(codes / maximum)
    assert (np.diff(begins) > 0).all()
    np.testing.assert_array_equal(curve.codes(begins + 1e-12, maximum), codes)
    np.testing.assert_array_equal(curve.codes(begins[5:] - 1e-9, maximum), codes[5:] - 1)


def test_pictures_have_8_or_16_bits():
    with pytest.raises(ValueError, match="uint8 or uint16"):
        code_maximum(np.float32)
