"""A curve for every channel by one method, and what it leaves unexplained."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.ends import Estimate, best_predicting
from asi_watch.hdr.calibration.floor import responsive_from
from asi_watch.hdr.calibration.monotone import is_monotone
from asi_watch.hdr.calibration.observations import Observations, observe
from asi_watch.hdr.calibration.plain import fit_plain
from asi_watch.hdr.calibration.residuals import ChannelResiduals, channel_residuals, data_cloud
from asi_watch.hdr.calibration.robust import fit_robust
from asi_watch.hdr.calibration.samples import BracketSamples

REFERENCE_SMOOTHNESS = 50.0
# Strength of the shape prior per place at the reference smoothness; chosen by cross-validation.
_STRENGTH = 5e-5


@dataclass(frozen=True, eq=False)
class Fit:
    """Curves of all channels.

    Parameters
    ----------
    floors : list of int
        The lowest code of each channel that answers to exposure.
    estimate : list of (ndarray, int)
        Curve and repairs of each channel.
    method : str
        How they came about.
    """

    floors: list[int]
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
        floors, estimate = [floor for floor, _ in fits], [curve for _, curve in fits]
        if not self.robust:
            return Fit(floors, estimate, "plain")
        estimate, method = best_predicting(
            samples, estimate, self.weight, self.smoothness, floors, self.high_clip
        )
        return Fit(floors, estimate, method)

    def examine(
        self, samples: Sequence[BracketSamples], fit: Fit, pool: Executor
    ) -> tuple[tuple[ChannelResiduals, ...], tuple[NDArray[np.float32], ...]]:
        """Give the residuals of samples against curves, and the data cloud, of each channel."""
        curves = fit.log_response

        def examined(channel: int) -> tuple[ChannelResiduals, NDArray[np.float32]]:
            table, curve = self._table(samples, channel, fit.floors[channel]), curves[:, channel]
            return channel_residuals(len(samples), table, curve), data_cloud(table, curve)

        residuals, cloud = zip(*pool.map(examined, range(curves.shape[1])), strict=True)
        return residuals, cloud

    def spread(self, channel: int, samples: Sequence[BracketSamples]) -> float:
        """Fit one channel alone; what it leaves unexplained, in stops."""
        floor, (curve, _) = self._fit_channel(samples, channel)
        table = observe(samples, channel, floor, self.high_clip, fine=True)
        return channel_residuals(len(samples), table, curve).spread()

    def _fit_channel(self, samples: Sequence[BracketSamples], channel: int) -> tuple[int, Estimate]:
        floor = self.low_clip
        if self.robust:
            floor = responsive_from(samples, channel, self.low_clip)
        table = self._table(samples, channel, floor)
        if self.robust:
            strength = _STRENGTH * (self.smoothness / REFERENCE_SMOOTHNESS) ** 2
            return floor, fit_robust(table, strength)
        return floor, fit_plain(table, self.weight, self.smoothness)

    def _table(self, samples: Sequence[BracketSamples], channel: int, floor: int) -> Observations:
        table = observe(samples, channel, floor, self.high_clip, fine=self.robust)
        if not table.usable.any():
            raise ValueError(
                f"no usable samples in channel {channel}: every place is too dark or saturated "
                "in all exposures but one"
            )
        return table
