from __future__ import annotations

import numpy as np
import pytest
import simplejpeg

from asi_watch.simulator.sensor import FULL_WELL, READ_NOISE, RESPONSES, Camera, response_curve


def flat(value: float, size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), value, np.float32)


@pytest.mark.parametrize("kind", RESPONSES)
def test_a_response_curve_rises_strictly_and_is_fixed_at_128(kind: str) -> None:
    g = response_curve(kind)
    assert g.shape == (256, 3)
    assert g.dtype == np.float32
    assert np.isfinite(g).all()
    assert (np.diff(g, axis=0) > 0).all()
    assert np.allclose(g[128], 0, atol=1e-6)


def test_channels_differ_where_a_curve_is_not_linear() -> None:
    g = response_curve("film")
    assert abs(g[30, 0] - g[30, 2]) > 0.05


def test_srgb_is_srgb_in_green() -> None:
    # IEC 61966-2-1: code 188 is a linear value of 0.5029, code 128 of 0.2159.
    g = response_curve("srgb")[:, 1]
    assert g[188] - g[128] == pytest.approx(np.log(0.5029 / 0.2159), abs=2e-3)


@pytest.mark.parametrize("kind", RESPONSES)
def test_a_picture_without_noise_follows_the_curve(kind: str) -> None:
    camera = Camera(kind, noise=False)
    ramp = np.exp(np.linspace(-4, 2, 256, dtype=np.float32))
    radiance = np.repeat(ramp[np.newaxis, :, np.newaxis], 3, axis=2)
    picture = camera.expose(radiance, 500.0)
    for channel in range(3):
        z = np.interp(np.log(ramp * 0.5), camera.log_response[:, channel], np.arange(256))
        assert np.abs(picture[0, :, channel] - z).max() < 0.52


def test_time_and_light_are_interchangeable() -> None:
    camera = Camera(noise=False)
    radiance = np.random.default_rng(0).uniform(0.01, 5, (40, 40, 3)).astype(np.float32)
    assert np.array_equal(camera.expose(radiance, 640.0), camera.expose(radiance * 4, 160.0))


def test_more_light_than_the_sensor_holds_is_255() -> None:
    assert (Camera().expose(flat(1e5), 80.0) == 255).all()


@pytest.mark.parametrize("x", [0.006, 1.2])
def test_noise_is_that_of_the_electrons(x: float) -> None:
    # In the dark the codes of the linear curve are coarser than the noise; sRGB's are not.
    kind = "linear" if x > 1 else "srgb"
    camera = Camera(kind, seed=1)
    codes = camera.expose(flat(x, 256), 1000.0).astype(np.float64)
    per_unit = FULL_WELL / np.exp(camera.log_response[255].max())
    expected = np.sqrt(x * per_unit + READ_NOISE**2) / per_unit
    exposure = np.interp(codes[..., 1], np.arange(256), np.exp(camera.log_response[:, 1]))
    # Rounding to codes adds its own twelfth of a step.
    step = np.interp(
        codes[..., 1].mean(), np.arange(255), np.diff(np.exp(camera.log_response[:, 1]))
    )
    measured = np.sqrt(exposure.std() ** 2 - step**2 / 12)
    assert measured == pytest.approx(expected, rel=0.06)


def test_noise_is_seeded_and_new_in_every_frame() -> None:
    one, two = Camera(seed=3), Camera(seed=3)
    first = one.expose(flat(1.0), 640.0)
    assert np.array_equal(first, two.expose(flat(1.0), 640.0))
    assert not np.array_equal(first, one.expose(flat(1.0), 640.0))
    assert not np.array_equal(first, Camera(seed=4).expose(flat(1.0), 640.0))


def test_a_picture_becomes_a_whole_jpeg() -> None:
    camera = Camera()
    picture = camera.expose(flat(0.8), 1000.0)
    decoded = simplejpeg.decode_jpeg(camera.encode(picture), colorspace="BGR", strict=True)
    assert np.abs(decoded.mean(axis=(0, 1)) - picture.mean(axis=(0, 1))).max() < 1.0


@pytest.mark.parametrize("time_us", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_exposure_time_is_refused(time_us: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Camera().expose(flat(1.0), time_us)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="srgb, gamma, film, linear"):
        Camera("kodak")
    with pytest.raises(ValueError, match="quality"):
        Camera(quality=101)
