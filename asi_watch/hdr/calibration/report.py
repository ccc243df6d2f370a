"""What a calibration tells about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMPOSSIBLE_STOPS = 0.4


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
class TimeDoubt:
    """A stated exposure time that may be false.

    Attributes
    ----------
    bracket : int or None
        Number of the bracket; None: wherever the time is stated.
    exposure_time : float
        As stated.
    time_factor : float
        The time that fits over the stated one, if this is the false one.
    """

    bracket: int | None
    exposure_time: float
    time_factor: float


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


def runs(flags: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
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
