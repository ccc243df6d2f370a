"""The fisheye lens: which direction of the sky each pixel looks at."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# The image circle leaves a narrow black surround, as all-sky cameras do.
CIRCLE = 0.485
LATITUDE_DEG = 50.0
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


def sun_at(moment: dt.datetime, latitude_deg: float = LATITUDE_DEG) -> Sun:
    """Position of the sun, with the clock read as solar time.

    Declination after Cooper (1969), Solar Energy 12, 333; good to half a degree, which a rendered
    sky does not show. The sun is kept above `LOWEST_SUN_DEG`: the simulated camera sees no night.

    Parameters
    ----------
    moment : datetime
        Time of the camera's clock.
    latitude_deg : float
        Latitude of the camera in degrees.

    Returns
    -------
    Sun
    """
    day = moment.timetuple().tm_yday
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day) / 365)
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6
    hour = math.radians((seconds / 3600 - 12) * 15)
    latitude = math.radians(latitude_deg)
    east = -math.cos(declination) * math.sin(hour)
    north = math.cos(latitude) * math.sin(declination) - math.sin(latitude) * math.cos(
        declination
    ) * math.cos(hour)
    up = math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(
        declination
    ) * math.cos(hour)
    lowest = math.radians(LOWEST_SUN_DEG)
    elevation = max(math.asin(max(-1.0, min(1.0, up))), lowest)
    return Sun(math.pi / 2 - elevation, math.atan2(east, north) % (2 * math.pi))


@dataclass(frozen=True)
class Lens:
    """An upward equidistant fisheye of 180°: north up, east left, as the sky is seen from below.

    Parameters
    ----------
    size : int
        Width and height of the square image in pixels.
    top, bottom : int
        Rows of the image that the fields below cover; a negative `bottom` stands for all.
    """

    size: int
    top: int = 0
    bottom: int = -1

    @property
    def radius(self) -> float:
        """Radius of the image circle in pixels (zenith angle 90°)."""
        return CIRCLE * self.size

    @cached_property
    def _offsets(self) -> tuple[Floats, Floats]:
        axis = np.arange(self.size, dtype=np.float32) - np.float32((self.size - 1) / 2)
        axis /= np.float32(self.radius)
        rows = slice(self.top, self.size if self.bottom < 0 else self.bottom)
        x: Floats
        y: Floats
        x, y = np.meshgrid(axis, axis[rows])
        return x, y

    @cached_property
    def reach(self) -> Floats:
        """Distance from the centre in units of the circle's radius, shape (H, W)."""
        x, y = self._offsets
        return np.hypot(x, y)

    @cached_property
    def zenith(self) -> Floats:
        """Zenith angle in radians, shape (H, W), limited to 90°."""
        return np.minimum(self.reach, 1) * np.float32(math.pi / 2)

    @cached_property
    def east_north(self) -> tuple[Floats, Floats]:
        """Unit vectors of the azimuth, each of shape (H, W)."""
        x, y = self._offsets
        reach = np.maximum(self.reach, np.float32(1e-6))
        east: Floats = np.divide(-x, reach, dtype=np.float32)
        north: Floats = np.divide(-y, reach, dtype=np.float32)
        return east, north

    @cached_property
    def azimuth(self) -> Floats:
        """Azimuth in radians from north by east, 0…2π, shape (H, W)."""
        east, north = self.east_north
        return np.mod(np.arctan2(east, north), np.float32(2 * math.pi))

    def cos_to(self, sun: Sun) -> Floats:
        """Cosine of the angle between each pixel's direction and the sun.

        Parameters
        ----------
        sun : Sun

        Returns
        -------
        ndarray, shape (H, W), float32
        """
        e, n, u = (np.float32(v) for v in sun.direction)
        east, north = self.east_north
        return np.sin(self.zenith) * (east * e + north * n) + np.cos(self.zenith) * u

    def directions(self, rows: slice, cols: slice) -> tuple[Floats, Floats, Floats]:
        """Unit vectors (east, north, up) of the pixels in a window, each of its shape."""
        centre = (self.size - 1) / 2
        y, x = (
            (np.arange(span.start, span.stop, dtype=np.float32) - centre) / self.radius
            for span in (rows, cols)
        )
        y, x = y[:, np.newaxis], x[np.newaxis, :]
        reach = np.maximum(np.hypot(x, y), np.float32(1e-6))
        zenith = np.minimum(reach, 1) * np.float32(math.pi / 2)
        sine = np.sin(zenith) / reach
        east, north, up = (
            np.asarray(v, np.float32) for v in (-x * sine, -y * sine, np.cos(zenith))
        )
        return east, north, up

    def pixel_of(self, sun: Sun) -> tuple[float, float]:
        """Pixel (x, y) onto which the sun falls."""
        reach = sun.zenith / (math.pi / 2) * self.radius
        centre = (self.size - 1) / 2
        return centre - reach * math.sin(sun.azimuth), centre - reach * math.cos(sun.azimuth)
