"""The fisheye lens, which direction of the sky each pixel looks at, and the place of the sun."""

import datetime as dt
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# The image circle leaves a narrow black surround, as all-sky cameras do.
CIRCLE = 0.485
LATITUDE = math.radians(50.0)
# A sun lower than this leaves nothing to see at daylight exposures.
LOWEST_SUN_DEG = 8.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sun:
    """Where the sun stands: angles in radians, azimuth from north by east."""

    zenith: float
    azimuth: float

    @property
    def direction(self) -> tuple[float, float, float]:
        """Unit vector (east, north, up)."""
        s = math.sin(self.zenith)
        return s * math.sin(self.azimuth), s * math.cos(self.azimuth), math.cos(self.zenith)

    @property
    def light(self) -> Floats:
        """Colour of its light (BGR, green about 1): redder the longer its way through the air."""
        mass = 1 / max(math.cos(self.zenith), 0.1)
        # Optical depths of clear air at about 460, 540 and 610 nm.
        depth = np.array([0.26, 0.17, 0.12], np.float32)
        light = np.exp(-depth * np.float32(mass - 1)) * np.array([0.93, 0.98, 1.0], np.float32)
        return np.asarray(light, np.float32)


def sun_at(moment: dt.datetime) -> Sun:
    """Position of the sun at 50° north, the camera's clock read as solar time.

    Declination after Cooper (1969), Solar Energy 12, 333; good to half a degree, which a rendered
    sky does not show. The sun is kept above `LOWEST_SUN_DEG`: the simulated camera sees no night.
    """
    day = moment.timetuple().tm_yday
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day) / 365)
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6
    hour = math.radians((seconds / 3600 - 12) * 15)
    sin_d, cos_d = math.sin(declination), math.cos(declination)
    sin_l, cos_l, cos_h = math.sin(LATITUDE), math.cos(LATITUDE), math.cos(hour)
    east = -cos_d * math.sin(hour)
    north = cos_l * sin_d - sin_l * cos_d * cos_h
    up = sin_l * sin_d + cos_l * cos_d * cos_h
    elevation = max(math.asin(max(-1.0, min(1.0, up))), math.radians(LOWEST_SUN_DEG))
    return Sun(math.pi / 2 - elevation, math.atan2(east, north) % (2 * math.pi))


@dataclass(frozen=True)
class Lens:
    """An upward equidistant fisheye of 180°: north up, east left, as the sky is seen from below."""

    size: int  # width and height of the square image in pixels
    # Rows of the image that the fields below cover; a negative `bottom` stands for all.
    top: int = 0
    bottom: int = -1

    @property
    def radius(self) -> float:
        """Radius of the image circle in pixels (zenith angle 90°)."""
        return CIRCLE * self.size

    @property
    def centre(self) -> float:
        """Pixel at the zenith, the same for x and y."""
        return (self.size - 1) / 2

    @cached_property
    def _offsets(self) -> tuple[Floats, Floats]:
        axis = np.arange(self.size, dtype=np.float32) - np.float32(self.centre)
        axis /= np.float32(self.radius)
        rows = slice(self.top, self.size if self.bottom < 0 else self.bottom)
        x, y = np.meshgrid(axis, axis[rows])
        return x, y

    @cached_property
    def reach(self) -> Floats:
        """Distance from the centre in units of the circle's radius, shape (H, W)."""
        return np.hypot(*self._offsets)

    @cached_property
    def zenith(self) -> Floats:
        """Zenith angle in radians, shape (H, W), limited to 90°."""
        return np.minimum(self.reach, 1) * np.float32(math.pi / 2)

    @cached_property
    def east_north(self) -> tuple[Floats, Floats]:
        """Unit vectors of the azimuth, each of shape (H, W)."""
        x, y = self._offsets
        reach = np.maximum(self.reach, np.float32(1e-6))
        return np.asarray(-x / reach, np.float32), np.asarray(-y / reach, np.float32)

    @cached_property
    def azimuth(self) -> Floats:
        """Azimuth in radians from north by east, 0…2π, shape (H, W)."""
        return np.mod(np.arctan2(*self.east_north), np.float32(2 * math.pi))

    def cos_to(self, sun: Sun) -> Floats:
        """Cosine of the angle between each pixel's direction and the sun, shape (H, W)."""
        e, n, u = (np.float32(v) for v in sun.direction)
        east, north = self.east_north
        return np.sin(self.zenith) * (east * e + north * n) + np.cos(self.zenith) * u

    def pixel_of(self, sun: Sun) -> tuple[float, float]:
        """Pixel (x, y) onto which the sun falls."""
        reach = sun.zenith / (math.pi / 2) * self.radius
        x, y = reach * math.sin(sun.azimuth), reach * math.cos(sun.azimuth)
        return self.centre - x, self.centre - y
