"""How well a curve predicts an exposure from the others, and what that asks of its ends.

A merge uses g where no better code is at hand, also at dark codes that were left out of the fit,
so there g is set to what such codes mean on average, and at bright codes where that predicts
better than going straight on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.monotone import SMALLEST_STEP, solve_monotone
from asi_watch.hdr.calibration.observations import Observations
from asi_watch.hdr.calibration.samples import CODES, BracketSamples
from asi_watch.hdr.calibration.solver import ANCHOR, smoothness_matrix

Vector = NDArray[np.float64]

_PLACES = 10_000
_PRIOR_COUNT = 3.0
_FIXED = 1e9
_JUDGED = (10, 245)
_STILL_PIXELS = 0.75
_SLOPE_CODES = 8
# Codes above may be set to what they mean on average: pixels there are half saturated already.
HALF_SATURATED = 240


def thinned(samples: Sequence[BracketSamples]) -> list[BracketSamples]:
    """About as many places as a judgement needs."""
    stride = -(-sum(s.count for s in samples) // _PLACES)
    return [s.every(max(stride, 1)) for s in samples]


def is_still(samples: Sequence[BracketSamples]) -> bool:
    """Tell whether nothing moved between exposures that are bright enough to tell."""
    return all(
        s.motion is None or bool((np.median(np.abs(s.motion), axis=0) < _STILL_PIXELS).all())
        for s in samples
    )


def leave_one_out_error(curve: Vector, table: Observations, weight: Vector) -> float:
    """Predict each observation from the other exposures of its place.

    Parameters
    ----------
    curve : ndarray, shape (256,)
        Rising.
    table : Observations
        Of bare codes, all of them usable.
    weight : ndarray, shape (256,)
        With which a merge would count each code.

    Returns
    -------
    float
        RMS difference in codes where the observed code is neither dark nor bright; NaN if none.
    """
    weights = weight[table.codes] * table.usable
    exposure = weights * (curve[table.codes] - table.log_times)
    others = weights.sum(axis=1, keepdims=True) - weights
    total = exposure.sum(axis=1, keepdims=True) - exposure
    judged = table.usable & (others > 0.5) & (table.codes > _JUDGED[0]) & (table.codes < _JUDGED[1])
    if not judged.any():
        return float("nan")
    predicted = np.interp(
        total[judged] / others[judged] + table.log_times[judged], curve, np.arange(CODES)
    )
    return float(np.sqrt(np.mean((predicted - table.codes[judged]) ** 2)))


def with_mean_ends(
    curve: Vector, table: Observations, weight: Vector, first: int, last: int
) -> Vector:
    """Set g at the codes outside first…last to what they mean on average beside better ones.

    Parameters
    ----------
    curve : ndarray, shape (256,)
    table : Observations
        Of bare codes, all of them usable.
    weight : ndarray, shape (256,)
        With which a merge would count each code.
    first, last : int

    Returns
    -------
    ndarray, shape (256,)
        The same inside, up to the free constant; rising; g(128) = 0.
    """
    codes = np.arange(CODES)
    inside = (codes >= first) & (codes <= last)
    weights = (weight * inside)[table.codes] * table.usable
    total = weights.sum(axis=1, keepdims=True)
    known = (weights * (curve[table.codes] - table.log_times)).sum(axis=1, keepdims=True)
    exposure = known / np.where(total > 0, total, 1.0) + table.log_times
    seen = table.usable & ~inside[table.codes] & (total > weight[first])
    counts = np.bincount(table.codes[seen], minlength=CODES).astype(np.float64)
    sums = np.bincount(table.codes[seen], weights=exposure[seen], minlength=CODES)
    strength = np.where(inside, _FIXED, counts + _PRIOR_COUNT)
    wanted = np.where(inside, _FIXED * curve, sums + _PRIOR_COUNT * curve)
    matrix = smoothness_matrix(np.sqrt(np.where(inside, 0.0, 10.0 * _PRIOR_COUNT)))
    matrix[np.diag_indices(CODES)] += strength
    ended, _ = solve_monotone(matrix, wanted)
    # The inside is kept to the last digit; only a rise across the seams is left to ensure.
    ended[inside] = curve[inside]
    below = curve[first] - SMALLEST_STEP * np.arange(first, 0, -1)
    above = curve[last] + SMALLEST_STEP * np.arange(1, CODES - last)
    ended[:first] = np.minimum(ended[:first], below)
    ended[last + 1 :] = np.maximum(ended[last + 1 :], above)
    rooted: Vector = ended - ended[ANCHOR]
    return rooted


def straight_on(curve: Vector, high_clip: int) -> Vector:
    """Continue g from high_clip to 255 with the mean slope that it has just below.

    Parameters
    ----------
    curve : ndarray, shape (256,)
    high_clip : int

    Returns
    -------
    ndarray, shape (256,)
    """
    start = max(0, high_clip - _SLOPE_CODES)
    slope = (curve[high_clip] - curve[start]) / (high_clip - start)
    longer = curve.copy()
    longer[high_clip:] = curve[high_clip] + slope * np.arange(CODES - high_clip)
    return longer
