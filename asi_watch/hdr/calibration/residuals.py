"""What samples look like beside a curve: residuals per channel, exposure and code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.observations import Observations
from asi_watch.hdr.calibration.robust import (
    CurveTables,
    base_weights,
    between_codes,
    centred,
    chunks,
)
from asi_watch.hdr.calibration.samples import CODES

LN2 = float(np.log(2.0))
# Residuals are binned this fine, so that medians of any number of samples need no memory.
_BIN_STOPS = 1.0 / 256.0
_REACH_STOPS = 4.0
_BINS = int(2 * _REACH_STOPS / _BIN_STOPS) + 1
_OUTLIER_STOPS = 0.5
_PLACES = 50_000
_CLOUD = 3_000

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChannelResiduals:
    """Residuals of one channel in stops, as histograms, and how often each code was used.

    Attributes
    ----------
    histograms : ndarray, shape (B, N, bins), int64
        Per bracket and exposure, of at most 50,000 places.
    by_code : ndarray, shape (256,), float64
        Robust residual at each code, stops; NaN without any.
    counts : ndarray, shape (256,), int64
        Observations used at each code.
    """

    histograms: NDArray[np.int64]
    by_code: Vector
    counts: NDArray[np.int64]

    def spread(self) -> float:
        """Robust residual of the whole channel: 1.4826 × median of |residual|, stops."""
        return robust_spread(self.histograms.sum(axis=(0, 1)))

    def outlier_share(self) -> float:
        """Share of observations more than half a stop from the curve."""
        total = self.histograms.sum(axis=(0, 1))
        return float(total[np.abs(CENTRES) > _OUTLIER_STOPS].sum() / max(total.sum(), 1))


CENTRES = (np.arange(_BINS) - _BINS // 2) * _BIN_STOPS


def channel_residuals(
    brackets: int, table: Observations, curve: NDArray[np.floating]
) -> ChannelResiduals:
    """Collect the residuals of one channel against a rising curve.

    Parameters
    ----------
    brackets : int
        Number of brackets.
    table : Observations
        Of that channel.
    curve : ndarray, shape (256,)
    """
    counts = np.bincount(table.codes[table.usable], minlength=CODES)
    few = table.part(slice(None, None, -(-len(table.codes) // _PLACES)))
    exposures = table.codes.shape[1]
    histograms = np.zeros(brackets * exposures * _BINS, dtype=np.int64)
    at_code = np.zeros(CODES * _BINS, dtype=np.int64)
    tables = CurveTables.of(np.maximum(np.diff(curve.astype(np.float64)), 1e-6))
    for piece in chunks(few):
        stops = _residual_stops(piece, tables)
        bins = np.clip(np.rint(stops / _BIN_STOPS) + _BINS // 2, 0, _BINS - 1).astype(np.int64)
        cell = piece.bracket[:, np.newaxis].astype(np.int64) * exposures + np.arange(exposures)
        cell = cell[piece.usable]
        histograms += np.bincount(cell * _BINS + bins, minlength=histograms.size)
        own = piece.codes[piece.usable].astype(np.int64) * _BINS + bins
        at_code += np.bincount(own, minlength=at_code.size)
    by_code = np.array([robust_spread(h) for h in at_code.reshape(CODES, _BINS)])
    return ChannelResiduals(histograms.reshape(brackets, exposures, _BINS), by_code, counts)


def data_cloud(table: Observations, curve: NDArray[np.floating]) -> NDArray[np.float32]:
    """Give an even share of the observations as points beside the curve.

    Parameters
    ----------
    table : Observations
        Of one channel.
    curve : ndarray, shape (256,)
        Rising.

    Returns
    -------
    ndarray, shape (M, 2), float32
        Code, finer than a whole one where the samples are, and ln E + ln t with ln E of the place
        estimated by the curve from all its exposures; M ≤ 3000.
    """
    observations = int(table.usable.sum())
    few = table.part(slice(None, None, max(1, -(-observations // _CLOUD))))
    tables = CurveTables.of(np.maximum(np.diff(curve.astype(np.float64)), 1e-6))
    beside = tables.g[few.codes] + between_codes(few, tables)
    residual = centred(beside - few.log_times, base_weights(few, tables))
    points = np.stack([few.codes + few.fraction, beside - residual], axis=-1)[few.usable]
    # Places differ in how many exposures are usable, so the share is only nearly even.
    return np.asarray(points[:_CLOUD], dtype=np.float32)


def _residual_stops(piece: Observations, tables: CurveTables) -> NDArray[np.float32]:
    """Residuals of the usable observations, flat."""
    exposure = tables.g[piece.codes] + between_codes(piece, tables) - piece.log_times
    residual = centred(exposure, base_weights(piece, tables))
    return residual[piece.usable] / np.float32(LN2)


def robust_spread(histogram: NDArray[np.int64]) -> float:
    """1.4826 × median of |residual| of a residual histogram; NaN when empty."""
    middle = _BINS // 2
    folded = histogram[middle:].copy()
    folded[1:] += histogram[:middle][::-1]
    return 1.4826 * _quantile(folded, 0.5) * _BIN_STOPS


def quantile(histogram: NDArray[np.int64], share: float) -> float:
    """Residual that this share of a histogram lies below, stops; NaN when empty."""
    return (_quantile(histogram, share) - _BINS // 2) * _BIN_STOPS


def _quantile(histogram: NDArray[np.int64], share: float) -> float:
    """Bin number at a share of the counts, interpolated within the bin."""
    total = int(histogram.sum())
    if total == 0:
        return float("nan")
    below = np.cumsum(histogram)
    at = int(np.searchsorted(below, share * total))
    within = (share * total - (below[at] - histogram[at])) / histogram[at]
    return float(at + within - 0.5 if at else within / 2.0)
