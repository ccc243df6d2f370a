from __future__ import annotations

import datetime as dt
import math

import cv2
import numpy as np
import pytest

from asi_watch.simulator.clouds import Weather
from asi_watch.simulator.lens import LOWEST_SUN_DEG, Lens, sun_at
from asi_watch.simulator.sky import Sky

SIZE = 160


@pytest.fixture(scope="module")
def sky() -> Sky:
    return Sky(SIZE, seed=4)


def test_radiance_is_a_positive_float32_picture(sky: Sky) -> None:
    scene = sky.radiance(12.0)
    assert scene.shape == (SIZE, SIZE, 3)
    assert scene.dtype == np.float32
    assert np.isfinite(scene).all()
    assert scene.min() > 0


def test_same_seed_same_sky_whatever_was_asked_before(sky: Sky) -> None:
    sky.radiance(900.0)
    again = sky.radiance(7.0)
    assert np.array_equal(again, Sky(SIZE, seed=4).radiance(7.0))
    assert not np.array_equal(again, Sky(SIZE, seed=5).radiance(7.0))


def test_each_call_gives_an_array_of_its_own(sky: Sky) -> None:
    first = sky.radiance(3.0)
    kept = first.copy()
    sky.radiance(3.0)[:] = 0
    assert np.array_equal(first, kept)


def test_the_suns_peak_is_far_above_the_sky() -> None:
    scene = Sky(512, seed=1, weather=Weather(cover=9.0, cirrus=0.0)).radiance(0)
    inside = Lens(512).reach < 0.7
    assert scene[..., 1].max() > 4e4 * np.median(scene[..., 1][inside])
    y, x = np.unravel_index(np.argmax(scene[..., 1]), scene.shape[:2])
    assert math.dist((x, y), Lens(512).pixel_of(sun_at(dt.datetime(2026, 6, 21, 9)))) < 2


def test_the_clear_sky_is_blue_above_and_pale_below() -> None:
    scene = Sky(256, seed=1, weather=Weather(cover=9.0, cirrus=0.0)).radiance(0)
    lens = Lens(256)
    away = lens.cos_to(sun_at(dt.datetime(2026, 6, 21, 9))) < 0.5
    above = scene[(lens.reach < 0.4) & away].mean(axis=0)
    low = scene[(lens.reach > 0.8) & (lens.reach < 0.86) & away].mean(axis=0)
    assert above[0] > 2 * above[2]
    assert low[0] / low[2] < 0.7 * above[0] / above[2]


def test_around_the_image_circle_it_is_black(sky: Sky) -> None:
    scene = sky.radiance(0)
    outside = Lens(SIZE).reach > 1.03
    assert scene[outside].max() < 0.02 * np.median(scene[~outside])


def test_the_wind_carries_the_clouds_at_the_stated_speed() -> None:
    sky = Sky(256, seed=3, weather=Weather(cirrus=0.0))
    seconds = 12.0
    middle = slice(88, 168)
    first, later = (np.log(sky.radiance(t)[middle, middle, 2]) for t in (0.0, seconds))
    window = cv2.createHanningWindow((80, 80), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(first, later, window)
    assert math.hypot(x, y) == pytest.approx(sky.drift_px_per_s * seconds, rel=0.25)


def test_clouds_run_on_where_they_are_rendered_anew(sky: Sky) -> None:
    middle = Lens(SIZE).reach < 0.7
    before, after, much_later = (np.log(sky.radiance(t))[middle] for t in (14.99, 15.0, 45.0))
    assert np.mean(np.abs(after - before)) < 0.35 * np.mean(np.abs(much_later - before))


@pytest.mark.parametrize("size", [31, 8193, -1])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32…8192"):
        Sky(size, seed=1)


def test_the_sun_stands_where_the_almanac_has_it() -> None:
    noon = sun_at(dt.datetime(2026, 6, 21, 12))
    assert math.degrees(noon.zenith) == pytest.approx(50 - 23.45, abs=0.1)
    assert math.degrees(noon.azimuth) == pytest.approx(180, abs=0.1)
    morning = sun_at(dt.datetime(2026, 6, 21, 8))
    assert 60 < math.degrees(morning.azimuth) < 120


def test_the_sun_never_sets() -> None:
    midnight = sun_at(dt.datetime(2026, 12, 21, 0))
    assert 90 - math.degrees(midnight.zenith) == pytest.approx(LOWEST_SUN_DEG)


def test_a_band_of_a_lens_is_a_part_of_the_whole() -> None:
    whole, band = Lens(100), Lens(100, 30, 45)
    assert np.array_equal(band.azimuth, whole.azimuth[30:45])
    assert np.array_equal(band.reach, whole.reach[30:45])


def test_east_is_left_when_north_is_up() -> None:
    lens = Lens(101)
    x, y = lens.pixel_of(sun_at(dt.datetime(2026, 3, 21, 7)))
    assert x < 50
    assert lens.azimuth[0, 50] == pytest.approx(0, abs=1e-4)
    assert math.degrees(lens.azimuth[50, 0]) == pytest.approx(90, abs=1e-3)
    assert 0 <= y <= 100
