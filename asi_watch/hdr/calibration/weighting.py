"""How far a code is trusted in the calibration, by its place in the range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import CODES


def hat(weight_type: str) -> NDArray[np.float64]:
    """Weight of every code, highest in the middle, the scale that of the triangle (≤ 127.5).

    Parameters
    ----------
    weight_type : {"triangle", "sine"}

    Raises
    ------
    ValueError
        Unknown weight type.
    """
    z = np.arange(CODES, dtype=np.float64)
    if weight_type == "triangle":
        return np.where(z <= 127.5, z, 255.0 - z)
    if weight_type == "sine":
        return (np.cos(2.0 * np.pi * z / 255.0 - np.pi) + 1.0) * 63.75
    raise ValueError(f"weight type '{weight_type}' is unknown: use 'triangle' or 'sine'")


def check_settings(smoothness: float, weight_type: str, low_clip: int, high_clip: int) -> None:
    """Refuse settings that no curve can be calibrated with.

    Raises
    ------
    ValueError
        Names the setting.
    """
    check_clips(low_clip, high_clip)
    hat(weight_type)
    if not 0 < smoothness < np.inf:
        raise ValueError(f"smoothness must be a positive number; got {smoothness!r}")


def check_clips(low_clip: int, high_clip: int) -> None:
    """Refuse clip codes that leave no range of codes to calibrate from.

    Raises
    ------
    ValueError
        Unless 0 ≤ low_clip < high_clip ≤ 255.
    """
    if not 0 <= low_clip < high_clip <= CODES - 1:
        raise ValueError(
            "low_clip and high_clip must satisfy 0 <= low < high <= 255, "
            f"got {low_clip} and {high_clip}"
        )
