"""The rendered sky: known radiance for any moment, the same for the same seed."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import cv2
import numpy as np

from asi_watch.simulator.atmosphere import add_sun, clear_sky
from asi_watch.simulator.clouds import Clouds
from asi_watch.simulator.flare import add_flare
from asi_watch.simulator.horizon import draw_horizon
from asi_watch.simulator.lens import Floats, Lens, Sun, sun_at
from asi_watch.simulator.weather import Weather

START = dt.datetime(2026, 6, 21, 9, 0, 0)
# Clouds are rendered anew at these moments; in between they are carried along by the wind.
KEYFRAME_S = 15.0
DARKEST = np.float32(1e-5)
# Rows put together at a time: what they need stays in the processor's cache.
BAND = 64
SMALLEST, LARGEST = 32, 8192


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
