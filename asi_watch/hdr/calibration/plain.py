"""The plain equations of Debevec and Malik, their smoothness scaled to the number of places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.monotone import solve_monotone
from asi_watch.hdr.calibration.observations import Observations
from asi_watch.hdr.calibration.robust import chunks
from asi_watch.hdr.calibration.solver import ANCHOR, NormalEquations, anchored, smoothness_matrix

# Places at which `smoothness` has the strength it has in the plain equations: 10 brackets × 1000.
REFERENCE_PLACES = 10_000

Vector = NDArray[np.float64]


def fit_plain(table: Observations, weight: Vector, smoothness: float) -> tuple[Vector, int]:
    """Fit g of one channel.

    Parameters
    ----------
    table : Observations
    weight : ndarray, shape (256,)
        Trust in each code.
    smoothness : float
        λ at 10,000 places.

    Returns
    -------
    g : ndarray, shape (256,)
        g(128) = 0, rising everywhere.
    repairs : int
        Steps that the monotone constraint held up.
    """
    equations = NormalEquations()
    squared = weight**2
    for piece in chunks(table):
        equations.add(piece.codes, piece.log_times, squared[piece.codes] * piece.usable)
    scale = smoothness * np.sqrt(len(table.codes) / REFERENCE_PLACES)
    matrix = anchored(equations.matrix + smoothness_matrix(scale * weight))
    curve, repairs = solve_monotone(matrix, equations.vector)
    return curve - curve[ANCHOR], repairs
