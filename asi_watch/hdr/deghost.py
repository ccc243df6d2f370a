"""Clouds that move between the exposures of a bracket leave no ghosts.

The middle exposure is the reference. Where another exposure contradicts it through the response
curve by more than `DIFFERENCE` and the noise, in any channel, that pixel of it loses its weight.
A channel in which the middle exposure is saturated or dark states nothing; there the next shorter
exposure is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.lookup_tables import LANES, WeightedMean

DIFFERENCE = 0.08
"""In ln E, beside the noise: of the curve, and of light that flickers."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What one exposure is compared with."""

    frame: int
    references: tuple[int, ...]
    # Per reference and lane, the lowest and the highest code of the frame that agrees with each
    # code of the reference; lowest above highest where that code states nothing.
    ranges: NDArray[np.uint8]


def comparisons(mean: WeightedMean, times: Sequence[float]) -> list[Comparison]:
    """List the comparisons of a bracket, from the middle exposure outwards.

    Parameters
    ----------
    mean : WeightedMean
    times : sequence of float
        Exposure times, in the order of the frames.
    """
    order = sorted(range(len(times)), key=lambda i: times[i])
    middle = len(order) // 2
    asked = (order[middle], order[max(middle - 1, 0)])
    found = []
    for frame in (*order[:middle][::-1], *order[middle + 1 :]):
        references = tuple(r for r in asked if r != frame)
        ranges = [_ranges(mean, np.log(times[frame] / times[r])) for r in references]
        found.append(Comparison(frame, references, np.stack(ranges)))
    return found


def _ranges(mean: WeightedMean, ln_ratio: float) -> NDArray[np.uint8]:
    """Codes of a frame exposed exp(ln_ratio) times longer that agree with each code: (3, 2, 256)."""
    z = np.arange(256)
    result = np.empty((LANES, 2, 256), np.uint8)
    for lane in range(LANES):
        channel = min(lane, mean.log_response.shape[1] - 1)
        g, weights = mean.log_response[:, channel], mean.weights[:, channel]
        variance = mean.variance[:, channel]
        limit = DIFFERENCE + np.sqrt(variance[:, None] + variance[None, :])
        difference = g[None, :] - (g[:, None] + ln_ratio)
        # A saturated code says "at least", a dark one "at most".
        agrees = (difference <= limit) | (z <= mean.darkest)
        agrees &= (difference >= -limit) | (z >= mean.brightest)
        nearest = np.abs(difference).argmin(axis=1)
        agrees[z, nearest] = True
        low, high = agrees.argmax(axis=1), 255 - agrees[:, ::-1].argmax(axis=1)
        states = weights > 0
        result[lane] = np.where(states, low, 255), np.where(states, high, 0)
    return result


def reject(
    comparison: Comparison, frames: Sequence[NDArray[np.uint8]], channels: int, kernel: Any = None
) -> NDArray[np.uint8]:
    """Copy a frame, with code 0 where it is contradicted: that has no weight.

    Parameters
    ----------
    comparison : Comparison
    frames : sequence of ndarray, shape (rows, S), uint8
        All of the bracket, C-contiguous; those nearer to the middle have been through this.
    channels : {1, 3}
    kernel : module, optional
        The compiled kernel; None: numpy, with the same result.
    """
    frame = frames[comparison.frame]
    references = tuple(frames[r] for r in comparison.references)
    if kernel is not None:
        out = np.empty_like(frame)
        kernel.reject(frame, references, comparison.ranges, channels, out)
        return out
    codes = frame.reshape(-1, channels)
    out, open_ = codes.copy(), np.ones(codes.shape, dtype=bool)
    for reference, ranges in zip(references, comparison.ranges, strict=True):
        stated_by = reference.reshape(-1, channels)
        low, high = (
            np.stack([ranges[c, end].take(stated_by[:, c]) for c in range(channels)], axis=1)
            for end in (0, 1)
        )
        stated = open_ & (low <= high)
        contradicted = (stated & ((codes < low) | (codes > high))).any(axis=1, keepdims=True)
        out[stated & contradicted] = 0
        open_ &= ~stated
    return out.reshape(frame.shape)
