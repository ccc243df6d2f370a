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
def test_thresholds_are_where_codes_begin(maximum):
    curve = ToneCurve(-10.0, -1.0, 2.2)
    edges = curve.thresholds(maximum)
    assert edges.shape == (maximum + 2,)
    assert edges[0] == -np.inf
    assert edges[-1] == np.inf
    assert (np.diff(edges[1:-1]) > 0).all()
    codes = np.arange(1, maximum)
    np.testing.assert_array_equal(curve.codes(edges[codes] + 1e-12, maximum), codes)
    ahead = curve.codes(edges[codes[5:]] - 1e-9, maximum)
    np.testing.assert_array_equal(ahead, codes[5:] - 1)


def test_refusals():
    for black, white, gamma in ((1, 1, 2.2), (2, 1, 2.2), (0, np.nan, 2.2), (0, 1, 0.0)):
        with pytest.raises(ValueError, match="must"):
            ToneCurve(black, white, gamma)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        code_maximum(np.float32)
