"""From ln E to the codes of a picture or to half floats: formulas, tables, whole-map operators.

The tables hold the output over x (see `lookup_tables.BracketTables`), so that no exp() or pow()
runs per pixel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.lookup_tables import BracketTables
from asi_watch.hdr.merge_settings import UNDER, MergeSettings, Radiance

Floats = NDArray[np.float64]

_FIRST_CELLS, _MOST_CELLS = 1 << 12, 1 << 16
_KNOTS = 256
_CELLS_PER_KNOT = _FIRST_CELLS // _KNOTS
_CELLS_16 = 1 << 17
_LARGEST_HALF = 65504.0
# Of `local`: radius of the base layer, of the shorter side, and the steps of ln E that are edges.
_BASE_RADIUS, _BASE_EDGE = 1 / 16, 0.5
_FOOT = 0.0031308  # of sRGB's transfer function, linear below
_WHITE_QUANTILE = 0.999
_LEAST_SEEN = 300  # samples
HALF_MARK = 0x8000  # the sign bit of a half float: here, that the weight is zero
# Just inside the smallest normal and the largest half float.
_LOWEST_HALF, _HIGHEST_HALF = 2.0**-14 * 1.001, 65504.0 * 0.999


class ToneScale(NamedTuple):
    """The two numbers of the `photographic` operator: ln E, in 1 / (unit of exposure times)."""

    middle: float  # mean of ln E over what is not too dark for every exposure
    white: float  # 99.9th percentile there

    def carried(self, before: ToneScale, now: ToneScale) -> ToneScale:
        """Express this scale through another curve, so that pictures keep their brightness.

        Parameters
        ----------
        before, now : ToneScale
            Of the same brackets: seen through the curve that this scale belongs to, and through the
            other.
        """
        shift, stretch = now.middle - before.middle, now.white - before.white
        return ToneScale(self.middle + shift, self.white + stretch)


def scale_of(ln_radiance: NDArray[np.float32], validity: NDArray[np.uint8]) -> ToneScale | None:
    """Give the scale of a radiance map; None where nearly all of it is too dark.

    Parameters
    ----------
    ln_radiance, validity : ndarray
        Of one shape; channels count alike.
    """
    seen = ln_radiance[validity != UNDER]
    if len(seen) < _LEAST_SEEN:
        return None
    return ToneScale(float(seen.mean(dtype=np.float64)), float(np.quantile(seen, _WHITE_QUANTILE)))


class ToneCurve(ABC):
    """A display level for every ln E, rising, the same for all pixels."""

    # How far a line may be from the curve, in 8-bit codes: with what a cell is wide, no code is off
    # by more than one.
    line_tolerance: ClassVar[float] = 0.5

    @abstractmethod
    def levels(self, ln_e: ArrayLike) -> Floats:
        """Display level of each ln E, 0 … 1.

        Parameters
        ----------
        ln_e : array_like
        """

    @abstractmethod
    def begins(self, level: Floats) -> Floats:
        """Smallest ln E of levels above 0: the inverse of `levels`.

        Parameters
        ----------
        level : ndarray, float64
        """

    def codes(self, ln_e: ArrayLike, maximum: int) -> NDArray[np.uint16]:
        """Display codes 0 … `maximum`, truncated.

        Parameters
        ----------
        ln_e : array_like
        maximum : int
            255 or 65535.
        """
        return (self.levels(ln_e) * maximum).astype(np.uint16)


@dataclass(frozen=True)
class GammaCurve(ToneCurve):
    """((exp lnE − exp a) / (exp b − exp a)) ^ (1/γ), clipped to 0 … 1.

    Everything is measured from b, so that no unit of time overflows exp().
    """

    # a and b: the ln E shown as black and as white; a tuple has one for each row of what is mapped.
    black: float | tuple[float, ...]
    white: float | tuple[float, ...]
    gamma: float  # γ of the display; 1 leaves the picture linear

    def levels(self, ln_e: ArrayLike) -> Floats:
        """Display levels; see `ToneCurve.levels`."""
        white, floor = self._ends()
        ln = np.asarray(ln_e, dtype=np.float64)
        linear = (np.exp(np.minimum(ln - white, 0.0)) - floor) / (1.0 - floor)
        return np.asarray(np.clip(linear, 0.0, 1.0) ** (1.0 / self.gamma))

    def begins(self, level: Floats) -> Floats:
        """Inverse; see `ToneCurve.begins`."""
        white, floor = self._ends()
        return np.asarray(white + np.log(level**self.gamma * (1.0 - floor) + floor))

    def _ends(self) -> tuple[Floats, Floats]:
        black, white = (
            np.reshape(end, (-1, 1)) if isinstance(end, tuple) else np.asarray(end)
            for end in (self.black, self.white)
        )
        return white, np.exp(black - white)


@dataclass(frozen=True)
class PhotographicCurve(ToneCurve):
    """L (1 + L / W²) / (1 + L), L = key · E / middle, with the transfer function of sRGB.

    Reinhard, Stark, Shirley, Ferwerda, "Photographic tone reproduction for digital images"
    (SIGGRAPH 2002), equation 4. W is 1 at least: scenes of little contrast are not stretched.
    """

    middle: float
    white: float
    key: float
    line_tolerance: ClassVar[float] = 1.5  # the bend at white, where no code must be exact

    def levels(self, ln_e: ArrayLike) -> Floats:
        """Display levels; see `ToneCurve.levels`."""
        return to_srgb(self.linear(np.asarray(ln_e, dtype=np.float64)))

    def linear(self, ln_e: NDArray[Any]) -> NDArray[Any]:
        """Levels before the transfer function, in the dtype of `ln_e`.

        Parameters
        ----------
        ln_e : ndarray, float
        """
        white = self._white()
        above = ln_e - (self.middle - np.log(self.key))
        light = np.exp(np.minimum(above, np.log(white), dtype=ln_e.dtype))
        return np.asarray(np.minimum(light * (1 + light * white**-2) / (1 + light), 1))

    def begins(self, level: Floats) -> Floats:
        """Inverse; see `ToneCurve.begins`."""
        linear = np.where(level <= _FOOT * 12.92, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
        rest = 1.0 - linear
        light = 2 * linear / (rest + np.sqrt(rest**2 + 4 * linear * self._white() ** -2))
        return np.asarray(self.middle + np.log(light / self.key))

    def _white(self) -> float:
        return max(1.0, self.key * float(np.exp(min(self.white - self.middle, 300.0))))


def to_srgb(linear: NDArray[Any]) -> NDArray[Any]:
    """Transfer function of sRGB (IEC 61966-2-1).

    Parameters
    ----------
    linear : ndarray, float
        0 … 1.
    """
    steep = 1.055 * np.maximum(linear, _FOOT) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(linear <= _FOOT, 12.92 * linear, steep), dtype=linear.dtype)


def code_maximum(dtype: np.dtype[np.uint8] | np.dtype[np.uint16] | type) -> int:
    """Largest code of a picture's dtype: 255 or 65535; ValueError for other dtypes.

    Parameters
    ----------
    dtype : dtype or type
    """
    kind = np.dtype(dtype)
    if kind not in (np.uint8, np.uint16):
        raise ValueError(f"a picture is uint8 or uint16; got {kind}")
    return 255 if kind == np.uint8 else 65535


@dataclass(frozen=True, eq=False)
class CodeTable:
    """Output codes over x (see `BracketTables`), in three lanes; remembered, hence read-only."""

    scale: NDArray[np.float32]  # cells per unit of x
    # The code of each cell, then those of the counters where the weight is zero. Without edges the
    # code of the cell's middle, with edges that of its lower end.
    cells: NDArray[Any]
    count: int  # of cells, without the counters
    # x where each code begins, the last +inf: lets codes be exact where cells are too coarse, that
    # is in 16 bit, and in 8 bit at the steep foot of a narrow ln E range.
    edges: NDArray[np.float32] | None = None
    # The same 8-bit codes as lines, where the curve is smooth enough: of each lane the high byte,
    # the low byte and the slope, 256 of each. The code of cell c is (256 · high + low + slope · (c
    # mod 16)) / 256, rounded down, all taken at c // 16.
    knots: NDArray[np.uint8] | None = None
    # Of half floats: what is marked as under-exposed; other marked codes are over-exposed.
    under: NDArray[np.uint16] | None = None

    def __post_init__(self) -> None:
        for array in (self.scale, self.cells, self.edges, self.knots, self.under):
            if array is not None:
                array.setflags(write=False)


def _cell_sizes(tables: BracketTables, count: int) -> tuple[NDArray[np.float32], Floats]:
    """Cells per unit of x as the kernel multiplies by it, and the inverse, shape (3, 1)."""
    # A little beyond the top, so that rounding of x never leaves the table.
    top = (tables.maximum - tables.offset) / tables.unit * (1 + 1e-6) + 2.0
    scale = (count / top).astype(np.float32)
    return scale, 1.0 / scale.astype(np.float64)[:, np.newaxis]


def _middles(tables: BracketTables, count: int) -> Floats:
    """Values of ln E: in the middle of each cell, then of the counters, shape (3, ...)."""
    x = (np.arange(count) + 0.5) * _cell_sizes(tables, count)[1]
    middles = tables.offset[:, np.newaxis] + x * tables.unit[:, np.newaxis]
    return np.hstack([middles, tables.special])


@lru_cache(maxsize=8)
def picture_table(tables: BracketTables, curve: ToneCurve, dtype: np.dtype[Any]) -> CodeTable:
    """Display codes of a bracket; asked again for the same tables it comes from a small cache.

    Parameters
    ----------
    tables : BracketTables
    curve : ToneCurve
    dtype
        uint8 or uint16; others raise ValueError.
    """
    maximum = code_maximum(dtype)
    count = _smooth_count(curve, tables) if maximum == 255 else 0
    if count == 0:
        return _exact_table(curve, tables, maximum)
    levels = curve.levels(_middles(tables, count)) * maximum
    cells, knots = levels.astype(np.uint8), None
    if (
        count == _FIRST_CELLS
        and (knots := _lines(levels[:, :count], curve.line_tolerance)) is not None
    ):
        cells[:, :count] = _heights(knots) >> 8
    return CodeTable(_cell_sizes(tables, count)[0], cells, count, knots=knots)


def _exact_table(curve: ToneCurve, tables: BracketTables, maximum: int) -> CodeTable:
    """A table whose cells hold many codes, with the x where each code begins."""
    count = _FIRST_CELLS if maximum == 255 else _CELLS_16
    ln = curve.begins(np.arange(1, maximum + 1) / maximum)
    x = (ln - tables.offset[:, np.newaxis]) / tables.unit[:, np.newaxis]
    ends = np.full((len(x), 1), np.inf)
    edges = np.hstack([-ends, x, ends]).astype(np.float32)
    scale, step = _cell_sizes(tables, count)
    lower = np.arange(count) * step * (1 - 1e-6) - 1e-3 * step
    rows = [np.searchsorted(e[1:], x, side="right") for e, x in zip(edges, lower, strict=True)]
    cells = np.hstack([np.stack(rows), curve.codes(tables.special, maximum)])
    dtype = np.uint8 if maximum == 255 else np.uint16
    return CodeTable(scale, cells.astype(dtype), count, edges=edges)


def _lines(levels: Floats, tolerance: float) -> NDArray[np.uint8] | None:
    """Draw a line through each knot's cells, shape (3, 3, 256); None if one is too far off."""
    parts = levels.reshape(len(levels), _KNOTS, _CELLS_PER_KNOT)
    start = np.rint(parts[..., 0] * 256.0).astype(np.uint16)
    slope = np.rint((parts[..., -1] - parts[..., 0]) * 256.0 / (_CELLS_PER_KNOT - 1))
    if slope.max() > 255:
        return None
    lines = np.stack([start >> 8, start & 255, slope.astype(np.uint16)], axis=1).astype(np.uint8)
    far = np.abs(_heights(lines) / 256.0 - levels).max()
    return lines if far <= tolerance else None


def _heights(lines: NDArray[np.uint8]) -> NDArray[np.int64]:
    """256 times the code of each cell, not rounded down, of `_lines`: shape (3, 4096)."""
    high, low, slope = np.moveaxis(lines.astype(np.int64)[..., np.newaxis], 1, 0)
    heights = 256 * high + low + slope * np.arange(_CELLS_PER_KNOT)
    return np.asarray(heights.reshape(len(lines), -1))


def _smooth_count(curve: ToneCurve, tables: BracketTables) -> int:
    """Cells needed so that neighbours differ by at most one 8-bit code; 0 if unreasonably many."""
    count = _FIRST_CELLS
    while count <= _MOST_CELLS:
        codes = curve.codes(np.linspace(tables.offset, tables.maximum, count + 1, axis=1), 255)
        if np.diff(codes.astype(np.int64)).max() <= 1:
            return count
        count *= 2
    return 0


def half_codes(tables: BracketTables, factor: float) -> CodeTable | None:
    """Half floats of factor · E, as uint16, to 2.5e-4 before rounding to half.

    Where the weight is zero they are marked by the sign bit. None if half floats cannot hold or
    tell apart all that the bracket can give.

    Parameters
    ----------
    tables : BracketTables
    factor : float
        Positive, else ValueError.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise ValueError(f"the factor must be above 0; got {factor}")
    extremes = np.concatenate([tables.special.ravel(), tables.minimum, tables.maximum])
    with np.errstate(over="ignore"):
        values = np.exp(extremes) * factor
    if not (values.min() >= _LOWEST_HALF and values.max() <= _HIGHEST_HALF):
        return None
    table = _half_table(tables, float(factor))
    assert table.under is not None
    # The flags must follow from the codes alone.
    flags = np.where(table.cells[:, table.count :] == table.under[:, np.newaxis], 1, 2)
    return table if (flags == tables.validity).all() else None


def half_code(ln_radiance: Floats, factor: float) -> NDArray[np.uint16]:
    """Half floats of factor · E, as `half_codes` rounds them."""
    values = np.minimum(np.exp(ln_radiance + np.log(factor)), _LARGEST_HALF)
    return np.asarray(values.astype(np.float16).view(np.uint16))


@lru_cache(maxsize=4)
def _half_table(tables: BracketTables, factor: float) -> CodeTable:
    count = _MOST_CELLS
    cells = half_code(_middles(tables, count), factor)
    cells[:, count:] |= HALF_MARK
    under = half_code(tables.minimum, factor) | np.uint16(HALF_MARK)
    return CodeTable(_cell_sizes(tables, count)[0], cells, count, under=under)


def whole_levels(
    radiance: Radiance, settings: MergeSettings, scale: ToneScale
) -> NDArray[np.float32]:
    """Map a radiance map to display levels 0 … 1, shape (H, W, C).

    Parameters
    ----------
    radiance : Radiance
    settings : MergeSettings
        With `maps_whole`.
    scale : ToneScale
    """
    ln = radiance.ln_radiance
    if settings.sky_disc is not None:
        # What is outside must not set the scale.
        ln[~settings.sky_disc.mask(ln.shape)] = scale.middle
    if settings.tone.operator == "local":
        curve = PhotographicCurve(*scale, settings.tone.key)
        return _local(ln, curve, settings.tone.detail)
    light = np.exp(np.clip(ln - np.float32(scale.middle), -30, 30))
    mapped = _mapping(settings).process(np.broadcast_to(light, (*ln.shape[:2], 3)).copy())
    levels = np.nan_to_num(np.asarray(mapped, dtype=np.float32))[:, :, : ln.shape[2]]
    return np.clip(levels, 0.0, 1.0)


def _mapping(settings: MergeSettings) -> Any:
    tone, gamma = settings.tone, settings.gamma
    if tone.operator == "reinhard":
        return cv2.createTonemapReinhard(gamma, light_adapt=tone.adaptation)
    if tone.operator == "drago":
        return cv2.createTonemapDrago(gamma, bias=tone.bias)
    return cv2.createTonemapMantiuk(gamma, scale=tone.contrast)


def _local(ln: NDArray[np.float32], curve: PhotographicCurve, detail: float) -> NDArray[np.float32]:
    """Compress what a guided filter leaves (He, Sun, Tang 2010), and keep the rest as it is."""
    grey = np.minimum(ln.mean(axis=2), np.float32(curve.white))
    size = (2 * max(1, int(min(grey.shape) * _BASE_RADIUS)) + 1,) * 2
    mean = cv2.blur(grey, size)
    variance = cv2.blur(grey * grey, size) - mean * mean
    slope = variance / (variance + np.float32(_BASE_EDGE**2))
    base = np.asarray(cv2.blur(slope, size) * grey + cv2.blur(mean - slope * mean, size))
    kept = np.log(np.maximum(curve.linear(base), np.float32(1e-6))) - grey
    kept += np.float32(detail) * (grey - base)
    return to_srgb(np.minimum(np.exp(ln + kept[:, :, np.newaxis]), np.float32(1.0)))
