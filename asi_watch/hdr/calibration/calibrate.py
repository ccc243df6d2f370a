"""From samples to a response curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.floor import responsive_from
from asi_watch.hdr.calibration.monotone import is_monotone, solve_monotone
from asi_watch.hdr.calibration.observations import Observations, observe
from asi_watch.hdr.calibration.prediction import (
    is_still,
    leave_one_out_error,
    straight_on,
    thinned,
    with_data_driven_ends,
)
from asi_watch.hdr.calibration.report import Calibration, CalibrationReport, ExposureCheck, runs
from asi_watch.hdr.calibration.residuals import (
    ChannelResiduals,
    channel_residuals,
    data_cloud,
    median,
    robust_spread,
)
from asi_watch.hdr.calibration.robust import chunks, fit_robust
from asi_watch.hdr.calibration.samples import CODES, BracketSamples
from asi_watch.hdr.calibration.solver import ANCHOR, NormalEquations, anchored, smoothness_matrix
from asi_watch.hdr.calibration.weighting import check_clips, hat

# Places at which `smoothness` has the strength it has in the plain equations: 10 brackets × 1000.
REFERENCE_PLACES = 10_000
REFERENCE_SMOOTHNESS = 50.0
# Strength of the shape prior per place at the reference smoothness; chosen by cross-validation.
_STRENGTH = 5e-5
_SUSPECT_STOPS = 0.25
_LEAST_SHARE = 0.03  # of a bracket's observations, for an exposure to be judged
# Far fewer already leave the noise below every systematic error; an even share is taken of more.
_MOST_PLACES = 200_000
_IMPOSSIBLE_STOPS = 0.4
_PLAIN_FACTORS = (1.0, 3.0, 10.0)
_CLEARLY_BETTER = 0.97

Vector = NDArray[np.float64]
Estimate = tuple[Vector, int]  # g of one channel and the steps its monotone constraint held up


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
        Trust in a code by its place in the range, in the plain equations; the robust estimate
        takes its weights from the noise instead.
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
    weight = hat(weight_type)
    places = sum(s.count for s in samples)
    if robust and places > _MOST_PLACES:
        samples = [s.every(-(-places // _MOST_PLACES)) for s in samples]
    channels = range(_common_channels(samples))
    floors = [responsive_from(samples, c, low_clip) if robust else low_clip for c in channels]
    tables = [_usable_table(samples, c, (floors[c], high_clip), fine=robust) for c in channels]
    method = "plain"
    if robust:
        estimate = _fit_robust(tables, smoothness)
        estimate, method = _best_predicting(
            samples, estimate, weight, smoothness, floors, high_clip
        )
    else:
        estimate = [_fit_plain(table, weight, smoothness) for table in tables]
    log_response = np.stack([curve for curve, _ in estimate], axis=1).astype(np.float32)
    if not is_monotone(log_response):
        raise ValueError("the samples hold too little information for a response curve")
    residuals = [
        channel_residuals(samples, log_response[:, c], c, (floors[c], high_clip), fine=robust)
        for c in channels
    ]
    settings = {
        "smoothness": smoothness,
        "weight_type": weight_type,
        "low_clip": low_clip,
        "high_clip": high_clip,
        "robust": robust,
        "method": method,
        "lowest_responsive_codes": floors,
        "places_used": sum(s.count for s in samples),
    }
    repairs = tuple(repaired for _, repaired in estimate)
    report = _report(samples, places, residuals, repairs, settings)
    cloud = tuple(data_cloud(table, log_response[:, c]) for c, table in enumerate(tables))
    return Calibration(log_response, report, cloud)


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
    values = [
        channel_residuals(
            samples,
            curve[:, channel],
            channel,
            (responsive_from(samples, channel, low_clip), high_clip),
        ).spread()
        for channel in range(channels)
    ]
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


def _usable_table(
    samples: Sequence[BracketSamples], channel: int, clips: tuple[int, int], *, fine: bool
) -> Observations:
    table = observe(samples, channel, *clips, fine=fine)
    if not table.usable.any():
        raise ValueError(
            f"no usable samples in channel {channel}: every place is too dark or saturated "
            "in all exposures but one"
        )
    return table


def _fit_robust(tables: Sequence[Observations], smoothness: float) -> list[Estimate]:
    strength = _STRENGTH * (smoothness / REFERENCE_SMOOTHNESS) ** 2
    return [fit_robust(table, strength) for table in tables]


def _best_predicting(
    samples: Sequence[BracketSamples],
    robust: list[Estimate],
    weight: Vector,
    smoothness: float,
    floors: Sequence[int],
    high_clip: int,
) -> tuple[list[Estimate], str]:
    """Give the robust curves their ends; prefer plain ones where they predict clearly better.

    They do where the images break the model for most places (flare, a film's base); of scenes
    that moved the bare codes cannot judge, there the robust curves stand.
    """
    few = thinned(samples)
    judges = [observe(few, channel, 0, CODES - 1, fine=False) for channel in range(len(robust))]
    best = [
        (with_data_driven_ends(curve, judge, floor, high_clip), repairs)
        for (curve, repairs), judge, floor in zip(robust, judges, floors, strict=True)
    ]
    method, error = "robust", _joint_error(best, judges) * _CLEARLY_BETTER
    if not is_still(samples):
        return best, method
    for factor in _PLAIN_FACTORS:
        fits = [_fit_plain(judge, weight, smoothness * factor) for judge in judges]
        plain = [(straight_on(curve, high_clip), repairs) for curve, repairs in fits]
        plain_error = _joint_error(plain, judges)
        if plain_error < error:
            best, method, error = plain, f"plain, smoothness × {factor:g}", plain_error
    return best, method


def _joint_error(estimate: Sequence[Estimate], judges: Sequence[Observations]) -> float:
    errors = [
        leave_one_out_error(curve, judge)
        for (curve, _), judge in zip(estimate, judges, strict=True)
    ]
    return float(np.sqrt(np.mean(np.square(errors))))


def _fit_plain(table: Observations, weight: Vector, smoothness: float) -> Estimate:
    """Debevec and Malik's equations, the penalty scaled to the number of places."""
    equations = NormalEquations()
    squared = weight**2
    for piece in chunks(table):
        equations.add(piece.codes, piece.log_times, squared[piece.codes] * piece.usable)
    scale = smoothness * np.sqrt(len(table.codes) / REFERENCE_PLACES)
    matrix = anchored(equations.matrix + smoothness_matrix(scale * weight))
    curve, repairs = solve_monotone(matrix, equations.vector)
    return curve - curve[ANCHOR], repairs


def _report(
    samples: Sequence[BracketSamples],
    places: int,
    residuals: Sequence[ChannelResiduals],
    repairs: tuple[int, ...],
    settings: dict[str, Any],
) -> CalibrationReport:
    checks = tuple(_check_exposures(samples, residuals))
    return CalibrationReport(
        brackets=len(samples),
        channels=len(residuals),
        samples=places,
        samples_per_code=tuple(tuple(int(n) for n in r.counts) for r in residuals),
        extrapolated=tuple(runs(r.counts == 0) for r in residuals),
        residual_stops=tuple(r.spread() for r in residuals),
        outlier_share=float(np.mean([r.outlier_share() for r in residuals])),
        monotone_repairs=repairs,
        exposures=checks,
        residual_by_code=tuple(tuple(float(v) for v in r.by_code) for r in residuals),
        warnings=_whole_set_warnings(residuals)
        + tuple(
            f"exposure time {c.exposure_time:g} of bracket {c.bracket} looks wrong: "
            f"the images fit {c.time_factor:.2f} times that"
            for c in checks
            if c.suspect
        ),
        settings=settings,
    )


def _whole_set_warnings(residuals: Sequence[ChannelResiduals]) -> tuple[str, ...]:
    worst = float(np.nanmax([r.spread() for r in residuals]))
    if worst <= _IMPOSSIBLE_STOPS:
        return ()
    return (
        f"no response curve fits these images within {worst:.2f} stops: the stated exposure times "
        "cannot be true, or the exposures do not show one scene through one fixed tone curve",
    )


def _check_exposures(
    samples: Sequence[BracketSamples], residuals: Sequence[ChannelResiduals]
) -> list[ExposureCheck]:
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
