"""Whether the stated exposure times agree with each other, and which one is false if not.

A robust fit takes the side of the larger part and calls the rest outliers, or bends where no two
parts meet; neither shows in its residual. So times are made unknowns beside a coarse curve, and
fits with freed times are compared by the loss of *all* observations: in a sound set they explain
hardly more than the stated times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.estimate import CurveTables, centred, gamma_steps
from asi_watch.hdr.calibration.samples import (
    CODES,
    SMALLEST_STEP,
    BracketSamples,
    Clips,
    Flags,
    Floats,
    Observations,
    Vector,
    observe,
)

_PLACES = 1_000
_FEWEST_PLACES = 20
_MOST_SINGLES = 60  # exposures of all brackets, to be freed all at once
_MOST_TIMES = 16
_TRIED_SINGLES = 4
_TRIFLE = 0.07  # stops; corrections below are what motion and nominal times do
_DOUBTED = 0.2  # nominal times are off by up to a tenth, 0.14 stops
_EXPLAINED = 0.25  # of the loss, by one free time, for the stated ones to be doubted
_APART = 0.15  # of what the best explains the next may lack, and still explain it
_FEWEST_LEFT = 3
_LEAST_SEEN = 0.2  # of an exposure's usual number of observations, for it to be doubted
_MISFIT_STOPS = 0.25

# g is a chain of straight pieces between these codes: quick to solve, too coarse to merge with.
_KNOTS = np.unique(np.rint(np.geomspace(8.0, 263.0, 33)) - 8.0)
_PENALTY = 1e-4  # of bends of g along the knots, per observation's weight
_ROUNDS = 8
_OUTLIER = np.float32(2.5)
_LARGEST_CHANGE = 3.0
_MODEL_VARIANCE = 4e-4  # what the coarse curve may miss, ln units squared
_LEAST_SPREAD = 0.05
_LN2 = np.float32(0.6931472)
# What holds a free time at the stated one, as a share of the observations: where many are free,
# and where one is.
_HOLD, _HOLD_ONE = 1e-3, 1e-7
_HELD_FROM = 0.02  # ln units; corrections beyond are not held the more for their size

Groups = NDArray[np.int64]


@dataclass(frozen=True)
class TimeDoubt:
    """A stated exposure time that may be false."""

    bracket: int | None  # None: wherever the time is stated
    exposure_time: float  # as stated
    time_factor: float = 1.0  # the time that fits over the stated one, if this is the false one

    def of(self, number: int, bracket: BracketSamples) -> Flags:
        """Tell which exposures of a bracket this is about."""
        here = self.bracket in (None, number)
        return np.asarray((bracket.exposure_times == self.exposure_time) & here)


@dataclass(frozen=True)
class TimesVerdict:
    """What the images say of the stated times."""

    sure: TimeDoubt | None = None  # the one time that is false
    suspects: tuple[TimeDoubt, ...] = ()  # not sure which one: any would explain the images
    misfits: float = 0.0  # share of observations that no curve explains by the stated times

    def agreeing(self, samples: Sequence[BracketSamples]) -> list[BracketSamples]:
        """Leave out the exposures with the false time, and brackets of which one is left.

        Their time could be put right instead, but only as exactly as these very images tell it.
        """
        if self.sure is None:
            return list(samples)
        left = (s.without(self.sure.of(number, s)) for number, s in enumerate(samples))
        return [s for s in left if s is not None]


def judge_times(samples: Sequence[BracketSamples], clips: Sequence[Clips]) -> TimesVerdict:
    """Ask whether a curve with one time freed explains far more than one with none.

    Parameters
    ----------
    samples : sequence of BracketSamples
    clips : sequence of (int, int)
        Lowest and highest code of each channel to judge by.
    """
    stride = max(1, sum(s.count for s in samples) // _PLACES)
    few = [s.every(stride) for s in samples]
    tables = [observe(few, channel, clip, fine=True) for channel, clip in enumerate(clips)]
    table = max(tables, key=lambda t: int(t.usable.sum()))
    table = table.part(np.flatnonzero(table.usable.any(axis=1)))
    if len(table.codes) < _FEWEST_PLACES or max(len(s.exposure_times) for s in samples) < 3:
        return TimesVerdict()
    doubts = _doubts(few, table)
    if not doubts:
        return TimesVerdict()
    stated, *freed = _fits(few, table, doubts)
    doubts = [
        replace(doubt, time_factor=float(2.0 ** fit.corrections[0]))
        for doubt, fit in zip(doubts, freed, strict=True)
    ]
    spread = min(fit.spread() for fit in (stated, *freed))
    losses = np.array([fit.loss(spread) for fit in freed])
    before, best = stated.loss(spread), int(np.argmin(losses))
    explained = before - losses[best]
    if explained < _EXPLAINED * before or abs(np.log2(doubts[best].time_factor)) < _DOUBTED:
        return TimesVerdict()
    misfits = float(np.mean(stated.stops > _MISFIT_STOPS))
    order = np.argsort(losses, kind="stable")
    suspects = tuple(doubts[i] for i in order if losses[i] - losses[best] < _APART * explained)
    enough = doubts[best].bracket is not None or len(_stated_times(samples)) > _FEWEST_LEFT
    if len(suspects) == 1 and enough:
        return TimesVerdict(sure=doubts[best], misfits=misfits)
    return TimesVerdict(suspects=suspects, misfits=misfits)


def _stated_times(samples: Sequence[BracketSamples]) -> Vector:
    return np.unique(np.concatenate([s.exposure_times for s in samples]))


def _doubts(samples: Sequence[BracketSamples], table: Observations) -> list[TimeDoubt]:
    """Times to be freed one by one: none if freed all together they stay as stated."""
    exposures = table.codes.shape[1]
    times = _stated_times(samples)
    by_time = np.zeros((len(samples), exposures), dtype=np.int64)
    for number, s in enumerate(samples):
        by_time[number, : len(s.exposure_times)] = np.searchsorted(times, s.exposure_times)
    numbers = by_time[table.bracket]
    corrections = _fit(table, numbers + 1, len(times)).corrections
    size = np.abs(corrections - np.median(corrections))
    singles, single_size = np.arange(by_time.size).reshape(by_time.shape)[table.bracket], size[:0]
    if len(samples) > 1 and by_time.size <= _MOST_SINGLES:
        single_size = np.abs(_fit(table, singles + 1, by_time.size).corrections)
    if max(size.max(), single_size.max(initial=0.0)) < _TRIFLE:
        return []

    def with_time(time: float) -> NDArray[np.int64]:
        return np.flatnonzero([time in s.exposure_times for s in samples])

    doubts = []
    for number in _largest(size, numbers[table.usable], _MOST_TIMES):
        brackets = with_time(times[number])
        only = int(brackets[0]) if brackets.size == 1 < len(samples) else None
        doubts.append(TimeDoubt(only, float(times[number])))
    for single in _largest(single_size, singles[table.usable], _TRIED_SINGLES):
        bracket, exposure = divmod(int(single), exposures)
        own = samples[bracket].exposure_times
        if exposure < len(own) and with_time(own[exposure]).size > 1:
            doubts.append(TimeDoubt(bracket, float(own[exposure])))
    return doubts


def _largest(size: Vector, seen: Groups, most: int) -> list[int]:
    """The groups with the largest corrections.

    But for those that are nearly all black or white: whatever their time, it contradicts nothing.
    """
    counts = np.bincount(seen, minlength=size.size)
    return [n for n in np.argsort(-size)[:most] if counts[n] >= _LEAST_SEEN * counts.mean()]


def _fits(
    samples: Sequence[BracketSamples], table: Observations, doubts: Sequence[TimeDoubt]
) -> list[_Fit]:
    """The fit with the stated times, and those with one of the doubted times freed each."""
    groups = [np.zeros(table.codes.shape, dtype=np.int64)]
    for doubt in doubts:
        free = np.zeros((len(samples), table.codes.shape[1]), dtype=np.int64)
        for number, s in enumerate(samples):
            free[number, : len(s.exposure_times)] = doubt.of(number, s)
        groups.append(free[table.bracket])
    fits = [_fit(table, group, min(n, 1)) for n, group in enumerate(groups)]
    spread = fits[0].spread()
    best = min(fits[1:], key=lambda fit: fit.loss(spread))
    # A fit may stop at a local minimum; from the curve that the best has found it may get on.
    again = [_fit(table, group, min(n, 1), best.steps) for n, group in enumerate(groups)]
    spread = best.spread()
    return [min(pair, key=lambda f: f.loss(spread)) for pair in zip(fits, again, strict=True)]


@dataclass(frozen=True, eq=False)
class _Fit:
    """A curve with corrections of exposure times."""

    corrections: Vector  # estimated over stated time of the free groups, stops
    sizes: Floats  # |residual| of all usable observations over its expected size
    stops: Floats  # |residual| in stops
    steps: Vector  # of the curve, shape (255,)

    def spread(self) -> float:
        """Robust scale of the sizes."""
        return max(1.4826 * float(np.median(self.sizes)), _LEAST_SPREAD)

    def loss(self, spread: float) -> float:
        """Mean loss of all observations, outliers counted by their logarithm."""
        return float(np.mean(np.log1p(np.square(self.sizes / (_OUTLIER * spread)))))


def _fit(table: Observations, groups: Groups, free: int, start: Vector | None = None) -> _Fit:
    """Fit a curve and the times of the groups 1…free of exposures, (P, N); group 0 is as stated.

    If all are free, the corrections with the smallest sum of sizes are taken: times are only known
    up to a factor per bracket and a power for all.
    """
    design = _design(table, groups, free)
    steps = gamma_steps() if start is None else start
    corrections = np.zeros(free + 1)
    scale = np.inf
    for _ in range(_ROUNDS):
        curve = CurveTables.of_steps(steps)
        residual, weights = _residuals(table, groups, curve, corrections)
        size = np.abs(residual) * np.sqrt(weights)
        now = max(1.4826 * float(np.median(size[table.usable])), 1e-3)
        weights /= 1.0 + np.square(size / np.float32(_OUTLIER * scale))
        hold = (_HOLD if free > 1 else _HOLD_ONE) / (np.abs(corrections[1:]) + _HELD_FROM)
        target = table.log_times - curve.between_codes(table)
        found = _solve(design, target, weights, steps, hold)
        wanted = np.diff(np.interp(np.arange(CODES), _KNOTS, found[: len(_KNOTS)]))
        steps = np.clip(wanted, steps / _LARGEST_CHANGE, steps * _LARGEST_CHANGE)
        steps, corrections[1:] = np.clip(steps, SMALLEST_STEP, 1.5), found[len(_KNOTS) :]
        scale = now
    residual, weights = _residuals(table, groups, CurveTables.of_steps(steps), corrections)
    size = np.abs(residual).astype(np.float32)
    sizes, stops = size * np.sqrt(weights), np.asarray(size / _LN2, dtype=np.float32)
    return _Fit(corrections[1:] / np.log(2.0), sizes[table.usable], stops[table.usable], steps)


def _residuals(
    table: Observations, groups: Groups, curve: CurveTables, corrections: Vector
) -> tuple[Floats, Floats]:
    weights = curve.weights(table)
    weights = weights / (1.0 + np.float32(_MODEL_VARIANCE) * weights)
    exposure = curve.exposures(table) - corrections.astype(np.float32)[groups]
    return centred(exposure, weights), weights


def _design(table: Observations, groups: Groups, free: int) -> Floats:
    """Rows of the unknowns: g at the knots, less the corrections; shape (P, N, K)."""
    hats = np.stack([np.interp(np.arange(CODES), _KNOTS, unit) for unit in np.eye(len(_KNOTS))])
    own = np.vstack([np.zeros((1, free)), -np.eye(free)])
    rows = np.concatenate([hats.T[table.codes], own[groups]], axis=2)
    return np.asarray(rows, dtype=np.float32)


def _solve(design: Floats, target: Floats, weights: Floats, steps: Vector, hold: Vector) -> Vector:
    """One round of least squares, every place's ln E eliminated."""
    total = weights.sum(axis=1, keepdims=True)
    share = weights / np.where(total > 0, total, np.float32(1.0))
    mean = np.einsum("pn,pnk->pk", share, design)
    rows = (design - mean[:, np.newaxis]).reshape(-1, design.shape[2])
    values = (target - (share * target).sum(axis=1, keepdims=True)).ravel()
    weighted = rows * weights.ravel()[:, np.newaxis]
    matrix = (weighted.T @ rows).astype(np.float64)
    vector = (weighted.T @ values).astype(np.float64)
    knots = len(_KNOTS)
    # Bends are measured from the present curve's own course along the knots.
    slopes = np.diff(np.concatenate([[0.0], np.cumsum(steps)])[_KNOTS.astype(int)])
    bends = np.diff(np.diff(np.eye(knots), axis=0) / slopes[:, np.newaxis], axis=0)
    everything = float(weights.sum())
    matrix[:knots, :knots] += _PENALTY * everything * bends.T @ bends
    matrix[0, 0] += everything  # the free constant of g
    own = np.arange(knots, knots + len(hold))
    matrix[own, own] += everything * hold
    return np.asarray(np.linalg.solve(matrix, vector))
