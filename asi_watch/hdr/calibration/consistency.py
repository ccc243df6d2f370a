"""Whether the stated exposure times agree with each other, and which one is false if not.

A robust fit takes the side of the larger part and calls the rest outliers, or bends where no two
parts meet; neither shows in its residual. So fits with freed times are compared by the loss of
*all* observations: in a sound set they explain hardly more than the stated times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
_DOUBTED = 0.15
_EXPLAINED = 0.35  # of the loss, by one free time, for the stated ones to be doubted
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
        one_by_one = self._candidates(stated)
        if not one_by_one:
            return TimesVerdict()
        best = min(one_by_one, key=lambda c: c[1].loss(stated.spread()))[1]
        stated = min(
            (stated, fit_freed(self._table, self._labels, self._none(), best.steps)),
            key=lambda f: f.loss(best.spread()),
        )
        return self._judged(stated, one_by_one)

    def _candidates(self, stated: FreedFit) -> list[tuple[TimeDoubt, FreedFit]]:
        """One time freed at a time, if all freed differ from the stated ones at all."""
        labels = len(self._times)
        by_label = fit_freed(self._table, self._labels, np.ones(labels, dtype=np.bool_))
        size = np.abs(by_label.corrections - np.median(by_label.corrections))
        singles = np.zeros(0)
        if len(self._samples) > 1 and len(self._samples) * self._exposures <= _MOST_SINGLES:
            count = len(self._samples) * self._exposures
            freed = fit_freed(self._table, self._singles, np.ones(count, dtype=np.bool_))
            singles = np.abs(freed.corrections)
        if max(size.max(), singles.max(initial=0.0)) < _TRIFLE:
            return []
        found = [self._label_freed(int(n)) for n in np.argsort(-size)[:_MOST_LABELS]]
        for single in np.argsort(-singles)[:_TRIED_SINGLES]:
            bracket, exposure = divmod(int(single), self._exposures)
            times = self._samples[bracket].exposure_times
            if exposure < len(times) and self._brackets_with(times[exposure]).size > 1:
                fit = fit_freed(self._table, self._singles, np.arange(singles.size) == single)
                factor = float(2.0 ** fit.corrections[single])
                found.append((TimeDoubt(bracket, float(times[exposure]), factor), fit))
        return found

    def _label_freed(self, label: int) -> tuple[TimeDoubt, FreedFit]:
        fit = self._freed_labels([label])
        time, factor = float(self._times[label]), float(2.0 ** fit.corrections[label])
        brackets = self._brackets_with(time)
        alone = int(brackets[0]) if brackets.size == 1 < len(self._samples) else None
        return TimeDoubt(alone, time, factor), fit

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
