"""Codes at which a camera or a scan still answers to exposure: neither dark floor nor white.

Film base, flare and black level hold dark codes up; many cameras are white well below 255. There a
longer exposure changes nothing, and no response curve can say why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.samples import CODES, WHITE, BracketSamples

_HIGHEST_FLOOR, _LOWEST_WHITE = 64, 192
_LEAST_PAIRS = 30
_LEAST_RISE = 0.12  # of the code, per stop: a power law of exponent 1/6 still rises faster
_LEAST_BRIGHT_RISE = 5.0  # codes per stop: known cameras rise by 25 and more at code 235
_LOOK = 1 << 16  # pixels of a picture that tell its white

Codes = NDArray[np.uint8]
Pairs = Iterable[tuple[NDArray[np.generic], NDArray[np.generic], float]]


def lowest_answering(samples: Sequence[BracketSamples], channel: int, low_clip: int) -> int:
    """Find the lowest code from which on a longer exposure gives a higher code.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    low_clip : int

    Returns
    -------
    int
        `low_clip` or a higher code.
    """
    rise = _rise_per_stop(_pairs(samples, channel, levels=True))
    dead = rise < _LEAST_RISE * np.arange(CODES)
    dead[:low_clip] = False
    dead[_HIGHEST_FLOOR:] = False
    return int(np.flatnonzero(dead)[-1]) + 1 if dead.any() else low_clip


def highest_answering(samples: Sequence[BracketSamples], channel: int, high_clip: int) -> int:
    """Find the highest code up to which a longer exposure gives a higher code.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    high_clip : int

    Returns
    -------
    int
        `high_clip` or a lower code.
    """
    whites = [bracket.white[channel] for bracket in samples if bracket.white is not None]
    if whites:
        return min(high_clip, int(np.median(whites)) - 1)
    return _below_white(_rise_per_stop(_pairs(samples, channel, levels=False)), high_clip)


def white_codes(frames: Sequence[Codes], exposure_times: ArrayLike) -> NDArray[np.uint8]:
    """Codes from which on the pictures of a bracket are white.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        Contiguous, ascending exposure time.
    exposure_times : array_like, shape (N,)

    Returns
    -------
    ndarray, shape (C,), uint8
    """
    stops = np.log2(np.asarray(exposure_times, dtype=np.float64))
    pixels = [frame.reshape(-1, frame.shape[2]) for frame in frames]
    # A stride that has no factor in common with the width looks at every column.
    stride = max(1, len(pixels[0]) // _LOOK) | 1
    few = [p[::stride] for p in pixels]
    whites = []
    for channel in range(frames[0].shape[2]):
        pairs = (
            (few[n][:, channel], few[n + 1][:, channel], float(stops[n + 1] - stops[n]))
            for n in range(len(few) - 1)
        )
        whites.append(_below_white(_rise_per_stop(pairs), WHITE - 1) + 1)
    return np.array(whites, dtype=np.uint8)


def _below_white(rise: NDArray[np.float64], highest: int) -> int:
    """From the brightest code that is seen down to the first that still answers."""
    for code in np.flatnonzero(np.isfinite(rise))[::-1]:
        if code < _LOWEST_WHITE:
            break  # nothing answers: that is no white, the exposure times are false
        if rise[code] >= _LEAST_BRIGHT_RISE:
            return min(int(code), highest)
    return highest


def _pairs(samples: Sequence[BracketSamples], channel: int, *, levels: bool) -> Pairs:
    for bracket in samples:
        table = bracket.levels if levels and bracket.levels is not None else bracket.codes
        values = table[:, :, channel]
        for n, width in enumerate(np.diff(np.log2(bracket.exposure_times))):
            yield values[:, n], values[:, n + 1], float(width)


def _rise_per_stop(pairs: Pairs) -> NDArray[np.float64]:
    """Codes per stop at each code, by pairs of neighbouring exposures; NaN where there are few.

    A pair counts at the mean of its two codes: noise takes no part in that, while among pairs whose
    *first* code is the same those are many that noise put there, and they do not rise.
    """
    stops, rises, counts = np.zeros(CODES), np.zeros(CODES), np.zeros(CODES)
    for first, second, width in pairs:
        one, other = first.astype(np.float64), second.astype(np.float64)
        known = np.isfinite(one + other)
        middle = np.rint((one[known] + other[known]) / 2.0).astype(np.intp)
        rises += np.bincount(middle, weights=(other - one)[known], minlength=CODES)
        found = np.bincount(middle, minlength=CODES)
        stops += found * width
        counts += found
    enough = counts >= _LEAST_PAIRS
    return np.where(enough, rises / np.where(enough, stops, 1.0), np.nan)
