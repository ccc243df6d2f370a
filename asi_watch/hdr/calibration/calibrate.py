"""From samples to a response curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.monotone import is_monotone, solve_monotone
from asi_watch.hdr.calibration.report import Calibration, CalibrationReport, ExposureCheck, runs
from asi_watch.hdr.calibration.samples import CODES, BracketSamples
from asi_watch.hdr.calibration.solver import ANCHOR, NormalEquations, anchored, smoothness_matrix
from asi_watch.hdr.calibration.weighting import check_clips, hat

# Places at which `smoothness` has the strength it has in the plain equations: 10 brackets × 1000.
REFERENCE_PLACES = 10_000
_ROUNDS = 8
_HUBER = 1.345
_SUSPECT_STOPS = 0.25
LN2 = float(np.log(2.0))

Vector = NDArray[np.float64]


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
        penalty is scaled so that it weighs the same against the data.
    weight_type : {"triangle", "sine"}
        Trust in a code by its place in the range.
    low_clip, high_clip : int
        Observations with codes outside low_clip…high_clip are not used.
    robust : bool
        Weigh observations down that do not fit (moved clouds, glints, damaged pixels); False
        solves the plain equations.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        No bracket, brackets that differ in channels, unusable settings, or no usable sample.
    """
    check_clips(low_clip, high_clip)
    if not smoothness > 0:
        raise ValueError(f"smoothness must be positive, got {smoothness}")
    channels = _common_channels(samples)
    weight = hat(weight_type)
    usable = np.where((np.arange(CODES) >= low_clip) & (np.arange(CODES) <= high_clip), weight, 0.0)
    curves, repairs, used, robust_weights = [], [], [], []
    for channel in range(channels):
        curve, repaired, row_weights = _solve_channel(
            samples, channel, usable, weight, smoothness, robust
        )
        curves.append(curve)
        repairs.append(repaired)
        robust_weights.append(row_weights)
        used.append(_per_code(samples, channel, usable, row_weights))
    log_response = np.stack(curves, axis=1).astype(np.float32)
    checks = tuple(_check_exposures(samples, log_response, usable))
    report = CalibrationReport(
        brackets=len(samples),
        channels=channels,
        samples=sum(s.count for s in samples),
        samples_per_code=tuple(tuple(int(n) for n in counts) for counts in used),
        extrapolated=tuple(runs(np.asarray(counts) == 0) for counts in used),
        residual_stops=tuple(
            _residual(samples, log_response, channel, usable) for channel in range(channels)
        ),
        outlier_share=_outlier_share(robust_weights),
        monotone_repairs=tuple(repairs),
        exposures=checks,
        warnings=tuple(
            f"exposure time {c.exposure_time:g} of bracket {c.bracket} looks wrong: "
            f"the images fit {c.time_factor:.2f} times that"
            for c in checks
            if c.suspect
        ),
        settings={
            "smoothness": smoothness,
            "weight_type": weight_type,
            "low_clip": low_clip,
            "high_clip": high_clip,
            "robust": robust,
        },
    )
    return Calibration(log_response, report)


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
    curve = np.asarray(log_response, dtype=np.float64)
    channels = _common_channels(samples)
    if curve.shape != (CODES, channels):
        raise ValueError(f"a curve of shape {curve.shape} for samples of {channels} channels")
    z = np.arange(CODES)
    usable = np.where((z >= low_clip) & (z <= high_clip), hat(weight_type), 0.0)
    values = [_residual(samples, curve, channel, usable) for channel in range(channels)]
    if not np.isfinite(values).any():
        raise ValueError("no usable samples: every code is outside the clip range")
    return float(np.nanmax(values))


def _common_channels(samples: Sequence[BracketSamples]) -> int:
    if not samples:
        raise ValueError("no bracket to calibrate from")
    channels = {s.channels for s in samples}
    if len(channels) != 1:
        raise ValueError(f"brackets differ in their number of channels: {sorted(channels)}")
    return channels.pop()


def _solve_channel(
    samples: Sequence[BracketSamples],
    channel: int,
    usable: Vector,
    weight: Vector,
    smoothness: float,
    robust: bool,
) -> tuple[Vector, int, list[Vector]]:
    squared = usable**2
    robust_weights = [np.ones(s.codes.shape[:2]) for s in samples]
    curve = np.zeros(CODES)
    repairs = 0
    for _ in range(_ROUNDS if robust else 1):
        equations = NormalEquations()
        for bracket, trust in zip(samples, robust_weights, strict=True):
            codes = bracket.codes[:, :, channel]
            equations.add(codes, np.log(bracket.exposure_times), squared[codes] * trust)
        if not equations.matrix.any():
            raise ValueError(
                f"no usable samples in channel {channel}: every place is too dark or saturated "
                "in all exposures but one"
            )
        places = sum(s.count for s in samples)
        scale = smoothness * np.sqrt(places / REFERENCE_PLACES)
        matrix = anchored(equations.matrix + smoothness_matrix(scale * weight))
        curve, repairs = solve_monotone(matrix, equations.vector)
        if robust:
            robust_weights = _reweigh(samples, channel, curve, usable)
    curve -= curve[ANCHOR]
    rounded = curve.astype(np.float32)
    if not is_monotone(rounded):
        raise ValueError(f"channel {channel} holds too little information for a response curve")
    return curve, repairs, robust_weights


def _residuals(bracket: BracketSamples, channel: int, curve: Vector, usable: Vector) -> Vector:
    """ln-exposure residuals (P, N), NaN where not usable."""
    codes = bracket.codes[:, :, channel]
    weights = usable[codes] ** 2
    weights[(weights > 0).sum(axis=1) < 2] = 0.0
    exposure = curve[codes] - np.log(bracket.exposure_times)
    total = weights.sum(axis=1, keepdims=True)
    mean = (weights * exposure).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
    return np.where(weights > 0, exposure - mean, np.nan)


def _reweigh(
    samples: Sequence[BracketSamples], channel: int, curve: Vector, usable: Vector
) -> list[Vector]:
    residuals = [_residuals(s, channel, curve, usable) for s in samples]
    scale = 1.4826 * float(np.nanmedian(np.abs(np.concatenate([r.ravel() for r in residuals]))))
    limit = _HUBER * max(scale, 1e-4)
    return [np.nan_to_num(limit / np.maximum(np.abs(r), limit), nan=0.0) for r in residuals]


def _residual(
    samples: Sequence[BracketSamples], curve: NDArray[np.floating], channel: int, usable: Vector
) -> float:
    column = np.asarray(curve[:, channel], dtype=np.float64)
    values = np.concatenate([_residuals(s, channel, column, usable).ravel() for s in samples])
    values = values[np.isfinite(values)]
    return _robust_rms(values) / LN2


def _robust_rms(values: Vector) -> float:
    return float(1.4826 * np.median(np.abs(values))) if values.size else float("nan")


def _check_exposures(
    samples: Sequence[BracketSamples], curve: NDArray[np.float32], usable: Vector
) -> list[ExposureCheck]:
    checks = []
    for number, bracket in enumerate(samples):
        residuals = np.stack(
            [
                _residuals(bracket, channel, curve[:, channel].astype(np.float64), usable)
                for channel in range(bracket.channels)
            ],
            axis=2,
        )
        for n, time in enumerate(bracket.exposure_times):
            columns = [r[np.isfinite(r)] for r in residuals[:, n].T]
            everything = np.concatenate(columns)
            shift = float(np.median(everything)) if everything.size else 0.0
            checks.append(
                ExposureCheck(
                    bracket=number,
                    exposure_time=float(time),
                    residual_stops=tuple(_robust_rms(c) / LN2 for c in columns),
                    time_factor=float(np.exp(shift)),
                    suspect=abs(shift) / LN2 > _SUSPECT_STOPS,
                )
            )
    return checks


def _per_code(
    samples: Sequence[BracketSamples], channel: int, usable: Vector, trust: list[Vector]
) -> NDArray[np.int64]:
    counts = np.zeros(CODES, dtype=np.int64)
    for bracket, weights in zip(samples, trust, strict=True):
        codes = bracket.codes[:, :, channel]
        good = (usable[codes] > 0) & (weights > 0)
        good &= good.sum(axis=1, keepdims=True) >= 2
        counts += np.bincount(codes[good], minlength=CODES)
    return counts


def _outlier_share(robust_weights: list[list[Vector]]) -> float:
    weights = np.concatenate([w.ravel() for per_channel in robust_weights for w in per_channel])
    weights = weights[weights > 0]
    return float((weights < 0.5).mean()) if weights.size else 0.0
