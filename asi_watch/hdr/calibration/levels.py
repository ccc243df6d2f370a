"""Codes finer than one: the mean of what surrounds a place, without what does not belong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

# What surrounds a place is RADIUS pixels each way; it tells no level when more than a tenth of it
# is clipped (codes up to BLACK, or from WHITE on).
RADIUS = 2
BLACK, WHITE = 1, 253
_CLIPPED_SHARE = 0.1
_CHUNK = 1 << 12
_SIDE = 2 * RADIUS + 1
_REMAP_WIDTH = 1 << 12  # OpenCV's remap takes maps of at most 32767 in either direction
# Every thread holds memory of its own, and a calibration is not to take a whole machine.
_THREADS = 2

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")


def together(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the same work on several items in two threads: numpy and OpenCV work outside the lock."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="calibration") as pool:
        return list(pool.map(work, items))


def blocks(count: int, size: int = _CHUNK) -> list[slice]:
    """Cut `count` rows into slices of at most `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def read_levels(
    frame: Codes, places: Floats, white: Codes | None = None
) -> tuple[Floats, NDArray[np.float16]]:
    """Read the level around places that may lie between pixels.

    Pixels far from the median of their surroundings (hot pixels, glints, birds) are left out, and
    the mean is moved along the local slope to the exact place.

    Parameters
    ----------
    frame : ndarray, shape (H, W, C), uint8
    places : ndarray, shape (P, 2), float32
        Row and column.
    white : ndarray, shape (C,), uint8, optional
        Codes from which on pixels are clipped; without it only those near 255.

    Returns
    -------
    levels : ndarray, shape (P, C), float32
        NaN where the surroundings leave the picture or are clipped.
    roughness : ndarray, shape (P, C), float16
        Standard deviation of the pixels used.
    """
    height, width, channels = frame.shape
    levels = np.full((len(places), channels), np.nan, dtype=np.float32)
    roughness = np.zeros((len(places), channels), dtype=np.float16)
    if min(height, width) < _SIDE:
        return levels, roughness
    frame = np.ascontiguousarray(frame)
    limit = np.full(channels, WHITE, dtype=np.uint8) if white is None else white

    def work(part: slice) -> None:
        levels[part], roughness[part] = _read_chunk(frame, places[part], limit)

    together(work, blocks(len(places)))
    return levels, roughness


def _read_chunk(
    frame: Codes, places: Floats, white: Codes
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    height, width, channels = frame.shape
    nearest = np.rint(places).astype(np.int64)
    centre = np.clip(nearest, RADIUS, np.array([height, width]) - 1 - RADIUS)
    outside = (centre != nearest).any(axis=1)
    patches = _patches(frame, centre)
    middle = _median(patches)
    distance = np.maximum(patches, middle) - np.minimum(patches, middle)
    # Wide enough that the upper tail of a texture stays: without it the mean would be too low.
    belongs = distance <= 6 + 5 * _median(distance).astype(np.uint16)
    number, down_number, right_number = _moments(belongs)
    values = patches * belongs.astype(np.float32)
    total, down_total, right_total = _moments(values)
    mean = total / number
    square = (values * values).sum(axis=(0, 1)) / number
    roughness = np.sqrt(np.maximum(square - mean * mean, 0.0))
    # Slope of a plane through the pixels used, as the plain sums give it.
    spread = float(_SIDE * sum(k * k for k in range(-RADIUS, RADIUS + 1)))
    offset = np.repeat(places - centre, channels, axis=0)
    level = mean + (down_total - mean * down_number) / spread * offset[:, 0]
    level += (right_total - mean * right_number) / spread * offset[:, 1]
    unusable = (patches >= np.tile(white, len(places))) | (patches <= BLACK)
    clipped = unusable.sum(axis=(0, 1), dtype=np.uint8)
    level[(clipped > _CLIPPED_SHARE * _SIDE**2) | np.repeat(outside, channels)] = np.nan
    shape = (len(places), channels)
    return level.reshape(shape), roughness.reshape(shape)


def _patches(frame: Codes, centre: NDArray[np.int64]) -> Codes:
    """Surroundings of places, shape (5, 5, P · C): the long axis last, where numpy is fast."""
    height, width, channels = frame.shape
    span = np.arange(-RADIUS, RADIUS + 1)
    steps = span[:, np.newaxis] * width + span
    index = steps[:, :, np.newaxis] + (centre[:, 0] * width + centre[:, 1])
    pixels = frame.reshape(height * width, channels).take(index, axis=0)
    return np.asarray(pixels.reshape(_SIDE, _SIDE, -1), dtype=np.uint8)


def _median(patches: Codes) -> Codes:
    columns = np.ascontiguousarray(patches.reshape(_SIDE**2, -1).T)
    half = _SIDE**2 // 2
    columns.partition(half, axis=1)
    return np.ascontiguousarray(columns[:, half])


def _moments(values: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """Sum over each patch, and the sums weighted by the step down and to the right."""
    down = values.sum(axis=1, dtype=np.float32).astype(np.float64)
    right = values.sum(axis=0, dtype=np.float32).astype(np.float64)
    weighted = partial(np.tensordot, np.arange(-RADIUS, RADIUS + 1.0), axes=1)
    return down.sum(axis=0), weighted(down), weighted(right)


def look_up(plane: Floats, places: Floats) -> Floats:
    """Take a plane's nearest values at places; beyond its edges the edge goes on.

    Parameters
    ----------
    plane : ndarray, shape (H, W, C), float32
    places : ndarray, shape (P, 2), float32
        Row and column.

    Returns
    -------
    ndarray, shape (P, C), float32
    """
    missing = -len(places) % _REMAP_WIDTH
    rows, columns = (np.pad(axis, (0, missing)).reshape(-1, _REMAP_WIDTH) for axis in places.T)
    found = cv2.remap(plane, columns, rows, cv2.INTER_NEAREST, None, cv2.BORDER_REPLICATE)
    return np.asarray(found, dtype=np.float32).reshape(-1, plane.shape[2])[: len(places)]
