"""The merge over rows of pixels: in C where the extension is built, else in numpy, same bytes.

All arrays here are two-dimensional, (rows, S) with S = W · C samples and channels interleaved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr._finish import ChannelRange, ToneTable
from asi_watch.hdr._layout import Layout
from asi_watch.hdr.settings import OVER, UNDER, VALID

_BLOCK_SAMPLES = 1 << 16

Flags = NDArray[np.uint8]
Spans = NDArray[np.int32] | None


@dataclass(frozen=True, eq=False)
class Reading:
    """How finished words are read.

    Parameters
    ----------
    layout : Layout
        Format of the words.
    ranges : tuple of ChannelRange
        One per channel.
    """

    layout: Layout
    ranges: tuple[ChannelRange, ...]

    @property
    def channels(self) -> int:
        """Number of interleaved channels."""
        return len(self.ranges)


def accumulate(
    words: NDArray[Any], codes: Flags, table: NDArray[Any], spans: Spans, *, first: bool
) -> None:
    """Add one exposure to the words of the same rows.

    Parameters
    ----------
    words : ndarray, shape (rows, S), uint32 or uint64
        Changed in place; what it held is ignored when `first`.
    codes : ndarray, shape (rows, S), uint8
        The exposure.
    table : ndarray, shape (C, 256)
        From `exposure_table`.
    spans : ndarray, shape (rows, 2), int32, or None
        Samples of each row that matter; the others need not be touched.
    first : bool
        True to write instead of add.
    """
    channels = table.shape[0]
    for rows in _blocks(codes):
        for c in range(channels):
            looked_up = table[c].take(codes[rows, c::channels])
            if first:
                words[rows, c::channels] = looked_up
            else:
                words[rows, c::channels] += looked_up


def finish_picture(
    words: NDArray[Any],
    under: Flags,
    over: Flags,
    reading: Reading,
    tone: ToneTable,
    out: NDArray[Any],
    spans: Spans,
) -> None:
    """Turn words into display codes.

    Parameters
    ----------
    words : ndarray, shape (rows, S)
        Sums of all exposures.
    under, over : ndarray, shape (rows, ceil(S / 8)), uint8
        Bits: the shortest exposure is dark, the longest is saturated.
    reading, tone
        How to read the words and what codes they become.
    out : ndarray, shape (rows, S), uint8 or uint16
        The picture.
    spans : ndarray, shape (rows, 2), int32, or None
        As for `accumulate`.
    """
    n = reading.channels
    for rows in _blocks(words):
        empty_bits = None
        for c in range(n):
            x, empty = _quotient(words[rows, c::n], reading, c)
            cell = np.minimum((x * tone.scale[c]).astype(np.int32), tone.cells.shape[1] - 1)
            codes = tone.cells[c].take(cell)
            if tone.edges.size:
                _climb(codes, x, tone.edges[c])
            if empty.any():
                if empty_bits is None:
                    empty_bits = _kinds(under[rows], over[rows], words.shape[1])
                codes[empty] = tone.special[c].take(empty_bits[:, c::n][empty])
            out[rows, c::n] = codes


def finish_radiance(
    words: NDArray[Any],
    under: Flags,
    over: Flags,
    reading: Reading,
    ln_radiance: NDArray[np.float32],
    validity: NDArray[np.uint8],
    spans: Spans,
) -> None:
    """Turn words into ln E and validity, both of shape (rows, S)."""
    n = reading.channels
    inverse = np.float32(1.0 / reading.layout.value_scale)
    flag = np.array([OVER, UNDER, OVER], np.uint8)
    for rows in _blocks(words):
        kinds = _kinds(under[rows], over[rows], words.shape[1])
        for c, channel in enumerate(reading.ranges):
            x, empty = _quotient(words[rows, c::n], reading, c)
            offset = np.float32(channel.base / reading.layout.value_scale)
            value = np.minimum(x * inverse + offset, np.float32(channel.maximum))
            fallback = np.array([channel.fallback, channel.minimum, channel.maximum], np.float32)
            kind = kinds[:, c::n]
            ln_radiance[rows, c::n] = np.where(empty, fallback.take(kind), value)
            validity[rows, c::n] = np.where(empty, flag.take(kind), np.uint8(VALID))


def weight_sums(words: NDArray[Any], layout: Layout) -> NDArray[np.float64]:
    """Σ w of every word, in units of the layout's weight scale."""
    mask = layout.dtype.type((1 << layout.weight_bits) - 1)
    return np.asarray((words & mask).astype(np.float64))


def _quotient(
    words: NDArray[Any], reading: Reading, channel: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    layout = reading.layout
    kind = layout.dtype.type
    weight = words & kind((1 << layout.weight_bits) - 1)
    base = kind(reading.ranges[channel].base & layout.numerator_mask)
    numerator = (words >> kind(layout.weight_bits)) - weight * base
    numerator &= kind(layout.numerator_mask)
    empty = weight == 0
    weight[empty] = 1
    return numerator.astype(np.float32) / weight.astype(np.float32), empty


def _climb(codes: NDArray[Any], x: NDArray[np.float32], edges: NDArray[np.float32]) -> None:
    """Raise each code while x has reached the next code's edge."""
    rising = x >= edges.take(codes.astype(np.int32) + 1)
    while rising.any():
        codes[rising] += 1
        rising[rising] = x[rising] >= edges.take(codes[rising].astype(np.int32) + 1)


def _kinds(under: Flags, over: Flags, samples: int) -> NDArray[np.uint8]:
    """0 none, 1 under, 2 over; over wins."""
    dark = np.unpackbits(under, axis=1, count=samples, bitorder="little")
    bright = np.unpackbits(over, axis=1, count=samples, bitorder="little")
    return np.asarray(np.maximum(dark, bright * np.uint8(2)))


def _blocks(array: NDArray[Any]) -> Iterator[slice]:
    """Slices of whole rows that stay in the cache."""
    rows = max(1, _BLOCK_SAMPLES // array.shape[1])
    for start in range(0, array.shape[0], rows):
        yield slice(start, min(start + rows, array.shape[0]))


def dark_bits(codes: Flags, darkest: int, out: Flags, join: bool) -> None:
    """Write a bit per sample, rows padded to bytes: code ≤ `darkest`; `join` ands to `out`."""
    bits = np.packbits(codes <= darkest, axis=1, bitorder="little")
    out[...] = out & bits if join else bits


def bright_bits(codes: Flags, brightest: int, out: Flags, join: bool) -> None:
    """Write a bit per sample, rows padded to bytes: code ≥ `brightest`; `join` ands to `out`."""
    bits = np.packbits(codes >= brightest, axis=1, bitorder="little")
    out[...] = out & bits if join else bits


def merge_picture(
    frames: Sequence[Flags],
    tables: Sequence[NDArray[Any]],
    under: tuple[list[int], int],
    over: tuple[list[int], int],
    reading: Reading,
    tone: ToneTable,
    out: NDArray[Any],
    spans: Spans,
) -> None:
    """Merge whole frames into a picture, a block at a time, keeping nothing image-sized.

    Parameters
    ----------
    frames : sequence of ndarray, shape (rows, S), uint8
        The exposures.
    tables : sequence of ndarray, shape (C, 256)
        One per exposure.
    under, over : (list of int, int)
        Indices of the shortest (longest) exposures, and their threshold code.
    reading, tone, out, spans
        As for `finish_picture`.
    """
    samples = out.shape[1]
    height = max(1, _BLOCK_SAMPLES // samples)
    words = np.empty((height, samples), dtype=reading.layout.dtype)
    dark = np.empty((height, (samples + 7) // 8), dtype=np.uint8)
    bright = np.empty_like(dark)
    for rows in _blocks(out):
        count = rows.stop - rows.start
        for i, (codes, table) in enumerate(zip(frames, tables, strict=True)):
            accumulate(words[:count], codes[rows], table, None, first=i == 0)
        for i, frame in enumerate(under[0]):
            dark_bits(frames[frame][rows], under[1], dark[:count], i > 0)
        for i, frame in enumerate(over[0]):
            bright_bits(frames[frame][rows], over[1], bright[:count], i > 0)
        finish_picture(words[:count], dark[:count], bright[:count], reading, tone, out[rows], None)


def kernel_wanted() -> bool:
    """False when the environment asks for the numpy path (ASI_WATCH_NO_KERNEL=1)."""
    return os.environ.get("ASI_WATCH_NO_KERNEL", "") in ("", "0")
