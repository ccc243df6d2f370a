"""Fits in which chosen exposure times are unknowns beside the curve.

Only for judging the stated times: g is a chain of straight pieces between a few codes, which is
quick to solve again and again, and too coarse to merge with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.monotone import SMALLEST_STEP
from asi_watch.hdr.calibration.observations import Observations
from asi_watch.hdr.calibration.robust import CurveTables, base_weights, between_codes, centred
from asi_watch.hdr.calibration.samples import CODES
from asi_watch.hdr.calibration.shape import gamma_steps

_KNOTS = np.unique(np.rint(np.geomspace(8.0, 263.0, 33)) - 8.0)
_PENALTY = 1e-4  # of bends of g along the knots, per observation's weight
_ROUNDS = 8
_OUTLIER = np.float32(2.5)
_LARGEST_CHANGE = 3.0
_MODEL_VARIANCE = 4e-4  # what the coarse curve may miss, ln units squared
_LEAST_SPREAD = 0.05
_LN2 = np.float32(np.log(2.0))
# What holds a free time at the stated one, as a share of the observations: where many are free,
# and where one is.
_HOLD, _HOLD_ONE = 1e-3, 1e-7
_HELD_FROM = 0.02  # ln units; corrections beyond are not held the more for their size

Vector = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FreedFit:
    """A curve with corrections of exposure times.

    Attributes
    ----------
    corrections : ndarray, shape (G,), float64
        Estimated over stated time, stops; 0 for groups that were not free.
    sizes : ndarray, float32
        |residual| of all usable observations over its expected size, none left out.
    stops : ndarray, float32
        |residual| in stops.
    steps : ndarray, shape (255,), float64
        Of the curve.
    """

    corrections: Vector
    sizes: NDArray[np.float32]
    stops: NDArray[np.float32]
    steps: Vector

    def spread(self) -> float:
        """Robust scale of the sizes."""
        return max(1.4826 * float(np.median(self.sizes)), _LEAST_SPREAD)

    def loss(self, spread: float) -> float:
        """Mean loss of all observations, outliers counted by their logarithm."""
        return float(np.mean(np.log1p(np.square(self.sizes / (_OUTLIER * spread)))))


def fit_freed(
    table: Observations,
    groups: Groups,
    free: NDArray[np.bool_],
    start: Vector | None = None,
) -> FreedFit:
    """Fit a curve and the times of the free groups of exposures.

    Parameters
    ----------
    table : Observations
        Of a few thousand places at most.
    groups : ndarray, shape (P, N), int64
        Group of each observation.
    free : ndarray, shape (G,), bool
        Whose time is unknown. If all are, the corrections with the smallest sum of sizes are
        taken: times are only known up to a factor per bracket and a power for all.
    start : ndarray, shape (255,), optional
        Steps of the curve to start from.

    Returns
    -------
    FreedFit
    """
    numbers = np.flatnonzero(free)
    column = np.full(len(free), -1)
    column[numbers] = np.arange(numbers.size)
    design = _design(table, column[groups], numbers.size)
    steps = gamma_steps() if start is None else start
    corrections = np.zeros(len(free))
    scale = np.inf
    for _ in range(_ROUNDS):
        curve = CurveTables.of(steps)
        target = table.log_times - between_codes(table, curve)
        weights = _weights(table, curve)
        size = np.abs(_residual(table, groups, curve, corrections, weights)) * np.sqrt(weights)
        now = max(1.4826 * float(np.median(size[table.usable])), 1e-3)
        weights /= 1.0 + np.square(size / np.float32(_OUTLIER * scale))
        hold = (_HOLD if numbers.size > 1 else _HOLD_ONE) / (
            np.abs(corrections[numbers]) + _HELD_FROM
        )
        found = _solve(design, target, weights, steps, hold)
        steps, corrections[numbers] = _limited(found[: len(_KNOTS)], steps), found[len(_KNOTS) :]
        scale = now
    curve = CurveTables.of(steps)
    weights = _weights(table, curve)
    residual = np.abs(_residual(table, groups, curve, corrections, weights)).astype(np.float32)
    return FreedFit(
        corrections / np.log(2.0),
        (residual * np.sqrt(weights))[table.usable],
        residual[table.usable] / _LN2,
        steps,
    )


def _design(table: Observations, columns: Groups, free: int) -> NDArray[np.float32]:
    """Rows of the unknowns: g at the knots, less the corrections; shape (P, N, K)."""
    hats = np.stack([np.interp(np.arange(CODES), _KNOTS, unit) for unit in np.eye(len(_KNOTS))])
    own = np.vstack([-np.eye(free), np.zeros((1, free))])  # the last row for those not free
    rows = np.concatenate([hats.T[table.codes], own[columns]], axis=2)
    return np.asarray(rows, dtype=np.float32)


def _weights(table: Observations, curve: CurveTables) -> NDArray[np.float32]:
    weights = base_weights(table, curve)
    return weights / (1.0 + np.float32(_MODEL_VARIANCE) * weights)


def _residual(
    table: Observations,
    groups: Groups,
    curve: CurveTables,
    corrections: Vector,
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    exposure = curve.g[table.codes] + between_codes(table, curve) - table.log_times
    return centred(exposure - corrections.astype(np.float32)[groups], weights)


def _solve(
    design: NDArray[np.float32],
    target: NDArray[np.float32],
    weights: NDArray[np.float32],
    steps: Vector,
    hold: Vector,
) -> Vector:
    """One round of least squares, every place's ln E eliminated."""
    total = weights.sum(axis=1, keepdims=True)
    share = weights / np.where(total > 0, total, np.float32(1.0))
    mean = np.einsum("pn,pnk->pk", share, design)
    rows = (design - mean[:, np.newaxis]).reshape(-1, design.shape[2])
    values = (target - (share * target).sum(axis=1, keepdims=True)).ravel()
    weighted = rows * weights.ravel()[:, np.newaxis]
    matrix = (weighted.T @ rows).astype(np.float64)
    vector = (weighted.T @ values).astype(np.float64)
    knots = len(_KNOTS)
    # Bends are measured from the present curve's own course along the knots.
    slopes = np.diff(np.concatenate([[0.0], np.cumsum(steps)])[_KNOTS.astype(int)])
    bends = np.diff(np.diff(np.eye(knots), axis=0) / slopes[:, np.newaxis], axis=0)
    everything = float(weights.sum())
    matrix[:knots, :knots] += _PENALTY * everything * bends.T @ bends
    matrix[0, 0] += everything  # the free constant of g
    own = np.arange(knots, knots + len(hold))
    matrix[own, own] += everything * hold
    solution: Vector = np.linalg.solve(matrix, vector)
    return solution


def _limited(knots: Vector, steps: Vector) -> Vector:
    """Steps of the curve through the knots, rising, not too far from the present ones."""
    wanted = np.diff(np.interp(np.arange(CODES), _KNOTS, knots))
    changed = np.clip(wanted, steps / _LARGEST_CHANGE, steps * _LARGEST_CHANGE)
    return np.clip(changed, SMALLEST_STEP, 1.5)
