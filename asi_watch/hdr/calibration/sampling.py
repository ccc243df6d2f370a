"""Choosing the places of a bracket that a response curve is calibrated from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.answering import white_codes
from asi_watch.hdr.calibration.choosing import by_chance, by_flatness, by_histogram
from asi_watch.hdr.calibration.motion import follow
from asi_watch.hdr.calibration.patches import read_levels
from asi_watch.hdr.calibration.samples import BracketSamples, check_times

SampleTechnique = Literal["random", "histogram", "flat"]

Mask = NDArray[np.bool_]

_MOTION_PLACES = 10_000


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
        middle exposure. "flat" (recommended): of every intensity and every part of the picture
        the places that are locally flat, neither dark nor saturated in most exposures.
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
        chosen = by_chance(allowed, count, rng)
    elif technique == "histogram":
        chosen = by_histogram(frames[len(frames) // 2], allowed, count, rng)
    elif technique == "flat":
        chosen = by_flatness(frames, allowed, count, rng)
    else:
        names = ", ".join(get_args(SampleTechnique))
        raise ValueError(f"sample technique '{technique}' is unknown: use one of {names}")
    chosen = np.sort(chosen)
    positions = np.stack(np.divmod(chosen, frames[0].shape[1]), axis=1).astype(np.int32)
    places = positions.astype(np.float32)
    del allowed  # as large as a picture, and the tables to come are large as well
    shape = (chosen.size, len(frames), frames[0].shape[2])
    codes = np.empty(shape, dtype=np.uint8)
    levels = np.empty(shape, dtype=np.float32)
    roughness = np.empty(shape, dtype=np.float16)
    motion = np.empty((len(frames), 2), dtype=np.float32)
    white = white_codes(frames, times[order])
    few = slice(None, None, max(1, len(places) // _MOTION_PLACES))
    for n, track in follow(frames, places):
        codes[:, n] = frames[n].reshape(-1, shape[2]).take(chosen, axis=0)
        read_levels(frames[n], track, levels[:, n], roughness[:, n], white)
        motion[n] = np.median(track[few] - places[few], axis=0)
    return BracketSamples(
        codes=codes,
        exposure_times=times[order],
        positions=positions,
        levels=levels,
        roughness=roughness,
        motion=motion,
        white=white,
    )


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
    return [np.ascontiguousarray(image) for image in images]


def _allowed(shape: tuple[int, ...], mask: Mask | None) -> NDArray[np.int64]:
    if mask is None:
        return np.arange(shape[0] * shape[1], dtype=np.int64)
    allowed = np.flatnonzero(mask)
    if allowed.size == 0:
        raise ValueError("the mask leaves no pixel to sample")
    return allowed
