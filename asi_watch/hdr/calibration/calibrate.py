"""From samples to a response curve with its report."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.report import (
    Calibration,
    CalibrationReport,
    ChannelResiduals,
    channel_residuals,
    check_exposures,
    coverage_warnings,
    data_cloud,
    residual_facts,
    time_warnings,
)
from asi_watch.hdr.calibration.responsive_codes import responsive_range, white_warnings
from asi_watch.hdr.calibration.samples import (
    CODES,
    BracketSamples,
    common_channels,
    observe,
    thinned,
)
from asi_watch.hdr.calibration.sampling import MOST_PLACES
from asi_watch.hdr.calibration.selection import (
    Basis,
    Estimate,
    best_predicting,
    fit_best_basis,
    table_of,
)
from asi_watch.hdr.calibration.solver import fit_plain, is_monotone, weight_of_codes
from asi_watch.hdr.calibration.times import judge_times

_REFERENCE_SMOOTHNESS = 50.0
# Strength of the shape prior per place at the reference smoothness; chosen by cross-validation.
_STRENGTH = 5e-5


def check_settings(smoothness: float, weight_type: str, low_clip: int, high_clip: int) -> None:
    """Refuse settings that no curve can be calibrated with.

    Raises
    ------
    ValueError
        Names the setting.
    """
    if not 0 <= low_clip < high_clip <= CODES - 1:
        raise ValueError(
            "low_clip and high_clip must satisfy 0 <= low < high <= 255, "
            f"got {low_clip} and {high_clip}"
        )
    weight_of_codes(weight_type)
    if not 0 < smoothness < np.inf:
        raise ValueError(f"smoothness must be a positive number; got {smoothness!r}")


def calibrate_response(
    samples: Sequence[BracketSamples],
    *,
    smoothness: float = _REFERENCE_SMOOTHNESS,
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
    check_settings(smoothness, weight_type, low_clip, high_clip)
    fitting = _Fitting(weight_of_codes(weight_type), smoothness, (low_clip, high_clip), robust)
    channels = common_channels(samples)
    places = sum(s.count for s in samples)
    used = thinned(samples, MOST_PLACES) if robust else list(samples)
    with ThreadPoolExecutor(channels) as pool:
        fit = fitting.fit(used, channels, pool)
        residuals, cloud = fit.examine(used, pool)
        verdict = judge_times(used, [basis.clips for basis in fit.bases])
        suspects = {c.exposure_time for c in check_exposures(used, residuals) if c.suspect}
        if not verdict.doubtful and suspects:
            # False times can make codes seem not to respond to exposure; codes that do not (a
            # film's base) can make sound times seem false. Residuals must name the same one.
            wider = judge_times(used, [fitting.clips] * channels)
            if wider.sure is None or wider.sure.exposure_time in suspects:
                verdict = wider
        of_all = residuals
        if robust and verdict.sure is not None:
            agreeing = verdict.agreeing(used)
            fit = fitting.fit(agreeing, channels, pool)
            of_all, _ = fit.examine(used, pool)
            residuals, cloud = fit.examine(agreeing, pool)
    checks = check_exposures(used, of_all, verdict)
    report = CalibrationReport(
        brackets=len(samples),
        samples=places,
        monotone_repairs=tuple(repairs for _, repairs in fit.estimate),
        exposures=checks,
        time_doubts=verdict.suspects,
        warnings=(
            *time_warnings(residuals, verdict, checks),
            *coverage_warnings(places, residuals),
            *white_warnings(used, high_clip),
        ),
        settings={
            "smoothness": smoothness,
            "weight_type": weight_type,
            "low_clip": low_clip,
            "high_clip": high_clip,
            "robust": robust,
            **fit.facts(),
            "places_used": sum(s.count for s in used),
        },
        **residual_facts(residuals),
    )
    return Calibration(fit.log_response, report, cloud)


def response_residual(
    log_response: ArrayLike,
    samples: Sequence[BracketSamples],
    *,
    low_clip: int = 5,
    high_clip: int = 250,
) -> float:
    """Robust residual of samples against a curve, in stops, the worst channel's.

    Parameters
    ----------
    log_response : array_like, shape (256, C)
    samples : sequence of BracketSamples
    low_clip, high_clip
        As in `calibrate_response`.

    Raises
    ------
    ValueError
        The curve has another number of channels than the samples, or no sample is usable.
    """
    curve = np.asarray(log_response, dtype=np.float64)
    channels = common_channels(samples)
    if curve.shape != (CODES, channels):
        raise ValueError(f"a curve of shape {curve.shape} for samples of {channels} channels")
    values = []
    for channel in range(channels):
        clips = responsive_range(samples, channel, (low_clip, high_clip))
        table = observe(samples, channel, clips, fine=True)
        values.append(channel_residuals(table, curve[:, channel]).spread())
    if np.isnan(values).all():
        raise ValueError("no usable samples: every place is too dark or saturated")
    return float(np.nanmax(values))


@dataclass(frozen=True, eq=False)
class _Fit:
    """Curves of all channels: what each is made from, the curve with its repairs, and how."""

    bases: list[Basis]
    estimate: list[Estimate]
    method: str

    @cached_property
    def log_response(self) -> NDArray[np.float32]:
        """The curves, shape (256, C); ValueError if one does not rise."""
        curves = np.stack([curve for curve, _ in self.estimate], axis=1).astype(np.float32)
        if not is_monotone(curves):
            raise ValueError("the samples hold too little information for a response curve")
        return curves

    def examine(
        self, samples: Sequence[BracketSamples], pool: Executor
    ) -> tuple[tuple[ChannelResiduals, ...], tuple[NDArray[np.float32], ...]]:
        """Give the residuals of samples against the curves, and the data cloud, of each channel."""
        curves = self.log_response

        def examined(channel: int) -> tuple[ChannelResiduals, NDArray[np.float32]]:
            table, curve = table_of(samples, channel, self.bases[channel]), curves[:, channel]
            return channel_residuals(table, curve), data_cloud(table, curve)

        residuals, cloud = zip(*pool.map(examined, range(curves.shape[1])), strict=True)
        return residuals, cloud

    def facts(self) -> dict[str, Any]:
        """What the report's settings say of the method."""
        return {
            "method": self.method,
            "lowest_responsive_codes": [basis.clips[0] for basis in self.bases],
            "highest_responsive_codes": [basis.clips[1] for basis in self.bases],
            "made_from": ["levels" if basis.fine else "codes" for basis in self.bases],
        }


@dataclass(frozen=True, eq=False)
class _Fitting:
    """How curves are fitted; see `calibrate_response`."""

    weight: NDArray[np.float64]
    smoothness: float
    clips: tuple[int, int]
    robust: bool

    def fit(self, samples: Sequence[BracketSamples], channels: int, pool: Executor) -> _Fit:
        """Fit all channels, each in a thread: numpy works outside the interpreter's lock."""

        def fitted(channel: int) -> tuple[Basis, Estimate]:
            if self.robust:
                strength = _STRENGTH * (self.smoothness / _REFERENCE_SMOOTHNESS) ** 2
                return fit_best_basis(samples, channel, self.clips, strength)
            basis = Basis(self.clips, fine=False)
            table = table_of(samples, channel, basis)
            return basis, fit_plain(table, self.weight, self.smoothness)

        fits = list(pool.map(fitted, range(channels)))
        bases, estimate = [basis for basis, _ in fits], [curve for _, curve in fits]
        if not self.robust:
            return _Fit(bases, estimate, "plain")
        clips = [basis.clips for basis in bases]
        estimate, method = best_predicting(samples, estimate, self.weight, self.smoothness, clips)
        return _Fit(bases, estimate, method)
