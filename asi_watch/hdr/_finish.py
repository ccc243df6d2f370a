"""What is needed to read finished accumulators: offsets, fallbacks, tone tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr._layout import Layout
from asi_watch.hdr.tonemapping import ToneCurve, code_maximum

_FIRST_CELLS, _MOST_CELLS = 1 << 12, 1 << 16
_CELLS_16 = 1 << 17


@dataclass(frozen=True, eq=False)
class ChannelRange:
    """How one channel's words are read: ln E = (base + x) / value_scale, x = numerator / weight.

    Parameters
    ----------
    base : int
        Offset of the numerator per unit of weight; x is never negative.
    minimum, maximum : float
        min_real and max_real of the bracket.
    fallback : float
        ln E where no exposure counts and none of the two fallbacks applies.
    """

    base: int
    minimum: float
    maximum: float
    fallback: float


@dataclass(frozen=True, eq=False)
class ToneTable:
    """Display codes over x, for all channels.

    Parameters
    ----------
    scale : ndarray, shape (C,), float32
        Cells per unit of x.
    cells : ndarray, shape (C, K), uint8 or uint16
        8 bit: the code of the cell's middle. 16 bit: the code of its lower edge.
    edges : ndarray, shape (C, 65537), float32
        16 bit: x where each code begins; empty for 8 bit.
    special : ndarray, shape (C, 3), uint8 or uint16
        Codes of the fallbacks: none, under, over.
    """

    scale: NDArray[np.float32]
    cells: NDArray[Any]
    edges: NDArray[np.float32]
    special: NDArray[Any]


def channel_ranges(
    layout: Layout, log_response: NDArray[np.float64], ln_times: NDArray[np.float64], remap: bool
) -> tuple[ChannelRange, ...]:
    """Value range of a bracket per channel."""
    out = []
    for g in log_response.T:
        low = float(g.min() - ln_times.max())
        high = float(g.max() - ln_times.min())
        base = int(np.floor(low * layout.value_scale)) - 1
        out.append(ChannelRange(base, low, high, min(0.0, high) if remap else high))
    return tuple(out)


def tone_table(
    layout: Layout,
    ranges: tuple[ChannelRange, ...],
    lnE_range: tuple[float, float] | None,
    gamma: float,
    dtype: np.dtype[Any],
) -> ToneTable:
    """Tone table of a bracket; the same bracket shape asked again comes from a small cache."""
    key = tuple((r.base, r.minimum, r.maximum, r.fallback) for r in ranges)
    return _cached_table(layout.value_scale, key, lnE_range, gamma, dtype)


@lru_cache(maxsize=16)
def _cached_table(
    value_scale: float,
    ranges: tuple[tuple[int, float, float, float], ...],
    lnE_range: tuple[float, float] | None,
    gamma: float,
    dtype: np.dtype[Any],
) -> ToneTable:
    maximum = code_maximum(dtype)
    curves = [ToneCurve(*(lnE_range or (low, high)), gamma) for _, low, high, _ in ranges]
    count = _CELLS_16
    if maximum == 255:
        count = max(
            _smooth_count(curve, low, high)
            for curve, (_, low, high, _) in zip(curves, ranges, strict=True)
        )
    scales: list[Any] = []
    cells: list[Any] = []
    edges: list[Any] = []
    special: list[Any] = []
    for curve, (base, low, high, none) in zip(curves, ranges, strict=True):
        # A little beyond the top, so that rounding of x never leaves the table.
        top = (high * value_scale - base) * (1 + 1e-6) + 2.0
        scale = np.float32(count / top)
        step = 1.0 / float(scale)
        if maximum == 255:
            middle = (np.arange(count) + 0.5) * step
            cells.append(curve.codes((base + middle) / value_scale, maximum))
        else:
            begins = (curve.thresholds(maximum) * value_scale - base).astype(np.float32)
            lower = np.arange(count) * step * (1 - 1e-6) - 1e-3 * step
            cells.append(np.searchsorted(begins[1:], lower, side="right"))
            edges.append(begins)
        scales.append(scale)
        special.append(curve.codes([none, low, high], maximum))
    table = ToneTable(
        np.array(scales, np.float32),
        np.ascontiguousarray(np.stack(cells).astype(dtype)),
        np.array(edges, np.float32),
        np.ascontiguousarray(np.stack(special).astype(dtype)),
    )
    for array in (table.scale, table.cells, table.edges, table.special):
        array.setflags(write=False)
    return table


def _smooth_count(curve: ToneCurve, low: float, high: float) -> int:
    """Cells needed so that neighbours differ by at most one 8-bit code, within reason."""
    count = _FIRST_CELLS
    while count < _MOST_CELLS:
        codes = curve.codes(np.linspace(low, high, count + 1), 255).astype(np.int64)
        if np.diff(codes).max() <= 1:
            break
        count *= 2
    return count
