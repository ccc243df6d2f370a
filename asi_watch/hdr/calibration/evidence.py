"""What brackets say for a curve or against it: coverage, agreement, prediction, changing light."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.estimate import CurveTables
from asi_watch.hdr.calibration.samples import (
    ANCHOR,
    CODES,
    SMALLEST_STEP,
    BracketSamples,
    Clips,
    Flags,
    Floats,
    Observations,
    Vector,
    observe,
    responsive_range,
)

_LN2 = float(np.log(2.0))
_OUTLIER = 2.5  # expected sizes of a residual
# Observations that make a code known: within so many codes of it, and in how many brackets.
_BESIDE, _LEAST_SEEN, _LEAST_BRACKETS = 2, 10, 2
_NEAR_CLIP = 12  # codes: seen so near to the end of what responds, the end is known
_LEAST_PLACES = 30
_JUDGED = slice(15, 241)


def codes_seen(samples: BracketSamples, clips: Clips) -> int:
    """Count the codes within `clips` that a bracket shows at all, in its poorest channel.

    Parameters
    ----------
    samples : BracketSamples
    clips : (int, int)
    """
    counts = [np.bincount(c.ravel(), minlength=CODES) for c in np.moveaxis(samples.codes, 2, 0)]
    return min(int((count[clips[0] : clips[1] + 1] > 2).sum()) for count in counts)


def covered_codes(samples: Sequence[BracketSamples], clips: Clips) -> Flags:
    """Find the codes at which samples determine a curve: shape (256, C).

    Those seen in two brackets (of one: in that), and everything beyond where codes respond if
    samples come near to it: g of dark floors and of white follows from what lies beside.

    Parameters
    ----------
    samples : sequence of BracketSamples
    clips : (int, int)
    """
    covered = np.zeros((CODES, samples[0].channels), dtype=bool)
    window = np.ones(2 * _BESIDE + 1)
    for channel in range(samples[0].channels):
        low, high = responsive_range(samples, channel, clips)
        brackets = np.zeros(CODES)
        total = np.zeros(CODES)
        for one in samples:
            table = observe([one], channel, (low, high), fine=True)
            counts = np.bincount(table.codes[table.usable], minlength=CODES)
            near = np.convolve(counts, window, mode="same")
            brackets += near > 0
            total += near
        seen = (brackets >= min(_LEAST_BRACKETS, len(samples))) & (total >= _LEAST_SEEN)
        if seen[low : low + _NEAR_CLIP].any():
            seen[: low + int(np.argmax(seen[low : low + _NEAR_CLIP]))] = True
        top = seen[high - _NEAR_CLIP + 1 : high + 1][::-1]
        if top.any():
            seen[high - int(np.argmax(top)) :] = True
        covered[:, channel] = seen
    return covered


def prediction_losses(
    log_response: ArrayLike, samples: Sequence[BracketSamples], clips: Clips
) -> Vector:
    """Tell how badly a curve explains each bracket: mean loss of its observations, shape (B,).

    The residual of ln E in units of what a code's noise makes of it through this very curve, so
    that a flat curve gains nothing by being flat; outliers count by their logarithm. NaN for
    brackets without observations.

    Parameters
    ----------
    log_response : array_like, shape (256, C)
    samples : sequence of BracketSamples
    clips : (int, int)
    """
    sums, counts = np.zeros(len(samples)), np.zeros(len(samples))
    for curve, table in _tables(log_response, samples, clips):
        residual, weights = curve.residuals(table)
        sizes = np.abs(residual) * np.sqrt(weights) / np.float32(_OUTLIER)
        loss = np.where(table.usable, np.log1p(np.square(sizes)), 0.0)
        sums += np.bincount(table.bracket, weights=loss.sum(axis=1), minlength=len(samples))
        seen = table.usable.sum(axis=1)
        counts += np.bincount(table.bracket, weights=seen, minlength=len(samples))
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)


def light_changes(
    log_response: ArrayLike, samples: Sequence[BracketSamples], clips: Clips
) -> NDArray[np.float64]:
    """Tell how the light seems to change during each bracket: stops per stop, shape (B, C).

    By how much more than its stated time says a longer exposure received, through this curve: of
    a wrong curve the same in every bracket; of twilight, flicker, automatic gain or white balance
    different ones. NaN where too few places tell.

    Parameters
    ----------
    log_response : array_like, shape (256, C)
    samples : sequence of BracketSamples
    clips : (int, int)
    """
    changes = np.full((len(samples), samples[0].channels), np.nan)
    for channel, (curve, table) in enumerate(_tables(log_response, samples, clips)):
        residual, weights = curve.residuals(table)
        total = np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-30))
        times = table.log_times - (weights * table.log_times).sum(axis=1, keepdims=True) / total
        spread = (weights * times * times).sum(axis=1)
        told = spread > 0
        slopes = (weights * times * residual).sum(axis=1)[told] / spread[told]
        for bracket in range(len(samples)):
            own = slopes[table.bracket[told] == bracket]
            if own.size >= _LEAST_PLACES:
                changes[bracket, channel] = float(np.median(own))
    return changes


def _tables(
    log_response: ArrayLike, samples: Sequence[BracketSamples], clips: Clips
) -> list[tuple[CurveTables, Observations]]:
    """Give for each channel the curve's tables and the observations."""
    curves = np.asarray(log_response, dtype=np.float64).T
    return [
        (
            CurveTables.of_curve(g, SMALLEST_STEP),
            observe(samples, n, responsive_range(samples, n, clips), fine=True),
        )
        for n, g in enumerate(curves)
    ]


def stops_between(first: ArrayLike, second: ArrayLike, where: Flags | None = None) -> float:
    """Root mean square difference of two curves in stops, the worst channel's.

    Over the codes 15 … 240, the free constant of each channel left out. Infinite where no code is
    left.

    Parameters
    ----------
    first, second : array_like, shape (256, C)
    where : ndarray, shape (256, C), bool, optional
        Only these codes.
    """
    difference = (np.asarray(first, np.float64) - np.asarray(second, np.float64))[_JUDGED] / _LN2
    known = np.ones(difference.shape, bool) if where is None else where[_JUDGED]
    columns = [difference[known[:, n], n] for n in range(difference.shape[1])]
    return max(float(column.std()) if column.size > 1 else float("inf") for column in columns)


def completed(log_response: ArrayLike, present: ArrayLike, covered: Flags) -> Floats:
    """Keep the course of the present curve at codes that the samples do not cover.

    Parameters
    ----------
    log_response, present : array_like, shape (256, C)
    covered : ndarray, shape (256, C), bool
        From `covered_codes`.
    """
    known = covered[1:] & covered[:-1]
    new, old = (np.diff(np.asarray(g, np.float64), axis=0) for g in (log_response, present))
    steps = np.maximum(np.where(known, new, old), SMALLEST_STEP)
    curve = np.concatenate([np.zeros((1, steps.shape[1])), np.cumsum(steps, axis=0)])
    return np.asarray(curve - curve[ANCHOR], dtype=np.float32)
