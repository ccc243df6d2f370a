"""The dark floor: codes at which a camera or a scan no longer answers to exposure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asi_watch.hdr.calibration.samples import CODES, BracketSamples

_HIGHEST = 64
_LEAST_PAIRS = 30
_LEAST_RISE = 0.12  # of the code, per stop: a power law of exponent 1/6 still rises faster


def responsive_from(samples: Sequence[BracketSamples], channel: int, low_clip: int) -> int:
    """Find the lowest code from which on a longer exposure gives a higher code.

    Film base, flare and black level hold dark codes up: there a doubled exposure changes nothing,
    and no response curve can say why.

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
    stops, pairs = np.zeros(CODES), np.zeros(CODES)
    rises = np.zeros(CODES)
    for bracket in samples:
        codes = bracket.codes[:, :, channel]
        widths = np.diff(np.log2(bracket.exposure_times))
        for n, width in enumerate(widths):
            first, second = codes[:, n], codes[:, n + 1].astype(np.float64)
            rises += np.bincount(first, weights=second - first, minlength=CODES)
            counts = np.bincount(first, minlength=CODES)
            stops += counts * width
            pairs += counts
    known = pairs >= _LEAST_PAIRS
    per_stop = rises / np.where(known, stops, 1.0)
    dead = known & (per_stop < _LEAST_RISE * np.arange(CODES))
    dead[:low_clip] = False
    dead[_HIGHEST:] = False
    return int(np.flatnonzero(dead)[-1]) + 1 if dead.any() else low_clip
