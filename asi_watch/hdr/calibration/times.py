"""Stated exposure times that the images contradict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from asi_watch.hdr.calibration.report import IMPOSSIBLE_STOPS, ExposureCheck
from asi_watch.hdr.calibration.residuals import ChannelResiduals, median, robust_spread
from asi_watch.hdr.calibration.samples import BracketSamples

_SUSPECT_STOPS = 0.25
_LEAST_SHARE = 0.03  # of a bracket's observations, for an exposure to be judged
_DOUBTED_STOPS = 0.075
_CLEARLY_SMALLER = 0.5
_FEWEST = 4  # exposures, for three to be left
_PLACES = 2_000

Fit = Callable[[Sequence[BracketSamples]], float]


def without_false_exposure(
    samples: Sequence[BracketSamples], spread: float, spread_of: Fit
) -> list[BracketSamples] | None:
    """Leave out the one exposure of every bracket without which the others agree.

    A curve can bend to serve one false time, and then the residual points at its neighbours.

    Parameters
    ----------
    samples : sequence of BracketSamples
    spread : float
        Residual of one channel's curve made from all exposures, stops.
    spread_of : callable
        The same of the curve made from other samples.

    Returns
    -------
    list of BracketSamples or None
        None if nothing is doubted, or no single exposure explains the doubt.
    """
    numbers = {len(s.exposure_times) for s in samples}
    exposures = min(numbers)
    if not spread > _DOUBTED_STOPS or len(numbers) > 1 or exposures < _FEWEST:
        return None
    stride = max(1, sum(s.count for s in samples) // _PLACES)
    few = [s.every(stride) for s in samples]
    spreads = [spread_of([without(s, n) for s in few]) for n in range(exposures)]
    best = int(np.nanargmin(spreads))
    if spreads[best] > _CLEARLY_SMALLER * spread:
        return None
    return [without(s, best) for s in samples]


def without(bracket: BracketSamples, number: int) -> BracketSamples:
    """Give a bracket with one of its exposures left out."""
    return replace(
        bracket,
        codes=np.delete(bracket.codes, number, axis=1),
        exposure_times=np.delete(bracket.exposure_times, number),
        levels=None if bracket.levels is None else np.delete(bracket.levels, number, axis=1),
        roughness=(
            None if bracket.roughness is None else np.delete(bracket.roughness, number, axis=1)
        ),
        motion=None if bracket.motion is None else np.delete(bracket.motion, number, axis=0),
    )


def whole_set_warnings(residuals: Sequence[ChannelResiduals]) -> tuple[str, ...]:
    """Say so when no curve fits the whole set.

    Parameters
    ----------
    residuals : sequence of ChannelResiduals
    """
    worst = float(np.nanmax([r.spread() for r in residuals]))
    if worst <= IMPOSSIBLE_STOPS:
        return ()
    return (
        f"no response curve fits these images within {worst:.2f} stops: the stated exposure times "
        "cannot be true, or the exposures do not show one scene through one fixed tone curve",
    )


def check_exposures(
    samples: Sequence[BracketSamples], residuals: Sequence[ChannelResiduals]
) -> list[ExposureCheck]:
    """Judge every exposure of every bracket by its residuals.

    Parameters
    ----------
    samples : sequence of BracketSamples
    residuals : sequence of ChannelResiduals
        Of every channel.

    Returns
    -------
    list of ExposureCheck
    """
    checks = []
    for number, bracket in enumerate(samples):
        times = bracket.exposure_times
        histograms = [[r.histograms[number, n] for r in residuals] for n in range(len(times))]
        pooled = np.sum(histograms, axis=1)
        enough = pooled.sum(axis=1) >= _LEAST_SHARE * pooled.sum()
        shifts = np.array([median(h) for h in pooled])
        if len(times) > 2 and np.isfinite(shifts).any():
            # ln E is the mean of all exposures, so one false time shifts the others too, but all
            # alike: measured from their median the one that is false stands alone.
            shifts -= np.nanmedian(shifts)
        checks += [
            ExposureCheck(
                bracket=number,
                exposure_time=float(time),
                residual_stops=tuple(robust_spread(h) for h in histograms[n]),
                time_factor=float(2.0 ** shifts[n]),
                suspect=bool(enough[n] and abs(shifts[n]) > _SUSPECT_STOPS),
            )
            for n, time in enumerate(times)
        ]
    return checks
