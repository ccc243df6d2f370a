"""Codes finer than one: the mean of what surrounds a place, without what does not belong."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import ROUGHEST_MEAN

RADIUS = 2
_CHUNK = 1 << 13
_BLACK, _WHITE = 1, 253
_CLIPPED_SHARE = 0.1
_DENSE = 40  # with more than one place in this many pixels, filtering the whole frame is cheaper
_REMAP_WIDTH = 1 << 12  # OpenCV's remap takes maps of at most 32767 in either direction

Floats = NDArray[np.float32]


def read_levels(frame: NDArray[np.uint8], places: Floats) -> tuple[Floats, Floats]:
    """Read the level around places that may lie between pixels.

    Pixels far from the median of their surroundings (hot pixels, glints, birds) are left out, and
    the mean is moved along the local slope to the exact place.

    Parameters
    ----------
    frame : ndarray, shape (H, W, C), uint8
    places : ndarray, shape (P, 2), float32
        Row and column.

    Returns
    -------
    levels : ndarray, shape (P, C), float32
        NaN where the surroundings leave the picture or are clipped; the pixel's own code where
        they are too rough for a mean.
    roughness : ndarray, shape (P, C), float32
        Standard deviation of the pixels used.
    """
    if len(places) * _DENSE > frame.shape[0] * frame.shape[1]:
        return _read_dense(frame, places)
    levels = np.empty((len(places), frame.shape[2]), dtype=np.float32)
    roughness = np.empty_like(levels)
    for start in range(0, len(places), _CHUNK):
        part = slice(start, start + _CHUNK)
        levels[part], roughness[part] = _read_chunk(frame, places[part])
    return levels, roughness


def _read_chunk(frame: NDArray[np.uint8], places: Floats) -> tuple[Floats, Floats]:
    height, width = frame.shape[:2]
    if min(height, width) < 2 * RADIUS + 1:
        nothing = np.full((len(places), frame.shape[2]), np.nan, dtype=np.float32)
        return nothing, np.zeros_like(nothing)
    nearest = np.rint(places).astype(np.int64)
    centre = np.clip(nearest, RADIUS, np.array([height, width]) - 1 - RADIUS)
    outside = (centre != nearest).any(axis=1)
    span = np.arange(-RADIUS, RADIUS + 1)
    down, right = (axis.ravel() for axis in np.meshgrid(span, span, indexing="ij"))
    pixels = frame[centre[:, :1] + down, centre[:, 1:] + right]  # (P, 25, C)
    clipped = ((pixels >= _WHITE) | (pixels <= _BLACK)).mean(axis=1) > _CLIPPED_SHARE
    values = pixels.astype(np.float32)
    middle = np.median(values, axis=1, keepdims=True)
    distance = np.abs(values - middle)
    belongs = distance <= 3.0 + 4.0 * np.median(distance, axis=1, keepdims=True)
    number = belongs.sum(axis=1)
    mean = np.where(belongs, values, 0.0).sum(axis=1) / number
    rest = np.where(belongs, values - mean[:, np.newaxis], 0.0)
    roughness = np.sqrt((rest**2).sum(axis=1) / number)
    offset = places - centre
    moment = float((down**2).sum())
    level = mean + np.einsum("ikc,k->ic", rest, down / moment) * offset[:, :1]
    level += np.einsum("ikc,k->ic", rest, right / moment) * offset[:, 1:]
    level = np.where(roughness > ROUGHEST_MEAN, values[:, len(down) // 2], level)
    level[clipped | outside[:, np.newaxis]] = np.nan
    return level.astype(np.float32), roughness.astype(np.float32)


def _read_dense(frame: NDArray[np.uint8], places: Floats) -> tuple[Floats, Floats]:
    """The same from whole-frame filters; a median of 3 × 3 does the leaving out."""
    height, width, channels = frame.shape
    nearest = np.rint(places).astype(np.int32)
    limit = np.array([height, width]) - 1 - RADIUS
    outside = ((nearest < RADIUS) | (nearest > limit)).any(axis=1)
    rows, columns = np.clip(nearest, 0, np.array([height, width]) - 1).T
    levels = np.empty((len(places), channels), dtype=np.float32)
    roughness = np.empty_like(levels)
    box = (2 * RADIUS + 1,) * 2
    for channel in range(channels):
        plane = np.ascontiguousarray(frame[:, :, channel])
        calm = np.asarray(cv2.medianBlur(plane, 3), dtype=np.uint8)
        mean = np.asarray(cv2.boxFilter(calm, cv2.CV_32F, box), dtype=np.float32)
        square = np.asarray(cv2.sqrBoxFilter(calm, cv2.CV_32F, box), dtype=np.float32)
        extreme = cv2.inRange(plane, _BLACK + 1, _WHITE - 1)
        share = np.asarray(cv2.blur(extreme, box))[rows, columns]
        level = _between_pixels(mean, places)
        here = mean[rows, columns]
        rough = np.sqrt(np.maximum(square[rows, columns] - here * here, 0.0))
        level = np.where(rough > ROUGHEST_MEAN, plane[rows, columns], level)
        level[outside | (share < 255.0 * (1.0 - _CLIPPED_SHARE))] = np.nan
        levels[:, channel], roughness[:, channel] = level, rough
    return levels, roughness


def _between_pixels(plane: Floats, places: Floats) -> Floats:
    """Bilinear look-up of many places."""
    missing = -len(places) % _REMAP_WIDTH
    padded = np.pad(places, ((0, missing), (0, 0))).reshape(-1, _REMAP_WIDTH, 2)
    looked_up = cv2.remap(
        plane,
        np.ascontiguousarray(padded[:, :, 1]),
        np.ascontiguousarray(padded[:, :, 0]),
        cv2.INTER_LINEAR,
        None,
        cv2.BORDER_REPLICATE,
    )
    return np.asarray(looked_up, dtype=np.float32).ravel()[: len(places)]
