"""Exposure fusion (Mertens, Kautz, Van Reeth 2007) with the same bits in every run.

The same formula as OpenCV's MergeMertens with its default weights, contrast times saturation.
OpenCV's adds the exposures in whatever order its threads finish, so that floats round differently
from run to run, by up to one code of 16 bit. Here they are added in the order given, each step by
OpenCV functions for one picture, which give the same bits with any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

# Keeps the sum of the weights above zero where no exposure has contrast or colour.
_TINY_WEIGHT = np.float32(1e-12)
# Weights of more exposures are computed twice rather than kept.
_KEPT_WEIGHTS = 5

Plane = NDArray[np.float32]


def fuse_exposures(
    frames: Sequence[NDArray[np.uint8]], table: NDArray[np.uint8] | None = None
) -> Plane:
    """Fuse exposures by contrast and saturation, in Laplacian pyramids.

    Besides the frames it needs about 100 bytes per pixel, whatever their number.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        C 1 or 3; BGR. The order counts in the last bit.
    table : ndarray, shape (256,), uint8, optional
        What each code becomes first.

    Returns
    -------
    ndarray, shape (H, W, C), float32
        About 0 … 1, and somewhat beyond.
    """
    height, width, channels = frames[0].shape
    levels = int(np.log2(min(height, width)))
    total = np.zeros((height, width), np.float32)
    kept: list[Plane] = []
    for frame in frames:
        weight = _weight(_unit(frame, table))
        total += weight
        if len(kept) < _KEPT_WEIGHTS:
            kept.append(weight)
    fused: list[Plane] = []
    for number, frame in enumerate(frames):
        picture = _unit(frame, table)
        weight = kept[number] if number < len(kept) else _weight(picture)
        weight /= total
        bands = _laplacian_pyramid(picture, levels)
        for level, (band, share) in enumerate(zip(bands, _pyramid(weight, levels), strict=True)):
            band *= share[..., np.newaxis]
            if len(fused) == level:
                fused.append(band)
            else:
                fused[level] += band
    result = fused.pop()
    while fused:
        finer = fused.pop()
        finer += _up(result, finer)
        result = finer
    return result.reshape(height, width, channels)


def _unit(frame: NDArray[np.uint8], table: NDArray[np.uint8] | None) -> Plane:
    """Codes as 0 … 1."""
    if table is not None:
        frame = np.asarray(cv2.LUT(frame, table), dtype=np.uint8).reshape(frame.shape)
    return np.multiply(frame, np.float32(1 / 255), dtype=np.float32)


def _weight(picture: Plane) -> Plane:
    """Contrast (absolute Laplacian of the grey picture) times saturation (spread of colours)."""
    if picture.shape[2] == 1:
        weight = np.abs(_laplacian(picture[..., 0]))
    else:
        # OpenCV's fusion takes its first channel for red; so do we, to give its pictures.
        grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.float32)
        planes = [np.ascontiguousarray(picture[..., c]) for c in range(3)]
        mean = (planes[0] + planes[1] + planes[2]) * np.float32(1 / 3)
        spread = np.zeros_like(mean)
        for plane in planes:
            plane -= mean
            plane *= plane
            spread += plane
        weight = np.abs(_laplacian(grey))
        weight *= np.sqrt(spread, out=spread)
    weight += _TINY_WEIGHT
    return weight


def _laplacian(plane: Plane) -> Plane:
    return np.asarray(cv2.Laplacian(plane, cv2.CV_32F), dtype=np.float32)


def _pyramid(plane: Plane, levels: int) -> list[Plane]:
    pyramid = [plane]
    for _ in range(levels):
        # OpenCV drops the axis of a single channel.
        smaller = np.asarray(cv2.pyrDown(pyramid[-1]), dtype=np.float32)
        pyramid.append(smaller.reshape(*smaller.shape[:2], *plane.shape[2:]))
    return pyramid


def _laplacian_pyramid(picture: Plane, levels: int) -> list[Plane]:
    """What each level of the pyramid adds to the next coarser one; the coarsest as it is."""
    pyramid = _pyramid(picture, levels)
    for finer, coarser in pairwise(pyramid):
        finer -= _up(coarser, finer)
    return pyramid


def _up(coarse: Plane, like: Plane) -> Plane:
    """Blow a level up to the size of another."""
    size = (like.shape[1], like.shape[0])
    return np.asarray(cv2.pyrUp(coarse, dstsize=size), dtype=np.float32).reshape(like.shape)
