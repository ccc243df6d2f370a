"""The estimates of g(z) of one channel: the plain equations, and the robust one.

Debevec and Malik's unknowns are the 256 values of g and a pixel's irradiance, which enters each of
its rows with coefficient −1 alone. So it drops out of the normal equations exactly (Schur
complement), and neither time nor memory of the solve depends on the number of pixels. P. Debevec,
J. Malik: Recovering High Dynamic Range Radiance Maps from Photographs, SIGGRAPH 1997.

Exposures one stop apart leave any wiggle of g with a period of one stop undetermined, so the prior
decides there. Debevec and Malik's g″ penalty pulls g towards a straight line, which no camera has.
The robust estimate asks the *logarithm of the slope* m = ln g′ to change evenly along an axis in
which the families cameras are built from (power laws, logarithms, straight lines, shoulders) are
nearly straight: q(z) = ln(z + a) − c·ln(255 + b − z). Noise, motion and outliers are learned from
the residuals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import (
    ANCHOR,
    CODES,
    SMALLEST_STEP,
    Clips,
    Codes,
    Flags,
    Floats,
    Observations,
    Vector,
)

# Places at which `smoothness` has the strength it has in the plain equations: 10 brackets × 1000.
_REFERENCE_PLACES = 10_000
_MAX_ROUNDS = 60

Table = NDArray[np.floating]
_MIDDLES = np.arange(CODES - 1) + 0.5
_TOE, _SHOULDER, _SHOULDER_SHARE = 8.0, 16.0, 0.5
_ORDER = 3
_ROUNDS, _FAR_ROUNDS = 10, 25  # the more the prior weighs, the slower it settles
_PREVIEW = 10_000  # places that all rounds but the last work on
_OUTLIER = 2.5
_LARGEST_CHANGE = 4.0
_LARGEST_FAR_CHANGE = (-0.7, 0.7)  # of ln slope in a round: what is linearised there must hold
_LARGEST_STEP = 1.5  # ln units from one code to the next, two stops
_CODE_NOISE = 0.25  # variance of a level, codes²
_ROUGHNESS_SHARE = 0.09
# How much more the prior weighs where the data are noisier than assumed: their errors are not all
# chance, and with the noise grows what of them no number of places takes away.
_DOUBT = 8.0
# Share of the pull to a typical camera: nothing where the exposures determine the curve, and it
# decides where they do not: two or three, far apart, of a scene of few tones.
_TYPICAL = 4.0
# A roughness of m that no smooth curve has (known ones: 1 on average, up to 5 at their ends), over
# how many codes it is looked for, and what is left of the prior there.
_KINK, _KINK_CODES, _LEAST_KINK_WEIGHT = 5.0, 9, 0.15
_SMOOTH_ROUNDS = 2  # before kinks are looked for
_CLOSE = 0.9  # ln units between exposures, 1.3 stops
_LN2, _FARTHEST = math.log(2.0), 3.0  # stops
_LARGEST_EXCESS = np.float32(1.0)  # ln units


@dataclass(frozen=True)
class CurveTables:
    """Look-up tables of a rising curve: g, its steps, slope and bend (second difference)."""

    g: Floats
    steps: Floats
    slope: Floats
    bend: Floats

    @classmethod
    def of_steps(cls, steps: Vector) -> CurveTables:
        """Tables of the curve with these 255 steps."""
        g = np.concatenate([[0.0], np.cumsum(steps)])
        slope = np.interp(np.arange(CODES), _MIDDLES, steps)
        tables = (g - g[ANCHOR], steps, slope, np.gradient(slope))
        return cls(*(table.astype(np.float32) for table in tables))

    @classmethod
    def of_curve(cls, curve: NDArray[np.floating], smallest_step: float) -> CurveTables:
        """Tables of a curve, made to rise by a smallest step."""
        return cls.of_steps(np.maximum(np.diff(curve.astype(np.float64)), smallest_step))

    def exposures(self, piece: Observations) -> Floats:
        """Ln E of every observation by this curve, less its bracket's mean ln t."""
        return np.asarray(self.g[piece.codes] + self.between_codes(piece) - piece.log_times)

    def between_codes(self, piece: Observations) -> Floats:
        """What g at the level differs from g at the nearest code.

        The second term turns the mean of the codes around a place into the code of their mean
        exposure (not of its logarithm): texture scales with the exposure time either way, but
        sensor noise has mean zero only there.
        """
        upper = np.minimum(piece.codes, CODES - 2)
        lower = np.maximum(piece.codes, 1) - 1
        slope = np.where(piece.fraction > 0, self.steps[upper], self.steps[lower])
        spread = np.square(piece.roughness, dtype=np.float32)
        excess = (np.float32(0.5) * (self.bend + self.slope**2))[piece.codes] * spread
        beyond = piece.fraction * slope + np.minimum(excess, _LARGEST_EXCESS)
        return np.asarray(beyond, dtype=np.float32)

    def weights(self, piece: Observations) -> Floats:
        """Inverse variance of ln exposure at each observation."""
        variance = np.float32(_CODE_NOISE) + np.float32(_ROUGHNESS_SHARE) * np.square(
            piece.roughness, dtype=np.float32
        )
        weights = piece.usable / (np.square(self.slope)[piece.codes] * variance)
        return np.asarray(weights, dtype=np.float32)

    def residuals(self, piece: Observations) -> tuple[Floats, Floats]:
        """Residuals of ln exposure about each place's weighted mean, and the weights."""
        weights = self.weights(piece)
        return centred(self.exposures(piece), weights), weights


def centred(exposure: Floats, weights: Floats) -> Floats:
    """Residuals of ln exposure about each place's weighted mean."""
    total = weights.sum(axis=1, keepdims=True)
    mean = (weights * exposure).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
    return np.asarray(exposure - mean)


def fit_plain(table: Observations, weight: Vector, smoothness: float) -> Vector:
    """Fit g of one channel by the plain equations: rising, g(128) = 0.

    Parameters
    ----------
    table : Observations
    weight : ndarray, shape (256,)
        Trust in each code.
    smoothness : float
        λ at 10,000 places; scaled so that it weighs the same against any number of them.
    """
    equations = _Equations()
    squared = weight**2
    for piece in table.chunks():
        equations.add(piece.codes, piece.log_times, squared[piece.codes] * piece.usable)
    scale = smoothness * np.sqrt(len(table.codes) / _REFERENCE_PLACES)
    matrix = _anchored(equations.matrix + smoothness_matrix(scale * weight))
    curve = solve_monotone(matrix, equations.vector)
    return np.asarray(curve - curve[ANCHOR])


def fit_robust(table: Observations, strength: float, ends: Clips = (0, CODES - 1)) -> Vector:
    """Fit g of one channel: rising, g(128) = 0.

    Parameters
    ----------
    table : Observations
    strength : float
        Of the shape prior per place.
    ends : (int, int)
        The camera's black and white: where its curve begins and ends.
    """
    places = len(table.codes)
    preview = table.part(slice(None, None, max(1, -(-places // _PREVIEW))))
    rows = _roughness_rows(_axis(ends))
    # |towards·m − typical|² = ∫ (d(m − that of a typical camera)/dq)² dq.
    towards = np.diff(np.eye(CODES - 1), axis=0) / np.sqrt(np.diff(_axis(ends)))[:, np.newaxis]
    typical = towards @ np.log(gamma_steps())
    # Of many exposures each code is beside others at many distances: there is little to decide.
    doubt, typical_share = (k / (table.codes.shape[1] - 1) for k in (_DOUBT, _TYPICAL))
    # Exposures far apart leave a kink and a wiggle alike undetermined.
    both = table.usable[:, 1:] & table.usable[:, :-1]
    spacing = np.median(np.diff(table.log_times, axis=1)[both]) if both.any() else np.inf
    kinks = spacing <= _CLOSE
    # A wiggle as long as the distance between exposures is undetermined, and its third derivative
    # falls with the cube of its length, its first with the length: the prior is to weigh the same
    # against any of them.
    far = float(np.clip(spacing / _LN2, 1.0, _FARTHEST))
    rows *= far**_ORDER
    typical_share *= far**2
    steps = gamma_steps()
    scale = np.inf
    last = (_ROUNDS if far == 1.0 else _FAR_ROUNDS) - 1
    for number in range(last + 1):
        data = preview if number < last else table
        equations, scale = _accumulate(data, CurveTables.of_steps(steps), scale)
        shape = rows * _kink_weights(rows, steps) if kinks and number >= _SMOOTH_ROUNDS else rows
        matrix, vector = _shape_penalty(shape, steps)
        pull, pulled = _shape_penalty(towards, steps, typical)
        weight = strength * len(data.codes) * (1.0 + doubt * scale**2)
        system = _anchored(equations.matrix + weight * (matrix + typical_share * pull))
        target = equations.vector + weight * (vector + typical_share * pulled)
        # The next round starts from rising steps anyway.
        curve = (np.linalg.solve if number < last else solve_monotone)(system, target)
        changed = np.clip(np.diff(curve), steps / _LARGEST_CHANGE, steps * _LARGEST_CHANGE)
        if far > 1.0:  # the prior decides, and it is one of the logarithm
            changed = steps * np.exp(np.clip(np.diff(curve) / steps - 1.0, *_LARGEST_FAR_CHANGE))
        steps = np.clip(changed, SMALLEST_STEP, _LARGEST_STEP)
    curve = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(curve - curve[ANCHOR])


def _accumulate(table: Observations, curve: CurveTables, scale: float) -> tuple[_Equations, float]:
    equations = _Equations()
    sizes = []
    for piece in table.chunks():
        residual, weights = curve.residuals(piece)
        size = np.abs(residual) * np.sqrt(weights)
        sizes.append(size[piece.usable])
        weights /= 1.0 + (size / np.float32(_OUTLIER * scale)) ** 2
        equations.add(piece.codes, piece.log_times - curve.between_codes(piece), weights)
    spread = 1.4826 * float(np.median(np.concatenate(sizes)))
    return equations, max(spread, 1e-3)


def code_noise(table: Observations, curve: Vector) -> float:
    """Robust standard deviation of the observations about a rising curve, in codes."""
    residual, weights = CurveTables.of_curve(curve, SMALLEST_STEP).residuals(table)
    sizes = (np.abs(residual) * np.sqrt(weights))[table.usable]
    return 1.4826 * float(np.median(sizes)) * math.sqrt(_CODE_NOISE)


def gamma_steps() -> Vector:
    """Steps of g from code to code of a power law of 1/2.2: where every estimate starts."""
    return np.asarray(2.2 / np.maximum(_MIDDLES, 2.0))


def _axis(ends: Clips) -> Vector:
    """Place of each step on the axis q; beyond black and white it goes straight on."""
    above_black, below_white = _MIDDLES - ends[0], ends[1] - _MIDDLES
    toe = np.log(np.maximum(above_black, 0.0) + _TOE) + np.minimum(above_black, 0.0) / _TOE
    shoulder = np.log(np.maximum(below_white, 0.0) + _SHOULDER)
    shoulder += np.minimum(below_white, 0.0) / _SHOULDER
    return np.asarray(toe - _SHOULDER_SHARE * shoulder)


def _roughness_rows(axis: Vector) -> Vector:
    """Rows R, shape (252, 255), with |R·m|² = ∫ (d³m/dq³)² dq for the log slope m at the steps."""
    rows = np.eye(CODES - 1)
    for _ in range(_ORDER):
        rows = np.diff(rows, axis=0) / np.diff(axis)[:, np.newaxis]
        axis = (axis[1:] + axis[:-1]) / 2.0
    return np.asarray(rows * np.sqrt(np.gradient(axis))[:, np.newaxis])


def _kink_weights(rows: Vector, steps: Vector) -> Vector:
    """Little weight where the present curve has a kink, as cameras of wide dynamic range have.

    Shape (252, 1); 1 everywhere for a curve without.
    """
    size = np.square(rows @ np.log(steps))
    around = np.convolve(size, np.ones(_KINK_CODES) / _KINK_CODES, mode="same")
    weights = 1.0 / np.sqrt(1.0 + around / _KINK**2)
    return np.maximum(weights, _LEAST_KINK_WEIGHT)[:, np.newaxis]


def _shape_penalty(
    rows: Vector, steps: Vector, wanted: Vector | float = 0.0
) -> tuple[Vector, Vector]:
    """Quadratic form of |rows·m − wanted|², linearised at the curve with these steps."""
    slope_rows = -np.diff(rows / steps, axis=1, prepend=0.0, append=0.0)  # of m by g
    target = rows @ (1.0 - np.log(steps)) + wanted
    return slope_rows.T @ slope_rows, slope_rows.T @ target


@dataclass
class _Equations:
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


def _anchored(matrix: Vector) -> Vector:
    """Give the free constant of g its value: adds the row g(128) = 0 in the matrix's own scale."""
    fixed = matrix.copy()
    fixed[ANCHOR, ANCHOR] += max(1.0, float(np.trace(matrix)) / CODES)
    return fixed


def solve_monotone(matrix: Vector, vector: Vector) -> Vector:
    """Minimise ½ gᵀ·matrix·g − vectorᵀ·g over curves that rise by a smallest step everywhere.

    In the increments between codes this is a least-squares problem with lower bounds, solved to
    optimality by exchanging bound and free increments (block principal pivoting: Portugal, Júdice,
    Vicente, Math. Comp. 63, 625, 1994).

    Parameters
    ----------
    matrix : ndarray, shape (K, K)
        Symmetric positive definite.
    vector : ndarray, shape (K,)
    """
    free_solution = np.asarray(np.linalg.solve(matrix, vector), dtype=np.float64)
    if (np.diff(free_solution) >= SMALLEST_STEP).all():
        return free_solution
    size = len(vector)
    sums = np.tril(np.ones((size, size)))  # g = sums @ increments, the first being g(0)
    lower = np.full(size, SMALLEST_STEP)
    lower[0] = 0.0  # g(0) itself is free; see `bound` below
    system = sums.T @ matrix @ sums
    target = sums.T @ vector - system @ lower
    bound = np.concatenate([[False], np.diff(free_solution) < SMALLEST_STEP])
    increments = _pivot(system, target, bound)
    curve: Vector = sums @ (increments + lower)
    return curve


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
