"""Choosing the places of a bracket that a response curve is calibrated from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.levels import read_levels
from asi_watch.hdr.calibration.motion import follow
from asi_watch.hdr.calibration.responsive_codes import white_codes
from asi_watch.hdr.calibration.samples import CODES, BracketSamples, check_times

SampleTechnique = Literal["random", "histogram", "flat"]

# Far fewer already leave the noise below every systematic error.
MOST_PLACES = 60_000
_MOTION_PLACES = 10_000
_CROWD = 20  # candidates for each place that "flat" chooses
_LARGEST_CROWD = 200_000
_BANDS, _CELLS = 32, 4
_GROUPS = _BANDS * _CELLS**2
_DARK, _BRIGHT = 8, 247
_ENOUGH = 3  # exposures that tell something of a place; more are no better

Codes = NDArray[np.uint8]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def sample_bracket(
    images: Sequence[Codes],
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
        Number of places; of more than 60,000 so many are taken.
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
    chosen = _chosen(frames, technique, min(count, MOST_PLACES), rng, mask)
    positions = np.stack(np.divmod(chosen, frames[0].shape[1]), axis=1).astype(np.int32)
    places = positions.astype(np.float32)
    shape = (chosen.size, len(frames), frames[0].shape[2])
    codes = np.empty(shape, dtype=np.uint8)
    levels = np.empty(shape, dtype=np.float32)
    roughness = np.empty(shape, dtype=np.float16)
    motion = np.empty((len(frames), 2), dtype=np.float32)
    white = white_codes(frames, times[order])
    few = slice(None, None, max(1, len(places) // _MOTION_PLACES))
    for n, track in follow(frames, places):
        codes[:, n] = frames[n].reshape(-1, shape[2]).take(chosen, axis=0)
        levels[:, n], roughness[:, n] = read_levels(frames[n], track, white)
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
    images: Sequence[Codes], times: NDArray[np.float64], mask: Mask | None
) -> list[Codes]:
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


def _chosen(
    frames: Sequence[Codes],
    technique: SampleTechnique,
    count: int,
    rng: np.random.Generator,
    mask: Mask | None,
) -> Indices:
    """Flat indices of the places, ascending."""
    height, width = frames[0].shape[:2]
    allowed = np.arange(height * width) if mask is None else np.flatnonzero(mask)
    if allowed.size == 0:
        raise ValueError("the mask leaves no pixel to sample")
    if technique == "random":
        chosen = _by_chance(allowed, count, rng)
    elif technique == "histogram":
        chosen = _by_histogram(frames[len(frames) // 2], allowed, count, rng)
    elif technique == "flat":
        chosen = _by_flatness(frames, allowed, count, rng)
    else:
        names = ", ".join(get_args(SampleTechnique))
        raise ValueError(f"sample technique '{technique}' is unknown: use one of {names}")
    return np.sort(chosen)


def _by_chance(allowed: Indices, count: int, rng: np.random.Generator) -> Indices:
    if count >= allowed.size:
        return allowed
    chosen: Indices = rng.choice(allowed, size=count, replace=False, shuffle=False)
    return chosen


def _by_histogram(frame: Codes, allowed: Indices, count: int, rng: np.random.Generator) -> Indices:
    """As many places from each code of the mean channel, as far as the picture has them."""
    mean = (_total(frame, allowed) // frame.shape[2]).astype(np.uint8)
    wanted = _in_turn(np.bincount(mean, minlength=CODES), count)
    shuffled = rng.permutation(allowed.size)
    return allowed[_first_of_each(shuffled, mean[shuffled], wanted)]


def _by_flatness(
    frames: Sequence[Codes], allowed: Indices, count: int, rng: np.random.Generator
) -> Indices:
    """The flattest places of a random crowd, of every intensity and part of the picture.

    As many from each as the picture has: a curve must serve the picture as it is, and where a
    camera breaks the model (flare, film) places spread evenly over intensities do not stand for it.
    """
    crowd = _by_chance(allowed, min(_CROWD * count, max(_LARGEST_CROWD, count)), rng)
    if count >= crowd.size:
        return crowd
    crowd = rng.permutation(crowd)  # the order decides between equals
    height, width, channels = frames[0].shape
    rows, columns = np.divmod(crowd, width)
    totals = np.stack([_total(frame, crowd) for frame in frames])
    useful = ((totals > channels * _DARK) & (totals < channels * _BRIGHT)).sum(axis=0)
    # The mean over all exposures rises with the irradiance from the deepest shade to the sun.
    band = totals.sum(axis=0) * _BANDS // (CODES * channels * len(frames))
    cell = (rows * _CELLS // height) * _CELLS + columns * _CELLS // width
    group = (band * _CELLS**2 + cell).astype(np.uint16)
    places = np.stack([rows, columns], axis=1).astype(np.float32)
    roughness = read_levels(frames[len(frames) // 2], places)[1].max(axis=1)
    wanted = _in_proportion(np.bincount(group, minlength=_GROUPS), count)
    # The best first: seen in enough exposures, then flat.
    best = np.lexsort((roughness, -np.minimum(useful, _ENOUGH)))
    return crowd[_first_of_each(best, group[best], wanted)]


def _total(frame: Codes, index: Indices) -> NDArray[np.int64]:
    """Sum of the channels."""
    pixels = frame.reshape(-1, frame.shape[2]).take(index, axis=0)
    return np.asarray(pixels.sum(axis=1, dtype=np.int64))


def _in_turn(sizes: Indices, count: int) -> Indices:
    """How many of each class make `count` when every class that has any left gives in turn."""
    left = np.sort(sizes)
    # With the classes that are used up behind them, the others have given `rounds` each.
    before = np.cumsum(left) - left
    rounds = (min(count, int(sizes.sum())) - before) // np.arange(sizes.size, 0, -1)
    full = int(rounds[np.argmax(rounds < left)]) if (rounds < left).any() else int(left[-1])
    wanted: Indices = np.minimum(sizes, full)
    extra = np.flatnonzero(sizes > full)[: max(0, count - int(wanted.sum()))]
    wanted[extra] += 1
    return wanted


def _in_proportion(sizes: Indices, count: int) -> Indices:
    """How many of each class make `count` when every class gives the same share of its size."""
    exact = sizes * min(1.0, count / max(int(sizes.sum()), 1))
    wanted: Indices = np.floor(exact).astype(np.int64)
    missing = min(count, int(sizes.sum())) - int(wanted.sum())
    wanted[np.argsort(wanted - exact, kind="stable")[: max(0, missing)]] += 1
    return wanted


def _first_of_each(
    members: Indices, classes: NDArray[np.unsignedinteger], wanted: Indices
) -> Indices:
    """The first so many members of each class, in the order given."""
    by_class = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes, minlength=len(wanted))
    rank = np.arange(classes.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return members[by_class[rank < np.repeat(wanted, sizes)]]
