"""The tone curve."""

from __future__ import annotations

import numpy as np
import pytest

from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.frame_checks import sample_frame
from asi_watch.hdr.merge_settings import OPERATORS, Tone
from asi_watch.hdr.merging import open_merge
from asi_watch.hdr.tone import GammaCurve, PhotographicCurve, ToneScale, code_maximum
from asi_watch.hdr.weighted_merge import bracket_scale, curve_scale
from tests.hdr.brackets import TIMES, curve, opened, settings, shoot


def test_is_its_formula():
    a, b, gamma = -9.0, -2.0, 2.2
    ln = np.linspace(-12, 0, 1001)
    wanted = ((np.exp(ln) - np.exp(a)) / (np.exp(b) - np.exp(a))).clip(0, 1) ** (1 / gamma)
    np.testing.assert_allclose(GammaCurve(a, b, gamma).levels(ln), wanted, atol=1e-12)


def test_ends_are_black_and_white():
    curve = GammaCurve(-800.0, -790.0, 2.2)  # exp() of either is zero
    assert curve.codes([-800.0, -790.0, -700.0], 65535).tolist() == [0, 65535, 65535]


def test_photographic_is_its_formula():
    ln = np.linspace(-12, 2, 1001)
    light, white = 0.18 * np.exp(ln + 6), 0.18 * np.exp(4)
    linear = (light * (1 + light / white**2) / (1 + light)).clip(0, 1)
    wanted = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    levels = PhotographicCurve(-6.0, -2.0, 0.18).levels(ln)
    np.testing.assert_allclose(levels, np.where(ln > -2, 1, wanted), atol=1e-12)
    flat = PhotographicCurve(-6.0, -5.9, 0.18).levels(-6.0)  # not stretched to white
    assert flat == pytest.approx(0.461, abs=1e-3)


@pytest.mark.parametrize("maximum", [255, 65535])
@pytest.mark.parametrize(
    "curve", [GammaCurve(-10.0, -1.0, 2.2), PhotographicCurve(-6.0, -1.0, 0.18)], ids=["γ", "p"]
)
def test_codes_begin_where_the_inverse_says(curve, maximum):
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
    assert scale == pytest.approx((seen.mean(), np.quantile(seen, 0.999)), abs=5e-3)


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


@pytest.mark.parametrize("algorithm", ["debevec_exact", "debevec"])
def test_the_scale_is_that_of_the_settings_the_curve_or_the_bracket(algorithm):
    frames = shoot(TIMES, shape=(60, 80, 3))

    def middle(scale="curve", stored=None, **changes):
        how = settings(algorithm=algorithm, tone=Tone("photographic", scale), **changes)
        merge = open_merge(how, curve(), frames[0].shape, scale=stored)
        for pixels, time in zip(frames, TIMES, strict=True):
            merge.add(pixels, time)
        return float(merge.picture().mean())

    own = middle()
    assert middle("bracket", stored=(-4.0, 0.0)) == own
    darker = middle(stored=(-4.0, 0.0))
    assert darker < own - 20
    assert middle(stored=(-9.0, 0.0), lnE_range=(-4.0, 0.0)) == darker


@pytest.mark.parametrize("operator", [o for o in OPERATORS if o != "gamma"])
@pytest.mark.parametrize("channels", [1, 3])
def test_operators_show_brighter_light_brighter(operator, channels):
    """Steps of light over ten stops, outside of a disc nothing."""
    g, shape = curve(channels), (96, 96, channels)
    ln = np.repeat(np.linspace(-9, -3, 96)[:, None, None], 96, 1) + np.zeros(channels)
    frames = [
        np.stack(
            [np.searchsorted(g[:, c], ln[..., c] + np.log(t)) for c in range(channels)], axis=-1
        ).clip(0, 255)
        for t in TIMES
    ]
    how = settings(
        algorithm="debevec_exact", tone=Tone(operator), sky_disc=SkyDisc(48.0, 48.0, 40.0)
    )
    for dtype, maximum in ((np.uint8, 255), (np.uint16, 65535)):
        picture = opened(how, [f.astype(np.uint8) for f in frames]).picture(dtype)
        assert picture.shape == shape
        assert (picture[0] == 0).all()
        rows = picture[12:84, 48].astype(float).mean(axis=1) / maximum
        assert 0.25 < rows[36] < 0.75
        assert (np.diff(rows[::8]) > 0).all()


def test_a_dark_bracket_stays_dark():
    how = settings(algorithm="debevec_exact", tone=Tone("photographic"))
    assert opened(how, [np.full((40, 40, 3), 4, np.uint8)] * 5).picture().max() < 40


@pytest.mark.parametrize("change", [{"operator": "filmic"}, {"scale": "day"}, {"key": 0.0}])
def test_tones_out_of_range(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Tone(**change)
