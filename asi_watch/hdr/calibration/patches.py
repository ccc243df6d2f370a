"""Codes finer than one: the mean of what surrounds a place, without what does not belong."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.dense import Floats, Keep, Which, read_dense
from asi_watch.hdr.calibration.samples import BLACK, CLIPPED_SHARE, RADIUS, WHITE
from asi_watch.hdr.calibration.workers import blocks, together

_CHUNK = 1 << 12
_DENSE = 40  # with more than one place in this many pixels, filtering the whole frame is cheaper
_SIDE = 2 * RADIUS + 1

Codes = NDArray[np.uint8]
Reals = NDArray[np.float64]


def read_levels(
    frame: Codes,
    places: Floats,
    levels: Floats,
    roughness: NDArray[np.floating],
    white: Codes | None = None,
) -> None:
    """Read the level around places that may lie between pixels.

    Pixels far from the median of their surroundings (hot pixels, glints, birds) are left out, and
    the mean is moved along the local slope to the exact place.

    Parameters
    ----------
    frame : ndarray, shape (H, W, C), uint8
    places : ndarray, shape (P, 2), float32
        Row and column.
    levels : ndarray, shape (P, C), float32
        Written: the level, NaN where the surroundings leave the picture or are clipped. It need
        not be contiguous.
    roughness : ndarray, shape (P, C), floating
        Written: standard deviation of the pixels used.
    white : ndarray, shape (C,), uint8, optional
        Codes from which on pixels are clipped; without it only those near 255.
    """

    def keep(which: Which, level: NDArray[np.floating], rough: NDArray[np.floating]) -> None:
        levels[which], roughness[which] = level, rough

    _read(frame, places, white, keep)


def read_roughness(frame: Codes, places: Floats) -> NDArray[np.float16]:
    """Read the roughness around places alone, the roughest channel's.

    Parameters
    ----------
    frame, places
        As for `read_levels`.

    Returns
    -------
    ndarray, shape (P,), float16
    """
    roughness = np.empty(len(places), dtype=np.float16)

    def keep(which: Which, level: NDArray[np.floating], rough: NDArray[np.floating]) -> None:
        roughest = rough[:, 0]
        for channel in range(1, rough.shape[1]):
            roughest = np.maximum(roughest, rough[:, channel])
        roughness[which] = roughest

    _read(frame, places, None, keep)
    return roughness


def _read(frame: Codes, places: Floats, white: Codes | None, keep: Keep) -> None:
    height, width, channels = frame.shape
    if white is None:
        white = np.full(channels, WHITE, dtype=np.uint8)
    if min(height, width) < _SIDE:
        nothing = np.full((len(places), channels), np.nan)
        keep(slice(None), nothing, np.zeros_like(nothing))
        return
    frame = np.ascontiguousarray(frame)
    if len(places) * _DENSE > height * width:
        read_dense(frame, places, white, keep)
        return
    together(
        lambda part: keep(part, *_read_chunk(frame, places[part], white)),
        blocks(len(places), _CHUNK),
    )


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
    level[(clipped > CLIPPED_SHARE * _SIDE**2) | np.repeat(outside, channels)] = np.nan
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


def _moments(values: NDArray[Any]) -> tuple[Reals, ...]:
    """Sum over each patch, and the sums weighted by the step down and to the right."""
    down = values.sum(axis=1, dtype=np.float32).astype(np.float64)
    right = values.sum(axis=0, dtype=np.float32).astype(np.float64)
    weighted = partial(np.tensordot, np.arange(-RADIUS, RADIUS + 1.0), axes=1)
    return down.sum(axis=0), weighted(down), weighted(right)
