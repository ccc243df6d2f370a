"""The rendered sky: known radiance for any moment, the same for the same seed.

Radiance is relative irradiance per millisecond, BGR; the sky is placed so that exposures of
80…1280 µs frame it.
"""

import datetime as dt
import math
from dataclasses import dataclass

import cv2
import numpy as np

from asi_watch.simulator.clouds import Clouds, Weather
from asi_watch.simulator.lens import Floats, Lens, Sun, sun_at

START = dt.datetime(2026, 6, 21, 9, 0, 0)
_SMALLEST, _LARGEST = 32, 8192
# Clouds are rendered again at these moments; in between they are carried along by the wind.
_KEYFRAME_S = 15.0
_DARKEST = np.float32(1e-5)
# Rows put together at a time: what they need stays in the processor's cache.
_BAND = 64
_ZENITH_BLUE = np.array([0.86, 0.46, 0.21], np.float32)
_HORIZON_WHITE = np.array([1.12, 1.03, 0.90], np.float32)
# How bright the whole scene is: the longest of 80…1280 µs shows the trees and the dark bases of the
# clouds and loses their brightest rims, the shortest loses nothing but the sun.
_BRIGHTNESS = np.float32(1.5)
_STEPS = 4096  # of the skyline
_TREE_GREEN = np.array([0.022, 0.050, 0.036], np.float32)
_SUN_PEAK = 6.0e4
# Half the sun's apparent diameter, widened by the blur of a small lens.
_SUN_RADIUS_DEG = 0.30
_AUREOLE_DEG = 14.0


@dataclass(frozen=True)
class _Keyframe:
    number: int
    sun: Sun
    clear: Floats
    clouds: Floats


class Sky:
    """An all-sky scene with known radiance.

    With a `Camera` of this package, g(z) − ln(exposure in µs) + ln 1000 is its logarithm.

    Parameters
    ----------
    size : int
        Width and height of the image in pixels, 32…8192.
    seed : int
        Same seed, same sky.
    start : datetime
        Time of the camera's clock at ``t_seconds = 0``; sets where the sun stands.
    weather : Weather, optional
    """

    def __init__(
        self, size: int, seed: int, *, start: dt.datetime = START, weather: Weather | None = None
    ) -> None:
        if not _SMALLEST <= size <= _LARGEST:
            raise ValueError(f"size of a sky is {_SMALLEST}…{_LARGEST} pixels, not {size}")
        self.size, self.start = size, start
        rng = np.random.default_rng(seed)
        # Clouds are soft: half the resolution is enough, and four times as fast.
        self._coarse = Lens(size if size <= 256 else math.ceil(size / 2))
        tile_size = 768 if size > 256 else 384
        self._clouds = Clouds(self._coarse, rng, weather or Weather(), tile_size)
        self._velocity = self._clouds.velocity()
        axis = np.arange(self._coarse.size, dtype=np.float32)
        self._grid = np.meshgrid(axis, axis)
        self._openness, self._foreground = _surroundings(size, rng)
        self._key: _Keyframe | None = None

    @property
    def drift_px_per_s(self) -> float:
        """How many pixels per second the cumulus moves at the zenith."""
        middle = self._coarse.size // 2
        # One pixel beside the zenith itself, where the azimuth is defined.
        speed = math.hypot(*(float(v[middle, middle + 1]) for v in self._velocity))
        return speed * self.size / self._coarse.size

    def radiance(self, t_seconds: float) -> Floats:
        """Radiance of the scene at one moment: a new array (H, W, 3), float32, BGR.

        Parameters
        ----------
        t_seconds : float
            Since `start`.
        """
        key = self._keyframe(math.floor(t_seconds / _KEYFRAME_S))
        moved = self._carried(key.clouds, t_seconds - key.number * _KEYFRAME_S)
        clouds = self._enlarged(moved)
        scene = np.empty_like(key.clear)
        for top in range(0, self.size, _BAND):
            rows = slice(top, top + _BAND)
            through, *light = cv2.split(clouds[rows])
            part = cv2.multiply(key.clear[rows], cv2.merge([through] * 3))
            cv2.add(part, cv2.merge(light), dst=part)
            cv2.multiply(part, self._openness[rows], dst=part)
            cv2.add(part, self._foreground[rows], dst=part)
            # Cubic interpolation may swing below zero beside a bright edge.
            np.maximum(part, _DARKEST, out=scene[rows])
        return scene

    def _keyframe(self, number: int) -> _Keyframe:
        if self._key is None or self._key.number != number:
            t = number * _KEYFRAME_S
            sun = sun_at(self.start + dt.timedelta(seconds=t))
            coarse = _clear_sky(self._coarse, sun)
            ambient = np.asarray(coarse[self._coarse.reach < 0.8].mean(axis=0), np.float32)
            # What the sky above them gives the clouds, plus sunlight thrown back by the ground.
            ambient = ambient * np.float32(0.75) + np.float32(0.12)
            clouds = self._clouds.render(t, sun, ambient)
            clear = self._enlarged(coarse)
            _add_sun(clear, Lens(self.size), sun)
            self._key = _Keyframe(number, sun, clear, clouds)
        return self._key

    def _enlarged(self, coarse: Floats) -> Floats:
        if self._coarse.size == self.size:
            return coarse
        resized = cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        return np.asarray(resized, np.float32)

    def _carried(self, clouds: Floats, seconds: float) -> Floats:
        """Clouds of a keyframe, moved on by the wind."""
        if seconds == 0:
            return clouds
        x, y = (
            place - speed * np.float32(seconds)
            for place, speed in zip(self._grid, self._velocity, strict=True)
        )
        moved = cv2.remap(clouds, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.float32)


def _clear_sky(lens: Lens, sun: Sun) -> Floats:
    """Radiance of the cloudless sky, without the sun's disc and inner aureole.

    The CIE standard general sky, type 12 (clear, low turbidity), ISO 15469:2004: gradation
    φ(Z) = 1 + a·exp(b / cos Z) and indicatrix f(χ) = 1 + c·(exp(dχ) − exp(dπ/2)) + e·cos²χ with
    a = −1, b = −0.32, c = 10, d = −3, e = 0.45. The formula gives luminance; the colour (blue at
    the zenith, pale at the horizon and near the sun) is our own.
    """
    cosine = lens.cos_to(sun)
    chi = np.arccos(np.clip(cosine, -1, 1))
    up = np.maximum(np.cos(lens.zenith), np.float32(0.02))
    gradation = (1 - np.exp(np.float32(-0.32) / up)) / np.float32(1 - math.exp(-0.32))
    floor = math.exp(-3 * math.pi / 2)
    indicatrix = 1 + 10 * (np.exp(-3 * chi) - np.float32(floor)) + np.float32(0.45) * cosine**2
    at_zenith = 1 + 10 * (math.exp(-3 * sun.zenith) - floor) + 0.45 * math.cos(sun.zenith) ** 2
    luminance = gradation * indicatrix / np.float32(max(at_zenith, 1.0))
    # Compressed: a camera's sharp blue filter sees less of the contrast than the eye does.
    luminance = luminance ** np.float32(0.62)
    pale = 1 - np.exp(np.float32(-0.20) * (1 / up - 1))
    pale = np.maximum(pale, np.float32(0.75) * np.exp(-chi / np.float32(0.22)))[..., np.newaxis]
    colour = _ZENITH_BLUE * (1 - pale) + _HORIZON_WHITE * sun.light * np.float32(0.72) * pale
    sky = luminance[..., np.newaxis] * colour
    tail = np.float32(0.55) * np.exp(-chi / np.float32(0.30))
    sky += tail[..., np.newaxis] * sun.light
    return np.asarray(sky, np.float32)


def _add_sun(image: Floats, lens: Lens, sun: Sun) -> None:
    """Add the sun's disc and its aureole to a radiance image, in place.

    The aureole falls as a power of the angle, as measured circumsolar profiles do, and ends at
    `_AUREOLE_DEG`.
    """
    x, y = lens.pixel_of(sun)
    # Near the horizon the fisheye draws the aureole wider along the azimuth.
    reach = math.ceil(math.radians(_AUREOLE_DEG) / (math.pi / 2) * lens.radius * 1.6) + 2
    rows, cols = (slice(max(0, int(v) - reach), min(lens.size, int(v) + reach + 1)) for v in (y, x))
    cosine = Lens(lens.size, rows.start, rows.stop).cos_to(sun)[:, cols]
    chi = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    fade = np.clip(1 - chi / np.float32(_AUREOLE_DEG), 0, 1) ** 2
    aureole = np.float32(60) * (np.maximum(chi, _SUN_RADIUS_DEG) / np.float32(0.6)) ** -1.5 * fade
    # A pixel is a fraction of a degree: the disc's edge is as soft as one pixel at least.
    soft = max(0.10, 90 / lens.radius * 0.6)
    edge = np.clip((chi - _SUN_RADIUS_DEG) / (soft / 4), -50, 50)
    disc = np.float32(_SUN_PEAK) / (1 + np.exp(edge))
    image[rows, cols] += (aureole + disc)[..., np.newaxis] * sun.light


def _surroundings(size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw the surroundings: openness and foreground, each (size, size, 3), float32, BGR.

    Openness is what reaches a pixel of the sky's light: `_BRIGHTNESS` at the zenith, less towards
    the rim (vignetting), 0 behind trees and outside the circle. Foreground is the radiance of
    trees and surround, to be added.
    """
    skyline, leaves = _tree_line(rng), _speckle(rng, size)
    openness = np.empty((size, size, 3), np.float32)
    foreground = np.empty_like(openness)
    # In bands: the many fields that one needs are large at full size.
    for top in range(0, size, _BAND):
        rows = slice(top, min(top + _BAND, size))
        lens = Lens(size, rows.start, rows.stop)
        steps = lens.azimuth * np.float32(_STEPS / (2 * math.pi))
        above = np.interp(steps, np.arange(_STEPS), skyline, period=_STEPS)
        above -= 90 - np.degrees(lens.zenith)
        trees = np.clip(above * lens.radius / 90 + 0.5, 0, 1)  # the edge one pixel soft
        inside = np.clip((1 - lens.reach) * np.float32(lens.radius / 1.5), 0, 1)
        vignette = inside * (1 - np.float32(0.28) * lens.reach**2.5)
        openness[rows] = (vignette * (1 - trees))[..., np.newaxis]
        foreground[rows] = (leaves[rows] * trees * vignette)[..., np.newaxis] * _TREE_GREEN
        # The lens barrel is not quite black: a faint ring, then darkness.
        ring = 0.010 * np.exp(np.minimum(1 - lens.reach, 0) / 0.012) * (lens.reach >= 1)
        foreground[rows] += (ring + 0.0012)[..., np.newaxis]
    return openness * _BRIGHTNESS, foreground * _BRIGHTNESS


def _tree_line(rng: np.random.Generator) -> Floats:
    """Elevation of the trees in degrees over azimuth: gentle hills with ragged crowns."""
    frequency = np.fft.rfftfreq(_STEPS, 1 / _STEPS)
    hills, crowns = np.zeros_like(frequency), np.zeros_like(frequency)
    hills[1:12] = 1 / frequency[1:12]
    crowns[30:1500] = frequency[30:1500] ** -0.85
    lines = []
    for shape in (hills, crowns):
        phase = np.exp(2j * np.pi * rng.random(shape.size))
        line = np.fft.irfft(shape * phase, _STEPS)
        lines.append(line / line.std())
    line = 3.0 + 1.6 * lines[0] + 0.75 * np.abs(lines[1])
    return np.asarray(np.clip(line, 1.2, 11), np.float32)


def _speckle(rng: np.random.Generator, size: int) -> Floats:
    """Light and shade in the leaves."""
    grain = rng.standard_normal((size, size), dtype=np.float32)
    soft = cv2.GaussianBlur(grain, (0, 0), max(0.8, size / 900))
    return np.asarray(np.clip(1 + 0.5 * soft / max(float(soft.std()), 1e-6), 0.2, 2.6), np.float32)
