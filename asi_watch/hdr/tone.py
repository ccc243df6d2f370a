"""From ln E to the codes of a picture or to half floats: formulas, and tables made of them.

The tables hold the output over x (see `lookup_tables.BracketTables`), so that no exp() or pow()
runs per pixel.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.lookup_tables import BracketTables

_FIRST_CELLS, _MOST_CELLS = 1 << 12, 1 << 16
_KNOTS = 256
_CELLS_PER_KNOT = _FIRST_CELLS // _KNOTS
# How far a line may be from the tone curve, in 8-bit codes: with what a cell is wide, no code is
# off by more than one.
_LINE_TOLERANCE = 0.5
_CELLS_16 = 1 << 17
_LARGEST_HALF = 65504.0
HALF_MARK = 0x8000  # the sign bit of a half float: here, that the weight is zero
# Just inside the smallest normal and the largest half float.
_LOWEST_HALF, _HIGHEST_HALF = 2.0**-14 * 1.001, 65504.0 * 0.999


@dataclass(frozen=True)
class ToneCurve:
    """The global tone curve ((exp lnE − exp a) / (exp b − exp a)) ^ (1/γ), clipped to 0 … 1."""

    black: float  # a and b: the ln E shown as black and as white; ValueError unless they rise
    white: float
    gamma: float  # γ of the display, above 0; 1 leaves the picture linear

    def __post_init__(self) -> None:
        if not (np.isfinite([self.black, self.white]).all() and self.black < self.white):
            raise ValueError(f"the ln E range must rise; got ({self.black:g}, {self.white:g})")
        if not (np.isfinite(self.gamma) and self.gamma > 0):
            raise ValueError(f"gamma must be above 0; got {self.gamma:g}")

    def levels(self, ln_e: ArrayLike) -> NDArray[np.float64]:
        """Display level of each ln E, 0 … 1.

        Everything is measured from `white`, so that no unit of time overflows exp().

        Parameters
        ----------
        ln_e : array_like
        """
        ln = np.asarray(ln_e, dtype=np.float64)
        floor = np.exp(self.black - self.white)
        linear = (np.exp(np.minimum(ln - self.white, 0.0)) - floor) / (1.0 - floor)
        return np.asarray(np.clip(linear, 0.0, 1.0) ** (1.0 / self.gamma))

    def codes(self, ln_e: ArrayLike, maximum: int) -> NDArray[np.uint16]:
        """Display codes 0 … `maximum`, truncated.

        Parameters
        ----------
        ln_e : array_like
        maximum : int
            255 or 65535.
        """
        return (self.levels(ln_e) * maximum).astype(np.uint16)

    def thresholds(self, maximum: int) -> NDArray[np.float64]:
        """Smallest ln E of every code: entry k is where code k begins; entry 0 is −inf.

        Parameters
        ----------
        maximum : int
            255 or 65535.

        Returns
        -------
        ndarray, shape (maximum + 2,), float64
            Rising; the last entry is +inf, so that a search never runs off the end.
        """
        level = np.arange(1, maximum + 1, dtype=np.float64) / maximum
        floor = np.exp(self.black - self.white)
        linear = level**self.gamma * (1.0 - floor) + floor
        return np.concatenate([[-np.inf], self.white + np.log(linear), [np.inf]])


def code_maximum(dtype: np.dtype[np.uint8] | np.dtype[np.uint16] | type) -> int:
    """Largest code of a picture's dtype: 255 or 65535.

    Parameters
    ----------
    dtype : dtype or type
        ValueError if it is neither uint8 nor uint16.
    """
    kind = np.dtype(dtype)
    if kind not in (np.uint8, np.uint16):
        raise ValueError(f"a picture is uint8 or uint16; got {kind}")
    return 255 if kind == np.uint8 else 65535


@dataclass(frozen=True, eq=False)
class CodeTable:
    """Output codes over x (see `BracketTables`), in three lanes."""

    scale: NDArray[np.float32]  # cells per unit of x
    # The code of each cell, then those of the counters where the weight is zero. Without edges the
    # code of the cell's middle, with edges that of its lower end.
    cells: NDArray[Any]
    count: int  # K
    # x where each code begins, the last +inf: lets codes be exact where cells are too coarse, that
    # is in 16 bit, and in 8 bit at the steep foot of a narrow ln E range.
    edges: NDArray[np.float32] | None = None
    # The same 8-bit codes as lines, where the curve is smooth enough: of each lane the high byte,
    # the low byte and the slope, 256 of each. The code of cell c is (256 · high + low + slope · (c
    # mod 16)) / 256, rounded down, all taken at c // 16.
    knots: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        # Tables are remembered.
        for array in (self.scale, self.cells, self.edges, self.knots):
            if array is not None:
                array.setflags(write=False)


class _Lane(NamedTuple):
    """How x is read in one channel, as a key of the tables that are remembered."""

    offset: float
    unit: float
    minimum: float
    maximum: float
    special: tuple[float, ...]


def _lanes(tables: BracketTables) -> tuple[_Lane, ...]:
    arrays = (tables.offset, tables.unit, tables.minimum, tables.maximum)
    columns = (*(array.tolist() for array in arrays), [tuple(s) for s in tables.special.tolist()])
    return tuple(_Lane(*values) for values in zip(*columns, strict=True))


def picture_table(
    tables: BracketTables, lnE_range: tuple[float, float] | None, gamma: float, dtype: Any
) -> CodeTable:
    """Display codes of a bracket; asked again for the same times it comes from a small cache.

    Parameters
    ----------
    tables : BracketTables
        The bracket.
    lnE_range, gamma
        As in `MergeSettings`.
    dtype
        uint8 or uint16; others raise ValueError.
    """
    return _picture_table(_lanes(tables), lnE_range, gamma, np.dtype(dtype))


@lru_cache(maxsize=8)
def _picture_table(
    lanes: tuple[_Lane, ...],
    lnE_range: tuple[float, float] | None,
    gamma: float,
    dtype: np.dtype[Any],
) -> CodeTable:
    maximum = code_maximum(dtype)
    curves = [ToneCurve(*(lnE_range or (one.minimum, one.maximum)), gamma) for one in lanes]
    counts = [0]
    if maximum == 255:
        counts = [_smooth_count(c, lane) for c, lane in zip(curves, lanes, strict=True)]
    exact = 0 in counts
    count = max(counts) or (_FIRST_CELLS if maximum == 255 else _CELLS_16)
    scales, rows, edges, knots = [], [], [], []
    for curve, lane in zip(curves, lanes, strict=True):
        scale, step = _cell_size(lane, count)
        if not exact:
            middle = lane.offset + (np.arange(count) + 0.5) * step * lane.unit
            levels = curve.levels(middle) * maximum
            codes = levels.astype(np.uint16)
            if count == _FIRST_CELLS and (lines := _lines(levels)) is not None:
                knots.append(lines)
        else:
            begins = ((curve.thresholds(maximum) - lane.offset) / lane.unit).astype(np.float32)
            lower = np.arange(count) * step * (1 - 1e-6) - 1e-3 * step
            codes = np.searchsorted(begins[1:], lower, side="right").astype(np.uint16)
            edges.append(begins)
        scales.append(scale)
        rows.append(np.concatenate([codes, curve.codes(lane.special, maximum)]))
    smooth = len(knots) == len(lanes)
    if smooth:
        for row, lines in zip(rows, knots, strict=True):
            row[:count] = _heights(lines) >> 8
    return CodeTable(
        np.array(scales, np.float32),
        np.stack(rows).astype(dtype),
        count,
        np.stack(edges) if edges else None,
        np.stack(knots) if smooth else None,
    )


def _lines(levels: NDArray[np.float64]) -> NDArray[np.uint8] | None:
    """Draw a line through each knot's cells, shape (3, 256); None if one is too far from them."""
    parts = levels.reshape(_KNOTS, _CELLS_PER_KNOT)
    start = np.rint(parts[:, 0] * 256.0).astype(np.uint16)
    slope = np.rint((parts[:, -1] - parts[:, 0]) * 256.0 / (_CELLS_PER_KNOT - 1))
    if slope.max() > 255:
        return None
    lines = np.stack([start >> 8, start & 255, slope.astype(np.uint16)]).astype(np.uint8)
    far = np.abs(_heights(lines) / 256.0 - levels).max()
    return lines if far <= _LINE_TOLERANCE else None


def _heights(lines: NDArray[np.uint8]) -> NDArray[np.int64]:
    """256 times the code of each cell, not rounded down, of `_lines`."""
    high, low, slope = lines.astype(np.int64)[:, :, np.newaxis]
    return np.asarray((256 * high + low + slope * np.arange(_CELLS_PER_KNOT)).ravel())


def _cell_size(lane: _Lane, count: int) -> tuple[np.float32, float]:
    """Cells per unit of x as the kernel multiplies by it, and its inverse."""
    # A little beyond the top, so that rounding of x never leaves the table.
    top = (lane.maximum - lane.offset) / lane.unit * (1 + 1e-6) + 2.0
    scale = np.float32(count / top)
    return scale, 1.0 / float(scale)


def _smooth_count(curve: ToneCurve, lane: _Lane) -> int:
    """Cells needed so that neighbours differ by at most one 8-bit code; 0 if unreasonably many."""
    count = _FIRST_CELLS
    while count <= _MOST_CELLS:
        codes = curve.codes(np.linspace(lane.offset, lane.maximum, count + 1), 255)
        if np.diff(codes.astype(np.int64)).max() <= 1:
            return count
        count *= 2
    return 0


@dataclass(frozen=True, eq=False)
class HalfCodes:
    """How sums become half floats, and how marked ones are read."""

    table: CodeTable  # half floats as uint16, marked by the sign bit where the weight is zero
    # Of each lane, what is marked as under-exposed; other marked codes are over-exposed.
    under: NDArray[np.uint16]


def half_codes(tables: BracketTables, factor: float) -> HalfCodes | None:
    """Half floats of factor · E, to 2.5e-4 before rounding to half.

    None if half floats cannot hold or tell apart all that the bracket can give.

    Parameters
    ----------
    tables : BracketTables
    factor : float
        Positive.
    """
    extremes = np.concatenate([tables.special.ravel(), tables.minimum, tables.maximum])
    with np.errstate(over="ignore"):
        values = np.exp(extremes) * factor
    if not (values.min() >= _LOWEST_HALF and values.max() <= _HIGHEST_HALF):
        return None
    table = _half_table(_lanes(tables), factor)
    lowest = (np.exp(tables.minimum) * factor).astype(np.float16).view(np.uint16)
    under = lowest | np.uint16(HALF_MARK)
    # The flags must follow from the codes alone.
    flags = np.where(table.cells[:, table.count :] == under[:, np.newaxis], 1, 2)
    return HalfCodes(table, under) if (flags == tables.validity).all() else None


def half_code(ln_radiance: NDArray[np.float64], factor: float) -> NDArray[np.uint16]:
    """Half floats of factor · E, as `half_codes` rounds them."""
    values = np.minimum(np.exp(ln_radiance + np.log(factor)), _LARGEST_HALF)
    return np.asarray(values.astype(np.float16).view(np.uint16))


@lru_cache(maxsize=4)
def _half_table(lanes: tuple[_Lane, ...], factor: float) -> CodeTable:
    count = _MOST_CELLS
    scales, rows = [], []
    for lane in lanes:
        scale, step = _cell_size(lane, count)
        middle = lane.offset + (np.arange(count) + 0.5) * step * lane.unit
        values = np.exp(np.concatenate([middle, lane.special]) + np.log(factor))
        codes = np.minimum(values, _LARGEST_HALF).astype(np.float16).view(np.uint16)
        codes[count:] |= HALF_MARK
        rows.append(codes)
        scales.append(scale)
    return CodeTable(np.array(scales, np.float32), np.stack(rows), count)
