"""Which pixels of a picture are merged: the sky disc of a fisheye lens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

_DARKEST_SKY = 40
_ABOVE_DARK = 20
_CORNER = 12
_WORK_SIDE = 512
_LEAST_RADIUS = 0.25  # of the shorter side: the moon, lamps and windows are smaller
_LEAST_AROUND = 0.03  # of the picture, for there to be a surround at all
_AROUND_DARK = 0.95
_INSIDE_BRIGHT = 0.6
# Radii, of the disc's. At the rim of a disc it is dark at once; where a lens vignettes, bit by bit.
_WITHIN_RIM, _BEYOND_RIM = (0.88, 0.95), (1.03, 1.12)
_LEAST_STEP = 0.5
_MARGIN = 0.98
_OPENING = 1 / 16  # of the longer side
_AGREEING = 0.05  # of the radius
_LEAST_AGREEING = 1 / 3


@dataclass(frozen=True, slots=True)
class SkyDisc:
    """A circle in a picture."""

    x: float  # column and row of the centre, pixels; may lie outside the picture
    y: float
    radius: float  # pixels, positive

    def __post_init__(self) -> None:
        if not (np.isfinite([self.x, self.y, self.radius]).all() and self.radius > 0):
            found = f"{self.x}, {self.y}, {self.radius}"
            raise ValueError(f"a sky disc has a centre and a positive radius, got {found}")

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Pixels inside, as a read-only array (H, W); ValueError if there is none.

        Parameters
        ----------
        shape : (H, W) or longer
        """
        return _measured(self, int(shape[0]), int(shape[1]))[0]

    def spans(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """First and last column (half-open) inside of each row, (H, 2); as for `mask`.

        Parameters
        ----------
        shape : (H, W) or longer
        """
        return _measured(self, int(shape[0]), int(shape[1]))[1]

    def holds(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell which of some places are inside.

        Parameters
        ----------
        rows, columns : ndarray
            Pixels; they broadcast.
        """
        inside: NDArray[np.bool_] = (rows - self.y) ** 2 + (columns - self.x) ** 2 <= self.radius**2
        return inside


def as_sky_disc(disc: SkyDisc | Sequence[float] | None) -> SkyDisc | None:
    """Read a disc that is given as such or as (x, y, radius); ValueError if it is neither.

    Parameters
    ----------
    disc : SkyDisc, (x, y, radius) or None
        Pixels.
    """
    if disc is None or isinstance(disc, SkyDisc):
        return disc
    try:
        x, y, radius = (float(number) for number in disc)
        return SkyDisc(x, y, radius)
    except (TypeError, ValueError):
        raise ValueError(f"sky_disc is (x, y, radius) in pixels, or None; got {disc!r}") from None


# A camera's brackets are all of one size, and measuring a disc takes a quarter of a merge's time.
@lru_cache(maxsize=8)
def _measured(
    disc: SkyDisc, height: int, width: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    rows, columns = np.ogrid[0:height, 0:width]
    inside = disc.holds(rows, columns)
    some = inside.any(axis=1)
    if not some.any():
        raise ValueError(
            f"sky_disc {disc.x:g}, {disc.y:g}, {disc.radius:g} lies outside of pictures of"
            f" {width}×{height}; give column and row of its centre and its radius in their pixels"
        )
    first = np.where(some, inside.argmax(axis=1), 0)
    spans = np.stack([first, first + np.count_nonzero(inside, axis=1)], axis=1).astype(np.int32)
    inside.flags.writeable = spans.flags.writeable = False
    return inside, spans


def clear_outside(rows: NDArray[Any], spans: NDArray[np.int32], value: ArrayLike = 0) -> None:
    """Set what lies outside the spans, one span for each row.

    Parameters
    ----------
    rows : ndarray, shape (rows, ...)
    spans : ndarray, shape (rows, 2)
        Half-open, in steps of the second axis.
    value : array_like
    """
    for row, (start, stop) in zip(rows, spans, strict=True):
        row[:start] = value
        row[stop:] = value


def find_sky_disc(images: Sequence[NDArray[np.uint8]]) -> SkyDisc | None:
    """Find the disc that a fisheye lens draws, less 2 % of its radius; None if there is none.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, C), uint8
        Exposures of one bracket; the brighter ones tell most.
    """
    if not images:
        return None
    step = -(-max(images[0].shape[:2]) // _WORK_SIDE)
    brightest = np.maximum.reduce([_small(image, step) for image in images])
    dark = _corner_level(brightest)
    if dark > _DARKEST_SKY:
        return None
    lit = np.asarray(brightest > dark + _ABOVE_DARK, dtype=np.uint8)
    # Opening drops labels in the corners and rays of flare that touch the rim.
    opening = (int(_OPENING * max(lit.shape)) | 1,) * 2
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, opening)
    bright = np.asarray(cv2.morphologyEx(lit, cv2.MORPH_OPEN, kernel), dtype=np.uint8)
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    (x, y), radius = cv2.minEnclosingCircle(max(contours, key=cv2.contourArea))
    found = SkyDisc(x, y, radius + 1.0)
    if not (_is_disc(bright, found) and _ends_at_its_rim(brightest, found, dark)):
        return None
    return SkyDisc((x + 0.5) * step - 0.5, (y + 0.5) * step - 0.5, _MARGIN * radius * step)


def agreed_disc(discs: Sequence[SkyDisc | None]) -> SkyDisc | None:
    """Give the one disc of a camera: the median of what was found in several of its brackets.

    None unless a third of all brackets found nearly that one: at night none is found, and what is
    found by mistake is somewhere else each time.

    Parameters
    ----------
    discs : sequence of SkyDisc or None
    """
    found = [disc for disc in discs if disc is not None]
    if not found:
        return None
    numbers = np.array([(disc.x, disc.y, disc.radius) for disc in found])
    middle = np.median(numbers, axis=0)
    agreeing = (np.abs(numbers - middle) <= _AGREEING * middle[2]).all(axis=1).sum()
    if agreeing < _LEAST_AGREEING * len(discs):
        return None
    return SkyDisc(*(round(float(number), 1) for number in middle))


def _small(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    height, width = (max(1, side // step) for side in image.shape[:2])
    whole = image[: height * step, : width * step]
    small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small.reshape(height, width, -1).max(axis=2), dtype=np.uint8)


def _corner_level(picture: NDArray[np.uint8]) -> int:
    """Median code of the corners: what the surround looks like, black level and stray light in."""
    ends = (slice(None, _CORNER), slice(-_CORNER, None))
    corners = [picture[rows, columns].ravel() for rows in ends for columns in ends]
    return int(np.median(np.concatenate(corners)))


def _is_disc(bright: NDArray[np.uint8], disc: SkyDisc) -> bool:
    inside = disc.mask(bright.shape)
    around = ~inside
    if disc.radius < _LEAST_RADIUS * min(bright.shape) or around.mean() < _LEAST_AROUND:
        return False
    return bool(
        (bright[around] == 0).mean() >= _AROUND_DARK and bright[inside].mean() >= _INSIDE_BRIGHT
    )


def _ends_at_its_rim(brightest: NDArray[np.uint8], disc: SkyDisc, dark: int) -> bool:
    """Whether most of the brightness goes within a few pixels, at least where no hill is."""
    rows, columns = np.ogrid[0 : brightest.shape[0], 0 : brightest.shape[1]]
    distance = np.hypot(rows - disc.y, columns - disc.x) / disc.radius
    within, beyond = (
        brightest[(distance > near) & (distance < far)] for near, far in (_WITHIN_RIM, _BEYOND_RIM)
    )
    if not (within.size and beyond.size):
        return False
    step = np.quantile(within, 0.75) - np.median(beyond)
    return bool(step >= _LEAST_STEP * (np.median(brightest[distance < 1.0]) - dark))
