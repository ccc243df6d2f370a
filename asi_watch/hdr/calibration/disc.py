"""Finding the sky disc of a fisheye picture: bright inside a circle, dark around it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_DARKEST_SKY = 40
_ABOVE_DARK = 20
_CORNER = 12
_WORK_SIDE = 512
_LEAST_AROUND = 0.03  # of the picture, for there to be a surround at all
_AROUND_DARK = 0.95
_INSIDE_BRIGHT = 0.6
_MARGIN = 0.98
_OPENING = 31


def find_sky_disc(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_] | None:
    """Find the disc that a fisheye lens draws, if the pictures show one.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, C), uint8
        Exposures of one bracket; the brighter ones tell most.

    Returns
    -------
    ndarray, shape (H, W), bool, or None
        True inside the disc, two per cent of its radius left out at the rim; None where the
        pictures have no dark surround of a bright circle.
    """
    if not images:
        return None
    height, width = images[0].shape[:2]
    scale = min(1.0, _WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    brightest = np.zeros((size[1], size[0]), dtype=np.uint8)
    for image in images:
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        brightest = np.maximum(brightest, small.reshape(size[1], size[0], -1).max(axis=2))
    dark = _corner_level(brightest)
    if dark > _DARKEST_SKY:
        return None
    lit = np.asarray(brightest > dark + _ABOVE_DARK, dtype=np.uint8)
    # Opening drops labels in the corners and rays of flare that touch the rim.
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_OPENING, _OPENING))
    bright = np.asarray(cv2.morphologyEx(lit, cv2.MORPH_OPEN, kernel), dtype=np.uint8)
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    largest = max(contours, key=cv2.contourArea)
    (x, y), radius = cv2.minEnclosingCircle(largest)
    if not _is_disc(bright, x, y, radius):
        return None
    rows, columns = np.ogrid[0:height, 0:width]
    centre_y, centre_x = (y + 0.5) / scale - 0.5, (x + 0.5) / scale - 0.5
    inside: NDArray[np.bool_] = (rows - centre_y) ** 2 + (columns - centre_x) ** 2 <= (
        _MARGIN * radius / scale
    ) ** 2
    return inside


def _corner_level(picture: NDArray[np.uint8]) -> int:
    """Median code of the corners: what the surround looks like, black level and stray light in."""
    ends = (slice(None, _CORNER), slice(-_CORNER, None))
    corners = [picture[rows, columns].ravel() for rows in ends for columns in ends]
    return int(np.median(np.concatenate(corners)))


def _is_disc(bright: NDArray[np.uint8], x: float, y: float, radius: float) -> bool:
    rows, columns = np.ogrid[0 : bright.shape[0], 0 : bright.shape[1]]
    inside = (rows - y) ** 2 + (columns - x) ** 2 <= (radius + 1.0) ** 2
    around = ~inside
    if around.mean() < _LEAST_AROUND:
        return False
    return bool(
        (bright[around] == 0).mean() >= _AROUND_DARK and bright[inside].mean() >= _INSIDE_BRIGHT
    )
