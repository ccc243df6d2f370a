"""Whether the stated exposure times agree with each other, and which one is false if not.

A robust fit takes the side of the larger part and calls the rest outliers, or bends where no two
parts meet; neither shows in its residual. So fits with freed times are compared by the loss of
*all* observations: in a sound set they explain hardly more than the stated times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.freed import FreedFit, Groups, fit_freed
from asi_watch.hdr.calibration.observations import Observations, observe
from asi_watch.hdr.calibration.report import TimeDoubt
from asi_watch.hdr.calibration.samples import BracketSamples

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
_MISFIT_STOPS = 0.25


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
    tables = (observe(few, c, low, high, fine=True) for c, (low, high) in enumerate(clips))
    table = _used(max(tables, key=lambda t: int(t.usable.sum())))
    if len(table.codes) < _FEWEST_PLACES or max(len(s.exposure_times) for s in samples) < 3:
        return TimesVerdict()
    return _Judging(few, table).verdict()


def _used(table: Observations) -> Observations:
    rows = np.flatnonzero(table.usable.any(axis=1))
    return Observations(
        table.codes[rows],
        table.fraction[rows],
        table.roughness[rows],
        table.log_times[rows],
        table.usable[rows],
        table.bracket[rows],
    )


class _Judging:
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
        stated = self._freed_labels([])
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
        stated_again = fit_freed(self._table, self._labels, self._none(), best.steps)
        stated = min(stated, stated_again, key=lambda f: f.loss(best.spread()))
        return self._judged(stated, one_by_one)

    def _doubted(self) -> list[TimeDoubt]:
        """Times to be freed one by one: none if all freed differ in nothing."""
        by_label = fit_freed(self._table, self._labels, ~self._none())
        size = np.abs(by_label.corrections - np.median(by_label.corrections))
        singles = np.zeros(0)
        if len(self._samples) > 1 and len(self._samples) * self._exposures <= _MOST_SINGLES:
            free = np.ones(len(self._samples) * self._exposures, dtype=np.bool_)
            singles = np.abs(fit_freed(self._table, self._singles, free).corrections)
        if max(size.max(), singles.max(initial=0.0)) < _TRIFLE:
            return []
        doubts = []
        for label in np.argsort(-size)[:_MOST_LABELS]:
            time = float(self._times[label])
            brackets = self._brackets_with(time)
            alone = int(brackets[0]) if brackets.size == 1 < len(self._samples) else None
            doubts.append(TimeDoubt(alone, time, 1.0))
        for single in np.argsort(-singles)[:_TRIED_SINGLES]:
            bracket, exposure = divmod(int(single), self._exposures)
            times = self._samples[bracket].exposure_times
            if exposure < len(times) and self._brackets_with(times[exposure]).size > 1:
                doubts.append(TimeDoubt(bracket, float(times[exposure]), 1.0))
        return doubts

    def _one_freed(
        self, doubt: TimeDoubt, start: NDArray[np.float64] | None
    ) -> tuple[TimeDoubt, FreedFit]:
        """The fit with that time freed, and by how much it is off then."""
        if doubt.bracket is None:
            groups, free = self._labels, self._times == doubt.exposure_time
        else:
            times = self._samples[doubt.bracket].exposure_times
            exposure = int(np.searchsorted(times, doubt.exposure_time))
            groups = self._singles
            free = np.zeros(len(self._samples) * self._exposures, dtype=np.bool_)
            free[doubt.bracket * self._exposures + exposure] = True
        fit = fit_freed(self._table, groups, free, start)
        return replace(doubt, time_factor=float(2.0 ** fit.corrections[free][0])), fit

    def _brackets_with(self, time: float) -> NDArray[np.int64]:
        return np.flatnonzero([time in s.exposure_times for s in self._samples])

    def _judged(
        self, stated: FreedFit, one_by_one: list[tuple[TimeDoubt, FreedFit]]
    ) -> TimesVerdict:
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

    def _none(self) -> NDArray[np.bool_]:
        return np.zeros(len(self._times), dtype=np.bool_)

    def _freed_labels(self, labels: list[int]) -> FreedFit:
        free = self._none()
        free[labels] = True
        return fit_freed(self._table, self._labels, free)
