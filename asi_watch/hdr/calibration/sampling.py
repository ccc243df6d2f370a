"""Choosing the places of a bracket that a response curve is calibrated from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.samples import BracketSamples, check_times

SampleTechnique = Literal["random", "histogram", "flat"]

Mask = NDArray[np.bool_]


def sample_bracket(
    images: Sequence[NDArray[np.uint8]],
    exposure_times: ArrayLike,
    *,
    technique: SampleTechnique,
    count: int,
    rng: np.random.Generator,
    mask: Mask | None = None,
) -> BracketSamples:
    """Choose places and read them in every exposure of one bracket.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, C), uint8
        One per exposure, any order.
    exposure_times : array_like, shape (N,)
        Positive, any unit.
    technique : {"random", "histogram", "flat"}
        "random": anywhere with equal chance. "histogram": spread evenly over the codes of the
        middle exposure. "flat" (recommended): spread over intensities and over the picture, from
        places that are locally flat, neither dark nor saturated in most exposures.
    count : int
        Number of places.
    rng : numpy.random.Generator
    mask : ndarray, shape (H, W), bool, optional
        True where places may be taken from (the sky disc).

    Returns
    -------
    BracketSamples

    Raises
    ------
    ValueError
        Unusable exposure times, images that differ in shape, or a mask that allows nothing.
    """
    times = np.asarray(exposure_times, dtype=np.float64)
    check_times(times)
    frames = _checked_frames(images, times, mask)
    if count < 1:
        raise ValueError(f"at least one sample per bracket is needed, got {count}")
    order = np.argsort(times, kind="stable")
    if (np.diff(times[order]) <= 0).any():
        raise ValueError(f"a bracket holds the same exposure time twice: {times[order].tolist()}")
    frames = [frames[i] for i in order]
    allowed = _allowed(frames[0].shape[:2], mask)
    if technique == "random":
        chosen = rng.choice(allowed, size=min(count, allowed.size), replace=False)
    elif technique == "histogram":
        chosen = _by_histogram(frames[len(frames) // 2], allowed, count, rng)
    elif technique == "flat":
        chosen = _by_flatness(frames, allowed, count, rng)
    else:
        names = ", ".join(get_args(SampleTechnique))
        raise ValueError(f"sample technique '{technique}' is unknown: use one of {names}")
    rows, columns = np.divmod(np.sort(chosen), frames[0].shape[1])
    codes = np.stack([frame[rows, columns] for frame in frames], axis=1)
    positions = np.stack([rows, columns], axis=1).astype(np.int32)
    return BracketSamples(codes, times[order], positions)


def _checked_frames(
    images: Sequence[NDArray[np.uint8]], times: NDArray[np.float64], mask: Mask | None
) -> list[NDArray[np.uint8]]:
    if len(images) != len(times):
        raise ValueError(f"{len(images)} images but {len(times)} exposure times")
    shape = images[0].shape
    if len(shape) != 3:
        raise ValueError(f"images must have shape (H, W, C), got {shape}")
    for image in images:
        if image.dtype != np.uint8:
            raise ValueError(f"images must be uint8, got {image.dtype}")
        if image.shape != shape:
            raise ValueError(f"images of a bracket differ in shape: {shape} and {image.shape}")
    if mask is not None and mask.shape != shape[:2]:
        raise ValueError(f"the mask has shape {mask.shape}, the images {shape[:2]}")
    return list(images)


def _allowed(shape: tuple[int, ...], mask: Mask | None) -> NDArray[np.int64]:
    if mask is None:
        return np.arange(shape[0] * shape[1], dtype=np.int64)
    allowed = np.flatnonzero(mask)
    if allowed.size == 0:
        raise ValueError("the mask leaves no pixel to sample")
    return allowed


def _by_histogram(
    frame: NDArray[np.uint8], allowed: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """As many places from each code of the mean channel as the picture has."""
    level = frame.mean(axis=2).astype(np.uint8).ravel()[allowed]
    return _spread(allowed, level.astype(np.int64), count, rng)


def _spread(
    places: NDArray[np.int64], classes: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw places so that every class gets an equal share as far as it has places."""
    order = rng.permutation(places.size)
    by_class = order[np.argsort(classes[order], kind="stable")]
    sizes = np.bincount(classes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.arange(places.size) - np.repeat(starts, sizes)
    # Rank by rank through all classes: the n-th place of every class before any (n+1)-th.
    chosen = by_class[np.argsort(rank, kind="stable")[:count]]
    return places[chosen]


def _by_flatness(
    frames: list[NDArray[np.uint8]],
    allowed: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Of a random crowd the flattest places, spread over the codes of the middle exposure."""
    crowd = rng.choice(allowed, size=min(allowed.size, 20 * count), replace=False)
    middle = frames[len(frames) // 2]
    mean = cv2.blur(middle, (5, 5)).astype(np.float32)
    square = cv2.blur(middle.astype(np.float32) ** 2, (5, 5))
    rough = np.maximum(square - mean**2, 0.0).max(axis=2).ravel()[crowd]
    crowd = crowd[rough <= np.quantile(rough, 0.5)]
    return _by_histogram(middle, crowd, count, rng)
