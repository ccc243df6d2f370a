"""From samples to a response curve."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from asi_watch.hdr.calibration.answering import highest_answering, lowest_answering
from asi_watch.hdr.calibration.consistency import TimesVerdict, judge_times
from asi_watch.hdr.calibration.coverage import coverage_warnings
from asi_watch.hdr.calibration.fitting import Fitting
from asi_watch.hdr.calibration.observations import observe
from asi_watch.hdr.calibration.report import Calibration, CalibrationReport, ExposureCheck, runs
from asi_watch.hdr.calibration.residuals import ChannelResiduals, channel_residuals
from asi_watch.hdr.calibration.samples import CODES, BracketSamples
from asi_watch.hdr.calibration.times import (
    check_exposures,
    whole_set_warnings,
    without_false_time,
)
from asi_watch.hdr.calibration.weighting import check_clips, hat

# Far fewer already leave the noise below every systematic error; an even share is taken of more.
_MOST_PLACES = 60_000


def calibrate_response(
    samples: Sequence[BracketSamples],
    *,
    smoothness: float = 50.0,
    weight_type: str = "triangle",
    low_clip: int = 5,
    high_clip: int = 250,
    robust: bool = True,
) -> Calibration:
    """Estimate the log response g(z) of a camera.

    Parameters
    ----------
    samples : sequence of BracketSamples
        One per bracket, all with the same channels.
    smoothness : float
        λ of Debevec and Malik at 10 brackets × 1000 samples; for any other number of samples the
        penalty is scaled so that it weighs the same against the data. The robust estimate has its
        own measure of simplicity, whose strength is in proportion to smoothness².
    weight_type : {"triangle", "sine"}
        Trust in a code by its place in the range. The plain equations are weighted with it. The
        robust estimate weighs by the noise instead, whatever the type, and takes this as the way
        merges will weigh: by it the dark and bright ends of g, which such merges still use, are
        derived and judged.
    low_clip, high_clip : int
        Observations with codes outside low_clip…high_clip are not used.
    robust : bool
        True: local levels, weights from the noise and the roughness of the surroundings, and
        little weight for what does not fit (moved clouds, glints, damaged pixels). False: the
        plain equations of Debevec and Malik on the bare codes.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        No bracket, brackets that differ in channels, unusable settings, or no usable sample.
    """
    check_clips(low_clip, high_clip)
    if not 0 < smoothness < np.inf:
        raise ValueError(f"smoothness must be positive, got {smoothness}")
    fitting = Fitting(hat(weight_type), smoothness, low_clip, high_clip, robust)
    places = sum(s.count for s in samples)
    if robust and places > _MOST_PLACES:
        samples = [s.every(-(-places // _MOST_PLACES)) for s in samples]
    channels = range(_common_channels(samples))

    with ThreadPoolExecutor(len(channels)) as pool:
        fit = fitting.fit(samples, channels, pool)
        residuals, cloud = fitting.examine(samples, fit, pool)
        verdict = judge_times(samples, [(basis.low, basis.high) for basis in fit.bases])
        if not verdict.doubtful and any(c.suspect for c in check_exposures(samples, residuals)):
            # False times can make codes seem not to answer to exposure.
            verdict = judge_times(samples, [(low_clip, high_clip)] * len(channels))
        of_all = residuals
        if robust and verdict.sure is not None:
            agreeing = without_false_time(samples, verdict.sure)
            fit = fitting.fit(agreeing, channels, pool)
            of_all, _ = fitting.examine(samples, fit, pool)
            residuals, cloud = fitting.examine(agreeing, fit, pool)
    settings = {
        "smoothness": smoothness,
        "weight_type": weight_type,
        "low_clip": low_clip,
        "high_clip": high_clip,
        "robust": robust,
        "method": fit.method,
        "lowest_responsive_codes": [basis.low for basis in fit.bases],
        "highest_responsive_codes": [basis.high for basis in fit.bases],
        "made_from": ["levels" if basis.fine else "codes" for basis in fit.bases],
        "places_used": sum(s.count for s in samples),
    }
    repairs = tuple(repaired for _, repaired in fit.estimate)
    checks = check_exposures(samples, of_all, verdict)
    report = _report(len(samples), places, residuals, checks, repairs, verdict, settings)
    return Calibration(fit.log_response, report, cloud)


def response_residual(
    log_response: ArrayLike,
    samples: Sequence[BracketSamples],
    *,
    weight_type: str = "triangle",
    low_clip: int = 5,
    high_clip: int = 250,
) -> float:
    """Robust residual of samples against a curve, in stops, the worst channel's.

    Parameters
    ----------
    log_response : array_like, shape (256, C)
    samples : sequence of BracketSamples
    weight_type, low_clip, high_clip
        As in `calibrate_response`.

    Raises
    ------
    ValueError
        The curve has another number of channels than the samples, or no sample is usable.
    """
    check_clips(low_clip, high_clip)
    curve = np.asarray(log_response, dtype=np.float64)
    channels = _common_channels(samples)
    if curve.shape != (CODES, channels):
        raise ValueError(f"a curve of shape {curve.shape} for samples of {channels} channels")
    hat(weight_type)

    def spread(channel: int) -> float:
        low = lowest_answering(samples, channel, low_clip)
        high = highest_answering(samples, channel, high_clip)
        table = observe(samples, channel, low, high, fine=True)
        return channel_residuals(len(samples), table, curve[:, channel]).spread()

    values = [spread(channel) for channel in range(channels)]
    if np.isnan(values).all():
        raise ValueError("no usable samples: every place is too dark or saturated")
    return float(np.nanmax(values))


def _common_channels(samples: Sequence[BracketSamples]) -> int:
    if not samples:
        raise ValueError("no bracket to calibrate from")
    channels = {s.channels for s in samples}
    if len(channels) != 1:
        raise ValueError(f"brackets differ in their number of channels: {sorted(channels)}")
    return channels.pop()


def _report(
    brackets: int,
    places: int,
    residuals: Sequence[ChannelResiduals],
    checks: Sequence[ExposureCheck],
    repairs: tuple[int, ...],
    verdict: TimesVerdict,
    settings: dict[str, Any],
) -> CalibrationReport:
    return CalibrationReport(
        brackets=brackets,
        channels=len(residuals),
        samples=places,
        samples_per_code=tuple(tuple(int(n) for n in r.counts) for r in residuals),
        extrapolated=tuple(runs(r.counts == 0) for r in residuals),
        residual_stops=tuple(r.spread() for r in residuals),
        outlier_share=float(np.mean([r.outlier_share() for r in residuals])),
        monotone_repairs=repairs,
        exposures=tuple(checks),
        residual_by_code=tuple(tuple(float(v) for v in r.by_code) for r in residuals),
        time_doubts=verdict.suspects,
        warnings=whole_set_warnings(residuals, verdict)
        + coverage_warnings(places, residuals)
        + tuple(
            f"exposure time {c.exposure_time:g} of bracket {c.bracket} looks wrong: "
            f"the images fit {c.time_factor:.2f} times that"
            for c in checks
            if c.suspect
        ),
        settings=settings,
    )
