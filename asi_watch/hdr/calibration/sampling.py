"""Choosing the places of a bracket that a response curve is calibrated from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.motion import follow
from asi_watch.hdr.calibration.patches import read_levels
from asi_watch.hdr.calibration.samples import BracketSamples, check_times

SampleTechnique = Literal["random", "histogram", "flat"]

Mask = NDArray[np.bool_]

_CROWD = 20  # candidates for each place that "flat" chooses
_BANDS, _CELLS = 32, 4
_MOTION_PLACES = 10_000
_DARK, _BRIGHT = 8, 247


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
        chosen = rng.choice(allowed, size=min(count, allowed.size), replace=False, shuffle=False)
    elif technique == "histogram":
        chosen = _by_histogram(frames[len(frames) // 2], allowed, count, rng)
    elif technique == "flat":
        chosen = _by_flatness(frames, allowed, count, rng)
    else:
        names = ", ".join(get_args(SampleTechnique))
        raise ValueError(f"sample technique '{technique}' is unknown: use one of {names}")
    rows, columns = np.divmod(np.sort(chosen), frames[0].shape[1])
    positions = np.stack([rows, columns], axis=1).astype(np.int32)
    rows, columns = positions.T
    del allowed, chosen  # as large as a picture, and the tables to come are large as well
    shape = (len(rows), len(frames), frames[0].shape[2])
    codes = np.empty(shape, dtype=np.uint8)
    levels = np.empty(shape, dtype=np.float32)
    roughness = np.empty(shape, dtype=np.float16)
    motion = np.empty((len(frames), 2), dtype=np.float32)
    places = positions.astype(np.float32)
    few = slice(None, None, max(1, len(places) // _MOTION_PLACES))
    for n, track in follow(frames, places):
        codes[:, n] = frames[n][rows, columns]
        levels[:, n], roughness[:, n] = read_levels(frames[n], track)
        motion[n] = np.median(track[few] - places[few], axis=0)
    return BracketSamples(
        codes=codes,
        exposure_times=times[order],
        positions=positions,
        levels=levels,
        roughness=roughness,
        motion=motion,
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
    shuffled = rng.permutation(allowed)
    level = frame.mean(axis=2).astype(np.int64).ravel()[shuffled]
    return shuffled[_in_turn(level)[:count]]


def _in_turn(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order that takes the first of every class, then the second of every class, and so on."""
    by_class = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes)
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(classes.size) - np.repeat(starts, sizes)
    return by_class[np.argsort(rank, kind="stable")]


def _by_flatness(
    frames: list[NDArray[np.uint8]],
    allowed: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Of a random crowd the flattest places of every intensity and every part of the picture.

    As many from each as the picture has: a curve must serve the picture as it is, and where a
    camera breaks the model (flare, film) places spread evenly over intensities do not stand for it.
    """
    crowd = rng.choice(allowed, size=min(allowed.size, _CROWD * count), replace=False)
    height, width = frames[0].shape[:2]
    rows, columns = np.divmod(crowd, width)
    seen = np.stack([frame[rows, columns].mean(axis=1) for frame in frames], axis=1)
    useful = ((seen > _DARK) & (seen < _BRIGHT)).sum(axis=1)
    places = np.stack([rows, columns], axis=1).astype(np.float32)
    roughness = read_levels(frames[len(frames) // 2], places)[1].max(axis=1)
    # The mean over all exposures rises with the irradiance from the deepest shade to the sun.
    band = (seen.mean(axis=1) * (_BANDS / 256.0)).astype(np.int64)
    cell = (rows * _CELLS // height) * _CELLS + columns * _CELLS // width
    group = band * _CELLS**2 + cell
    best = np.lexsort((roughness, -np.minimum(useful, 3), group))
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(group.size) - starts[group[best]]
    order = np.argsort((rank + 0.5) / sizes[group[best]], kind="stable")
    return crowd[best[order[:count]]]
