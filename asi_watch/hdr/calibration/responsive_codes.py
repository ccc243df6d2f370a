"""Codes that respond to exposure: neither a dark floor nor white.

Film base, flare and black level hold dark codes up; many cameras are white well below 255. There a
longer exposure changes nothing, and no response curve can say why.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.samples import CODES, WHITE, BracketSamples, Clips, Codes, Vector

_HIGHEST_FLOOR, _LOWEST_WHITE = 64, 192
_LEAST_PAIRS = 30
_LEAST_RISE = 0.12  # of the code, per stop: a power law of exponent 1/6 still rises faster
_LEAST_BRIGHT_RISE = 5.0  # codes per stop: known cameras rise by 25 and more at code 235
_DARKEST_SHARE = 0.002
_PILED_CODES, _PILED_SHARE = 5, 0.01
_NO_BLACK, _NO_WHITE = 5, 243
_WHITE_NOISE = 3  # codes by which JPEG and noise scatter a white
_LOOK = 1 << 16  # pixels of a picture that tell its white

# For each bracket its exposures' codes or levels, each of shape (P,), and log2 of their times.
Seen = Iterable[tuple[Iterable[NDArray[Any]], Vector]]


def responsive_range(samples: Sequence[BracketSamples], channel: int, clips: Clips) -> Clips:
    """Find the lowest and highest code from and up to which a longer exposure gives a higher code.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    clips : (int, int)
        Codes outside are not looked at: the range is this or a smaller one.
    """
    rise = _rise_per_stop(
        ((s.codes if s.levels is None else s.levels)[:, :, channel].T, np.log2(s.exposure_times))
        for s in samples
    )
    dead = rise < _LEAST_RISE * np.arange(CODES)
    dead[: clips[0]] = False
    dead[_HIGHEST_FLOOR:] = False
    low = int(np.flatnonzero(dead)[-1]) + 1 if dead.any() else clips[0]
    whites = [bracket.white[channel] for bracket in samples if bracket.white is not None]
    if whites:
        return low, min(clips[1], int(np.median(whites)) - 1)
    codes = ((s.codes[:, :, channel].T, np.log2(s.exposure_times)) for s in samples)
    return low, _below_white(_rise_per_stop(codes), clips[1])


def black_and_white(samples: Sequence[BracketSamples], channel: int, responsive: Clips) -> Clips:
    """Find where the camera's curve begins and ends: 0 and 255 for most.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    responsive : (int, int)
        From `responsive_range`.
    """
    codes = np.concatenate([bracket.codes[:, :, channel].ravel() for bracket in samples])
    counts = np.bincount(codes, minlength=CODES)
    darkest = int(np.quantile(codes, _DARKEST_SHARE))
    # Scenes without shade end at some code as well, but do not pile up there.
    pile = counts[: darkest + _PILED_CODES].sum()
    above = counts[darkest + _PILED_CODES : darkest + 2 * _PILED_CODES].sum()
    piled = pile >= max(_PILED_SHARE * codes.size, above)
    black = min(darkest, _HIGHEST_FLOOR) if piled and darkest > _NO_BLACK else 0
    white = responsive[1] + _WHITE_NOISE if responsive[1] < _NO_WHITE else CODES - 1
    return black, white


def white_codes(frames: Sequence[Codes], exposure_times: ArrayLike) -> Codes:
    """Codes from which on the pictures of a bracket are white, one per channel.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        Contiguous, ascending exposure time.
    exposure_times : array_like, shape (N,)
    """
    stops = np.log2(np.asarray(exposure_times, dtype=np.float64))
    height, width, channels = frames[0].shape
    # A stride that has no factor in common with the width looks at every column.
    stride = max(1, height * width // _LOOK) | 1
    few = [frame.reshape(-1, channels)[::stride].T for frame in frames]
    rises = (_rise_per_stop([([f[k] for f in few], stops)]) for k in range(channels))
    return np.array([_below_white(rise, WHITE - 1) + 1 for rise in rises], dtype=np.uint8)


def _below_white(rise: Vector, highest: int) -> int:
    """From the brightest code that is seen down to the first that still responds."""
    for code in np.flatnonzero(np.isfinite(rise))[::-1]:
        if code < _LOWEST_WHITE:
            break  # nothing responds: that is no white, the exposure times are false
        if rise[code] >= _LEAST_BRIGHT_RISE:
            return min(int(code), highest)
    return highest


def _rise_per_stop(seen: Seen) -> Vector:
    """Codes per stop at each code, by pairs of neighbouring exposures; NaN where there are few.

    A pair counts at the mean of its two codes: noise takes no part in that, while among pairs whose
    *first* code is the same those are many that noise put there, and they do not rise.
    """
    stops, rises, counts = np.zeros(CODES), np.zeros(CODES), np.zeros(CODES)
    pairs = (
        pair
        for values, times in seen
        for pair in zip(pairwise(values), np.diff(times), strict=True)
    )
    for (first, second), width in pairs:
        one, other = first.astype(np.float64), second.astype(np.float64)
        known = np.isfinite(one + other)
        middle = np.rint((one[known] + other[known]) / 2.0).astype(np.intp)
        rises += np.bincount(middle, weights=(other - one)[known], minlength=CODES)
        # What is white in the longer exposure became so within the first stop or later.
        widths = np.where(other[known] < WHITE, width, min(width, 1.0))
        stops += np.bincount(middle, weights=widths, minlength=CODES)
        counts += np.bincount(middle, minlength=CODES)
    enough = counts >= _LEAST_PAIRS
    return np.where(enough, rises / np.where(enough, stops, 1.0), np.nan)
