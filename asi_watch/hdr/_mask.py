"""Which part of each row is merged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.disc import SkyDisc


@dataclass(frozen=True, eq=False)
class RowSpans:
    """First and last sample of each row that a mask lets through.

    Parameters
    ----------
    spans : ndarray, shape (H, 2), int32, or None
        Half-open span per row, in samples; None when there is no mask.
    mask : ndarray, shape (H, W), bool, or None
        The mask itself, where the spans alone do not describe it.
    channels : int
        Samples per pixel.
    """

    spans: NDArray[np.int32] | None
    mask: NDArray[np.bool_] | None
    channels: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_] | None, shape: tuple[int, int, int]) -> RowSpans:
        """Measure a mask.

        Raises
        ------
        ValueError
            If the mask's shape is not (H, W).
        """
        if mask is None:
            return cls(None, None, shape[2])
        wanted = np.ascontiguousarray(mask, dtype=np.bool_)
        if wanted.shape != shape[:2]:
            raise ValueError(f"the mask's shape {wanted.shape} is not the pictures' {shape[:2]}")
        some = wanted.any(axis=1)
        first = np.where(some, wanted.argmax(axis=1), 0)
        last = np.where(some, shape[1] - wanted[:, ::-1].argmax(axis=1), 0)
        whole = bool((np.count_nonzero(wanted, axis=1) == last - first).all())
        spans = np.ascontiguousarray(np.stack([first, last], axis=1) * shape[2], dtype=np.int32)
        return cls(spans, None if whole else wanted, shape[2])

    def rows(self, first: int, last: int) -> NDArray[np.int32] | None:
        """Spans of some rows."""
        return None if self.spans is None else self.spans[first:last]

    def clear(self, out: NDArray[Any], first: int, value: ArrayLike = 0) -> None:
        """Set what lies outside in `out`, shape (rows, W, C), whose row 0 is row `first`."""
        if self.spans is None:
            return
        clear_outside(out, self.spans[first : first + len(out)] // self.channels, value)
        self.clear_holes(out, first, value)

    def clear_holes(self, out: NDArray[Any], first: int, value: ArrayLike = 0) -> None:
        """Set what the mask leaves out within the spans."""
        if self.mask is not None:
            out[~self.mask[first : first + len(out)]] = value

    def clear_plane_holes(self, planes: NDArray[Any], value: ArrayLike = 0) -> None:
        """Set what the mask leaves out within the spans, in planes of shape (C, H, W)."""
        if self.mask is not None:
            planes[:, ~self.mask] = np.broadcast_to(value, len(planes))[:, np.newaxis]


def clear_outside(rows: NDArray[Any], spans: NDArray[np.int32], value: ArrayLike = 0) -> None:
    """Set what lies outside the spans, one span for each row."""
    for row, (start, stop) in zip(rows, spans, strict=True):
        row[:start] = value
        row[stop:] = value


@lru_cache(maxsize=16)
def disc_spans(disc: SkyDisc, shape: tuple[int, int, int]) -> RowSpans:
    """Measure a sky disc; remembered, as every bracket of a camera asks for the same.

    Raises
    ------
    ValueError
        If no pixel is inside.
    """
    return RowSpans.of(disc.mask(shape), shape)
