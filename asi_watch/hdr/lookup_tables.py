"""What a merge looks up by code: weights, their noise model, and the integer tables of a bracket.

Weights: `triangle` is the hat of Debevec & Malik (SIGGRAPH 1997); `sine` is a raised cosine of the
same support; `noise` is the inverse variance of ln E under a model of shot, read and quantisation
noise and of JPEG, rolled off near white; without JPEG and roll-off it is what Kirk & Andersen
(BMVC 2006), Granados et al. (CVPR 2010) and Hasinoff, Durand & Freeman (CVPR 2010) derive as the
weighting of least variance.

Σ w and Σ w (g − ln t) share one 64-bit word. Upper half: w (g − ln t − lowest) in fixed point.
Lower half: w in fixed point, and above it two small counters, of the shortest exposures that are
dark and of the longest that are saturated. An exposure then costs one look-up and one addition
per sample, the fallbacks cost nothing, and as integer sums are exact the order of the exposures
cannot matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.merge_settings import OVER, UNDER, WEIGHT_TYPES, MergeSettings
from asi_watch.hdr.response import as_log_response

LANES = 3

# Of a small-pixel CMOS camera: electrons at code 255, and the standard deviation of the read-out.
# Only their ratio moves the weights.
FULL_WELL, READ_NOISE = 8000.0, 6.0
_JPEG_ERROR = 2.0  # codes, of what JPEG adds to the noise of a code
_ROLL_OFF = (160.0, 252.0)
# A dozen electrons: darker codes count only where every exposure is as dark, and an even mean is
# then as good. It keeps the range of the weights within what integer sums hold to 1e-4 in ln E.
_SMALLEST_NOISE_WEIGHT = 1.0 / 2048.0
# A numerator of three bytes is looked up a quarter faster than one of four, and is taken where the
# smallest weight alone then holds ln E this well.
_SHORT_NUMERATOR = 2**24 - 1
_ROUNDING = 5e-5


def _log_variance(log_response: ArrayLike) -> NDArray[np.float64]:
    """Variance of g(z), seen through one code: of shot, read and quantisation noise."""
    g = as_log_response(log_response).astype(np.float64)
    electrons = FULL_WELL * np.exp(g - g.max(axis=0))
    sensor = (electrons + READ_NOISE**2) / electrons**2
    slope = np.gradient(g, axis=0)
    return np.asarray(sensor + slope**2 * (1.0 / 12.0), dtype=np.float64)


def _roll_off(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 up to a code and softly down to 0 near white: noise and JPEG blur saturation there."""
    x = np.clip((_ROLL_OFF[1] - z) / (_ROLL_OFF[1] - _ROLL_OFF[0]), 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x))


def weight_table(weight_type: str, log_response: ArrayLike | None = None) -> NDArray[np.float64]:
    """Weight w(z) of every code, per channel: shape (256, C), float64.

    Parameters
    ----------
    weight_type : {"triangle", "sine", "noise"}
        All are zero at 0 and 255; `noise` is scaled to a maximum of 1. Others raise ValueError.
    log_response : array_like, shape (256, C), optional
        g(z), which `noise` needs; without it C is 1.
    """
    channels = 1 if log_response is None else as_log_response(log_response).shape[1]
    z = np.arange(256, dtype=np.float64)
    if weight_type == "triangle":
        weights = np.minimum(z, 255.0 - z)
    elif weight_type == "sine":
        weights = np.cos(2.0 * np.pi * z / 255.0 - np.pi) + 1.0
    elif weight_type == "noise":
        if log_response is None:
            raise ValueError("the weight 'noise' needs a response curve")
        g = as_log_response(log_response).astype(np.float64)
        jpeg = (_JPEG_ERROR * np.gradient(g, axis=0)) ** 2
        weights = _roll_off(z)[:, np.newaxis] / (_log_variance(g) + jpeg)
        weights = np.maximum(weights / weights[1:255].max(axis=0), _SMALLEST_NOISE_WEIGHT)
    else:
        raise ValueError(f"weight_type is one of {', '.join(WEIGHT_TYPES)}; got {weight_type!r}")
    weights[[0, 255]] = 0.0
    return weights if weights.ndim == 2 else np.repeat(weights[:, np.newaxis], channels, axis=1)


def remap_codes(low_clip: int, high_clip: int) -> NDArray[np.uint8]:
    """Stretch codes from [low_clip, high_clip] to 0 … 255: a table of shape (256,).

    Parameters
    ----------
    low_clip, high_clip : int
    """
    low, width = np.float32(low_clip), np.float32(high_clip - low_clip)
    clipped = np.clip(np.arange(256, dtype=np.float32), low, np.float32(high_clip)) - low
    return (clipped * np.float32(255) / width).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class WeightedMean:
    """What a weighted mean of ln E looks up, whatever the bracket."""

    log_response: NDArray[np.float64]  # g, w and the variance of g over the raw code
    weights: NDArray[np.float64]
    variance: NDArray[np.float64]
    darkest: int  # raw codes at or below (above) which an exposure says only "under" ("over")
    brightest: int
    # What ln E is where the shortest exposure is saturated and the longest is not: 0, or the
    # largest ln E.
    contradiction_is_zero: bool
    # Least and largest g of the whole curve, which a stretch may not reach.
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]


def weighted_mean(
    settings: MergeSettings, curve: NDArray[np.float32], saturated_from: int | None = None
) -> WeightedMean:
    """Prepare a merge; the same object for equal arguments.

    Parameters
    ----------
    settings : MergeSettings
    curve : ndarray, shape (256, C), float32
    saturated_from : int or None
        Raw codes from this one on are saturated too.
    """
    clips = (settings.low_clip, settings.high_clip)
    stretch = settings.algorithm == "debevec_custom"
    return _weighted_mean(stretch, settings.weight_type, *clips, curve.tobytes(), saturated_from)


@lru_cache(maxsize=16)
def _weighted_mean(
    stretch: bool, weight_type: str, low: int, high: int, response: bytes, white: int | None
) -> WeightedMean:
    curve = np.frombuffer(response, np.float32).reshape(256, -1)
    g = curve.astype(np.float64)
    weights, variance = weight_table(weight_type, curve), _log_variance(curve)
    z = np.arange(256)
    lowest, highest = g.min(axis=0), g.max(axis=0)
    if stretch:
        codes = remap_codes(low, high)
        g, weights, variance = g[codes], weights[codes], variance[codes]
        low, high = int(z[codes == 0].max()), int(z[codes == 255].min())
    else:
        weights[(z < low) | (z > high)] = 0.0
    if white is not None and white < high:
        weights[white:] = 0.0
        high = white
    return WeightedMean(g, weights, variance, low, high, stretch, lowest, highest)


@dataclass(frozen=True, eq=False)
class BracketTables:
    """The tables of one bracket and how their sums are read.

    ln E = offset + x · unit, where x is the upper half of a sum divided by its weight. Channels
    are lanes: a single channel is repeated three times, so that all code below knows three.
    """

    words: NDArray[np.uint64]  # what each raw code of each exposure adds
    weight_bits: int  # bits of the lower half that hold the weight; the counters follow
    offset: NDArray[np.float64]  # how x is read
    unit: NDArray[np.float64]
    # min_real and max_real: the range of ln E that the exposures can tell apart.
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    special: NDArray[np.float64]  # ln E where the weight is zero, by the value of the counters
    validity: NDArray[np.uint8]  # the flag there


@lru_cache(maxsize=16)
def bracket_tables(mean: WeightedMean, times: tuple[float, ...]) -> BracketTables:
    """Build the tables of a bracket; the same object for equal arguments.

    Parameters
    ----------
    mean : WeightedMean
    times : tuple of float
        1 to 64 exposure times, in the order of the frames.
    """
    count = len(times)
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
    none = weights == 0
    dark_codes, bright_codes = z <= mean.darkest, z >= mean.brightest
    dark_one, bright_one = np.uint64(1 << weight_bits), np.uint64(1 << weight_bits + under_bits)
    words[np.ix_(shortest, dark_codes)] += none[dark_codes] * dark_one
    words[np.ix_(longest, bright_codes)] += none[bright_codes] * bright_one

    minimum, maximum = mean.lowest - ln_t.max(), mean.highest - ln_t.min()
    counters = np.arange(1 << (under_bits + over_bits))
    dark = (counters & ((1 << under_bits) - 1)) == shortest.sum()
    over = (counters >> under_bits) == longest.sum()
    neither = np.minimum(0.0, maximum) if mean.contradiction_is_zero else maximum
    special = np.where(dark, minimum[:, None], neither[:, None])
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
) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
    """Tables (3, 256) of Σ w² σ² over the raw code, integers per unit of it, and tables of w g′.

    Parameters
    ----------
    mean : WeightedMean
    tables : BracketTables
    """
    weights = (tables.words[0] & np.uint64((1 << tables.weight_bits) - 1)).astype(np.float64)
    squares = weights**2 * _lanes(mean.variance.T)
    scale = 2.0**62 / len(tables.words) / squares.max(axis=1)
    slopes = weights * _lanes(np.gradient(mean.log_response, axis=0).T)
    return np.rint(squares * scale[:, None]).astype(np.uint64), scale, slopes


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
