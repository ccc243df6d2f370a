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

CHUNK = 1 << 16
ANCHOR = 128

Vector = NDArray[np.float64]


@dataclass
class NormalEquations:
    """½ gᵀ·matrix·g − vectorᵀ·g of one channel, summed over brackets.

    Attributes
    ----------
    matrix : ndarray, shape (256, 256)
    vector : ndarray, shape (256,)
    """

    matrix: Vector = field(default_factory=lambda: np.zeros((CODES, CODES)))
    vector: Vector = field(default_factory=lambda: np.zeros(CODES))

    def add(self, codes: NDArray[np.uint8], targets: Vector, weights: Vector) -> None:
        """Add pixels: rows √weight · (g(code) − ln E − target), ln E of each pixel eliminated.

        Parameters
        ----------
        codes : ndarray, shape (P, N), uint8
        targets : ndarray, shape (N,) or (P, N)
            ln t of the exposure, less what is known of g between whole codes.
        weights : ndarray, shape (P, N)
            Squared weight of each row; 0 leaves the row out.
        """
        targets = np.broadcast_to(targets, weights.shape)
        for start in range(0, len(codes), CHUNK):
            part = slice(start, start + CHUNK)
            self._add_chunk(codes[part], targets[part], weights[part])

    def _add_chunk(self, codes: NDArray[np.uint8], targets: Vector, weights: Vector) -> None:
        usable = (weights > 0).sum(axis=1) >= 2
        codes, targets, weights = codes[usable], targets[usable], weights[usable]
        total = weights.sum(axis=1)
        share = weights / total[:, np.newaxis]
        centred = targets - (share * targets).sum(axis=1)[:, np.newaxis]
        index = codes.astype(np.int64)
        self.vector += np.bincount(
            index.ravel(), weights=(weights * centred).ravel(), minlength=CODES
        )
        diagonal = np.bincount(
            index.ravel(), weights=(weights * (1.0 - share)).ravel(), minlength=CODES
        )
        self.matrix[np.diag_indices(CODES)] += diagonal
        exposures = codes.shape[1]
        for first in range(exposures - 1):
            for second in range(first + 1, exposures):
                cell = index[:, first] * CODES + index[:, second]
                pair = np.bincount(
                    cell, weights=weights[:, first] * share[:, second], minlength=CODES * CODES
                ).reshape(CODES, CODES)
                self.matrix -= pair
                self.matrix -= pair.T


def smoothness_matrix(row_weights: Vector) -> Vector:
    """Penalty matrix of Σ (row_weights(z) · g″(z))² over the inner codes.

    Parameters
    ----------
    row_weights : ndarray, shape (256,)
        λ·w(z); the first and last are not used.
    """
    rows = np.zeros((CODES - 2, CODES))
    inner = np.arange(CODES - 2)
    rows[inner, inner] = 1.0
    rows[inner, inner + 1] = -2.0
    rows[inner, inner + 2] = 1.0
    rows *= row_weights[1:-1, np.newaxis]
    penalty: Vector = rows.T @ rows
    return penalty


def anchored(matrix: Vector) -> Vector:
    """Give the free constant of g its value: adds the row g(128) = 0 in the matrix's own scale."""
    fixed = matrix.copy()
    fixed[ANCHOR, ANCHOR] += max(1.0, float(np.trace(matrix)) / CODES)
    return fixed
