"""Integer accumulators: how Σ w and Σ w (g − ln t) share one machine word.

Entry of a table = (numerator << weight_bits) + weight, summed modulo the word. Integer sums are
exact, so the order of the exposures cannot matter. The numerator is kept modulo its field: the
value range of the finished bracket is known when it is read, which is enough to undo the wrap;
therefore neither the unit nor the range of the exposure times need be known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["picture", "radiance"]

# The longest exposure may be this many times the shortest, as a natural logarithm.
_TIME_RANGE: dict[str, float] = {"picture": 8.4, "radiance": 14.0}
_SLACK = 1.0


@dataclass(frozen=True)
class Layout:
    """Fixed-point format of one accumulator word.

    Parameters
    ----------
    bits : {32, 64}
        Width of the word.
    weight_bits : int
        Low bits that hold Σ weight; the rest holds the numerator.
    weight_scale, value_scale : float
        Integers per unit of weight, and per unit of ln E.
    max_exposures : int
        Exposures that fit without overflow.
    time_range : float
        Largest ln(longest / shortest) that the numerator can tell apart.
    """

    bits: int
    weight_bits: int
    weight_scale: float
    value_scale: float
    max_exposures: int
    time_range: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned integer type of the word."""
        return np.dtype(np.uint32 if self.bits == 32 else np.uint64)

    @property
    def numerator_mask(self) -> int:
        """All ones in as many bits as the numerator has."""
        return (1 << (self.bits - self.weight_bits)) - 1


def choose_layout(
    weights: NDArray[np.float64],
    log_response: NDArray[np.float64],
    precision: str,
    max_exposures: int,
) -> Layout:
    """Pick the narrowest format that keeps the promised precision.

    Parameters
    ----------
    weights, log_response : ndarray, shape (256, C), float64
        w(z), g(z).
    precision : {"picture", "radiance"}
        `picture`: 8-bit pictures to ± 1 code. `radiance`: ln E to 1e-4, 16-bit pictures.
    max_exposures : int
        Most exposures that will be added.

    Returns
    -------
    Layout

    Raises
    ------
    ValueError
        If `precision` is unknown or `max_exposures` outside 1 … 64.
    """
    if precision not in _TIME_RANGE:
        raise ValueError(f"precision is 'picture' or 'radiance'; got {precision!r}")
    if not 1 <= max_exposures <= 64:
        raise ValueError(f"a merge holds 1 to 64 exposures; got {max_exposures}")
    capacity = 1 << max(3, (max_exposures - 1).bit_length())
    time_range = _TIME_RANGE[precision]
    span = float(np.ptp(log_response, axis=0).max()) + time_range + _SLACK
    whole = bool((weights == np.rint(weights)).all())
    peak = float(weights.max())
    if precision == "picture" and whole and capacity <= 16:
        bits, weight_bits, scale = 32, int(peak * capacity).bit_length(), 1.0
    elif whole:
        bits, weight_bits, scale = 64, 32, 1.0
    else:
        bits, weight_bits = 64, 28
        scale = float(np.floor((2**28 - 1) / (capacity * peak)) - 1)
    top = float(1 << (bits - weight_bits))
    value_scale = np.floor(top / (peak * scale * capacity * span))
    return Layout(bits, weight_bits, scale, float(value_scale), capacity, time_range)


def exposure_table(
    layout: Layout,
    weights: NDArray[np.float64],
    log_response: NDArray[np.float64],
    codes: NDArray[np.uint8],
    ln_time: float,
) -> NDArray[Any]:
    """Table of one exposure: the word to add for each raw code of each channel.

    Parameters
    ----------
    layout : Layout
        Format of the word.
    weights, log_response : ndarray, shape (256, C), float64
        w and g over the looked-up code.
    codes : ndarray, shape (256,), uint8
        Looked-up code of each raw code.
    ln_time : float
        ln t.

    Returns
    -------
    ndarray, shape (C, 256), uint32 or uint64
    """
    scaled = np.rint(weights * layout.weight_scale)
    scaled = np.where(weights > 0, np.maximum(scaled, 1.0), 0.0)
    numerator = np.rint(scaled * (log_response - ln_time) * layout.value_scale).astype(np.int64)
    word = (numerator << layout.weight_bits) + scaled.astype(np.int64)
    table = word.astype(np.uint64).astype(layout.dtype)
    return np.ascontiguousarray(table[codes].T)
