"""What a calibration says of itself: residuals, coverage, and the exposures that do not fit."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.estimate import CurveTables
from asi_watch.hdr.calibration.samples import (
    CODES,
    BracketSamples,
    Codes,
    Flags,
    Floats,
    Observations,
    Vector,
)
from asi_watch.hdr.calibration.times import TimeDoubt, TimesVerdict

IMPOSSIBLE_STOPS = 0.4
_LN2 = np.float32(np.log(2.0))
_OUTLIER_STOPS = 0.5
_PLACES = 50_000
_CLOUD = 3_000
_SMALLEST_STEP = 1e-6
_SUSPECT_STOPS = 0.25
_LEAST_SHARE = 0.03  # of a bracket's observations, for an exposure to be judged
_FEWEST_PLACES = 100
_FEWEST_CODES = CODES // 2
_NO_DOUBT = TimesVerdict()


@dataclass(frozen=True)
class ExposureCheck:
    """One exposure of one bracket against the curve."""

    bracket: int  # its number in the order given
    exposure_time: float  # as stated
    residual_stops: tuple[float, ...]  # per channel (BGR); NaN where no sample was usable
    time_factor: float  # estimated exposure time over the stated one
    suspect: bool  # the stated time cannot be true within the spread of the set


@dataclass(frozen=True)
class CalibrationReport:
    """Residuals, coverage and doubts of a calibration; tuples per channel in the order BGR.

    A residual is everywhere 1.4826 × the median distance from the curve in stops (the standard
    deviation, were it normal) of all observations that are not clipped, whatever weight they had
    in the fit; NaN without any.
    """

    brackets: int
    channels: int
    samples: int  # places, all brackets together
    samples_per_code: tuple[tuple[int, ...], ...]  # observations used at each of the 256 codes
    extrapolated: tuple[tuple[tuple[int, int], ...], ...]  # codes first…last where g is a guess
    residual_stops: tuple[float, ...]
    outlier_share: float  # of the usable observations, more than half a stop from the curve
    exposures: tuple[ExposureCheck, ...]
    residual_by_code: tuple[tuple[float, ...], ...]
    # Where the stated times contradict each other and it cannot be told which one is false: each
    # of these alone would explain the images.
    time_doubts: tuple[TimeDoubt, ...]
    warnings: tuple[str, ...]  # sentences for the operator
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
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)
        return plain


@dataclass(frozen=True, eq=False)
class Calibration:
    """A response curve and the report on it."""

    log_response: Floats
    """g(z), shape (256, C), channels as in the samples (BGR), g(128) = 0, strictly rising."""
    report: CalibrationReport
    cloud: tuple[Floats, ...] = ()
    """For each channel at most 3000 observations for the eye, shape (M, 2): code and ln E + ln t,
    ln E of each place estimated by the curve; not part of the report."""


@dataclass(frozen=True, eq=False)
class ChannelResiduals:
    """Residuals of one channel's usable observations (M), of at most 50,000 places."""

    stops: Floats
    codes: Codes
    cells: NDArray[np.int64]  # number of the bracket × exposures of the longest + exposure
    counts: NDArray[np.int64]  # observations used at each code, of all places
    cloud: Floats  # see `Calibration.cloud`

    def spread(self) -> float:
        """Robust residual of the whole channel, stops."""
        return _spread(self.stops)


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
    tables = CurveTables.of_curve(curve, _SMALLEST_STEP)
    stops = tables.residuals(few)[0] / _LN2
    exposures = table.codes.shape[1]
    cells = few.bracket[:, np.newaxis].astype(np.int64) * exposures + np.arange(exposures)
    used = few.usable
    cloud = _cloud(table, tables)
    return ChannelResiduals(stops[used], few.codes[used], cells[used], counts, cloud)


def _cloud(table: Observations, tables: CurveTables) -> Floats:
    """An even share of one channel's observations, as points beside the curve."""
    few = table.part(slice(None, None, max(1, -(-int(table.usable.sum()) // _CLOUD))))
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
        Where that cannot tell which time is false, nor can residuals: the curve was fitted to them.
    """
    # Left without one of its exposures everywhere, a curve may be too weak to accuse others.
    sure = verdict.sure
    residuals_tell = not verdict.suspects and (sure is None or sure.bracket is not None)
    exposures = max(len(s.exposure_times) for s in samples)
    parts = [_grouped(r.stops, r.cells, len(samples) * exposures) for r in residuals]
    cells_of_all = list(zip(*parts, strict=True))
    checks = []
    for number, bracket in enumerate(samples):
        cells = cells_of_all[number * exposures :][: len(bracket.exposure_times)]
        shifts, large = _shifts([np.concatenate(cell) for cell in cells])
        factors, suspect = 2.0**shifts, large & residuals_tell
        if sure is not None:
            named = sure.of(number, bracket)
            factors, suspect = np.where(named, sure.time_factor, factors), suspect | named
        residual = (tuple(_spread(values) for values in cell) for cell in cells)
        facts = bracket.exposure_times.tolist(), residual, factors.tolist(), suspect.tolist()
        checks += [ExposureCheck(number, *fact) for fact in zip(*facts, strict=True)]
    return tuple(checks)


def _shifts(observations: Sequence[Floats]) -> tuple[Vector, Flags]:
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


def make_report(
    samples: Sequence[BracketSamples],
    residuals: Sequence[ChannelResiduals],
    checks: tuple[ExposureCheck, ...],
    verdict: TimesVerdict,
    settings: dict[str, Any],
) -> CalibrationReport:
    """Put a report together.

    Parameters
    ----------
    samples : sequence of BracketSamples
    residuals : sequence of ChannelResiduals
        Of every channel.
    checks : tuple of ExposureCheck
    verdict : TimesVerdict
    settings : dict
    """
    places = sum(s.count for s in samples)
    far = [(np.abs(r.stops) > _OUTLIER_STOPS).sum() / max(r.stops.size, 1) for r in residuals]
    by_code = (_grouped(r.stops, r.codes, CODES) for r in residuals)
    warnings = (*_time_warnings(residuals, verdict, checks), *_coverage_warnings(places, residuals))
    return CalibrationReport(
        brackets=len(samples),
        channels=len(residuals),
        samples=places,
        samples_per_code=tuple(tuple(r.counts.tolist()) for r in residuals),
        extrapolated=tuple(_runs(r.counts == 0) for r in residuals),
        residual_stops=tuple(r.spread() for r in residuals),
        outlier_share=float(np.mean(far)),
        exposures=checks,
        residual_by_code=tuple(tuple(map(_spread, codes)) for codes in by_code),
        time_doubts=verdict.suspects,
        warnings=warnings,
        settings=settings,
    )


def _time_warnings(
    residuals: Sequence[ChannelResiduals], verdict: TimesVerdict, checks: Sequence[ExposureCheck]
) -> list[str]:
    """Say so when no curve fits the whole set, and which exposures do not fit it."""
    warnings = []
    if verdict.suspects:
        ways = [
            f"{doubt.exposure_time:.12g}"
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
    return warnings + [
        f"exposure time {c.exposure_time:.12g} of bracket {c.bracket} looks wrong: "
        f"the images fit {c.time_factor:.2f} times that"
        for c in checks
        if c.suspect
    ]


def _coverage_warnings(places: int, residuals: Sequence[ChannelResiduals]) -> list[str]:
    """Say so when a curve stands on few places, or on few codes of a channel."""
    codes = [int((r.counts > 0).sum()) for r in residuals]
    worst = int(np.argmin(codes))
    if places >= _FEWEST_PLACES and codes[worst] >= _FEWEST_CODES:
        return []
    name = ("blue", "green", "red")[worst] if len(codes) == 3 else "grey"
    return [
        f"thin data: {places} places, and in {name} {int(residuals[worst].counts.sum())}"
        f" observations at {codes[worst]} of {CODES} codes; between and beyond these the curve is"
        " a guess"
    ]


def _grouped(values: Floats, groups: NDArray[np.integer], count: int) -> list[Floats]:
    """The values of each of `count` groups."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=count))
    return np.split(values[order], ends[:-1])


def _spread(stops: Floats) -> float:
    return 1.4826 * float(np.median(np.abs(stops))) if stops.size else float("nan")


def _runs(flags: Flags) -> tuple[tuple[int, int], ...]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return tuple((int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True))
