"""Least squares for g(z) of one channel: the plain equations, and the best of the rising curves.

Debevec and Malik's unknowns are the 256 values of g and a pixel's irradiance, which enters each of
its rows with coefficient −1 alone. So it drops out of the normal equations exactly (Schur
complement), and neither time nor memory of the solve depends on the number of pixels. P. Debevec,
J. Malik: Recovering High Dynamic Range Radiance Maps from Photographs, SIGGRAPH 1997.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import CODES, Codes, Flags, Observations, Vector

ANCHOR = CODES // 2
# Smallest rise of ln exposure from one code to the next: survives float32, is nothing in stops.
SMALLEST_STEP = 1e-4
# Places at which `smoothness` has the strength it has in the plain equations: 10 brackets × 1000.
_REFERENCE_PLACES = 10_000
_MAX_ROUNDS = 60

Table = NDArray[np.floating]


def fit_plain(table: Observations, weight: Vector, smoothness: float) -> tuple[Vector, int]:
    """Fit g of one channel by the plain equations: rising, g(128) = 0; and count repairs.

    Parameters
    ----------
    table : Observations
    weight : ndarray, shape (256,)
        Trust in each code.
    smoothness : float
        λ at 10,000 places; scaled so that it weighs the same against any number of them.
    """
    equations = NormalEquations()
    squared = weight**2
    for piece in table.chunks():
        equations.add(piece.codes, piece.log_times, squared[piece.codes] * piece.usable)
    scale = smoothness * np.sqrt(len(table.codes) / _REFERENCE_PLACES)
    matrix = anchored(equations.matrix + smoothness_matrix(scale * weight))
    curve, repairs = solve_monotone(matrix, equations.vector)
    return curve - curve[ANCHOR], repairs


@dataclass
class NormalEquations:
    """½ gᵀ·matrix·g − vectorᵀ·g of one channel; shapes (256, 256) and (256,)."""

    matrix: Vector = field(default_factory=lambda: np.zeros((CODES, CODES)))
    vector: Vector = field(default_factory=lambda: np.zeros(CODES))

    def add(self, codes: Codes, targets: Table, weights: Table) -> None:
        """Add pixels: rows √weight · (g(code) − ln E − target), ln E of each pixel eliminated.

        Parameters
        ----------
        codes : ndarray, shape (P, N), uint8
        targets : ndarray, shape (P, N)
            ln t of the exposure, less what is known of g between whole codes.
        weights : ndarray, shape (P, N)
            Squared weight of each row; 0 leaves the row out.
        """
        total = weights.sum(axis=1, keepdims=True)
        share = weights / np.where(total > 0, total, 1.0)
        centred = weights * (targets - (share * targets).sum(axis=1, keepdims=True))
        self.vector += np.bincount(codes.ravel(), weights=centred.ravel(), minlength=CODES)
        diagonal = weights * (1.0 - share)
        self.matrix[np.diag_indices(CODES)] += np.bincount(
            codes.ravel(), weights=diagonal.ravel(), minlength=CODES
        )
        first, second = np.triu_indices(codes.shape[1], k=1)
        index = codes.astype(np.uint16)
        cells = (index[:, first] << 8) | index[:, second]
        coupling = weights[:, first] * share[:, second]
        pairs = np.bincount(
            cells.ravel(), weights=coupling.ravel(), minlength=CODES * CODES
        ).reshape(CODES, CODES)
        self.matrix -= pairs
        self.matrix -= pairs.T


def smoothness_matrix(row_weights: Vector) -> Vector:
    """Penalty matrix of Σ (row_weights(z) · g″(z))² over the inner codes."""
    rows = np.diff(np.eye(CODES), n=2, axis=0) * row_weights[1:-1, np.newaxis]
    return np.asarray(rows.T @ rows)


def anchored(matrix: Vector) -> Vector:
    """Give the free constant of g its value: adds the row g(128) = 0 in the matrix's own scale."""
    fixed = matrix.copy()
    fixed[ANCHOR, ANCHOR] += max(1.0, float(np.trace(matrix)) / CODES)
    return fixed


def solve_monotone(matrix: Vector, vector: Vector) -> tuple[Vector, int]:
    """Minimise ½ gᵀ·matrix·g − vectorᵀ·g over curves that rise by a smallest step everywhere.

    Gives g and its repairs: how many steps the constraint had to hold up. In the increments
    between codes this is a least-squares problem with lower bounds, solved to optimality by
    exchanging bound and free increments (block principal pivoting: Portugal, Júdice, Vicente,
    Math. Comp. 63, 625, 1994).

    Parameters
    ----------
    matrix : ndarray, shape (K, K)
        Symmetric positive definite.
    vector : ndarray, shape (K,)
    """
    free_solution = np.asarray(np.linalg.solve(matrix, vector), dtype=np.float64)
    if (np.diff(free_solution) >= SMALLEST_STEP).all():
        return free_solution, 0
    size = len(vector)
    sums = np.tril(np.ones((size, size)))  # g = sums @ increments, the first being g(0)
    lower = np.full(size, SMALLEST_STEP)
    lower[0] = 0.0  # g(0) itself is free; see `bound` below
    system = sums.T @ matrix @ sums
    target = sums.T @ vector - system @ lower
    bound = np.concatenate([[False], np.diff(free_solution) < SMALLEST_STEP])
    increments = _pivot(system, target, bound)
    curve: Vector = sums @ (increments + lower)
    return curve, int(bound.sum())


def _pivot(system: Vector, target: Vector, bound: Flags) -> Vector:
    """Exchange increments between bound (0) and free until the optimality conditions hold."""
    solution = np.zeros(len(target))
    tolerance = 1e-10 * float(np.abs(target).max(initial=1e-300))
    best, patience = len(target) + 1, 3
    for _ in range(_MAX_ROUNDS):
        free = ~bound
        solution[:] = 0.0
        solution[free] = np.linalg.solve(system[np.ix_(free, free)], target[free])
        gradient = system @ solution - target
        wrong = (free & (solution < -1e-12)) | (bound & (gradient < -tolerance))
        wrong[0] = False
        count = int(wrong.sum())
        if count == 0:
            return solution
        if count < best:
            best, patience = count, 3
        else:
            patience -= 1
        if patience < 0:  # one at a time, the last one: cannot cycle
            wrong[: int(np.flatnonzero(wrong)[-1])] = False
        bound ^= wrong
    # Only data that contradict a rising curve nearly everywhere come here: feasible, near optimal.
    return np.concatenate([solution[:1], np.maximum(solution[1:], 0.0)])
