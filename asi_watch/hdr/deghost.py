"""Clouds that move between the exposures of a bracket leave no ghosts.

`weights`: the middle exposure is the reference. Where another exposure contradicts it through the
response curve by more than `DIFFERENCE` and the noise, in any channel, that pixel of it loses its
weight. A channel in which the middle exposure is saturated or dark states nothing; there the next
shorter exposure is asked.

`align`: before that, dense optical flow (Kroeger et al. 2016, "Fast Optical Flow using Dense
Inverse Search"; OpenCV's DIS) between ln E as two exposures show it, at reduced size, where both
are neither dark nor saturated. Its medians over small blocks move the frame back to the instant
of the middle one; where there is no evidence nothing moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
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
# The flow is estimated at about this many pixels a side, and kept per block of so many of those.
_FLOW_SIDE, _BLOCK = 768, 8
# In pixels of the frame: less is left as it is, as to move pixels blurs them.
_STILL = 0.3
# Of the pixels of a block that show their radiance in both exposures.
_FEWEST_SHOWN = 0.5
# What counts as moving over the bracket, in pixels, and the share of the blocks that must.
_MOVING, _FEWEST_MOVING, _SURE = 0.5, 0.05, 0.4
_FLOAT = NDArray[np.float32]


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


@dataclass(frozen=True, eq=False)
class Motion:
    """How one exposure's scene is displaced against the reference, in pixels of the frame."""

    field: _FLOAT  # per block, shape (rows, columns, 2): x and y
    known: NDArray[np.bool_]  # per block: enough of it shows its radiance in both exposures


def aligned(
    frames: Sequence[NDArray[np.uint8]], times: Sequence[float], mean: WeightedMean
) -> tuple[list[NDArray[np.uint8]], list[Motion | None]]:
    """Move the frames of a bracket to the instant of the middle one; that has no `Motion`.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
    times : sequence of float
        Exposure times.
    mean : WeightedMean
    """
    order = sorted(range(len(times)), key=lambda i: times[i])
    middle = order[len(order) // 2]
    reference = _reduced(frames[middle])
    moved: list[NDArray[np.uint8]] = []
    motions: list[Motion | None] = []
    for index, frame in enumerate(frames):
        if index == middle:
            moved.append(frame)
            motions.append(None)
            continue
        ratio = times[index] / times[middle]
        motion = _motion(reference, _reduced(frame), mean, np.log(ratio), frame.shape)
        moved.append(_moved(frame, motion))
        motions.append(motion)
    return moved, motions


def cloud_motion(
    motions: Sequence[Motion | None], seconds: Sequence[float]
) -> tuple[float, float, float] | None:
    """Velocity of what moves: x and y in pixels per second, and the confidence, above 0.4.

    Per block the straight line through the displacements of all exposures; of the blocks that
    move, the median. The confidence is the share of them that agree with it within a quarter and
    half a pixel. None where it is less than `_SURE`, fewer than a twentieth of the blocks move, or
    time stands still.

    Parameters
    ----------
    motions : sequence of Motion or None
        As `aligned` gives them; None: the reference.
    seconds : sequence of float
        When each exposure was taken.
    """
    start = next(at for at, motion in zip(seconds, motions, strict=True) if motion is None)
    pairs = [(m, at - start) for m, at in zip(motions, seconds, strict=True) if m is not None]
    squares = np.sum([m.known * dt**2 for m, dt in pairs], axis=0)
    longest = max((abs(dt) for _, dt in pairs), default=0.0)
    known = squares > 0
    if not known.any():
        return None
    sums = np.sum([(m.field * m.known[..., None]) * dt for m, dt in pairs], axis=0)
    velocity = sums[known] / squares[known][:, None]
    tolerance = _MOVING / longest
    moving = velocity[np.hypot(*velocity.T) > tolerance]
    if len(moving) < _FEWEST_MOVING * known.sum():
        return None
    x, y = np.median(moving, axis=0)
    agree = np.hypot(*(moving - (x, y)).T) <= 0.25 * np.hypot(x, y) + tolerance
    return (float(x), float(y), float(agree.mean())) if agree.mean() > _SURE else None


def _reduced(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The green channel at the size at which motion is estimated."""
    factor = max(1, round(max(frame.shape[:2]) / _FLOW_SIDE))
    plane = np.ascontiguousarray(frame[..., frame.shape[2] // 2])
    size = max(1, frame.shape[1] // factor), max(1, frame.shape[0] // factor)
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _motion(
    reference: NDArray[np.uint8],
    frame: NDArray[np.uint8],
    mean: WeightedMean,
    ln_ratio: float,
    shape: tuple[int, ...],
) -> Motion:
    channel = mean.log_response.shape[1] // 2
    g, weighted = mean.log_response[:, channel], mean.weights[:, channel] > 0
    ln_reference, ln_frame = g, g - ln_ratio
    low = max(ln_reference[weighted].min(), ln_frame[weighted].min())
    high = min(ln_reference[weighted].max(), ln_frame[weighted].max())
    rows, columns = (-(-side // _BLOCK) for side in reference.shape)
    still = Motion(np.zeros((rows, columns, 2), np.float32), np.zeros((rows, columns), np.bool_))
    if not low < high or min(reference.shape) < 4 * _BLOCK:
        return still
    codes = [np.clip((ln - low) / (high - low), 0, 1) * 255 for ln in (ln_reference, ln_frame)]
    seen = [np.rint(table).astype(np.uint8) for table in codes]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(
        seen[0][reference], seen[1][frame], np.zeros((*reference.shape, 2), np.float32)
    )
    in_reference, in_frame = ((ln > low) & (ln < high) for ln in (ln_reference, ln_frame))
    shown = (in_reference[reference] & in_frame[frame]).astype(np.float32)
    share = cv2.resize(shown, (columns, rows), interpolation=cv2.INTER_AREA)
    field = np.empty((rows, columns, 2), np.float32)
    for axis, side in enumerate((shape[1] / reference.shape[1], shape[0] / reference.shape[0])):
        mean_flow = cv2.resize(flow[..., axis], (columns, rows), interpolation=cv2.INTER_AREA)
        field[..., axis] = cv2.medianBlur(mean_flow, 5) * side
    known = share >= _FEWEST_SHOWN
    return Motion(field, known)


def _moved(frame: NDArray[np.uint8], motion: Motion) -> NDArray[np.uint8]:
    moves = motion.known & (np.hypot(motion.field[..., 0], motion.field[..., 1]) >= _STILL)
    if not moves.any():
        return frame
    height, width = frame.shape[:2]
    field = motion.field * moves[..., None]
    x, y = (
        cv2.resize(field[..., axis], (width, height), interpolation=cv2.INTER_LINEAR)
        for axis in (0, 1)
    )
    x = (x + np.arange(width, dtype=np.float32)).astype(np.float32)
    y = (y + np.arange(height, dtype=np.float32)[:, None]).astype(np.float32)
    moved = cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(moved.reshape(frame.shape), np.uint8)
