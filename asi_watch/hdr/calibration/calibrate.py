"""From samples to a response curve."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.floor import responsive_from
from asi_watch.hdr.calibration.monotone import is_monotone, solve_monotone
from asi_watch.hdr.calibration.observations import Observations, observe
from asi_watch.hdr.calibration.prediction import (
    HALF_SATURATED,
    is_still,
    leave_one_out_error,
    straight_on,
    thinned,
    with_mean_ends,
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
_MOST_PLACES = 60_000
_IMPOSSIBLE_STOPS = 0.4
# By this much must predict better than straight ends: means up to high_clip, means up to 255 (a
# jump there scales whole pictures), and the plain curve than what was best so far. It is fitted
# to the noise of the very codes it is judged by, which alone is worth a twentieth.
_BETTER_CODES, _BETTER_ENDS, _BETTER_CURVE = 0.95, 0.8, 0.9
# The plain curve is only asked where it cannot wiggle: smoother than usual, with exposures enough.
_PLAIN_FACTOR = 10.0
_PLAIN_EXPOSURES = 5

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
    weight = hat(weight_type)
    places = sum(s.count for s in samples)
    if robust and places > _MOST_PLACES:
        samples = [s.every(-(-places // _MOST_PLACES)) for s in samples]
    channels = range(_common_channels(samples))

    def fit(channel: int) -> tuple[Observations, int, Estimate]:
        floor = responsive_from(samples, channel, low_clip) if robust else low_clip
        table = _usable_table(samples, channel, (floor, high_clip), fine=robust)
        if robust:
            return table, floor, fit_robust(table, strength)
        return table, floor, _fit_plain(table, weight, smoothness)

    strength = _STRENGTH * (smoothness / REFERENCE_SMOOTHNESS) ** 2
    with ThreadPoolExecutor(len(channels)) as pool:  # numpy works outside the interpreter's lock
        tables, floors, estimate = map(list, zip(*pool.map(fit, channels), strict=True))
        method = "plain"
        if robust:
            estimate, method = _best_predicting(
                samples, estimate, weight, smoothness, floors, high_clip
            )
        log_response = np.stack([curve for curve, _ in estimate], axis=1).astype(np.float32)
        if not is_monotone(log_response):
            raise ValueError("the samples hold too little information for a response curve")
        columns = [log_response[:, c] for c in channels]
        residuals = list(pool.map(partial(channel_residuals, len(samples)), tables, columns))
        cloud = tuple(pool.map(data_cloud, tables, columns))
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

    def spread(channel: int) -> float:
        clips = (responsive_from(samples, channel, low_clip), high_clip)
        table = observe(samples, channel, *clips, fine=True)
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


def _best_predicting(
    samples: Sequence[BracketSamples],
    robust: list[Estimate],
    weight: Vector,
    smoothness: float,
    floors: Sequence[int],
    high_clip: int,
) -> tuple[list[Estimate], str]:
    """Give the robust curves their ends; prefer plain ones where they predict far better.

    They do where the images break the model for most places (flare, a film's base); of scenes
    that moved the bare codes cannot judge, there the robust curves stand with straight ends.
    """
    few = thinned(samples)
    judges = [observe(few, channel, 0, CODES - 1, fine=False) for channel in range(len(robust))]
    last = min(HALF_SATURATED, high_clip)
    best, to_clip, to_white = [], [], []
    for (curve, repairs), judge, floor in zip(robust, judges, floors, strict=True):
        ended = with_mean_ends(curve, judge, weight, floor, last)
        dark = np.where(np.arange(CODES) <= last, ended, curve)
        best.append((straight_on(dark, high_clip), repairs))
        to_clip.append((straight_on(ended, high_clip), repairs))
        to_white.append((ended, repairs))
    method = "robust"
    if not is_still(samples):
        return best, method
    straight_error = error = _joint_error(best, judges, weight)
    for candidate, name, share in (
        (to_clip, "robust, mean bright codes", _BETTER_CODES),
        (to_white, "robust, mean white", _BETTER_ENDS),
    ):
        candidate_error = _joint_error(candidate, judges, weight)
        if candidate_error < min(share * straight_error, error):
            best, method, error = candidate, name, candidate_error
    if min(len(s.exposure_times) for s in samples) >= _PLAIN_EXPOSURES:
        fits = [_fit_plain(judge, weight, smoothness * _PLAIN_FACTOR) for judge in judges]
        plain = [(straight_on(curve, high_clip), repairs) for curve, repairs in fits]
        if _joint_error(plain, judges, weight) < _BETTER_CURVE * error:
            best, method = plain, f"plain, smoothness × {_PLAIN_FACTOR:g}"
    return best, method


def _joint_error(
    estimate: Sequence[Estimate], judges: Sequence[Observations], weight: Vector
) -> float:
    errors = [
        leave_one_out_error(curve, judge, weight)
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
