"""Clouds: a deck of cumulus with thickness, lit by the sun, and a veil of cirrus above it.

The cumulus deck is a stack of thin seamless density tiles drifting with the wind. The light that
reaches each slice is found in the tiles themselves (the slice above, moved towards the sun); each
pixel then looks up through the stack, which gives bright rims, dark bases and sides in perspective
for the price of a few image look-ups.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.simulator.lens import Floats, Lens, Sun

SLICES = 10
BASE_KM = 1.2
TOP_KM = 1.8
TILE_KM = 13.0
CIRRUS_KM = 8.0
CIRRUS_TILE_KM = 60.0
# Rings of the image circle (inner, outer) and by what factor their tiles are blurred: towards the
# horizon a pixel spans ever more of the tile, and picking single pixels of it would flicker.
RINGS = ((0.0, 0.70, 1), (0.70, 0.86, 4), (0.86, 1.02, 12))
# cv2 takes no picture wider than 32767 pixels, so lists of pixels are folded into rows.
ROW = 1024
# Height within the deck, 0…1, whose motion stands for all of it between two keyframes.
SEEN_AT = 0.4
# Steeper than this the stack is not seen through: the gaps between its slices would show.
STEEPEST = 0.55
# Far smaller than the Earth's: keeps the clouds at the horizon larger than a pixel.
SHELL_RADIUS_KM = 160.0
CLOUD_WHITE = np.array([1.0, 0.99, 0.98], np.float32)


@dataclass(frozen=True)
class Weather:
    """What the clouds are like."""

    cover: float = 0.50  # threshold of the cumulus field, standard deviations: lower is more cloud
    cirrus: float = 0.5  # largest optical depth of the cirrus veil
    wind_kmh: float = 32.0
    wind_to_deg: float = 65.0  # where the cumulus moves to, degrees from north by east

    @property
    def wind(self) -> tuple[float, float]:
        """Velocity (east, north) in km/s."""
        angle = math.radians(self.wind_to_deg)
        return math.sin(angle) * self.wind_kmh / 3600, math.cos(angle) * self.wind_kmh / 3600


def _fractal_tile(
    rng: np.random.Generator, size: int, slope: float, lowest: float, stretch: float = 1.0
) -> Floats:
    """Make a tile of fractal noise (mean 0, deviation 1) that continues across its edges.

    White noise is shaped in the frequency domain to amplitudes proportional to k^−slope, without
    the frequencies below `lowest` (cycles per tile), and drawn out along x by `stretch`.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    ky = np.fft.fftfreq(size, 1 / size)[:, np.newaxis]
    kx = np.fft.rfftfreq(size, 1 / size)[np.newaxis, :] * stretch
    k = np.hypot(kx, ky)
    shape = np.zeros_like(k)
    np.power(k, -slope, where=k > 0, out=shape)
    shape *= 1 / (1 + (lowest / np.maximum(k, 1e-9)) ** 6)
    tile = np.fft.irfft2(spectrum * shape, s=(size, size)).astype(np.float32)
    tile -= tile.mean()
    tile /= tile.std()
    return tile


@dataclass(frozen=True)
class _Ring:
    """Pixels of one ring as lists folded into rows: where each looks, and how steeply."""

    pixels: NDArray[np.intp]
    blur: int
    east: Floats
    north: Floats
    parallax: Floats
    slant: Floats


class Clouds:
    """The clouds over a camera, at the resolution of the lens; `tile_size` in pixels."""

    def __init__(
        self, lens: Lens, rng: np.random.Generator, weather: Weather, tile_size: int
    ) -> None:
        self.lens = lens
        self.weather = weather
        self._tile = tile_size
        self._body = _fractal_tile(rng, tile_size, 1.75, 3.0)
        self._detail = [_fractal_tile(rng, tile_size, 1.45, 8.0) for _ in range(2)]
        cirrus = _fractal_tile(rng, tile_size, 1.35, 2.0, stretch=4.0)
        self._cirrus = np.empty((tile_size + 1, tile_size + 1), np.float32)
        _fill(self._cirrus, cirrus)
        # Kept from frame to frame: fresh memory costs more than filling it.
        self._slabs = np.empty((SLICES, tile_size + 1, tile_size + 1, 2), np.float32)
        east, north = lens.east_north
        self._distance = _shell_distance(lens.zenith, BASE_KM)
        high = _shell_distance(lens.zenith, CIRRUS_KM)
        self._high = (east * high, north * high)
        tangent = np.tan(np.minimum(lens.zenith, np.float32(1.5)))
        self._parallax = np.minimum(1, np.float32(STEEPEST) / np.maximum(tangent, 1e-3))
        self._haze = np.exp(-self._distance / np.float32(17.0))
        self._rings = [self._ring(*ring) for ring in RINGS]

    def render(self, t_seconds: float, sun: Sun, ambient: NDArray[np.float32]) -> Floats:
        """Give transmittance and light scattered towards the camera (BGR), (H, W, 4) float32.

        Parameters
        ----------
        t_seconds : float
        sun : Sun
        ambient : ndarray, shape (3,), float32
            Light of the sky that falls on the clouds, BGR.
        """
        chi_cos = self.lens.cos_to(sun)
        through, direct, diffuse = self._march(t_seconds, sun)
        phase = 0.36 * _henyey(chi_cos, 0.78) + 0.9 * _henyey(chi_cos, 0.25) + np.float32(0.35)
        white = sun.light * CLOUD_WHITE * np.float32(1.75)
        light = (direct * phase)[..., np.newaxis] * white + diffuse[..., np.newaxis] * ambient
        light *= self._haze[..., np.newaxis]
        through = 1 - (1 - through) * self._haze
        veil = self._veil(t_seconds)
        veil_phase = np.float32(1.15) + 0.35 * _henyey(chi_cos, 0.75)
        veil_light = (veil * veil_phase)[..., np.newaxis] * sun.light
        result = np.empty((*through.shape, 4), np.float32)
        result[..., 1:] = light + veil_light * through[..., np.newaxis]
        result[..., 0] = through * (1 - veil)
        return result

    def velocity(self) -> tuple[Floats, Floats]:
        """How fast the cumulus crosses the image, in pixels per second of this lens, (x, y)."""
        wind_e, wind_n = (np.float32(v) for v in self.weather.wind)
        zenith, distance = self.lens.zenith, np.maximum(self._distance, np.float32(1e-3))
        step = np.float32(1e-3)
        growth = (_shell_distance(zenith + step, BASE_KM) - self._distance) / step
        east, north = self.lens.east_north
        radial = (east * wind_e + north * wind_n) / growth
        around = (-east * wind_n + north * wind_e) / distance * zenith
        # What is seen lies some way up in the deck, where the same wind looks slower.
        seen_at = np.float32(SEEN_AT * (TOP_KM - BASE_KM) / BASE_KM)
        scale = np.float32(self.lens.radius / (math.pi / 2)) / (1 + seen_at * self._parallax)
        move_e = (radial * east + around * north) * scale
        move_n = (radial * north - around * east) * scale
        inside = self.lens.reach < 1
        return np.where(inside, -move_e, 0), np.where(inside, -move_n, 0)

    def _ring(self, inner: float, outer: float, blur: int) -> _Ring:
        """The pixels of one ring, as lists."""
        reach = self.lens.reach.ravel()
        pixels = np.flatnonzero((reach >= inner) & (reach < outer))
        shape = (-(-pixels.size // ROW), ROW)
        slant = np.minimum(1 / np.maximum(np.cos(self.lens.zenith), np.float32(0.02)), 4)
        east, north = (direction * self._distance for direction in self.lens.east_north)
        fields = (east, north, self._parallax, slant)
        lists = [np.resize(field.ravel()[pixels], shape).astype(np.float32) for field in fields]
        return _Ring(pixels, blur, *lists)

    def _march(self, t: float, sun: Sun) -> tuple[Floats, Floats, Floats]:
        """Look up through the deck: transmittance, share of sunlight, share of skylight."""
        self._light_slices(t, sun)
        shape = self._distance.shape
        wholes = (
            np.ones(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )
        slabs, blur = list(self._slabs), 1
        for ring in self._rings:
            slabs = [_blurred(slab, ring.blur // blur) for slab in slabs]
            blur = ring.blur
            for whole, part in zip(wholes, self._march_ring(ring, slabs, t), strict=True):
                whole.ravel()[ring.pixels] = part.ravel()[: ring.pixels.size]
        return wholes

    def _march_ring(
        self, ring: _Ring, slabs: list[Floats], t: float
    ) -> tuple[Floats, Floats, Floats]:
        through = np.ones_like(ring.east)
        direct, diffuse = np.zeros_like(through), np.zeros_like(through)
        for k, slab in enumerate(slabs):
            scale = 1 + np.float32((TOP_KM - BASE_KM) * k / SLICES / BASE_KM) * ring.parallax
            ground = (ring.east * scale, ring.north * scale)
            density, lit = cv2.split(self._look(slab, ground, t, TILE_KM))
            density *= ring.slant
            stopped = through * (1 - np.exp(-density))
            through -= stopped
            direct += stopped * lit
            diffuse += stopped * np.float32(0.42 + 0.5 * k / SLICES)
        return through, direct, diffuse

    def _light_slices(self, t: float, sun: Sun) -> None:
        """Fill the tiles of density and sunlight of every slice."""
        thickness = (TOP_KM - BASE_KM) / SLICES
        lean = thickness * min(math.tan(sun.zenith), 2.5) * self._tile / TILE_KM
        east, north = math.sin(sun.azimuth) * lean, math.cos(sun.azimuth) * lean
        depth = np.zeros_like(self._body)
        for k in reversed(range(SLICES)):
            # Light from the sun crosses the slices above where they lie towards the sun.
            depth = np.roll(depth, (-round(north), -round(east)), axis=(0, 1))
            density = self._density(k, t)
            # Light scattered many times goes deeper: a second, weaker extinction stands for it.
            weak = np.exp((density * np.float32(0.5) + depth) * np.float32(-0.10))
            square = weak * weak
            lit = (square * square * np.float32(0.80) + np.float32(0.20)) * weak
            _fill(self._slabs[k, ..., 0], density)
            _fill(self._slabs[k, ..., 1], lit)
            depth += density

    def _density(self, k: int, t: float) -> Floats:
        """Optical depth of slice k: flat base, towers that narrow upwards, slowly changing."""
        up = k / (SLICES - 1)
        turn = 0.55 * k + t / 240.0
        detail = self._detail[0] * np.float32(math.cos(turn))
        detail += self._detail[1] * np.float32(math.sin(turn))
        field = self._body + np.float32(0.30 + 0.12 * up) * detail
        field -= np.float32(self.weather.cover + 0.95 * up**1.2 + (0.12 if k == 0 else 0.0))
        return np.clip(field * np.float32(1.7), 0, np.float32(1.3), out=field)

    def _veil(self, t: float) -> Floats:
        """Share of light that the cirrus takes out, 0…1."""
        seen = self._look(self._cirrus, self._high, t * 1.6, CIRRUS_TILE_KM)
        depth = np.clip(seen - np.float32(0.2), 0, 2) * np.float32(self.weather.cirrus / 2)
        return np.asarray(1 - np.exp(-depth), np.float32)

    def _look(
        self, tile: Floats, ground: tuple[Floats, Floats], t: float, tile_km: float
    ) -> Floats:
        """The tile as the camera sees it at time t: its values above places on the ground in km."""
        size = tile.shape[0] - 1
        per_km = size / tile_km
        # The middle of a blurred tile's pixel lies elsewhere than that of a sharp one's.
        half = 0.5 - 0.5 * size / self._tile
        places: list[Floats] = []
        for place_km, wind in zip(ground, self.weather.wind, strict=True):
            place: Floats = np.asarray(place_km * np.float32(per_km), np.float32)
            place -= np.float32((wind * t * per_km + half) % size)
            # cv2 itself wraps slowly.
            place -= np.floor(place * np.float32(1 / size)) * np.float32(size)
            places.append(place)
        seen = cv2.remap(
            tile, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(seen, np.float32)


def _blurred(slab: Floats, blur: int) -> Floats:
    """A slab of fewer, larger pixels, closed like the sharp one."""
    if blur == 1:
        return slab
    size = (slab.shape[0] - 1) // blur
    small = cv2.resize(slab[:-1, :-1], (size, size), interpolation=cv2.INTER_AREA)
    joined = np.empty((size + 1, size + 1, 2), np.float32)
    _fill(joined, np.asarray(small, np.float32))
    return joined


def _fill(joined: Floats, tile: Floats) -> None:
    """Copy a tile and repeat its first row and column at its end: no look falls out of it."""
    joined[:-1, :-1] = tile
    joined[-1, :-1], joined[:-1, -1], joined[-1, -1] = tile[0], tile[:, 0], tile[0, 0]


def _shell_distance(zenith: Floats, height_km: float) -> Floats:
    """Ground distance in km at which a line of sight meets a shell at the given height."""
    radius = np.float32(SHELL_RADIUS_KM)
    up = radius * np.cos(zenith)
    way = np.sqrt(up**2 + 2 * radius * np.float32(height_km) + np.float32(height_km) ** 2) - up
    return np.asarray(way * np.sin(zenith), np.float32)


def _henyey(cosine: Floats, g: float) -> Floats:
    """Henyey and Greenstein (1941) phase function, scaled to 1 at 90° for g near 0."""
    under = np.maximum(1 + g * g - 2 * g * cosine, np.float32(1e-4))
    return np.asarray((1 - g * g) / under**1.5, np.float32)
