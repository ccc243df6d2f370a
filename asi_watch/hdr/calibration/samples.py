"""The same places seen in every exposure of a bracket, and the tables that solvers run over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.disc import SkyDisc

CODES = 256
_JUDGING_PLACES = 10_000
_STILL_PIXELS = 0.75

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BracketSamples:
    """Places of one bracket, each seen in all of its exposures.

    Parameters
    ----------
    codes : ndarray, shape (P, N, C), uint8
        The pixel's codes as they are in the files, exposures in the order of `exposure_times`.
    exposure_times : ndarray, shape (N,), float64
        Positive, strictly ascending; any unit.
    positions : ndarray, shape (P, 2), int32
        Row and column in the picture.
    levels : ndarray, shape (P, N, C), float32, optional
        Mean code of the surroundings, finer than one code, moved places followed; NaN where they
        cannot be used. None: the bare codes are all there is.
    roughness : ndarray, shape (P, N, C), float16, optional
        Standard deviation of the codes around the place: the less, the safer.
    motion : ndarray, shape (N, 2), float32, optional
        Median displacement (rows, columns) of the places in each exposure, pixels.
    white : ndarray, shape (C,), uint8, optional
        Codes from which on the pictures are white.
    disc : SkyDisc, optional
        What the places were taken from; None: from the whole picture, or from a mask.
    """

    codes: NDArray[np.uint8]
    exposure_times: Vector
    positions: NDArray[np.int32]
    levels: NDArray[np.float32] | None = None
    roughness: NDArray[np.float16] | None = None
    motion: NDArray[np.float32] | None = None
    white: NDArray[np.uint8] | None = None
    disc: SkyDisc | None = None

    def __post_init__(self) -> None:
        if self.codes.ndim != 3 or self.codes.dtype != np.uint8:
            raise ValueError("sample codes must be uint8 of shape (P, N, C)")
        check_times(self.exposure_times)
        if self.codes.shape[1] != len(self.exposure_times):
            raise ValueError(
                f"{self.codes.shape[1]} exposures sampled, {len(self.exposure_times)} times given"
            )
        if (np.diff(self.exposure_times) <= 0).any():
            raise ValueError("exposure times of samples must ascend")
        for name in ("levels", "roughness"):
            values = getattr(self, name)
            if values is not None and values.shape != self.codes.shape:
                raise ValueError(f"sample {name} must have the shape of the codes")

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
        return self._part(slice(None, None, stride))

    def inside(self, disc: SkyDisc) -> BracketSamples:
        """Give the places inside a disc; they were taken from there, then."""
        rows, columns = self.positions.T
        return replace(self._part(disc.holds(rows, columns)), disc=disc)

    def without(self, exposures: NDArray[np.bool_]) -> BracketSamples | None:
        """Leave exposures out; None if fewer than two are left."""
        kept = ~exposures
        if kept.sum() < 2:
            return None
        return replace(
            self,
            codes=self.codes[:, kept],
            exposure_times=self.exposure_times[kept],
            levels=None if self.levels is None else self.levels[:, kept],
            roughness=None if self.roughness is None else self.roughness[:, kept],
            motion=None if self.motion is None else self.motion[kept],
        )

    def _part(self, part: slice | NDArray[np.bool_]) -> BracketSamples:
        return replace(
            self,
            codes=self.codes[part],
            positions=self.positions[part],
            levels=None if self.levels is None else self.levels[part],
            roughness=None if self.roughness is None else self.roughness[part],
        )


def check_times(exposure_times: Vector) -> None:
    """Refuse exposure times that no response can be calibrated from.

    Raises
    ------
    ValueError
        Fewer than two exposures, a time that is not positive and finite, or all times equal.
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


def common_channels(samples: Sequence[BracketSamples]) -> int:
    """Number of channels of all brackets; ValueError if there is none, or they differ."""
    if not samples:
        raise ValueError("no bracket to calibrate from")
    channels = {s.channels for s in samples}
    if len(channels) != 1:
        raise ValueError(f"brackets differ in their number of channels: {sorted(channels)}")
    return channels.pop()


def thinned(
    samples: Sequence[BracketSamples], places: int = _JUDGING_PLACES
) -> list[BracketSamples]:
    """Keep an even share of the places, at most so many."""
    stride = -(-sum(s.count for s in samples) // places)
    return [s.every(max(stride, 1)) for s in samples]


def is_still(samples: Sequence[BracketSamples]) -> bool:
    """Tell whether nothing moved between exposures that are bright enough to tell."""
    return all(
        s.motion is None or bool((np.median(np.abs(s.motion), axis=0) < _STILL_PIXELS).all())
        for s in samples
    )


@dataclass(frozen=True, eq=False)
class Observations:
    """Places × exposures of one channel; shorter brackets are filled up with unusable entries.

    Attributes
    ----------
    codes : ndarray, shape (P, N), uint8
        Nearest whole code.
    fraction : ndarray, shape (P, N), float32
        What the level lies above that code, −0.5…0.5.
    roughness : ndarray, shape (P, N), float16
        Standard deviation of the codes around the place.
    log_times : ndarray, shape (P, N), float32
        ln t less the mean ln t of the bracket (the rest belongs to ln E).
    usable : ndarray, shape (P, N), bool
        At least two per place, or none.
    bracket : ndarray, shape (P,), int32
        Number of the bracket each place is from.
    """

    codes: NDArray[np.uint8]
    fraction: NDArray[np.float32]
    roughness: NDArray[np.float16]
    log_times: NDArray[np.float32]
    usable: NDArray[np.bool_]
    bracket: NDArray[np.int32]

    def part(self, rows: slice | NDArray[np.integer]) -> Observations:
        """Select places."""
        return Observations(*(getattr(self, field.name)[rows] for field in fields(self)))


def observe(
    samples: Sequence[BracketSamples], channel: int, clips: tuple[int, int], *, fine: bool
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
    parts = [
        _observe_bracket(s, number, channel, clips, exposures, fine)
        for number, s in enumerate(samples)
    ]
    return Observations(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _observe_bracket(
    bracket: BracketSamples,
    number: int,
    channel: int,
    clips: tuple[int, int],
    exposures: int,
    fine: bool,
) -> tuple[NDArray[np.generic], ...]:
    shape = (bracket.count, exposures)
    here = slice(0, len(bracket.exposure_times))
    codes = np.zeros(shape, dtype=np.uint8)
    fraction = np.zeros(shape, dtype=np.float32)
    roughness = np.zeros(shape, dtype=np.float16)
    log_times = np.zeros(shape, dtype=np.float32)
    usable = np.zeros(shape, dtype=np.bool_)
    if fine and bracket.levels is not None and bracket.roughness is not None:
        level = bracket.levels[:, :, channel]
        good = (level >= clips[0]) & (level <= clips[1])  # NaN is neither
        level = np.where(good, level, np.float32(CODES // 2))
        nearest = np.rint(level)
        codes[:, here] = nearest.astype(np.uint8)
        fraction[:, here] = level - nearest
        roughness[:, here] = np.where(good, bracket.roughness[:, :, channel], 0.0)
    else:
        codes[:, here] = bracket.codes[:, :, channel]
        good = (codes[:, here] >= clips[0]) & (codes[:, here] <= clips[1])
    usable[:, here] = good & (good.sum(axis=1, keepdims=True) >= 2)
    log_time = np.log(bracket.exposure_times)
    log_times[:, here] = log_time - log_time.mean()
    number_of = np.full(bracket.count, number, dtype=np.int32)
    return codes, fraction, roughness, log_times, usable, number_of
