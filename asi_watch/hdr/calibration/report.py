"""What a calibration tells about itself: residuals, coverage, and the exposures that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.robust import CurveTables
from asi_watch.hdr.calibration.samples import CODES, BracketSamples, Observations
from asi_watch.hdr.calibration.times import TimeDoubt, TimesVerdict

IMPOSSIBLE_STOPS = 0.4
_LN2 = float(np.log(2.0))
_OUTLIER_STOPS = 0.5
_PLACES = 50_000
_CLOUD = 3_000
_SMALLEST_STEP = 1e-6
_SUSPECT_STOPS = 0.25
_LEAST_SHARE = 0.03  # of a bracket's observations, for an exposure to be judged
_FEWEST_PLACES = 100
_FEWEST_CODES = CODES // 2
_NO_DOUBT = TimesVerdict()

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ExposureCheck:
    """One exposure of one bracket against the curve.

    Attributes
    ----------
    bracket : int
        Number of the bracket in the order given.
    exposure_time : float
        As stated.
    residual_stops : tuple of float
        Robust residual per channel (BGR); NaN where no sample was usable.
    time_factor : float
        Estimated exposure time over the stated one.
    suspect : bool
        The stated time cannot be true within the spread of the set.
    """

    bracket: int
    exposure_time: float
    residual_stops: tuple[float, ...]
    time_factor: float
    suspect: bool


@dataclass(frozen=True)
class CalibrationReport:
    """Residuals, coverage and doubts of a calibration.

    A residual is everywhere 1.4826 × the median distance from the curve (the standard deviation,
    were it normal) of all observations that are not clipped, whatever weight they had in the fit.

    Attributes
    ----------
    brackets, channels : int
    samples : int
        Places sampled, all brackets together.
    samples_per_code : tuple of tuple of int
        For each channel (BGR) the number of observations used at each of the 256 codes.
    extrapolated : tuple of tuple of (int, int)
        For each channel the ranges of codes (first, last) without samples, where g is a guess.
    residual_stops : tuple of float
        Robust residual per channel, stops.
    outlier_share : float
        Share of usable observations more than half a stop from the curve.
    monotone_repairs : tuple of int
        Steps between codes, per channel, held up by the monotone constraint.
    exposures : tuple of ExposureCheck
    residual_by_code : tuple of tuple of float
        For each channel the residual at each code, stops; NaN without samples.
    time_doubts : tuple of TimeDoubt
        Where the stated times contradict each other and it cannot be told which one is false:
        each of these alone would explain the images. Empty otherwise.
    warnings : tuple of str
        Sentences for the operator.
    settings : dict
    """

    brackets: int
    channels: int
    samples: int
    samples_per_code: tuple[tuple[int, ...], ...]
    extrapolated: tuple[tuple[tuple[int, int], ...], ...]
    residual_stops: tuple[float, ...]
    outlier_share: float
    monotone_repairs: tuple[int, ...]
    exposures: tuple[ExposureCheck, ...]
    residual_by_code: tuple[tuple[float, ...], ...]
    time_doubts: tuple[TimeDoubt, ...]
    warnings: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def suspected_times(self) -> tuple[ExposureCheck, ...]:
        """The exposures whose stated time cannot be true."""
        return tuple(check for check in self.exposures if check.suspect)

    @property
    def fits(self) -> bool:
        """False where no curve can be right: the times are false, or no bracket is one scene."""
        worst = max((v for v in self.residual_stops if np.isfinite(v)), default=0.0)
        return worst <= IMPOSSIBLE_STOPS and not self.time_doubts

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain values that JSON can hold; NaN becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


@dataclass(frozen=True, eq=False)
class Calibration:
    """A response curve and the report on it.

    Attributes
    ----------
    log_response : ndarray, shape (256, C), float32
        g(z) in the channel order of the samples (BGR), g(128) = 0, strictly rising.
    report : CalibrationReport
    cloud : tuple of ndarray, shape (M, 2), float32
        For each channel a few thousand of the observations for the eye: code and ln E + ln t,
        ln E of each place estimated by the curve. Not part of the report.
    """

    log_response: NDArray[np.float32]
    report: CalibrationReport
    cloud: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True, eq=False)
class ChannelResiduals:
    """Residuals of one channel's usable observations, of at most 50,000 places.

    Attributes
    ----------
    stops : ndarray, shape (M,), float32
    codes : ndarray, shape (M,), uint8
    cells : ndarray, shape (M,), int64
        Number of the bracket × exposures of the longest bracket + number of the exposure.
    counts : ndarray, shape (256,), int64
        Observations used at each code, of all places.
    """

    stops: NDArray[np.float32]
    codes: NDArray[np.uint8]
    cells: NDArray[np.int64]
    counts: NDArray[np.int64]

    def spread(self) -> float:
        """Robust residual of the whole channel: 1.4826 × median of |residual|, stops."""
        return _spread(self.stops)

    def by_code(self) -> tuple[float, ...]:
        """Robust residual at each code, stops; NaN without any."""
        return tuple(_spread(part) for part in _grouped(self.stops, self.codes, CODES))


def channel_residuals(table: Observations, curve: NDArray[np.floating]) -> ChannelResiduals:
    """Collect the residuals of one channel against a rising curve.

    Parameters
    ----------
    table : Observations
        Of that channel.
    curve : ndarray, shape (256,)
    """
    counts = np.bincount(table.codes[table.usable], minlength=CODES)
    few = table.part(slice(None, None, -(-len(table.codes) // _PLACES)))
    residual, _ = CurveTables.of_curve(curve, _SMALLEST_STEP).residuals(few)
    exposures = table.codes.shape[1]
    cells = few.bracket[:, np.newaxis].astype(np.int64) * exposures + np.arange(exposures)
    used = few.usable
    return ChannelResiduals(residual[used] / np.float32(_LN2), few.codes[used], cells[used], counts)


def data_cloud(table: Observations, curve: NDArray[np.floating]) -> NDArray[np.float32]:
    """Give an even share of one channel's observations as points beside the curve.

    Parameters
    ----------
    table : Observations
    curve : ndarray, shape (256,)
        Rising.

    Returns
    -------
    ndarray, shape (M, 2), float32
        See `Calibration.cloud`; M ≤ 3000.
    """
    few = table.part(slice(None, None, max(1, -(-int(table.usable.sum()) // _CLOUD))))
    tables = CurveTables.of_curve(curve, _SMALLEST_STEP)
    residual, _ = tables.residuals(few)
    beside = tables.exposures(few) + few.log_times
    points = np.stack([few.codes + few.fraction, beside - residual], axis=-1)[few.usable]
    # Places differ in how many exposures are usable, so the share is only nearly even.
    return np.asarray(points[:_CLOUD], dtype=np.float32)


def check_exposures(
    samples: Sequence[BracketSamples],
    residuals: Sequence[ChannelResiduals],
    verdict: TimesVerdict = _NO_DOUBT,
) -> tuple[ExposureCheck, ...]:
    """Judge every exposure of every bracket by its residuals.

    Parameters
    ----------
    samples : sequence of BracketSamples
    residuals : sequence of ChannelResiduals
        Of every channel.
    verdict : TimesVerdict
        Where that cannot tell which one is false, nor can residuals, of which the curve has made
        what it could.
    """
    # Left without one of its exposures everywhere, a curve may be too weak to accuse others.
    sure = verdict.sure
    residuals_tell = not verdict.suspects and (sure is None or sure.bracket is not None)
    exposures = max(len(s.exposure_times) for s in samples)
    parts = [_grouped(r.stops, r.cells, len(samples) * exposures) for r in residuals]
    checks = []
    for number, bracket in enumerate(samples):
        times = bracket.exposure_times
        cells = [[part[number * exposures + n] for part in parts] for n in range(len(times))]
        shifts, large = _shifts([np.concatenate(cell) for cell in cells])
        named = sure.of(number, bracket) if sure is not None else np.zeros(len(times), dtype=bool)
        checks += [
            ExposureCheck(
                bracket=number,
                exposure_time=float(time),
                residual_stops=tuple(_spread(values) for values in cells[n]),
                time_factor=(
                    sure.time_factor if sure is not None and named[n] else float(2.0 ** shifts[n])
                ),
                suspect=bool(large[n] and residuals_tell) or bool(named[n]),
            )
            for n, time in enumerate(times)
        ]
    return tuple(checks)


def _shifts(observations: Sequence[NDArray[np.float32]]) -> tuple[Vector, NDArray[np.bool_]]:
    """By how many stops each exposure of a bracket lies beside the curve, and whether all of it."""
    sizes = np.array([values.size for values in observations])
    quartiles = np.full((len(sizes), 3), np.nan)
    for n, values in enumerate(observations):
        if values.size:
            quartiles[n] = np.quantile(values, (0.25, 0.5, 0.75))
    if len(sizes) > 2 and sizes.any():
        # ln E is the mean of all exposures, so one false time shifts the others too, but all
        # alike: measured from their median the one that is false stands alone.
        quartiles -= np.nanmedian(quartiles[:, 1])
    lower, shifts, upper = quartiles.T
    # A false time shifts all that the exposure shows; noise in the dark shifts the half of it.
    one_side = (lower > _SUSPECT_STOPS / 2) | (upper < -_SUSPECT_STOPS / 2)
    enough = sizes >= _LEAST_SHARE * sizes.sum()
    return shifts, enough & (np.abs(shifts) > _SUSPECT_STOPS) & one_side


def time_warnings(
    residuals: Sequence[ChannelResiduals], verdict: TimesVerdict, checks: Sequence[ExposureCheck]
) -> list[str]:
    """Say so when no curve fits the whole set, and which exposures do not fit it."""
    warnings = []
    if verdict.suspects:
        ways = [
            f"{doubt.exposure_time:g}"
            + ("" if doubt.bracket is None else f" of bracket {doubt.bracket}")
            + f" were {float(f'{doubt.exposure_time * doubt.time_factor:.3g}'):g}"
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
    warnings += [
        f"exposure time {c.exposure_time:g} of bracket {c.bracket} looks wrong: "
        f"the images fit {c.time_factor:.2f} times that"
        for c in checks
        if c.suspect
    ]
    return warnings


def coverage_warnings(places: int, residuals: Sequence[ChannelResiduals]) -> list[str]:
    """Say so when a curve stands on few places, or on few codes of a channel."""
    codes = [int((r.counts > 0).sum()) for r in residuals]
    if places >= _FEWEST_PLACES and min(codes) >= _FEWEST_CODES:
        return []
    worst = int(np.argmin(codes))
    seen = int(residuals[worst].counts.sum())
    names = ("blue", "green", "red") if len(codes) == 3 else ("grey",) * len(codes)
    return [
        f"thin data: {places} places, and in {names[worst]} {seen} observations at {codes[worst]}"
        f" of {CODES} codes; between and beyond these the curve is a guess"
    ]


def residual_facts(residuals: Sequence[ChannelResiduals]) -> dict[str, Any]:
    """The fields of a report that are about residuals and coverage."""
    far = [
        float(np.mean(np.abs(r.stops) > _OUTLIER_STOPS)) if r.stops.size else 0.0 for r in residuals
    ]
    return {
        "channels": len(residuals),
        "samples_per_code": tuple(tuple(int(n) for n in r.counts) for r in residuals),
        "extrapolated": tuple(_runs(r.counts == 0) for r in residuals),
        "residual_stops": tuple(r.spread() for r in residuals),
        "outlier_share": float(np.mean(far)) if far else 0.0,
        "residual_by_code": tuple(r.by_code() for r in residuals),
    }


def _grouped(
    values: NDArray[np.float32], groups: NDArray[np.integer], count: int
) -> list[NDArray[np.float32]]:
    """The values of each of `count` groups."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=count))
    return np.split(values[order], ends[:-1])


def _spread(stops: NDArray[np.float32]) -> float:
    return 1.4826 * float(np.median(np.abs(stops))) if stops.size else float("nan")


def _runs(flags: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return tuple((int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, np.generic):
        return _plain(value.item())
    return value
