"""Exposure fusion (Mertens, Kautz, Van Reeth 2007) whose result never differs by a bit.

The same formula as OpenCV's MergeMertens with its default weights, contrast times saturation.
That one adds its exposures in whatever order its threads come: floats that round differently from
run to run, and up to one code of 16 bit. Here the exposures are added in the order given, each
step made by OpenCV's functions for one picture, which give every pixel the same bits however many
threads they use.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

# Keeps the sum of the weights above zero where no exposure has contrast or colour.
_TINY_WEIGHT = np.float32(1e-12)

Plane = NDArray[np.float32]


def fuse_exposures(frames: Sequence[NDArray[np.uint8]]) -> Plane:
    """Fuse exposures by contrast and saturation, in Laplacian pyramids.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        C 1 or 3; BGR. The order counts in the last bit.

    Returns
    -------
    ndarray, shape (H, W, C), float32
        About 0 … 1, and somewhat beyond.
    """
    height, width, channels = frames[0].shape
    levels = int(np.log2(min(height, width)))
    weights = [_weight(frame) for frame in frames]
    total = weights[0].copy()
    for weight in weights[1:]:
        total += weight
    fused: list[Plane] = []
    for frame, weight in zip(frames, weights, strict=True):
        weight /= total
        bands = _laplacian_pyramid(_unit(frame), levels)
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


def _unit(frame: NDArray[np.uint8]) -> Plane:
    """Codes as 0 … 1."""
    return np.multiply(frame, np.float32(1 / 255), dtype=np.float32)


def _weight(frame: NDArray[np.uint8]) -> Plane:
    """Contrast (absolute Laplacian of the grey picture) times saturation (spread of colours)."""
    picture = _unit(frame)
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
