"""All brackets' samples of one channel as one table that the solver runs over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import CODES, BracketSamples

Floats = NDArray[np.float32]


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
    fraction: Floats
    roughness: NDArray[np.float16]
    log_times: Floats
    usable: NDArray[np.bool_]
    bracket: NDArray[np.int32]

    def part(self, rows: slice) -> Observations:
        """Select places."""
        return Observations(
            self.codes[rows],
            self.fraction[rows],
            self.roughness[rows],
            self.log_times[rows],
            self.usable[rows],
            self.bracket[rows],
        )


def observe(
    samples: Sequence[BracketSamples],
    channel: int,
    low_clip: int,
    high_clip: int,
    *,
    fine: bool,
) -> Observations:
    """Collect one channel of all brackets.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    low_clip, high_clip : int
        Codes (levels) outside are not usable.
    fine : bool
        Use the local levels where the samples have them; else the bare codes.
    """
    exposures = max(len(s.exposure_times) for s in samples)
    parts = [
        _observe_bracket(s, number, channel, (low_clip, high_clip), exposures, fine)
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
    good &= good.sum(axis=1, keepdims=True) >= 2
    usable[:, here] = good
    log_time = np.log(bracket.exposure_times)
    log_times[:, here] = log_time - log_time.mean()
    return (
        codes,
        fraction,
        roughness,
        log_times,
        usable,
        np.full(bracket.count, number, dtype=np.int32),
    )
