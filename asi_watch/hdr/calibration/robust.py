"""The robust estimate: noise, motion and outliers learned from the residuals themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.monotone import SMALLEST_STEP, solve_monotone
from asi_watch.hdr.calibration.observations import Observations
from asi_watch.hdr.calibration.samples import CODES
from asi_watch.hdr.calibration.shape import (
    MIDDLES,
    gamma_steps,
    roughness_rows,
    shape_penalty,
    typical_rows,
)
from asi_watch.hdr.calibration.solver import ANCHOR, NormalEquations, anchored

Vector = NDArray[np.float64]
Table = NDArray[np.float32]

CHUNK = 1 << 15
_ROUNDS = 10
_PREVIEW = 10_000  # places that all rounds but the last work on
_OUTLIER = 2.5
_LARGEST_CHANGE = 4.0
_LARGEST_STEP = 1.5  # ln units from one code to the next, two stops
_CODE_NOISE = 0.25  # variance of a level, codes²
_ROUGHNESS_SHARE = 0.09
# How much more the prior weighs where the data are noisier than assumed: their errors are not all
# chance, and with the noise grows what of them no number of places takes away.
_DOUBT = 8.0
# Share of the pull to a typical camera: nothing where the exposures determine the curve, and it
# decides where they do not: two or three, far apart, of a scene of few tones.
_TYPICAL = 4.0
_LARGEST_EXCESS = np.float32(1.0)  # ln units


@dataclass(frozen=True)
class CurveTables:
    """Look-up tables of a rising curve: g, its steps, slope and bend (second difference)."""

    g: Table
    steps: Table
    slope: Table
    bend: Table

    @classmethod
    def of(cls, steps: Vector) -> CurveTables:
        """Tables of the curve with these 255 steps."""
        g = np.concatenate([[0.0], np.cumsum(steps)])
        slope = np.interp(np.arange(CODES), MIDDLES, steps)
        tables = (g - g[ANCHOR], steps, slope, np.gradient(slope))
        return cls(*(table.astype(np.float32) for table in tables))


def chunks(table: Observations) -> Iterator[Observations]:
    """The table in pieces of bounded size."""
    for start in range(0, len(table.codes), CHUNK):
        yield table.part(slice(start, start + CHUNK))


def fit_robust(table: Observations, strength: float) -> tuple[Vector, int]:
    """Fit g of one channel.

    Parameters
    ----------
    table : Observations
    strength : float
        Of the shape prior per place.

    Returns
    -------
    g : ndarray, shape (256,)
        g(128) = 0, rising everywhere.
    repairs : int
        Steps that the monotone constraint held up in the last round.
    """
    places = len(table.codes)
    preview = table
    if places > _PREVIEW:
        preview = table.part(slice(None, None, -(-places // _PREVIEW)))
    rows = roughness_rows()
    towards, typical = typical_rows()
    # Of many exposures each code is beside others at many distances: there is little to decide.
    doubt, typical_share = (k / (table.codes.shape[1] - 1) for k in (_DOUBT, _TYPICAL))
    steps = gamma_steps()
    scale, repairs = np.inf, 0
    for number in range(_ROUNDS):
        data = preview if number < _ROUNDS - 1 else table
        equations, scale = _accumulate(data, CurveTables.of(steps), scale)
        matrix, vector = shape_penalty(rows, steps)
        pull, pulled = shape_penalty(towards, steps, typical)
        weight = strength * len(data.codes) * (1.0 + doubt * scale**2)
        system = anchored(equations.matrix + weight * (matrix + typical_share * pull))
        target = equations.vector + weight * (vector + typical_share * pulled)
        if number < _ROUNDS - 1:  # the next round starts from rising steps anyway
            curve = np.linalg.solve(system, target)
        else:
            curve, repairs = solve_monotone(system, target)
        changed = np.clip(np.diff(curve), steps / _LARGEST_CHANGE, steps * _LARGEST_CHANGE)
        steps = np.clip(changed, SMALLEST_STEP, _LARGEST_STEP)
    curve = np.concatenate([[0.0], np.cumsum(steps)])
    return curve - curve[ANCHOR], repairs


def _accumulate(
    table: Observations, curve: CurveTables, scale: float
) -> tuple[NormalEquations, float]:
    equations = NormalEquations()
    sizes = []
    for piece in chunks(table):
        beyond, weights = between_codes(piece, curve), base_weights(piece, curve)
        exposure = curve.g[piece.codes] + beyond - piece.log_times
        residual = np.abs(centred(exposure, weights)) * np.sqrt(weights)
        sizes.append(residual[piece.usable])
        weights /= 1.0 + (residual / np.float32(_OUTLIER * scale)) ** 2
        targets = piece.log_times - beyond
        equations.add(piece.codes, targets, weights)
    spread = 1.4826 * float(np.median(np.concatenate(sizes)))
    return equations, max(spread, 1e-3)


def code_noise(table: Observations, curve: Vector) -> float:
    """Robust standard deviation of the observations about a rising curve, in codes."""
    tables = CurveTables.of(np.maximum(np.diff(curve), SMALLEST_STEP))
    sizes = []
    for piece in chunks(table):
        weights = base_weights(piece, tables)
        exposure = tables.g[piece.codes] + between_codes(piece, tables) - piece.log_times
        sizes.append((np.abs(centred(exposure, weights)) * np.sqrt(weights))[piece.usable])
    spread = 1.4826 * float(np.median(np.concatenate(sizes)))
    return spread * math.sqrt(_CODE_NOISE)


def between_codes(piece: Observations, curve: CurveTables) -> Table:
    """What g at the level differs from g at the nearest code, by the present curve.

    The second term turns the mean of the codes around a place into the code of their mean
    exposure (not of its logarithm): texture scales with the exposure time either way, but sensor
    noise has mean zero only there.
    """
    upper = np.minimum(piece.codes, CODES - 2)
    lower = np.maximum(piece.codes, 1) - 1
    slope = np.where(piece.fraction > 0, curve.steps[upper], curve.steps[lower])
    spread = np.square(piece.roughness, dtype=np.float32)
    excess = (np.float32(0.5) * (curve.bend + curve.slope**2))[piece.codes] * spread
    beyond: Table = piece.fraction * slope + np.minimum(excess, _LARGEST_EXCESS)
    return np.asarray(beyond, dtype=np.float32)


def base_weights(piece: Observations, curve: CurveTables) -> Table:
    """Inverse variance of ln exposure at each observation."""
    variance = np.float32(_CODE_NOISE) + np.float32(_ROUGHNESS_SHARE) * np.square(
        piece.roughness, dtype=np.float32
    )
    weights = piece.usable / (np.square(curve.slope)[piece.codes] * variance)
    return np.asarray(weights, dtype=np.float32)


def centred(exposure: Table, weights: Table) -> Table:
    """Residuals of ln exposure about each place's weighted mean."""
    total = weights.sum(axis=1, keepdims=True)
    mean = (weights * exposure).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
    residual: Table = exposure - mean
    return residual
