"""From samples to a response curve with its report."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from asi_watch.hdr.calibration import report as reporting
from asi_watch.hdr.calibration.responsive_codes import responsive_range
from asi_watch.hdr.calibration.samples import (
    CODES,
    BracketSamples,
    Clips,
    Floats,
    Vector,
    common_channels,
    each,
    observe,
    thinned,
)
from asi_watch.hdr.calibration.sampling import MOST_PLACES
from asi_watch.hdr.calibration.selection import ChannelCurve, best_predicting, fit_channel, table_of
from asi_watch.hdr.calibration.solver import fit_plain
from asi_watch.hdr.calibration.times import judge_times
from asi_watch.hdr.lookup_tables import weight_table

_REFERENCE_SMOOTHNESS = 50.0
# Strength of the shape prior per place at the reference smoothness; chosen by cross-validation.
_STRENGTH = 5e-5
_WEIGHT_SCALES = {"triangle": 1.0, "sine": 63.75}  # of one height


def check_settings(smoothness: float, weight_type: str, low_clip: int, high_clip: int) -> None:
    """Refuse settings that no curve can be calibrated with; the ValueError names the setting.

    Parameters
    ----------
    smoothness : float
    weight_type : str
    low_clip, high_clip : int
    """
    if not 0 <= low_clip < high_clip <= CODES - 1:
        raise ValueError(
            "low_clip and high_clip must satisfy 0 <= low < high <= 255, "
            f"got {low_clip} and {high_clip}"
        )
    if weight_type not in _WEIGHT_SCALES:
        names = " or ".join(map(repr, _WEIGHT_SCALES))
        raise ValueError(f"weight type {weight_type!r} is unknown: use {names}")
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
    pool: Executor | None = None,
) -> reporting.Calibration:
    """Estimate the log response g(z) of a camera; ValueError if nothing usable is given.

    Parameters
    ----------
    samples : sequence of BracketSamples
        One per bracket, all with the same channels.
    smoothness : float
        λ of Debevec and Malik at 10 brackets × 1000 samples; for any other number of samples the
        penalty is scaled so that it weighs the same against the data. The robust estimate has its
        own measure of simplicity, whose strength is in proportion to smoothness².
    weight_type : {"triangle", "sine"}
        Trust in a code by its place in the range: the weights of the plain equations. The robust
        estimate weighs by the noise, whatever the type; it takes this as the way merges will
        weigh, by which the dark and bright ends of g are derived and judged.
    low_clip, high_clip : int
        Observations with codes outside low_clip…high_clip are not used.
    robust : bool
        True: local levels, weights from the noise and the roughness of the surroundings, and
        little weight for what does not fit (moved clouds, glints, damaged pixels). False: the
        plain equations of Debevec and Malik on the bare codes.
    pool : Executor, optional
        Threads to work in.
    """
    check_settings(smoothness, weight_type, low_clip, high_clip)
    channels = common_channels(samples)
    clips = low_clip, high_clip
    weight = weight_table(weight_type)[:, 0] * _WEIGHT_SCALES[weight_type]
    fitting = _Fitting(weight, smoothness, clips, robust, pool)
    used = thinned(samples, MOST_PLACES) if robust else list(samples)
    fit = fitting.fit(used)
    residuals = fit.residuals(used, pool)
    verdict = judge_times(used, [curve.clips for curve in fit.curves])
    suspects = {c.exposure_time for c in reporting.check_exposures(used, residuals) if c.suspect}
    if verdict.sure is None and not verdict.suspects and suspects:
        # False times can make codes seem not to respond to exposure; codes that do not (a film's
        # base) can make sound times seem false. Residuals must name the same one.
        wider = judge_times(used, [clips] * channels)
        if wider.sure is None or wider.sure.exposure_time in suspects:
            verdict = wider
    of_all = residuals
    if robust and verdict.sure is not None:
        agreeing = verdict.agreeing(used)
        fit = fitting.fit(agreeing)
        of_all, residuals = fit.residuals(used, pool), fit.residuals(agreeing, pool)
    report = reporting.make_report(
        samples,
        residuals,
        reporting.check_exposures(used, of_all, verdict),
        verdict,
        monotone_repairs=tuple(curve.repairs for curve in fit.curves),
        settings={
            "smoothness": smoothness,
            "weight_type": weight_type,
            "low_clip": low_clip,
            "high_clip": high_clip,
            "robust": robust,
            "method": fit.method,
            "lowest_responsive_codes": [curve.clips[0] for curve in fit.curves],
            "highest_responsive_codes": [curve.clips[1] for curve in fit.curves],
            "made_from": ["levels" if curve.fine else "codes" for curve in fit.curves],
            "places_used": sum(s.count for s in used),
        },
    )
    return reporting.Calibration(fit.log_response, report, tuple(r.cloud for r in residuals))


def response_residual(
    log_response: ArrayLike,
    samples: Sequence[BracketSamples],
    *,
    low_clip: int = 5,
    high_clip: int = 250,
) -> float:
    """Robust residual of samples against a curve, in stops, the worst channel's.

    ValueError if their numbers of channels differ, or no sample is usable.

    Parameters
    ----------
    log_response : array_like, shape (256, C)
    samples : sequence of BracketSamples
    low_clip, high_clip : int
        As in `calibrate_response`.
    """
    curve = np.asarray(log_response, dtype=np.float64)
    channels = common_channels(samples)
    if curve.shape != (CODES, channels):
        raise ValueError(f"a curve of shape {curve.shape} for samples of {channels} channels")
    values = []
    for channel in range(channels):
        clips = responsive_range(samples, channel, (low_clip, high_clip))
        table = observe(samples, channel, clips, fine=True)
        values.append(reporting.channel_residuals(table, curve[:, channel]).spread())
    if np.isnan(values).all():
        raise ValueError("no usable samples: every place is too dark or saturated")
    return float(np.nanmax(values))


@dataclass(frozen=True, eq=False)
class _Fit:
    """Curves of all channels, and by which method."""

    curves: list[ChannelCurve]
    method: str

    @cached_property
    def log_response(self) -> Floats:
        """The curves, shape (256, C); ValueError if one does not rise."""
        curves = np.stack([curve.g for curve in self.curves], axis=1).astype(np.float32)
        if not (np.diff(curves, axis=0) > 0).all():
            raise ValueError("the samples hold too little information for a response curve")
        return curves

    def residuals(
        self, samples: Sequence[BracketSamples], pool: Executor | None
    ) -> list[reporting.ChannelResiduals]:
        """Give the residuals of samples against the curve of each channel."""

        def of_channel(channel: int) -> reporting.ChannelResiduals:
            curve = self.curves[channel]
            table = table_of(samples, channel, curve.clips, fine=curve.fine)
            return reporting.channel_residuals(table, self.log_response[:, channel])

        return each(pool, of_channel, range(len(self.curves)))


@dataclass(frozen=True, eq=False)
class _Fitting:
    """How curves are fitted; see `calibrate_response`."""

    weight: Vector
    smoothness: float
    clips: Clips
    robust: bool
    pool: Executor | None

    def fit(self, samples: Sequence[BracketSamples]) -> _Fit:
        """Fit all channels."""
        curves = each(
            self.pool, lambda channel: self._fitted(samples, channel), range(samples[0].channels)
        )
        if not self.robust:
            return _Fit(curves, "plain")
        return _Fit(*best_predicting(samples, curves, self.weight, self.smoothness))

    def _fitted(self, samples: Sequence[BracketSamples], channel: int) -> ChannelCurve:
        if self.robust:
            strength = _STRENGTH * (self.smoothness / _REFERENCE_SMOOTHNESS) ** 2
            return fit_channel(samples, channel, self.clips, strength)
        table = table_of(samples, channel, self.clips, fine=False)
        fit = fit_plain(table, self.weight, self.smoothness)
        return ChannelCurve(*fit, self.clips, fine=False)
