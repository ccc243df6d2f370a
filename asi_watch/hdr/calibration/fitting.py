"""A curve for every channel by one method, and what it leaves unexplained."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.basis import Basis, Estimate, fit_best, table_of
from asi_watch.hdr.calibration.ends import best_predicting
from asi_watch.hdr.calibration.monotone import is_monotone
from asi_watch.hdr.calibration.plain import fit_plain
from asi_watch.hdr.calibration.residuals import ChannelResiduals, channel_residuals, data_cloud
from asi_watch.hdr.calibration.samples import BracketSamples

REFERENCE_SMOOTHNESS = 50.0
# Strength of the shape prior per place at the reference smoothness; chosen by cross-validation.
_STRENGTH = 5e-5


@dataclass(frozen=True, eq=False)
class Fit:
    """Curves of all channels.

    Parameters
    ----------
    bases : list of Basis
        Of each channel.
    estimate : list of (ndarray, int)
        Curve and repairs of each channel.
    method : str
        How they came about.
    """

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


@dataclass(frozen=True, eq=False)
class Fitting:
    """How curves are fitted; see `calibrate_response` for the parameters.

    Parameters
    ----------
    weight : ndarray, shape (256,), float64
    smoothness : float
    low_clip, high_clip : int
    robust : bool
    """

    weight: NDArray[np.float64]
    smoothness: float
    low_clip: int
    high_clip: int
    robust: bool

    def fit(self, samples: Sequence[BracketSamples], channels: range, pool: Executor) -> Fit:
        """Fit all channels, each in a thread: numpy works outside the interpreter's lock."""
        fits = list(pool.map(partial(self._fit_channel, samples), channels))
        bases, estimate = [basis for basis, _ in fits], [curve for _, curve in fits]
        if not self.robust:
            return Fit(bases, estimate, "plain")
        clips = [(basis.low, basis.high) for basis in bases]
        estimate, method = best_predicting(samples, estimate, self.weight, self.smoothness, clips)
        return Fit(bases, estimate, method)

    def examine(
        self, samples: Sequence[BracketSamples], fit: Fit, pool: Executor
    ) -> tuple[tuple[ChannelResiduals, ...], tuple[NDArray[np.float32], ...]]:
        """Give the residuals of samples against curves, and the data cloud, of each channel."""
        curves = fit.log_response

        def examined(channel: int) -> tuple[ChannelResiduals, NDArray[np.float32]]:
            table, curve = table_of(samples, channel, fit.bases[channel]), curves[:, channel]
            return channel_residuals(len(samples), table, curve), data_cloud(table, curve)

        residuals, cloud = zip(*pool.map(examined, range(curves.shape[1])), strict=True)
        return residuals, cloud

    def _fit_channel(
        self, samples: Sequence[BracketSamples], channel: int
    ) -> tuple[Basis, Estimate]:
        if self.robust:
            strength = _STRENGTH * (self.smoothness / REFERENCE_SMOOTHNESS) ** 2
            return fit_best(samples, channel, (self.low_clip, self.high_clip), strength)
        basis = Basis(self.low_clip, self.high_clip, fine=False)
        table = table_of(samples, channel, basis)
        return basis, fit_plain(table, self.weight, self.smoothness)
