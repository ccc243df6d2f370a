"""The same places seen in every exposure of a bracket, and the tables that solvers run over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

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
