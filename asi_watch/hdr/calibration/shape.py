"""What is known of a response curve before any image is seen: its shape is simple.

Exposures one stop apart leave any wiggle of g with a period of one stop undetermined, so the prior
decides there. Debevec and Malik's g″ penalty pulls g towards a straight line, which no camera has.
Here the *logarithm of the slope* m = ln g′ is asked to change evenly along an axis in which the
families cameras are built from (power laws, logarithms, straight lines, shoulders) are nearly
straight: q(z) = ln(z + a) − c·ln(255 + b − z). A positive slope, i.e. a monotone curve, comes with
it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import CODES

Vector = NDArray[np.float64]

MIDDLES = np.arange(CODES - 1) + 0.5
_TOE, _SHOULDER, _SHOULDER_SHARE = 8.0, 16.0, 0.5
_ORDER = 3


def gamma_steps(exponent: float = 2.2) -> Vector:
    """Steps of g from code to code of a plain power law: where every estimate starts."""
    steps: Vector = exponent / np.maximum(MIDDLES, 2.0)
    return steps


def _axis() -> Vector:
    axis: Vector = np.log(MIDDLES + _TOE) - _SHOULDER_SHARE * np.log(
        CODES - 1 + _SHOULDER - MIDDLES
    )
    return axis


def roughness_rows() -> Vector:
    """Rows R with |R·m|² = ∫ (dⁿm/dqⁿ)² dq for the log slope m at the 255 steps.

    Returns
    -------
    ndarray, shape (255 − n, 255), n = 3
    """
    axis = _axis()
    rows = np.eye(CODES - 1)
    for _ in range(_ORDER):
        rows = np.diff(rows, axis=0) / np.diff(axis)[:, np.newaxis]
        axis = (axis[1:] + axis[:-1]) / 2.0
    scaled: Vector = rows * np.sqrt(np.gradient(axis))[:, np.newaxis]
    return scaled


def typical_rows() -> tuple[Vector, Vector]:
    """Rows T and what they give for a typical camera: |T·m − t|² = ∫ (d(m − typical)/dq)² dq.

    Returns
    -------
    rows : ndarray, shape (254, 255)
    target : ndarray, shape (254,)
    """
    axis = _axis()
    distance = np.diff(axis)
    rows = np.diff(np.eye(CODES - 1), axis=0) / np.sqrt(distance)[:, np.newaxis]
    return rows, rows @ np.log(gamma_steps())


def shape_penalty(
    rows: Vector, steps: Vector, wanted: Vector | float = 0.0
) -> tuple[Vector, Vector]:
    """Quadratic form of the roughness of m, linearised at the curve with the given steps.

    Parameters
    ----------
    rows : ndarray
        From `roughness_rows` or `typical_rows`.
    steps : ndarray, shape (255,)
        Positive steps of the present curve.
    wanted : ndarray, optional
        What R·m is to be.

    Returns
    -------
    matrix : ndarray, shape (256, 256)
    vector : ndarray, shape (256,)
        To be added to the normal equations, times the strength.
    """
    slope_rows = -np.diff(rows / steps, axis=1, prepend=0.0, append=0.0)  # of m by g
    target = rows @ (1.0 - np.log(steps)) + wanted
    return slope_rows.T @ slope_rows, slope_rows.T @ target
