"""How far two response curves are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asi_watch.errors import ResponseFileError
from asi_watch.hdr.response import ResponseCurve

__all__ = ["FIRST_CODE", "LAST_CODE", "CurveComparison", "compare_curves"]

FIRST_CODE, LAST_CODE = 15, 240
"""Codes compared: beyond them noise and saturation leave a curve little to stand on."""


@dataclass(frozen=True, slots=True, eq=False)
class CurveComparison:
    """Differences of two curves per channel (BGR), each channel's free constant removed.

    Parameters
    ----------
    difference : ndarray, shape (256, C), float64
        g of the second minus g of the first in stops, of mean 0 over the codes compared.
    rms : tuple of float
        Root mean square over the codes compared, stops.
    worst, worst_code : tuple of float, tuple of int
        Largest absolute difference there, stops, and the code where it is.
    offset : tuple of float
        The constant removed, stops.
    """

    difference: NDArray[np.float64]
    rms: tuple[float, ...]
    worst: tuple[float, ...]
    worst_code: tuple[int, ...]
    offset: tuple[float, ...]


def compare_curves(first: ResponseCurve, second: ResponseCurve) -> CurveComparison:
    """Compare two response curves.

    Parameters
    ----------
    first, second : ResponseCurve

    Returns
    -------
    CurveComparison

    Raises
    ------
    ResponseFileError
        If they differ in their number of channels.
    """
    if first.channels != second.channels:
        raise ResponseFileError(
            f"the curves cannot be compared: {first.channels} and {second.channels} channels"
        )
    g1, g2 = (curve.log_response.astype(np.float64) for curve in (first, second))
    stops = (g2 - g1) / np.log(2.0)
    seen = slice(FIRST_CODE, LAST_CODE + 1)
    offset = stops[seen].mean(axis=0)
    stops -= offset
    size = np.abs(stops[seen])
    return CurveComparison(
        difference=stops,
        rms=tuple(float(v) for v in np.sqrt((stops[seen] ** 2).mean(axis=0))),
        worst=tuple(float(v) for v in size.max(axis=0)),
        worst_code=tuple(int(v) + FIRST_CODE for v in size.argmax(axis=0)),
        offset=tuple(float(v) for v in offset),
    )
