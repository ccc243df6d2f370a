"""Integer look-up tables of one bracket: how Σ w and Σ w (g − ln t) share one 64-bit word.

Upper half of a word: w (g − ln t − lowest) in fixed point. Lower half: w in fixed point, and above
it two small counters, of the shortest exposures that are dark and of the longest that are
saturated. An exposure then costs one look-up and one addition per sample, the fallbacks cost
nothing, and as integer sums are exact the order of the exposures cannot matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.merge_settings import OVER, UNDER, MergeSettings
from asi_watch.hdr.response import as_log_response
from asi_watch.hdr.weights import log_variance, remap_codes, weight_table

MAX_EXPOSURES = 64
LANES = 3

# A numerator of three bytes is looked up a quarter faster than one of four, and is taken where the
# smallest weight alone then holds ln E this well.
_SHORT_NUMERATOR = 2**24 - 1
_ROUNDING = 5e-5


@dataclass(frozen=True, eq=False)
class WeightedMean:
    """What a weighted mean of ln E looks up, whatever the bracket.

    Parameters
    ----------
    log_response, weights, variance : ndarray, shape (256, C), float64
        g, w and the variance of g over the raw code.
    darkest, brightest : int
        Raw codes at or below (above) which an exposure says only "under" ("over").
    contradiction_is_zero : bool
        What ln E is where the shortest exposure is saturated and the longest is not: 0, or the
        largest ln E.
    channels : int
        C, 1 or 3.
    """

    log_response: NDArray[np.float64]
    weights: NDArray[np.float64]
    variance: NDArray[np.float64]
    darkest: int
    brightest: int
    contradiction_is_zero: bool
    channels: int
    # min and max of the whole curve, which a stretch may not reach.
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]

    @classmethod
    def of(
        cls, settings: MergeSettings, log_response: ArrayLike | None, channels: int
    ) -> WeightedMean:
        """Prepare a merge; see `merging.open_merge` for arguments and errors.

        Parameters
        ----------
        settings, log_response, channels
            As for `merging.open_merge`, whose errors it raises.
        """
        if log_response is None:
            raise ValueError(f"'{settings.algorithm}' needs a response curve")
        curve = as_log_response(log_response)
        if curve.shape[1] != channels:
            raise ValueError(f"the response has {curve.shape[1]} channels, the pictures {channels}")
        g = curve.astype(np.float64)
        weights = weight_table(settings.weight_type, curve)
        variance = log_variance(curve)
        low, high = settings.low_clip, settings.high_clip
        stretch = settings.algorithm == "debevec_custom"
        z = np.arange(256)
        lowest, highest = g.min(axis=0), g.max(axis=0)
        if stretch:
            codes = remap_codes(low, high)
            g, weights, variance = g[codes], weights[codes], variance[codes]
            low, high = int(z[codes == 0].max()), int(z[codes == 255].min())
        else:
            weights[(z < low) | (z > high)] = 0.0
        return cls(g, weights, variance, low, high, stretch, channels, lowest, highest)

    def saturated_from(self, code: int | None) -> WeightedMean:
        """Count raw codes from `code` on as saturated too; None changes nothing.

        Parameters
        ----------
        code : int or None
            Raw code.
        """
        if code is None or code >= self.brightest:
            return self
        weights = self.weights.copy()
        weights[code:] = 0.0
        return replace(self, weights=weights, brightest=code)


@dataclass(frozen=True, eq=False)
class BracketTables:
    """The tables of one bracket and how their sums are read.

    ln E = offset + x · unit, where x is the upper half of a sum divided by its weight. Channels
    are lanes: a single channel is repeated three times, so that all code below knows three.

    Parameters
    ----------
    words : ndarray, shape (N, 3, 256), uint64
        What each raw code of each exposure adds.
    weight_bits : int
        Bits of the lower half that hold the weight; the counters follow.
    offset, unit : ndarray, shape (3,), float64
        How x is read.
    minimum, maximum : ndarray, shape (3,), float64
        min_real and max_real: the range of ln E that the exposures can tell apart.
    special : ndarray, shape (3, 2^(32 − weight_bits)), float64
        ln E where the weight is zero, by the value of the counters.
    validity : ndarray, shape (2^(32 − weight_bits),), uint8
        The flag there.
    """

    words: NDArray[np.uint64]
    weight_bits: int
    offset: NDArray[np.float64]
    unit: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    special: NDArray[np.float64]
    validity: NDArray[np.uint8]


def bracket_tables(mean: WeightedMean, times: Sequence[float]) -> BracketTables:
    """Build the tables of a bracket.

    Parameters
    ----------
    mean : WeightedMean
        What to look up.
    times : sequence of float
        Exposure times, in the order of the frames.

    Returns
    -------
    BracketTables

    Raises
    ------
    ValueError
        If there is no exposure, or more than 64.
    """
    count = len(times)
    if not 1 <= count <= MAX_EXPOSURES:
        raise ValueError(f"a bracket has 1 to {MAX_EXPOSURES} exposures; got {count}")
    ln_t = np.log(np.asarray(times, dtype=np.float64))
    shortest, longest = ln_t == ln_t.min(), ln_t == ln_t.max()
    under_bits = int(shortest.sum()).bit_length()
    over_bits = int(longest.sum()).bit_length()
    weight_bits = 32 - under_bits - over_bits

    offset = mean.log_response.min(axis=0) - ln_t.max()
    span = np.ptp(mean.log_response, axis=0) + np.ptp(ln_t) + 1e-3
    weights = _whole_weights(mean.weights, ((1 << weight_bits) - 1) // count)
    scale = _numerator_scale(weights, span, count)
    lookup = mean.log_response - offset - ln_t[:, None, None]
    numerator = np.rint(weights * lookup * scale).astype(np.uint64)
    words = (numerator << np.uint64(32)) | weights.astype(np.uint64)
    z = np.arange(256)
    words[np.ix_(shortest, z <= mean.darkest)] += _unit_where(weights, mean.darkest, weight_bits)
    bright = np.where(weights[mean.brightest :] == 0, np.uint64(1 << weight_bits + under_bits), 0)
    words[np.ix_(longest, z >= mean.brightest)] += bright.astype(np.uint64)

    minimum, maximum = mean.lowest - ln_t.max(), mean.highest - ln_t.min()
    counters = np.arange(1 << (under_bits + over_bits))
    dark = (counters & ((1 << under_bits) - 1)) == shortest.sum()
    over = (counters >> under_bits) == longest.sum()
    none = np.minimum(0.0, maximum) if mean.contradiction_is_zero else maximum
    special = np.where(dark, minimum[:, None], none[:, None])
    special = np.where(over, maximum[:, None], special)
    return BracketTables(
        words=_lanes(np.moveaxis(words, 2, 1), axis=1),
        weight_bits=weight_bits,
        offset=_lanes(offset),
        unit=_lanes(1.0 / scale),
        minimum=_lanes(minimum),
        maximum=_lanes(maximum),
        special=_lanes(special),
        validity=np.where(dark & ~over, UNDER, OVER).astype(np.uint8),
    )


def variance_tables(
    mean: WeightedMean, tables: BracketTables
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Tables of Σ w² σ² over the raw code, and the integers per unit of it in each lane.

    Parameters
    ----------
    mean : WeightedMean
    tables : BracketTables
        Of the same merge.

    Returns
    -------
    table : ndarray, shape (3, 256), uint64
    scale : ndarray, shape (3,), float64
    """
    weights = (tables.words[0] & np.uint64((1 << tables.weight_bits) - 1)).astype(np.float64)
    squares = weights**2 * _lanes(mean.variance.T)
    scale = 2.0**62 / len(tables.words) / squares.max(axis=1)
    return np.rint(squares * scale[:, None]).astype(np.uint64), scale


def _numerator_scale(
    weights: NDArray[np.float64], span: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Units of w (g − ln t) per unit of it, so that sums fit 32 bits, or a summand 24."""
    largest = weights.max(axis=0) * span
    smallest = np.where(weights > 0, weights, np.inf).min(axis=0)
    short = _SHORT_NUMERATOR / largest
    if weights.max() <= 255 and (0.5 / (short * smallest) <= _ROUNDING).all():
        return np.asarray(short)
    return np.asarray((2.0**32 - 1 - count) / (count * largest))


def _unit_where(weights: NDArray[np.float64], darkest: int, weight_bits: int) -> NDArray[np.uint64]:
    unit = np.uint64(1 << weight_bits)
    return np.where(weights[: darkest + 1] == 0, unit, np.uint64(0)).astype(np.uint64)


def _whole_weights(weights: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Weights as integers up to `most`: as they are if whole, else scaled; none becomes zero."""
    if not (weights == np.rint(weights)).all() or weights.max() > most:
        weights = weights * (most / weights.max())
        weights = np.where(weights > 0, np.maximum(np.rint(weights), 1.0), 0.0)
    return weights


def _lanes(array: NDArray[Any], axis: int = 0) -> NDArray[Any]:
    if array.shape[axis] == 1:
        array = np.repeat(array, LANES, axis=axis)
    return np.ascontiguousarray(array)
