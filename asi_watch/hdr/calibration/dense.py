"""Levels at very many places: the whole frame is filtered, band by band, then looked up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import (
    BLACK,
    CLIPPED_SHARE,
    CODES,
    RADIUS,
)
from asi_watch.hdr.calibration.workers import blocks, together

_BAND = 128  # rows; what is filtered at a time fits into a few megabytes
_TALLEST = 3 * _BAND
_MARGIN = RADIUS + 3  # half a row to the nearest, the box, the median, the interpolation's next row
_BOX = (2 * RADIUS + 1,) * 2
_REMAP_WIDTH = 1 << 12  # OpenCV's remap takes maps of at most 32767 in either direction

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
Which = slice | NDArray[np.int64]
Keep = Callable[[Which, NDArray[np.floating], NDArray[np.floating]], None]


def read_dense(frame: Codes, places: Floats, white: Codes, keep: Keep) -> None:
    """Read the level around places; medians of 3 × 3 pixels stand for what does not belong.

    Parameters
    ----------
    frame : ndarray, shape (H, W, C), uint8
        Contiguous.
    places : ndarray, shape (P, 2), float32
        Row and column.
    white : ndarray, shape (C,), uint8
        Codes from which on pixels are clipped.
    keep : callable
        Takes, from several threads, the places that were read (a slice or indices) and their
        levels and roughness, shape (places, C), as `patches.read_levels` defines them.
    """
    # Places come by rows, and most scenes move little: a block of places needs a band of rows.
    size = -(-len(places) * _BAND // frame.shape[0])

    def work(part: slice) -> None:
        rows = places[part, 0]
        if rows.max() - rows.min() <= _TALLEST:
            keep(part, *_read_band(frame, places[part], white))
            return
        band = np.clip(rows / _BAND, 0, frame.shape[0] // _BAND).astype(np.int64)
        for number in np.unique(band):
            which = part.start + np.flatnonzero(band == number)
            keep(which, *_read_band(frame, places[which], white))

    together(work, blocks(len(places), size))


def _read_band(frame: Codes, places: Floats, white: Codes) -> tuple[Floats, Floats]:
    """Read places that lie close together in rows."""
    height, width, channels = frame.shape
    first, last = np.clip([places[:, 0].min(), places[:, 0].max()], 0, height - 1).astype(int)
    top = max(first - _MARGIN, 0)
    strip = frame[top : last + 1 + _MARGIN]
    calm = _without_strangers(strip)
    mean = np.asarray(cv2.boxFilter(calm, cv2.CV_32F, _BOX), dtype=np.float32)
    square = np.asarray(cv2.sqrBoxFilter(calm, cv2.CV_32F, _BOX), dtype=np.float32)
    share = np.asarray(cv2.blur(cv2.LUT(strip, _not_clipped(white)), _BOX), dtype=np.uint8)
    nearest = np.rint(places)
    rows, columns = nearest.T
    inside = (rows >= RADIUS) & (rows < height - RADIUS)
    inside &= (columns >= RADIUS) & (columns < width - RADIUS)
    index = (rows - top) * width + columns
    index = np.where(inside, index, 0.0).astype(np.int64)  # exact: a band has few pixels

    def at_places(plane: NDArray[Any]) -> NDArray[Any]:
        return plane.reshape(-1, channels).take(index, axis=0)

    here = at_places(mean)
    rough = np.sqrt(np.maximum(at_places(square) - here * here, 0.0))
    if (nearest == places).all():
        level = here
    else:
        level = look_up(mean, places - np.array([top, 0], dtype=np.float32), cv2.INTER_LINEAR)
    clipped = at_places(share) < 255.0 * (1.0 - CLIPPED_SHARE)
    np.copyto(level, np.nan, where=clipped | ~inside[:, np.newaxis])
    return level, rough


def _not_clipped(white: Codes) -> Codes:
    codes = np.arange(CODES)[:, np.newaxis]
    table: Codes = np.where((codes > BLACK) & (codes < white), 255, 0).astype(np.uint8)
    return table[np.newaxis]


def _without_strangers(strip: Codes) -> Codes:
    """Put the median of 3 × 3 pixels where one is far from it, measured by those around."""
    middle = cv2.medianBlur(strip, 3).reshape(strip.shape)
    distance = cv2.absdiff(strip, middle).reshape(strip.shape)
    limit = cv2.convertScaleAbs(cv2.blur(distance, _BOX), alpha=4.0, beta=6.0)
    return np.where(distance > limit.reshape(strip.shape), middle, strip)


def look_up(plane: Floats, places: Floats, interpolation: int) -> Floats:
    """Take a plane's values at places between pixels; beyond its edges the edge goes on.

    Parameters
    ----------
    plane : ndarray, shape (H, W) or (H, W, C), float32
    places : ndarray, shape (P, 2), float32
        Row and column.
    interpolation : int
        `cv2.INTER_NEAREST` or `cv2.INTER_LINEAR`.

    Returns
    -------
    ndarray, shape (P, C), float32
    """
    missing = -len(places) % _REMAP_WIDTH
    rows, columns = (np.pad(axis, (0, missing)).reshape(-1, _REMAP_WIDTH) for axis in places.T)
    found = cv2.remap(plane, columns, rows, interpolation, None, cv2.BORDER_REPLICATE)
    channels = plane.shape[2] if plane.ndim == 3 else 1
    return np.asarray(found, dtype=np.float32).reshape(-1, channels)[: len(places)]
