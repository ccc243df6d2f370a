"""The least-squares curve among those that rise with every code."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Smallest rise of ln exposure from one code to the next: survives float32, is nothing in stops.
SMALLEST_STEP = 1e-4
_MAX_ROUNDS = 60

Vector = NDArray[np.float64]


def is_monotone(log_response: ArrayLike) -> bool:
    """Tell whether every channel of g(z) rises strictly with every code.

    Parameters
    ----------
    log_response : array_like, shape (256,) or (256, C)
    """
    return bool((np.diff(np.asarray(log_response), axis=0) > 0).all())


def solve_monotone(matrix: Vector, vector: Vector) -> tuple[Vector, int]:
    """Minimise ½ gᵀ·matrix·g − vectorᵀ·g over curves that rise by a smallest step everywhere.

    Written in the increments between codes this is a least-squares problem with lower bounds,
    solved to optimality by exchanging bound and free increments (block principal pivoting:
    Portugal, Júdice, Vicente, Math. Comp. 63, 625, 1994).

    Parameters
    ----------
    matrix : ndarray, shape (K, K)
        Symmetric positive definite.
    vector : ndarray, shape (K,)

    Returns
    -------
    g : ndarray, shape (K,)
    repairs : int
        Number of steps between codes that the constraint had to hold up.
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


def _pivot(system: Vector, target: Vector, bound: NDArray[np.bool_]) -> Vector:
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
