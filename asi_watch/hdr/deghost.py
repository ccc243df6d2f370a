"""Clouds that move between the exposures of a bracket leave no ghosts.

The middle exposure is the reference. Where another exposure contradicts it through the response
curve by more than `DIFFERENCE` and the noise, in any channel, that pixel of it loses its weight.
A channel in which the middle exposure is saturated or dark states nothing; there the next shorter
exposure is asked.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.lookup_tables import LANES, WeightedMean

DIFFERENCE = 0.08
"""In ln E, beside the noise: of the curve, and of light that flickers."""
SIGMAS = 0.6
"""Standard deviations of the noise that agree: fewer cost a still sky more than 1 %."""
JPEG_ERROR = 4.0
"""Standard deviation at edges, in codes."""
# Codes below white of which JPEG makes too little beside a saturated sun: they state nothing.
_BESIDE_WHITE = 32
NOTHING_STATED = np.uint16(0xFFFF)


@dataclass(frozen=True, eq=False)
class Comparisons:
    """What the exposures of a bracket are compared with, in the order in which this is done."""

    # Per comparison: the frame, the number of its references, and which frames these are.
    which: NDArray[np.int32]
    # Per reference and lane, the lowest and the highest code of the frame that agrees with each
    # code of the reference; the lowest above the highest where that code states nothing.
    ranges: NDArray[np.uint8]
    # The same in a word: the lowest, and above it how many follow; NOTHING_STATED.
    words: NDArray[np.uint16]


@lru_cache(maxsize=16)
def comparisons(mean: WeightedMean, times: tuple[float, ...]) -> Comparisons:
    """List the comparisons of a bracket, from the middle exposure outwards.

    A frame is compared with what is left of those before it.

    Parameters
    ----------
    mean : WeightedMean
    times : tuple of float
        Exposure times, in the order of the frames.
    """
    order = sorted(range(len(times)), key=lambda i: times[i])
    middle = len(order) // 2
    asked = (order[middle], order[max(middle - 1, 0)])
    frames = (*order[:middle][::-1], *order[middle + 1 :])
    which = np.zeros((len(frames), 2 + len(asked)), np.int32)
    ranges = np.zeros((len(frames), len(asked), LANES, 2, 256), np.uint8)
    for row, frame in enumerate(frames):
        references = [r for r in asked if r != frame]
        which[row, : 2 + len(references)] = frame, len(references), *references
        for column, reference in enumerate(references):
            ranges[row, column] = _ranges(mean, np.log(times[frame] / times[reference]))
    low, high = np.moveaxis(ranges.astype(np.uint16), -2, 0)
    words = np.where(low <= high, low | (high - low) << np.uint16(8), NOTHING_STATED)
    return Comparisons(which, ranges, np.ascontiguousarray(words, np.uint16))


def _ranges(mean: WeightedMean, ln_ratio: float) -> NDArray[np.uint8]:
    """Codes of a frame exposed exp(ln_ratio) times longer that agree, (3, 2, 256)."""
    z = np.arange(256)
    result = np.empty((LANES, 2, 256), np.uint8)
    for lane in range(LANES):
        channel = min(lane, mean.log_response.shape[1] - 1)
        g, weights = mean.log_response[:, channel], mean.weights[:, channel]
        variance = mean.variance[:, channel] + (JPEG_ERROR * np.gradient(g)) ** 2
        limit = DIFFERENCE + SIGMAS * np.sqrt(variance[:, None] + variance[None, :])
        difference = g[None, :] - (g[:, None] + ln_ratio)
        # A saturated code says "at least", a dark one "at most".
        agrees = (difference <= limit) | (z <= mean.darkest)
        agrees &= (difference >= -limit) | (z >= mean.brightest)
        nearest = np.abs(difference).argmin(axis=1)
        agrees[z, nearest] = True
        low, high = agrees.argmax(axis=1), 255 - agrees[:, ::-1].argmax(axis=1)
        states = (weights > 0) & (z <= mean.brightest - _BESIDE_WHITE)
        result[lane] = np.where(states, low, 255), np.where(states, high, 0)
    return result
