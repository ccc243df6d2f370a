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

    Channels are fused one after the other, and weights of many exposures are computed twice
    rather than kept: besides the frames it needs the memory of about 20 frames, for any number.

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
    # Codes as 0 … 1.
    unit = (np.arange(256) if table is None else table) * np.float32(1 / 255)
    unit = np.asarray(unit, dtype=np.float32)
    total = np.zeros((height, width), np.float32)
    kept: list[Plane] = []
    for frame in frames:
        weight = _weight(frame, unit)
        total += weight
        if len(frames) <= _KEPT_WEIGHTS:
            kept.append(weight)
    fused: list[list[Plane]] = [[] for _ in range(channels)]
    for number, frame in enumerate(frames):
        weight = kept[number] if kept else _weight(frame, unit)
        weight /= total
        shares = _pyramid(weight, levels)
        if kept:
            kept[number] = total  # the weight itself is no longer needed
        for channel, sums in enumerate(fused):
            bands = _laplacian_pyramid(_levels(frame[..., channel], unit), levels)
            for level, (band, share) in enumerate(zip(bands, shares, strict=True)):
                band *= share
                if len(sums) == level:
                    sums.append(band)
                else:
                    sums[level] += band
    del kept, total, shares, bands
    result = np.empty((height, width, channels), np.float32)
    for channel, sums in enumerate(fused):
        result[..., channel] = _collapsed(sums)
    return result


def _weight(frame: NDArray[np.uint8], unit: Plane) -> Plane:
    """Contrast (absolute Laplacian of the grey picture) times saturation (spread of colours)."""
    if frame.shape[2] == 1:
        weight = np.abs(_laplacian(_levels(frame[..., 0], unit)))
    else:
        # OpenCV's fusion takes its first channel for red; so do we, to give its pictures.
        grey = np.asarray(cv2.cvtColor(_levels(frame, unit), cv2.COLOR_RGB2GRAY), dtype=np.float32)
        weight = np.abs(_laplacian(grey))
        planes = [_levels(frame[..., c], unit) for c in range(3)]
        mean = np.add(planes[0], planes[1], out=grey)
        mean += planes[2]
        mean *= np.float32(1 / 3)
        spread = np.zeros_like(mean)
        for plane in planes:
            plane -= mean
            plane *= plane
            spread += plane
        weight *= np.sqrt(spread, out=spread)
    weight += _TINY_WEIGHT
    return weight


def _levels(codes: NDArray[np.uint8], unit: Plane) -> Plane:
    """Look codes up; OpenCV's function needs no copy of them as wide indices."""
    return np.asarray(cv2.LUT(np.ascontiguousarray(codes), unit), dtype=np.float32)


def _laplacian(plane: Plane) -> Plane:
    return np.asarray(cv2.Laplacian(plane, cv2.CV_32F), dtype=np.float32)


def _pyramid(plane: Plane, levels: int) -> list[Plane]:
    pyramid = [plane]
    for _ in range(levels):
        pyramid.append(np.asarray(cv2.pyrDown(pyramid[-1]), dtype=np.float32))
    return pyramid


def _laplacian_pyramid(plane: Plane, levels: int) -> list[Plane]:
    """What each level of the pyramid adds to the next coarser one; the coarsest as it is."""
    pyramid = _pyramid(plane, levels)
    for finer, coarser in pairwise(pyramid):
        finer -= _up(coarser, finer)
    return pyramid


def _collapsed(pyramid: list[Plane]) -> Plane:
    """Add up the levels of a Laplacian pyramid, which is emptied."""
    result = pyramid.pop()
    while pyramid:
        finer = pyramid.pop()
        finer += _up(result, finer)
        result = finer
    return result


def _up(coarse: Plane, like: Plane) -> Plane:
    """Enlarge a level to the size of another."""
    size = (like.shape[1], like.shape[0])
    return np.asarray(cv2.pyrUp(coarse, dstsize=size), dtype=np.float32)
