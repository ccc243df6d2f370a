"""Which places of a picture a response curve is calibrated from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.patches import read_roughness
from asi_watch.hdr.calibration.samples import CODES
from asi_watch.hdr.calibration.workers import blocks, together

_CROWD = 20  # candidates for each place that "flat" chooses
_BANDS, _CELLS = 32, 4
_GROUPS = _BANDS * _CELLS**2
_DARK, _BRIGHT = 8, 247
_ENOUGH = 3  # exposures that tell something of a place; more are no better
_ROUGHNESS_BITS = 10
_MARKS = (_ENOUGH + 1) << _ROUGHNESS_BITS
_BLOCK = 1 << 17

Codes = NDArray[np.uint8]
Indices = NDArray[np.int64]


def by_chance(allowed: Indices, count: int, rng: np.random.Generator) -> Indices:
    """Choose `count` of the flat indices `allowed`, or all if there are fewer."""
    if count >= allowed.size:
        return allowed
    chosen: Indices = rng.choice(allowed, size=count, replace=False, shuffle=False)
    return chosen


def by_histogram(frame: Codes, allowed: Indices, count: int, rng: np.random.Generator) -> Indices:
    """Choose as many places from each code of the mean channel as the picture has.

    Parameters
    ----------
    frame : ndarray, shape (H, W, C), uint8
        Contiguous.
    allowed : ndarray of int64
        Flat indices of the pixels to choose from.
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int64
        Flat indices, in no order.
    """
    codes = np.empty(allowed.size, dtype=np.uint8)

    def work(part: slice) -> None:
        codes[part] = _total(frame, allowed[part]) // frame.shape[2]

    together(work, blocks(allowed.size, _BLOCK))
    return allowed[_some_of_each(codes, _in_turn(np.bincount(codes), count), rng)]


def by_flatness(
    frames: Sequence[Codes], allowed: Indices, count: int, rng: np.random.Generator
) -> Indices:
    """Choose of a random crowd the flattest places of every intensity and part of the picture.

    As many from each as the picture has: a curve must serve the picture as it is, and where a
    camera breaks the model (flare, film) places spread evenly over intensities do not stand for it.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        Contiguous, ascending exposure time.
    allowed, count, rng
        As for `by_histogram`.

    Returns
    -------
    ndarray of int64
        Flat indices, in no order.
    """
    crowd = by_chance(allowed, _CROWD * count, rng)
    if crowd is not allowed:
        crowd.sort()  # neighbours in the picture are neighbours in memory
    if count >= crowd.size:
        return crowd
    group, mark = _judged(frames, crowd)
    found = np.bincount(group * np.int64(_MARKS) + mark, minlength=_GROUPS * _MARKS)
    up_to = np.cumsum(found.reshape(_GROUPS, _MARKS), axis=1)
    wanted = _in_proportion(up_to[:, -1], count)
    # In each group every place with a mark below the limit, and some of those that have it.
    limit = (up_to < wanted[:, np.newaxis]).sum(axis=1)
    below = np.where(limit > 0, np.take_along_axis(up_to, limit[:, np.newaxis] - 1, 1)[:, 0], 0)
    limit_of = limit.astype(np.uint16)[group]
    ties = np.flatnonzero(mark == limit_of)
    ties = ties[_some_of_each(group[ties], wanted - below, rng)]
    return np.concatenate([crowd[mark < limit_of], crowd[ties]])


def _judged(
    frames: Sequence[Codes], crowd: Indices
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Group of each place, by intensity and part of the picture, and a mark: the less, the better.

    The mark is led by the number of exposures that tell something of the place.
    """
    height, width, channels = frames[0].shape
    places = np.empty((crowd.size, 2), dtype=np.float32)
    group = np.empty(crowd.size, dtype=np.uint16)
    mark = np.empty(crowd.size, dtype=np.uint16)

    def work(part: slice) -> None:
        rows, columns = np.divmod(crowd[part], width)
        places[part, 0], places[part, 1] = rows, columns
        useful = np.zeros(rows.size, dtype=np.uint8)
        total = np.zeros(rows.size, dtype=np.uint32)
        for frame in frames:
            seen = _total(frame, crowd[part])
            useful += (seen > channels * _DARK) & (seen < channels * _BRIGHT)
            total += seen
        # The mean over all exposures rises with the irradiance from the deepest shade to the sun.
        band = total * np.float32(_BANDS / (CODES * channels * len(frames)))
        cell = (rows * _CELLS // height) * _CELLS + columns * _CELLS // width
        group[part] = band.astype(np.uint16) * np.uint16(_CELLS**2) + cell.astype(np.uint16)
        mark[part] = _ENOUGH - np.minimum(useful, _ENOUGH)

    together(work, blocks(crowd.size, _BLOCK))
    roughness = read_roughness(frames[len(frames) // 2], places)
    # The bits of a float16 that is not negative rise with it, in steps of three per cent here.
    steps = roughness.view(np.uint16) >> 5
    mark <<= _ROUGHNESS_BITS
    mark += np.minimum(steps, (1 << _ROUGHNESS_BITS) - 1)
    return group, mark


def _total(frame: Codes, index: Indices) -> NDArray[np.uint16]:
    """Sum of the channels."""
    pixels = frame.reshape(-1, frame.shape[2]).take(index, axis=0)
    total = pixels[:, 0].astype(np.uint16)
    for channel in range(1, pixels.shape[1]):
        total += pixels[:, channel]
    return total


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
    low, high = 0.0, 1.0
    for _ in range(64):
        share = (low + high) / 2
        enough = np.floor(share * sizes + 0.5).sum() > count
        low, high = (low, share) if enough else (share, high)
    wanted: Indices = np.minimum(np.floor(low * sizes + 0.5).astype(np.int64), sizes)
    missing = max(0, count - int(wanted.sum()))
    turn = np.where(wanted < sizes, (wanted + 0.5) / np.maximum(sizes, 1), np.inf)
    wanted[np.argsort(turn, kind="stable")[:missing]] += 1
    return wanted


def _some_of_each(
    classes: NDArray[np.unsignedinteger], wanted: Indices, rng: np.random.Generator
) -> Indices:
    """Indices of as many members of each class as are wanted, drawn by chance."""
    by_class = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes, minlength=len(wanted)))
    return np.concatenate(
        [
            by_chance(by_class[end - size : end], number, rng)
            for end, size, number in zip(ends, np.diff(ends, prepend=0), wanted, strict=True)
        ]
    )
