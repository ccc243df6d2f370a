"""The same places seen in every exposure of a bracket, and the tables that solvers run over.

And which of their codes respond to exposure: film base, flare and black level hold dark codes up;
many cameras are white well below 255. There a longer exposure changes nothing, and no response
curve can say why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.disc import SkyDisc

CODES = 256
ANCHOR = CODES // 2  # where g is 0
# Smallest rise of ln exposure from one code to the next: survives float32, is nothing in stops.
SMALLEST_STEP = 1e-4
WHITE = 253  # codes from here on are clipped in any picture
_CHUNK = 1 << 15

Codes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Vector = NDArray[np.float64]
Clips = tuple[int, int]
Item = TypeVar("Item")
Result = TypeVar("Result")
_HIGHEST_FLOOR, _LOWEST_WHITE = 64, 192
_LEAST_PAIRS = 30
_LEAST_RISE = 0.12  # of the code, per stop: a power law of exponent 1/6 still rises faster
_LEAST_BRIGHT_RISE = 5.0  # codes per stop: known cameras rise by 25 and more at code 235
_DARKEST_SHARE = 0.002
_PILED_CODES, _PILED_SHARE = 5, 0.01
_NO_BLACK, _NO_WHITE = 5, 243
_WHITE_NOISE = 3  # codes by which JPEG and noise scatter a white
_LOOK = 1 << 16  # pixels of a picture that tell its white

# For each bracket its exposures' codes or levels, each of shape (P,), and log2 of their times.
Seen = Iterable[tuple[Iterable[NDArray[Any]], Vector]]


def each(
    pool: Executor | None, work: Callable[[Item], Result], items: Iterable[Item]
) -> list[Result]:
    """Do the same work on several items, in the threads of a pool if there is one.

    Parameters
    ----------
    pool : Executor or None
    work : callable
        numpy and OpenCV, which release the interpreter's lock.
    items : iterable
    """
    return list(map(work, items) if pool is None else pool.map(work, items))


@dataclass(frozen=True, eq=False)
class BracketSamples:
    """Places (P) of one bracket, each seen in all of its exposures (N) and channels (C)."""

    codes: Codes
    """The pixel's codes as they are in the files, shape (P, N, C)."""
    exposure_times: Vector
    """Strictly ascending; any unit."""
    positions: NDArray[np.int32]
    """Row and column in the picture, shape (P, 2)."""
    levels: Floats | None = None
    """Mean code of the surroundings, moved places followed; NaN where they cannot be used."""
    roughness: NDArray[np.float16] | None = None
    """Standard deviation of the codes around the place; shape as of codes and levels."""
    motion: Floats | None = None
    """Median displacement (rows, columns) of the places in each exposure, pixels; (N, 2)."""
    white: Codes | None = None
    """Codes from which on the pictures are white, shape (C,)."""
    disc: SkyDisc | None = None
    """What the places were taken from; None: from the whole picture, or from a mask."""

    def __post_init__(self) -> None:
        check_times(self.exposure_times)
        if self.codes.shape[1] != len(self.exposure_times):
            raise ValueError(
                f"{self.codes.shape[1]} exposures sampled, {len(self.exposure_times)} times given"
            )

    @property
    def count(self) -> int:
        """Number of places P."""
        return int(self.codes.shape[0])

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.codes.shape[2])

    def every(self, stride: int) -> BracketSamples:
        """Give every stride-th place, without copying."""
        part = slice(None, None, stride)
        return self._part(part, positions=self.positions[part])

    def inside(self, disc: SkyDisc) -> BracketSamples:
        """Give the places inside a disc, as taken from it."""
        held = disc.holds(*self.positions.T)
        return self._part(held, positions=self.positions[held], disc=disc)

    def without(self, exposures: Flags) -> BracketSamples | None:
        """Leave exposures out; None if fewer than two are left."""
        kept = ~exposures
        if kept.sum() < 2:
            return None
        motion = None if self.motion is None else self.motion[kept]
        times = self.exposure_times[kept]
        return self._part((slice(None), kept), exposure_times=times, motion=motion)

    def _part(self, key: Any, **changed: Any) -> BracketSamples:
        for name in ("codes", "levels", "roughness"):
            values = getattr(self, name)
            changed[name] = None if values is None else values[key]
        return replace(self, **changed)


def check_times(exposure_times: Vector) -> None:
    """Refuse exposure times that no response can be calibrated from, by ValueError.

    Parameters
    ----------
    exposure_times : ndarray, shape (N,)
        At least two, positive and finite, ascending.
    """
    if exposure_times.ndim != 1 or exposure_times.size < 2:
        raise ValueError(
            f"calibration needs at least two exposures of a bracket, got {exposure_times.size}"
        )
    if not (np.isfinite(exposure_times).all() and (exposure_times > 0).all()):
        raise ValueError(
            f"exposure times must be positive and finite, got {exposure_times.tolist()}"
        )
    if np.unique(exposure_times).size == 1:
        raise ValueError(
            f"all exposure times are equal ({exposure_times[0]:g}): "
            "a response needs exposures of different length"
        )
    if (np.diff(exposure_times) <= 0).any():
        raise ValueError(f"exposure times must ascend, none twice: {exposure_times.tolist()}")


@dataclass(frozen=True, eq=False)
class Observations:
    """Places × exposures (P, N) of one channel; shorter brackets are filled up as unusable."""

    codes: Codes  # nearest whole code
    fraction: Floats  # what the level lies above that code, −0.5…0.5
    roughness: NDArray[np.float16]  # standard deviation of the codes around the place
    log_times: Floats  # ln t less the mean ln t of the bracket (the rest belongs to ln E)
    usable: Flags  # at least two per place, or none
    bracket: NDArray[np.int32]  # number of the bracket each place is from, shape (P,)

    def part(self, rows: slice | NDArray[np.integer]) -> Observations:
        """Select places."""
        return Observations(*(getattr(self, field.name)[rows] for field in fields(self)))

    def chunks(self) -> Iterator[Observations]:
        """All places in pieces of bounded size."""
        return (self.part(slice(k, k + _CHUNK)) for k in range(0, len(self.codes), _CHUNK))


def observe(
    samples: Sequence[BracketSamples], channel: int, clips: Clips, *, fine: bool
) -> Observations:
    """Collect one channel of all brackets.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    clips : (int, int)
        Lowest and highest usable code (or level).
    fine : bool
        Use the local levels where the samples have them; else the bare codes.
    """
    exposures = max(len(s.exposure_times) for s in samples)
    parts = []
    for number, bracket in enumerate(samples):
        missing = (0, 0), (0, exposures - len(bracket.exposure_times))
        tables = _observe_bracket(bracket, channel, clips, fine)
        number_of = np.full(bracket.count, number, dtype=np.int32)
        parts.append((*(np.pad(table, missing) for table in tables), number_of))
    return Observations(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _observe_bracket(
    bracket: BracketSamples, channel: int, clips: Clips, fine: bool
) -> tuple[NDArray[Any], ...]:
    """Fields of `Observations` but the last, for one bracket."""
    codes = bracket.codes[:, :, channel]
    fraction, roughness = np.zeros(codes.shape, np.float32), np.zeros(codes.shape, np.float16)
    if fine and bracket.levels is not None and bracket.roughness is not None:
        level = bracket.levels[:, :, channel]
        good = (level >= clips[0]) & (level <= clips[1])  # NaN is neither
        level = np.where(good, level, np.float32(CODES // 2))
        nearest = np.rint(level)
        codes, fraction = nearest.astype(np.uint8), level - nearest
        roughness = np.where(good, bracket.roughness[:, :, channel], np.float16(0.0))
    else:
        good = (codes >= clips[0]) & (codes <= clips[1])
    usable = good & (good.sum(axis=1, keepdims=True) >= 2)
    log_time = np.log(bracket.exposure_times)
    log_times = np.broadcast_to((log_time - log_time.mean()).astype(np.float32), codes.shape)
    return codes, fraction, roughness, log_times, usable


def responsive_range(samples: Sequence[BracketSamples], channel: int, clips: Clips) -> Clips:
    """Find the lowest and highest code from and up to which a longer exposure gives a higher code.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    clips : (int, int)
        Codes outside are not looked at: the range is this or a smaller one.
    """
    rise = _rise_per_stop(
        ((s.codes if s.levels is None else s.levels)[:, :, channel].T, np.log2(s.exposure_times))
        for s in samples
    )
    dead = rise < _LEAST_RISE * np.arange(CODES)
    dead[: clips[0]] = False
    dead[_HIGHEST_FLOOR:] = False
    low = int(np.flatnonzero(dead)[-1]) + 1 if dead.any() else clips[0]
    whites = [bracket.white[channel] for bracket in samples if bracket.white is not None]
    if whites:
        return low, min(clips[1], int(np.median(whites)) - 1)
    codes = ((s.codes[:, :, channel].T, np.log2(s.exposure_times)) for s in samples)
    return low, _below_white(_rise_per_stop(codes), clips[1])


def black_and_white(samples: Sequence[BracketSamples], channel: int, responsive: Clips) -> Clips:
    """Find where the camera's curve begins and ends: 0 and 255 for most.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    responsive : (int, int)
        From `responsive_range`.
    """
    codes = np.concatenate([bracket.codes[:, :, channel].ravel() for bracket in samples])
    counts = np.bincount(codes, minlength=CODES)
    darkest = int(np.quantile(codes, _DARKEST_SHARE))
    # Scenes without shade end at some code as well, but do not pile up there.
    pile = counts[: darkest + _PILED_CODES].sum()
    above = counts[darkest + _PILED_CODES : darkest + 2 * _PILED_CODES].sum()
    piled = pile >= max(_PILED_SHARE * codes.size, above)
    black = min(darkest, _HIGHEST_FLOOR) if piled and darkest > _NO_BLACK else 0
    white = responsive[1] + _WHITE_NOISE if responsive[1] < _NO_WHITE else CODES - 1
    return black, white


def white_codes(frames: Sequence[Codes], exposure_times: ArrayLike) -> Codes:
    """Codes from which on the pictures of a bracket are white, one per channel.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        Contiguous, ascending exposure time.
    exposure_times : array_like, shape (N,)
    """
    stops = np.log2(np.asarray(exposure_times, dtype=np.float64))
    height, width, channels = frames[0].shape
    # A stride that has no factor in common with the width looks at every column.
    stride = max(1, height * width // _LOOK) | 1
    few = [frame.reshape(-1, channels)[::stride].T for frame in frames]
    rises = (_rise_per_stop([([f[k] for f in few], stops)]) for k in range(channels))
    return np.array([_below_white(rise, WHITE - 1) + 1 for rise in rises], dtype=np.uint8)


def _below_white(rise: Vector, highest: int) -> int:
    """From the brightest code that is seen down to the first that still responds."""
    for code in np.flatnonzero(np.isfinite(rise))[::-1]:
        if code < _LOWEST_WHITE:
            break  # nothing responds: that is no white, the exposure times are false
        if rise[code] >= _LEAST_BRIGHT_RISE:
            return min(int(code), highest)
    return highest


def _rise_per_stop(seen: Seen) -> Vector:
    """Codes per stop at each code, by pairs of neighbouring exposures; NaN where there are few.

    A pair counts at the mean of its two codes: noise takes no part in that, while among pairs whose
    *first* code is the same those are many that noise put there, and they do not rise.
    """
    stops, rises, counts = np.zeros(CODES), np.zeros(CODES), np.zeros(CODES)
    pairs = (
        pair
        for values, times in seen
        for pair in zip(pairwise(values), np.diff(times), strict=True)
    )
    for (first, second), width in pairs:
        one, other = first.astype(np.float64), second.astype(np.float64)
        known = np.isfinite(one + other)
        middle = np.rint((one[known] + other[known]) / 2.0).astype(np.intp)
        rises += np.bincount(middle, weights=(other - one)[known], minlength=CODES)
        # What is white in the longer exposure became so within the first stop or later.
        widths = np.where(other[known] < WHITE, width, min(width, 1.0))
        stops += np.bincount(middle, weights=widths, minlength=CODES)
        counts += np.bincount(middle, minlength=CODES)
    enough = counts >= _LEAST_PAIRS
    return np.where(enough, rises / np.where(enough, stops, 1.0), np.nan)
