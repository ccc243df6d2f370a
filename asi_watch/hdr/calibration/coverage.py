"""Samples too few, or too much alike, for a curve that can be relied upon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asi_watch.hdr.calibration.residuals import ChannelResiduals
from asi_watch.hdr.calibration.samples import CODES

_FEWEST_PLACES = 100
_FEWEST_CODES = CODES // 2


def coverage_warnings(places: int, residuals: Sequence[ChannelResiduals]) -> tuple[str, ...]:
    """Say so when a curve stands on little.

    Parameters
    ----------
    places : int
        Sampled, all brackets together.
    residuals : sequence of ChannelResiduals
        Of every channel, BGR.

    Returns
    -------
    tuple of str
        One sentence, or none.
    """
    codes = [int((r.counts > 0).sum()) for r in residuals]
    seen = [int(r.counts.sum()) for r in residuals]
    if places >= _FEWEST_PLACES and min(codes) >= _FEWEST_CODES:
        return ()
    worst = int(np.argmin(codes))
    names = ("blue", "green", "red") if len(codes) == 3 else ("grey",) * len(codes)
    return (
        f"thin data: {places} places, and in {names[worst]} {seen[worst]} observations at"
        f" {codes[worst]} of {CODES} codes; between and beyond these the curve is a guess",
    )
