"""Stated exposure times that the images contradict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asi_watch.hdr.calibration.consistency import TimesVerdict
from asi_watch.hdr.calibration.report import IMPOSSIBLE_STOPS, ExposureCheck, TimeDoubt
from asi_watch.hdr.calibration.residuals import ChannelResiduals, quantile, robust_spread
from asi_watch.hdr.calibration.samples import BracketSamples

_SUSPECT_STOPS = 0.25
_QUARTILES = (0.25, 0.5, 0.75)
_NO_DOUBT = TimesVerdict()
_LEAST_SHARE = 0.03  # of a bracket's observations, for an exposure to be judged


def without_false_time(samples: Sequence[BracketSamples], false: TimeDoubt) -> list[BracketSamples]:
    """Leave out the exposures with a false time, and brackets of which one exposure is left.

    Their time could be put right instead, but only as exactly as these very images tell it.

    Parameters
    ----------
    samples : sequence of BracketSamples
    false : TimeDoubt

    Returns
    -------
    list of BracketSamples
        Nothing but the bracket itself changes its number of exposures.
    """
    left = []
    for number, bracket in enumerate(samples):
        is_false = (bracket.exposure_times == false.exposure_time) & (
            false.bracket in (None, number)
        )
        kept = bracket
        for exposure in np.flatnonzero(is_false)[::-1]:
            kept = _without(kept, int(exposure))
        if len(kept.exposure_times) > 1:
            left.append(kept)
    return left


def _without(bracket: BracketSamples, number: int) -> BracketSamples:
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


def whole_set_warnings(
    residuals: Sequence[ChannelResiduals], verdict: TimesVerdict
) -> tuple[str, ...]:
    """Say so when no curve fits the whole set.

    Parameters
    ----------
    residuals : sequence of ChannelResiduals
    verdict : TimesVerdict
    """
    warnings = []
    if verdict.suspects:
        ways = [
            f"{doubt.exposure_time:g}"
            + ("" if doubt.bracket is None else f" of bracket {doubt.bracket}")
            + f" were {_short(doubt.exposure_time * doubt.time_factor)}"
            for doubt in verdict.suspects
        ]
        warnings.append(
            f"the stated exposure times contradict the images ({100 * verdict.misfits:.0f} % of"
            " the observations lie more than a quarter stop from any curve). They would fit if "
            + ", or if ".join(ways)
            + ", for example; which one is false cannot be told, and the curve is not to be trusted"
        )
    worst = max((v for r in residuals if np.isfinite(v := r.spread())), default=0.0)
    if worst > IMPOSSIBLE_STOPS:
        warnings.append(
            f"no response curve fits these images within {worst:.2f} stops: the stated exposure"
            " times cannot be true, or the exposures do not show one scene through one fixed tone"
            " curve"
        )
    return tuple(warnings)


def check_exposures(
    samples: Sequence[BracketSamples],
    residuals: Sequence[ChannelResiduals],
    verdict: TimesVerdict = _NO_DOUBT,
) -> list[ExposureCheck]:
    """Judge every exposure of every bracket by its residuals.

    Parameters
    ----------
    samples : sequence of BracketSamples
    residuals : sequence of ChannelResiduals
        Of every channel.
    verdict : TimesVerdict
        Where that cannot tell which one is false, nor can residuals, of which the curve has made
        what it could.

    Returns
    -------
    list of ExposureCheck
    """
    # Left without one of its exposures everywhere, a curve may be too weak to accuse others.
    sure = verdict.sure
    residuals_tell = not verdict.suspects and (sure is None or sure.bracket is not None)
    checks = []
    for number, bracket in enumerate(samples):
        times = bracket.exposure_times
        histograms = [[r.histograms[number, n] for r in residuals] for n in range(len(times))]
        pooled = np.sum(histograms, axis=1)
        enough = pooled.sum(axis=1) >= _LEAST_SHARE * pooled.sum()
        lower, shifts, upper = (np.array([quantile(h, q) for h in pooled]) for q in _QUARTILES)
        if len(times) > 2 and np.isfinite(shifts).any():
            # ln E is the mean of all exposures, so one false time shifts the others too, but all
            # alike: measured from their median the one that is false stands alone.
            common = np.nanmedian(shifts)
            lower, shifts, upper = lower - common, shifts - common, upper - common
        # A false time shifts all that the exposure shows; noise in the dark shifts the half of it.
        one_side = (lower > _SUSPECT_STOPS / 2) | (upper < -_SUSPECT_STOPS / 2)
        large = enough & (np.abs(shifts) > _SUSPECT_STOPS) & one_side & residuals_tell
        checks += [
            ExposureCheck(
                bracket=number,
                exposure_time=float(time),
                residual_stops=tuple(robust_spread(h) for h in histograms[n]),
                time_factor=(
                    sure.time_factor
                    if sure is not None and _is(sure, number, time)
                    else float(2.0 ** shifts[n])
                ),
                suspect=bool(large[n]) or (sure is not None and _is(sure, number, time)),
            )
            for n, time in enumerate(times)
        ]
    return checks


def _is(doubt: TimeDoubt, bracket: int, time: float) -> bool:
    return doubt.exposure_time == time and doubt.bracket in (None, bracket)


def _short(time: float) -> str:
    """Three digits, never a power of ten."""
    return f"{float(f'{time:.3g}'):g}"
