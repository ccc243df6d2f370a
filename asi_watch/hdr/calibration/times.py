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

from asi_watch.hdr.calibration.robust import CurveTables, centred, gamma_steps
from asi_watch.hdr.calibration.samples import CODES, BracketSamples, Observations, observe
from asi_watch.hdr.calibration.solver import SMALLEST_STEP

_PLACES = 1_000
_FEWEST_PLACES = 20
_MOST_SINGLES = 60  # exposures of all brackets, to be freed all at once
_MOST_LABELS = 16
_TRIED_SINGLES = 4
_TRIFLE = 0.07  # stops; corrections below are what motion and nominal times do
_DOUBTED = 0.1
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

Vector = NDArray[np.float64]
Table = NDArray[np.float32]
Groups = NDArray[np.int64]


@dataclass(frozen=True)
class TimeDoubt:
    """A stated exposure time that may be false.

    Attributes
    ----------
    bracket : int or None
        Number of the bracket; None: wherever the time is stated.
    exposure_time : float
        As stated.
    time_factor : float
        The time that fits over the stated one, if this is the false one.
    """

    bracket: int | None
    exposure_time: float
    time_factor: float

    def of(self, number: int, bracket: BracketSamples) -> NDArray[np.bool_]:
        """Tell which exposures of a bracket this is about."""
        here = self.bracket in (None, number)
        return np.asarray((bracket.exposure_times == self.exposure_time) & here)


@dataclass(frozen=True)
class TimesVerdict:
    """What the images say of the stated times.

    Attributes
    ----------
    sure : TimeDoubt or None
        The one time that is false.
    suspects : tuple of TimeDoubt
        Where it is not sure which one is: any of these would explain the images.
    misfits : float
        Share of observations that no curve explains by the stated times.
    """

    sure: TimeDoubt | None = None
    suspects: tuple[TimeDoubt, ...] = ()
    misfits: float = 0.0

    @property
    def doubtful(self) -> bool:
        """The stated times contradict each other."""
        return self.sure is not None or bool(self.suspects)

    def agreeing(self, samples: Sequence[BracketSamples]) -> list[BracketSamples]:
        """Leave out the exposures with the false time, and brackets of which one is left.

        Their time could be put right instead, but only as exactly as these very images tell it.
        """
        if self.sure is None:
            return list(samples)
        left = (s.without(self.sure.of(number, s)) for number, s in enumerate(samples))
        return [s for s in left if s is not None]


def judge_times(
    samples: Sequence[BracketSamples], clips: Sequence[tuple[int, int]]
) -> TimesVerdict:
    """Ask whether a curve with one time freed explains far more than one with none.

    Parameters
    ----------
    samples : sequence of BracketSamples
    clips : sequence of (int, int)
        Lowest and highest code of each channel to judge by.

    Returns
    -------
    TimesVerdict
    """
    stride = max(1, sum(s.count for s in samples) // _PLACES)
    few = [s.every(stride) for s in samples]
    tables = [observe(few, channel, clip, fine=True) for channel, clip in enumerate(clips)]
    table = max(tables, key=lambda t: int(t.usable.sum()))
    table = table.part(np.flatnonzero(table.usable.any(axis=1)))
    if len(table.codes) < _FEWEST_PLACES or max(len(s.exposure_times) for s in samples) < 3:
        return TimesVerdict()
    return _Judge(few, table).verdict()


class _Judge:
    """Fits of one table with different times freed."""

    def __init__(self, samples: Sequence[BracketSamples], table: Observations) -> None:
        self._samples, self._table = samples, table
        self._times = np.unique(np.concatenate([s.exposure_times for s in samples]))
        exposures = table.codes.shape[1]
        self._labels: Groups = np.zeros(table.codes.shape, dtype=np.int64)
        for number, s in enumerate(samples):
            here = np.flatnonzero(table.bracket == number)
            labels = np.searchsorted(self._times, s.exposure_times)
            self._labels[np.ix_(here, np.arange(len(labels)))] = labels
        self._singles: Groups = table.bracket[:, np.newaxis].astype(np.int64) * exposures
        self._singles = self._singles + np.arange(exposures)
        self._exposures = exposures

    def verdict(self) -> TimesVerdict:
        stated = self._stated(None)
        doubts = self._doubted()
        if not doubts:
            return TimesVerdict()
        one_by_one = [self._one_freed(doubt, None) for doubt in doubts]
        best = min(one_by_one, key=lambda c: c[1].loss(stated.spread()))[1]
        # A fit may be caught halfway; from the curve that the best has found it may get on.
        again = [self._one_freed(doubt, best.steps) for doubt in doubts]
        one_by_one = [
            min(pair, key=lambda c: c[1].loss(best.spread()))
            for pair in zip(one_by_one, again, strict=True)
        ]
        stated = min(stated, self._stated(best.steps), key=lambda f: f.loss(best.spread()))
        return self._judged(stated, one_by_one)

    def _doubted(self) -> list[TimeDoubt]:
        """Times to be freed one by one: none if all freed differ in nothing."""
        by_label = _fit(self._table, self._labels, np.ones(len(self._times), dtype=np.bool_))
        size = np.abs(by_label.corrections - np.median(by_label.corrections))
        singles = np.zeros(0)
        if len(self._samples) > 1 and len(self._samples) * self._exposures <= _MOST_SINGLES:
            free = np.ones(len(self._samples) * self._exposures, dtype=np.bool_)
            singles = np.abs(_fit(self._table, self._singles, free).corrections)
        if max(size.max(), singles.max(initial=0.0)) < _TRIFLE:
            return []
        doubts = []
        seen = np.bincount(self._labels[self._table.usable], minlength=len(self._times))
        for label in np.argsort(-size)[:_MOST_LABELS]:
            if seen[label] < _LEAST_SEEN * seen.mean():
                continue  # nearly all black or white: whatever its time, it contradicts nothing
            time = float(self._times[label])
            brackets = self._brackets_with(time)
            only = int(brackets[0]) if brackets.size == 1 < len(self._samples) else None
            doubts.append(TimeDoubt(only, time, 1.0))
        alone = np.bincount(self._singles[self._table.usable], minlength=singles.size)
        for single in np.argsort(-singles)[:_TRIED_SINGLES]:
            if alone[single] < _LEAST_SEEN * alone.mean():
                continue
            bracket, exposure = divmod(int(single), self._exposures)
            times = self._samples[bracket].exposure_times
            if exposure < len(times) and self._brackets_with(times[exposure]).size > 1:
                doubts.append(TimeDoubt(bracket, float(times[exposure]), 1.0))
        return doubts

    def _one_freed(self, doubt: TimeDoubt, start: Vector | None) -> tuple[TimeDoubt, _Fit]:
        """The fit with that time freed, and by how much it is off then."""
        if doubt.bracket is None:
            groups, free = self._labels, self._times == doubt.exposure_time
        else:
            times = self._samples[doubt.bracket].exposure_times
            exposure = int(np.searchsorted(times, doubt.exposure_time))
            groups = self._singles
            free = np.zeros(len(self._samples) * self._exposures, dtype=np.bool_)
            free[doubt.bracket * self._exposures + exposure] = True
        fit = _fit(self._table, groups, free, start)
        return replace(doubt, time_factor=float(2.0 ** fit.corrections[free][0])), fit

    def _brackets_with(self, time: float) -> NDArray[np.int64]:
        return np.flatnonzero([time in s.exposure_times for s in self._samples])

    def _judged(self, stated: _Fit, one_by_one: list[tuple[TimeDoubt, _Fit]]) -> TimesVerdict:
        spread = min([stated.spread()] + [fit.spread() for _, fit in one_by_one])
        losses = np.array([fit.loss(spread) for _, fit in one_by_one])
        before, best = stated.loss(spread), int(np.argmin(losses))
        explained = before - losses[best]
        doubt = one_by_one[best][0]
        if explained < _EXPLAINED * before or abs(np.log2(doubt.time_factor)) < _DOUBTED:
            return TimesVerdict()
        misfits = float(np.mean(stated.stops > _MISFIT_STOPS))
        near = np.flatnonzero(losses - losses[best] < _APART * explained)
        near = near[np.argsort(losses[near], kind="stable")]
        suspects = tuple(one_by_one[i][0] for i in near)
        enough = doubt.bracket is not None or len(self._times) > _FEWEST_LEFT
        if len(suspects) == 1 and enough:
            return TimesVerdict(sure=doubt, misfits=misfits)
        return TimesVerdict(suspects=suspects, misfits=misfits)

    def _stated(self, start: Vector | None) -> _Fit:
        free = np.zeros(len(self._times), dtype=np.bool_)
        return _fit(self._table, self._labels, free, start)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A curve with corrections of exposure times.

    Attributes
    ----------
    corrections : ndarray, shape (G,), float64
        Estimated over stated time, stops; 0 for groups that were not free.
    sizes : ndarray, float32
        |residual| of all usable observations over its expected size, none left out.
    stops : ndarray, float32
        |residual| in stops.
    steps : ndarray, shape (255,), float64
        Of the curve.
    """

    corrections: Vector
    sizes: Table
    stops: Table
    steps: Vector

    def spread(self) -> float:
        """Robust scale of the sizes."""
        return max(1.4826 * float(np.median(self.sizes)), _LEAST_SPREAD)

    def loss(self, spread: float) -> float:
        """Mean loss of all observations, outliers counted by their logarithm."""
        return float(np.mean(np.log1p(np.square(self.sizes / (_OUTLIER * spread)))))


def _fit(
    table: Observations, groups: Groups, free: NDArray[np.bool_], start: Vector | None = None
) -> _Fit:
    """Fit a curve and the times of the free groups of exposures, (P, N) numbers of groups.

    If all groups are free, the corrections with the smallest sum of sizes are taken: times are
    only known up to a factor per bracket and a power for all.
    """
    numbers = np.flatnonzero(free)
    column = np.full(len(free), -1)
    column[numbers] = np.arange(numbers.size)
    design = _design(table, column[groups], numbers.size)
    steps = gamma_steps() if start is None else start
    corrections = np.zeros(len(free))
    scale = np.inf
    for _ in range(_ROUNDS):
        curve = CurveTables.of_steps(steps)
        residual, weights = _residuals(table, groups, curve, corrections)
        size = np.abs(residual) * np.sqrt(weights)
        now = max(1.4826 * float(np.median(size[table.usable])), 1e-3)
        weights /= 1.0 + np.square(size / np.float32(_OUTLIER * scale))
        hold = (_HOLD if numbers.size > 1 else _HOLD_ONE) / (
            np.abs(corrections[numbers]) + _HELD_FROM
        )
        target = table.log_times - curve.between_codes(table)
        found = _solve(design, target, weights, steps, hold)
        steps, corrections[numbers] = _limited(found[: len(_KNOTS)], steps), found[len(_KNOTS) :]
        scale = now
    residual, weights = _residuals(table, groups, CurveTables.of_steps(steps), corrections)
    size = np.abs(residual).astype(np.float32)
    sizes, stops = size * np.sqrt(weights), np.asarray(size / _LN2, dtype=np.float32)
    return _Fit(corrections / np.log(2.0), sizes[table.usable], stops[table.usable], steps)


def _residuals(
    table: Observations, groups: Groups, curve: CurveTables, corrections: Vector
) -> tuple[Table, Table]:
    weights = curve.weights(table)
    weights = weights / (1.0 + np.float32(_MODEL_VARIANCE) * weights)
    exposure = curve.exposures(table) - corrections.astype(np.float32)[groups]
    return centred(exposure, weights), weights


def _design(table: Observations, columns: Groups, free: int) -> Table:
    """Rows of the unknowns: g at the knots, less the corrections; shape (P, N, K)."""
    hats = np.stack([np.interp(np.arange(CODES), _KNOTS, unit) for unit in np.eye(len(_KNOTS))])
    own = np.vstack([-np.eye(free), np.zeros((1, free))])  # the last row for those not free
    rows = np.concatenate([hats.T[table.codes], own[columns]], axis=2)
    return np.asarray(rows, dtype=np.float32)


def _solve(design: Table, target: Table, weights: Table, steps: Vector, hold: Vector) -> Vector:
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
    solution: Vector = np.linalg.solve(matrix, vector)
    return solution


def _limited(knots: Vector, steps: Vector) -> Vector:
    """Steps of the curve through the knots, rising, not too far from the present ones."""
    wanted = np.diff(np.interp(np.arange(CODES), _KNOTS, knots))
    changed = np.clip(wanted, steps / _LARGEST_CHANGE, steps * _LARGEST_CHANGE)
    return np.clip(changed, SMALLEST_STEP, 1.5)
