"""Debevec and Malik's least squares with every pixel's ln E eliminated in closed form.

The unknowns are the 256 values of g per channel; a pixel's irradiance enters each of its rows
with coefficient −1 alone, so it drops out of the normal equations exactly (Schur complement) and
neither time nor memory of the solve depends on the number of pixels. P. Debevec, J. Malik:
Recovering High Dynamic Range Radiance Maps from Photographs, SIGGRAPH 1997.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import CODES

ANCHOR = CODES // 2

Vector = NDArray[np.float64]
Table = NDArray[np.floating]


@dataclass
class NormalEquations:
    """½ gᵀ·matrix·g − vectorᵀ·g of one channel.

    Attributes
    ----------
    matrix : ndarray, shape (256, 256)
    vector : ndarray, shape (256,)
    """

    matrix: Vector = field(default_factory=lambda: np.zeros((CODES, CODES)))
    vector: Vector = field(default_factory=lambda: np.zeros(CODES))

    def add(self, codes: NDArray[np.uint8], targets: Table, weights: Table) -> None:
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
    """Penalty matrix of Σ (row_weights(z) · g″(z))² over the inner codes.

    Parameters
    ----------
    row_weights : ndarray, shape (256,)
        λ·w(z); the first and last are not used.
    """
    rows = np.diff(np.eye(CODES), n=2, axis=0) * row_weights[1:-1, np.newaxis]
    penalty: Vector = rows.T @ rows
    return penalty


def anchored(matrix: Vector) -> Vector:
    """Give the free constant of g its value: adds the row g(128) = 0 in the matrix's own scale."""
    fixed = matrix.copy()
    fixed[ANCHOR, ANCHOR] += max(1.0, float(np.trace(matrix)) / CODES)
    return fixed
