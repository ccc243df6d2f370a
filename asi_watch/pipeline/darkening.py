"""Pictures that get darker with longer exposure times: the times are in the wrong order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DARKENS", "darkens"]

DARKENS = "the images get darker as their exposure times rise: are the times in the right order?"

_STEP = 16
_CLEARLY = 2.0  # codes


def darkens(images: Sequence[NDArray[Any]], exposure_times: Sequence[float]) -> bool:
    """Tell whether images get darker, exposure by exposure, as their stated times rise.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, C), uint8
        Of one bracket, in any order. Every sixteenth row and column is looked at.
    exposure_times : sequence of float
        One per image.
    """
    rising = np.argsort(exposure_times, kind="stable")
    means = [float(images[i][::_STEP, ::_STEP].mean()) for i in rising]
    return means[0] - means[-1] > _CLEARLY and all(a >= b for a, b in pairwise(means))
