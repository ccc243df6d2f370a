"""What samples look like beside a curve: residuals per channel, exposure and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.observations import Observations, observe
from asi_watch.hdr.calibration.robust import (
    CurveTables,
    base_weights,
    between_codes,
    centred,
    chunks,
)
from asi_watch.hdr.calibration.samples import CODES, BracketSamples

LN2 = float(np.log(2.0))
# Residuals are binned this fine, so that medians of any number of samples need no memory.
_BIN_STOPS = 1.0 / 512.0
_REACH_STOPS = 4.0
_BINS = int(2 * _REACH_STOPS / _BIN_STOPS) + 1
_OUTLIER_STOPS = 0.5

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChannelResiduals:
    """Residuals of one channel in stops, as histograms and counts.

    Attributes
    ----------
    histograms : ndarray, shape (B, N, bins), int64
        Per bracket and exposure.
    by_code : ndarray, shape (256, bins), int64
    """

    histograms: NDArray[np.int64]
    by_code: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Observations used at each code, shape (256,)."""
        total: NDArray[np.int64] = self.by_code.sum(axis=1)
        return total

    def spread(self) -> float:
        """Robust residual of the whole channel: 1.4826 × median of |residual|, stops."""
        return robust_spread(self.histograms.sum(axis=(0, 1)))

    def outlier_share(self) -> float:
        """Share of observations more than half a stop from the curve."""
        total = self.histograms.sum(axis=(0, 1))
        return float(total[np.abs(CENTRES) > _OUTLIER_STOPS].sum() / max(total.sum(), 1))


CENTRES = (np.arange(_BINS) - _BINS // 2) * _BIN_STOPS


def channel_residuals(
    samples: Sequence[BracketSamples],
    curve: NDArray[np.floating],
    channel: int,
    clips: tuple[int, int],
    *,
    fine: bool = True,
) -> ChannelResiduals:
    """Collect the residuals of one channel against a rising curve.

    Parameters
    ----------
    samples : sequence of BracketSamples
    curve : ndarray, shape (256,)
    channel : int
    clips : tuple of int
        Lowest and highest code used.
    fine : bool
        Use the samples' local levels where they have them.
    """
    exposures = max(len(s.exposure_times) for s in samples)
    histograms = np.zeros(len(samples) * exposures * _BINS, dtype=np.int64)
    by_code = np.zeros(CODES * _BINS, dtype=np.int64)
    steps = np.maximum(np.diff(curve.astype(np.float64)), 1e-6)
    tables = CurveTables.of(steps)
    for piece in chunks(observe(samples, channel, *clips, fine=fine)):
        bin_, cell = _binned(piece, tables, exposures)
        histograms += np.bincount(cell * _BINS + bin_, minlength=histograms.size)
        codes = piece.codes[piece.usable].astype(np.int64)
        by_code += np.bincount(codes * _BINS + bin_, minlength=by_code.size)
    return ChannelResiduals(
        histograms.reshape(len(samples), exposures, _BINS), by_code.reshape(CODES, _BINS)
    )


def _binned(
    piece: Observations, tables: CurveTables, exposures: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    exposure = tables.g[piece.codes] + between_codes(piece, tables) - piece.log_times
    residual = centred(exposure, base_weights(piece, tables))
    stops = residual[piece.usable] / np.float32(LN2)
    bin_ = np.clip(np.rint(stops / _BIN_STOPS) + _BINS // 2, 0, _BINS - 1).astype(np.int64)
    cell = piece.bracket[:, np.newaxis].astype(np.int64) * exposures + np.arange(exposures)
    return bin_, cell[piece.usable]


def robust_spread(histogram: NDArray[np.int64]) -> float:
    """1.4826 × median of |residual| of a residual histogram; NaN when empty."""
    middle = _BINS // 2
    folded = histogram[middle:].copy()
    folded[1:] += histogram[:middle][::-1]
    return 1.4826 * _quantile(folded, 0.5) * _BIN_STOPS


def median(histogram: NDArray[np.int64]) -> float:
    """Median of a residual histogram, stops; NaN when empty."""
    return (_quantile(histogram, 0.5) - _BINS // 2) * _BIN_STOPS


def _quantile(histogram: NDArray[np.int64], share: float) -> float:
    """Bin number at a share of the counts, interpolated within the bin."""
    total = int(histogram.sum())
    if total == 0:
        return float("nan")
    below = np.cumsum(histogram)
    at = int(np.searchsorted(below, share * total))
    within = (share * total - (below[at] - histogram[at])) / histogram[at]
    return float(at + within - 0.5 if at else within / 2.0)
