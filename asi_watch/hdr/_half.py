"""Radiance as planes of half floats, straight from the sums of a merge.

The table that turns x into half floats marks the samples whose weight is zero with the sign bit,
which a radiance has no use for. So one pass over the exposures gives values and flags, and only
the planes of a file are image-sized: no ln E, no exp() per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr._tables import BracketTables
from asi_watch.hdr._tone import HALF_MARK, CodeTable, half_table

# Between the smallest normal and the largest half float, a hair inside.
_LOWEST, _HIGHEST = 2.0**-14 * 1.001, 65504.0 * 0.999
_BLOCK_SAMPLES = 1 << 17


@dataclass(frozen=True, eq=False)
class HalfCodes:
    """How sums become half floats, and how marked ones are read.

    Parameters
    ----------
    table : CodeTable
        Half floats as uint16, marked where the weight is zero.
    under : ndarray, shape (3,), uint16
        Of each lane, what is marked as under-exposed; other marked codes are over-exposed.
    """

    table: CodeTable
    under: NDArray[np.uint16]

    @classmethod
    def of(cls, tables: BracketTables, factor: float) -> HalfCodes | None:
        """Prepare a bracket; None if half floats cannot hold or tell apart all it can give."""
        extremes = np.concatenate([tables.special.ravel(), tables.minimum, tables.maximum])
        with np.errstate(over="ignore"):
            values = np.exp(extremes) * factor
        if not (values.min() >= _LOWEST and values.max() <= _HIGHEST):
            return None
        table = half_table(tables, factor)
        specials = table.cells[:, table.count :]
        lowest = (np.exp(tables.minimum) * factor).astype(np.float16).view(np.uint16)
        under = lowest | np.uint16(HALF_MARK)
        # The flags must follow from the codes alone.
        flags = np.where(specials == under[:, np.newaxis], 1, 2)
        return cls(table, under) if (flags == tables.validity).all() else None

    @property
    def darkest(self) -> NDArray[np.uint16]:
        """Of each lane, the half float of what is under-exposed, without its mark."""
        return self.under & np.uint16(HALF_MARK - 1)

    def split(
        self,
        codes: NDArray[np.uint16],
        planes: NDArray[np.uint16],
        validity: NDArray[np.uint8],
    ) -> None:
        """Part interleaved codes, shape (rows, W, C), into planes and flags, (C, rows, W)."""
        for channel in range(codes.shape[2]):
            plane = planes[channel]
            np.copyto(plane, codes[:, :, channel])
            # Marked: 2, less one where it is "under".
            flags = (plane >> np.uint16(15)) << np.uint16(1)
            flags -= plane == self.under[channel]
            np.copyto(validity[channel], flags, casting="unsafe")
            plane &= np.uint16(HALF_MARK - 1)


def block_rows(shape: tuple[int, int, int]) -> int:
    """Rows whose codes stay in the cache."""
    return max(1, _BLOCK_SAMPLES // (shape[1] * shape[2]))


def scratch(shape: tuple[int, int, int]) -> NDArray[Any]:
    """Memory for the codes of one block of rows, shape (rows, W, C)."""
    return np.empty((min(block_rows(shape), shape[0]), *shape[1:]), np.uint16)
