"""The rendered sky: known radiance for any moment, the same for the same seed.

Sky, sun and clouds behind the surroundings: trees, buildings, a mast, and the rim of the lens.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import cv2
import numpy as np

from asi_watch.simulator.atmosphere import add_flare, add_sun, clear_sky
from asi_watch.simulator.clouds import Clouds, Weather
from asi_watch.simulator.lens import Floats, Lens, Sun, sun_at

START = dt.datetime(2026, 6, 21, 9, 0, 0)
# Clouds are rendered again at these moments; in between they are carried along by the wind.
KEYFRAME_S = 15.0
DARKEST = np.float32(1e-5)
# Rows put together at a time: what they need stays in the processor's cache.
BAND = 64
SMALLEST, LARGEST = 32, 8192
# How bright the whole scene is: the longest of 80…1280 µs shows the trees and the dark bases of the
# clouds and loses their brightest rims, the shortest loses nothing but the sun.
BRIGHTNESS = np.float32(1.5)
SKYLINE_STEPS = 4096
HORIZON_BAND = 128
TREE_GREEN = np.array([0.022, 0.050, 0.036], np.float32)
WALL_GREY = np.array([0.060, 0.066, 0.072], np.float32)


def draw_horizon(lens: Lens, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw the surroundings.

    Parameters
    ----------
    lens : Lens
    rng : numpy.random.Generator

    Returns
    -------
    openness : ndarray, shape (H, W, 3), float32
        What reaches each pixel of the sky's light: `BRIGHTNESS` at the zenith, less towards the rim
        (vignetting), 0 behind obstacles and outside the circle.
    foreground : ndarray, shape (H, W, 3), float32, BGR
        Radiance of the obstacles and of the surround, to be added.
    """
    size = lens.size
    skylines = _tree_line(rng), _buildings(rng)
    leaves = _speckle(rng, size)
    openness = np.empty((size, size, 3), np.float32)
    foreground = np.empty_like(openness)
    # In bands: the many fields that one needs are large at full size.
    for top in range(0, size, HORIZON_BAND):
        rows = slice(top, min(top + HORIZON_BAND, size))
        part = Lens(size, rows.start, rows.stop)
        openness[rows], foreground[rows] = _draw_band(part, *skylines, leaves[rows])
    openness *= BRIGHTNESS
    foreground *= BRIGHTNESS
    return openness, foreground


def _draw_band(
    lens: Lens, tree_line: Floats, roofs: Floats, speckle: Floats
) -> tuple[Floats, Floats]:
    """Openness and foreground of the rows that the lens covers."""
    elevation = np.float32(90) - np.degrees(lens.zenith)
    turn = lens.azimuth * np.float32(SKYLINE_STEPS / (2 * math.pi))
    pixel_deg = 90 / lens.radius
    trees = _at(tree_line, turn)
    walls = _at(roofs, turn)
    mast = _mast(lens, elevation, pixel_deg)
    tree_cover = _cover(trees - elevation, pixel_deg)
    wall_cover = _cover(walls - elevation, pixel_deg)
    inside = np.clip((1 - lens.reach) * np.float32(lens.radius / 1.5), 0, 1)
    vignette = inside * (1 - np.float32(0.28) * lens.reach**2.5)
    sky = (1 - tree_cover) * (1 - wall_cover) * (1 - mast)
    openness = cv2.merge([vignette * sky] * 3)
    leaves = TREE_GREEN * speckle[..., np.newaxis]
    objects = leaves * (tree_cover * (1 - wall_cover))[..., np.newaxis]
    objects += wall_cover[..., np.newaxis] * _facade(turn, elevation, walls)
    objects *= (1 - mast)[..., np.newaxis]
    objects += mast[..., np.newaxis] * np.float32(0.06)
    foreground = objects * vignette[..., np.newaxis]
    # The lens barrel is not quite black: a faint ring, then darkness.
    outside = np.maximum(lens.reach - 1, 0)
    ring = np.float32(0.010) * np.exp(-outside / np.float32(0.012)) * (lens.reach >= 1)
    foreground += (ring + np.float32(0.0012))[..., np.newaxis]
    return np.asarray(openness, np.float32), np.asarray(foreground, np.float32)


def _cover(above_deg: Floats, pixel_deg: float) -> Floats:
    """Share of a pixel that lies under a skyline, the edge one pixel soft."""
    return np.asarray(np.clip(above_deg / np.float32(pixel_deg) + 0.5, 0, 1), np.float32)


def _at(profile: Floats, turn: Floats) -> Floats:
    """A profile over azimuth, seen at every pixel (linear between its steps)."""
    low = turn.astype(np.int32)
    share = turn - low
    first, second = profile[low % SKYLINE_STEPS], profile[(low + 1) % SKYLINE_STEPS]
    return np.asarray(first * (1 - share) + second * share, np.float32)


def _tree_line(rng: np.random.Generator) -> Floats:
    """Elevation of the trees in degrees over azimuth: gentle hills with ragged crowns."""
    frequency = np.fft.rfftfreq(SKYLINE_STEPS, 1 / SKYLINE_STEPS)
    hills, crowns = np.zeros_like(frequency), np.zeros_like(frequency)
    hills[1:12] = 1 / frequency[1:12]
    crowns[30:1500] = frequency[30:1500] ** -0.85
    lines = []
    for shape in (hills, crowns):
        phase = np.exp(2j * np.pi * rng.random(shape.size))
        line = np.fft.irfft(shape * phase, SKYLINE_STEPS)
        lines.append(line / line.std())
    line = 3.0 + 1.6 * lines[0] + 0.75 * np.abs(lines[1])
    return np.asarray(np.clip(line, 1.2, 11), np.float32)


def _buildings(rng: np.random.Generator) -> Floats:
    """Elevation of roofs in degrees over azimuth, −90 where nothing is built."""
    roofs = np.full(SKYLINE_STEPS, -90, np.float32)
    per_deg = SKYLINE_STEPS / 360
    for start, count in ((188.0, 3), (318.0, 2)):
        at = start
        for _ in range(count):
            width = float(rng.uniform(4, 9))
            height = float(rng.uniform(3.0, 6.5))
            span = slice(int(at * per_deg), int((at + width) * per_deg))
            steps = np.arange(roofs[span].size, dtype=np.float32)
            middle = (steps.size - 1) / 2
            gable = 2.2 * (1 - np.abs(steps - middle) / max(middle, 1))
            pitched = gable if rng.random() < 0.5 else np.zeros_like(steps)
            roofs[span] = np.maximum(roofs[span], height + pitched)
            at += width * 1.05
    return roofs


def _facade(turn: Floats, elevation: Floats, roof: Floats) -> Floats:
    """Colour of the walls: rows of darker windows below the roof."""
    column = np.mod(turn / np.float32(SKYLINE_STEPS / 360 * 0.9), 1)
    row = np.mod((roof - elevation) / np.float32(1.1), 1)
    below = roof - elevation > 0.9
    window = (column > 0.3) & (column < 0.7) & (row > 0.35) & (row < 0.8) & below
    shade = np.where(window, np.float32(0.6), np.float32(1.0))
    return np.asarray(WALL_GREY * shade[..., np.newaxis], np.float32)


def _mast(lens: Lens, elevation: Floats, pixel_deg: float) -> Floats:
    """A lattice mast with a cross-arm and an anemometer, share of each pixel covered."""
    azimuth = np.float32(math.radians(262))
    turn = np.float32(2 * math.pi)
    away = np.degrees(np.mod(lens.azimuth - azimuth + turn / 2, turn) - turn / 2)
    # Across the line of sight, so that the mast is equally thick at every elevation.
    across = np.abs(away) * np.sin(lens.zenith)
    half = np.float32(0.16) + np.float32(0.006) * (34 - elevation)
    pole = _cover(half - across, pixel_deg) * (elevation < 34) * (elevation > 0)
    arm = _cover(np.float32(0.22) - np.abs(elevation - 27), pixel_deg) * (across < 3.2)
    cup = _cover(np.float32(0.55) - np.hypot(across - 3.2, elevation - 27.6), pixel_deg)
    return np.asarray(np.maximum(np.maximum(pole, arm), cup), np.float32)


def _speckle(rng: np.random.Generator, size: int) -> Floats:
    """Light and shade in the leaves."""
    grain = rng.standard_normal((size, size), dtype=np.float32)
    soft = cv2.GaussianBlur(grain, (0, 0), max(0.8, size / 900))
    return np.asarray(np.clip(1 + 0.5 * soft / max(float(soft.std()), 1e-6), 0.2, 2.6), np.float32)


@dataclass(frozen=True)
class _Keyframe:
    number: int
    sun: Sun
    clear: Floats
    clouds: Floats


class Sky:
    """An all-sky scene with known radiance.

    Radiance is relative irradiance per millisecond, the unit of the merged products: with a
    `Camera` of this package, g(z) − ln(exposure in µs) + ln 1000 is its logarithm.

    Parameters
    ----------
    size : int
        Width and height of the image in pixels, 32…8192.
    seed : int
        Same seed, same sky.
    start : datetime
        Time of the camera's clock at ``t_seconds = 0``; sets where the sun stands.
    weather : Weather or None
        What the clouds are like; None takes the defaults.

    Raises
    ------
    ValueError
        If `size` is out of range.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        *,
        start: dt.datetime = START,
        weather: Weather | None = None,
    ) -> None:
        if not SMALLEST <= size <= LARGEST:
            raise ValueError(f"size of a sky is {SMALLEST}…{LARGEST} pixels, not {size}")
        self.size = size
        self.start = start
        rng = np.random.default_rng(seed)
        self._lens = Lens(size)
        # Clouds are soft: half the resolution is enough, and four times as fast.
        self._coarse = Lens(size if size <= 256 else math.ceil(size / 2))
        self._clouds = Clouds(
            self._coarse, rng, weather or Weather(), tile_size=768 if size > 256 else 384
        )
        self._velocity = self._clouds.velocity()
        axis = np.arange(self._coarse.size, dtype=np.float32)
        self._grid = np.meshgrid(axis, axis)
        # With a lens of its own: the fields it keeps are large and not needed again.
        self._openness, self._foreground = draw_horizon(Lens(size), rng)
        self._key: _Keyframe | None = None

    @property
    def drift_px_per_s(self) -> float:
        """How many pixels per second the cumulus moves at the zenith."""
        middle = self._coarse.size // 2
        # One pixel beside the zenith itself, where the azimuth is defined.
        speed = math.hypot(*(float(v[middle, middle + 1]) for v in self._velocity))
        return speed * self.size / self._coarse.size

    def radiance(self, t_seconds: float) -> Floats:
        """Radiance of the scene at one moment.

        Parameters
        ----------
        t_seconds : float
            Time since `start`.

        Returns
        -------
        ndarray, shape (H, W, 3), float32, BGR
            A new array at every call.
        """
        key = self._keyframe(math.floor(t_seconds / KEYFRAME_S))
        coarse = self._carried(key.clouds, t_seconds - key.number * KEYFRAME_S)
        clouds = coarse
        if self._coarse.size != self.size:
            shape = (self.size, self.size)
            resized = cv2.resize(clouds, shape, interpolation=cv2.INTER_CUBIC)
            clouds = np.asarray(resized, np.float32)
        scene = np.empty_like(key.clear)
        for top in range(0, self.size, BAND):
            rows = slice(top, top + BAND)
            through, blue, green, red = cv2.split(clouds[rows])
            part = cv2.multiply(key.clear[rows], cv2.merge([through] * 3))
            cv2.add(part, cv2.merge([blue, green, red]), dst=part)
            cv2.multiply(part, self._openness[rows], dst=part)
            cv2.add(part, self._foreground[rows], dst=part)
            # Cubic interpolation may swing below zero beside a bright edge.
            np.maximum(part, DARKEST, out=scene[rows])
        x, y = self._coarse.pixel_of(key.sun)
        share = float(coarse[round(y), round(x), 0])
        add_flare(scene, self._lens, key.sun, min(max(share, 0.0), 1.0))
        return scene

    def sun(self, t_seconds: float) -> Sun:
        """Where the sun stands at a moment (kept up by day and by night)."""
        return sun_at(self.start + dt.timedelta(seconds=t_seconds))

    def _keyframe(self, number: int) -> _Keyframe:
        if self._key is None or self._key.number != number:
            t = number * KEYFRAME_S
            sun = self.sun(t)
            coarse = clear_sky(self._coarse, sun)
            inside = self._coarse.reach < 0.8
            ambient = np.asarray(coarse[inside].mean(axis=0), np.float32)
            # What the sky above them gives the clouds, plus sunlight thrown back by the ground.
            ambient = ambient * np.float32(0.75) + np.float32(0.12)
            clouds = self._clouds.render(t, sun, ambient)
            clear = coarse
            if self._coarse.size != self.size:
                shape = (self.size, self.size)
                resized = cv2.resize(coarse, shape, interpolation=cv2.INTER_CUBIC)
                clear = np.asarray(resized, np.float32)
            add_sun(clear, self._lens, sun)
            self._key = _Keyframe(number, sun, clear, clouds)
        return self._key

    def _carried(self, clouds: Floats, seconds: float) -> Floats:
        """Clouds of a keyframe, moved on by the wind."""
        if seconds == 0:
            return clouds
        x = self._grid[0] - self._velocity[0] * np.float32(seconds)
        y = self._grid[1] - self._velocity[1] * np.float32(seconds)
        moved = cv2.remap(clouds, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.float32)
