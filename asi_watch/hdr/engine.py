"""The merge over rows of pixels: in C where the extension is built, else in numpy, same bytes.

Frames are two-dimensional here, (H, S) with S = W · C samples and channels interleaved.
"""

import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.deghost import Comparisons
from asi_watch.hdr.disc import clear_outside
from asi_watch.hdr.lookup_tables import LANES, BracketTables
from asi_watch.hdr.merge_settings import VALID
from asi_watch.hdr.tone import HALF_MARK, CodeTable

_BLOCK_SAMPLES = 1 << 16


def _load_kernel() -> Any:
    """Load the compiled kernel, unless it was not built or ASI_WATCH_NO_KERNEL is set."""
    if os.environ.get("ASI_WATCH_NO_KERNEL", "") not in ("", "0"):
        return None
    try:
        return importlib.import_module("asi_watch.hdr._kernel")
    except ImportError:
        return None


_kernel: Any = _load_kernel()


def kernel_name() -> str:
    """What merges are computed with: "c/avx512", "c/avx2", "c/plain" or "numpy"."""
    return "numpy" if _kernel is None else f"c/{_kernel.vectors()}"


@dataclass(frozen=True, eq=False)
class Job:
    """A bracket ready to be merged."""

    frames: Sequence[NDArray[np.uint8]]  # the exposures by rising time, each C-contiguous
    shortest: int  # how many of them, the first ones, have the shortest time
    channels: int
    tables: BracketTables  # in the order of the frames
    spans: NDArray[np.int32] | None  # first and last sample of each row that matter; None: all
    compared: Comparisons | None = None  # which exposures lose what contradicts others


def merge_codes(job: Job, codes: CodeTable, first: int, last: int, out: NDArray[Any]) -> None:
    """Merge rows first:last into output codes.

    Parameters
    ----------
    job, codes, first, last
    out : ndarray, shape (last − first, S), uint8 or uint16
        C-contiguous. Samples outside the spans become 0.
    """
    if _kernel is not None:
        tables = (codes.scale, codes.cells, codes.count, codes.edges, codes.knots)
        _kernel.merge_codes(*_arguments(job, first, last, out.shape[1]), *tables, out.itemsize, out)
        return
    for rows, _, words in _sums(job, first, last):
        target = out[rows.start - first : rows.stop - first]
        for lane in range(LANES):
            x, counters = _quotient(words[:, lane::LANES], job.tables)
            cell = np.minimum((x * codes.scale[lane]).astype(np.int32), codes.count - 1)
            empty = counters >= 0
            np.copyto(cell, codes.count + counters, where=empty)
            looked_up = codes.cells[lane].take(cell)
            if codes.edges is not None:
                _climb(looked_up, np.where(empty, np.float32(-1), x), codes.edges[lane])
            target[:, lane::LANES] = looked_up
        if job.spans is not None:
            clear_outside(target, job.spans[rows])


def merge_half(
    job: Job,
    codes: CodeTable,
    first: int,
    last: int,
    planes: NDArray[np.uint16],
    validity: NDArray[np.uint8],
) -> None:
    """Merge rows first:last into planes of half floats and of validity.

    Parameters
    ----------
    job, codes, first, last
    planes, validity : ndarray, shape (C, H, W), uint16 and uint8
        C-contiguous, of the whole picture; these rows are written. Samples outside the spans are
        under-exposed.
    """
    channels, _, width = planes.shape
    assert codes.under is not None
    if _kernel is not None:
        arguments = _arguments(job, first, last, width * channels)
        tables = (codes.scale, codes.cells, codes.count, codes.under)
        _kernel.merge_half(*arguments, *tables, channels, planes, validity)
        return
    step = max(1, _BLOCK_SAMPLES // (width * channels))
    block = np.empty((min(step, last - first), width, channels), np.uint16)
    for top in range(first, last, step):
        bottom = min(top + step, last)
        rows = block[: bottom - top]
        merge_codes(job, codes, top, bottom, rows.reshape(bottom - top, -1))
        if job.spans is not None:
            clear_outside(rows, job.spans[top:bottom] // channels, codes.under[:channels])
        _split_half(codes.under, rows, planes[:, top:bottom], validity[:, top:bottom])


def _split_half(
    under: NDArray[np.uint16],
    rows: NDArray[np.uint16],
    planes: NDArray[np.uint16],
    validity: NDArray[np.uint8],
) -> None:
    """Split interleaved codes, shape (rows, W, C), into planes and flags, (C, rows, W)."""
    for channel in range(rows.shape[2]):
        plane = planes[channel]
        np.copyto(plane, rows[:, :, channel])
        # Marked: 2 (over), less one where it is "under".
        flags = (plane >> np.uint16(15)) << np.uint16(1)
        flags -= plane == under[channel]
        np.copyto(validity[channel], flags, casting="unsafe")
        plane &= np.uint16(HALF_MARK - 1)


def merge_radiance(
    job: Job, first: int, last: int, ln_radiance: NDArray[np.float32], validity: NDArray[np.uint8]
) -> None:
    """Merge rows first:last into ln E and validity.

    Parameters
    ----------
    job, first, last
    ln_radiance, validity : ndarray, shape (last − first, S), float32 and uint8
        C-contiguous. Samples outside the spans are left undefined.
    """
    tables = job.tables
    unit, offset = tables.unit.astype(np.float32), tables.offset.astype(np.float32)
    maximum, special = tables.maximum.astype(np.float32), tables.special.astype(np.float32)
    if _kernel is not None:
        arguments = _arguments(job, first, last, ln_radiance.shape[1])
        values = (unit, offset, maximum, special, tables.validity)
        _kernel.merge_radiance(*arguments, *values, ln_radiance, validity)
        return
    for rows, _, words in _sums(job, first, last):
        here = slice(rows.start - first, rows.stop - first)
        for lane in range(LANES):
            x, counters = _quotient(words[:, lane::LANES], tables)
            value = np.minimum(x * unit[lane] + offset[lane], maximum[lane])
            empty, which = counters >= 0, np.maximum(counters, 0)
            ln_radiance[here, lane::LANES] = np.where(empty, special[lane].take(which), value)
            validity[here, lane::LANES] = np.where(
                empty, tables.validity.take(which), np.uint8(VALID)
            )


def merge_uncertainty(
    job: Job,
    tables: tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]],
    shared: float,
    first: int,
    last: int,
    out: NDArray[np.float32],
) -> None:
    """Standard error of ln E of rows first:last, √(Σ w² σ² + (c Σ w g′)²) / Σ w; inf without w.

    Parameters
    ----------
    job, first, last
    tables
        From `variance_tables`.
    shared : float
        c, an error of codes that all exposures share.
    out : ndarray, shape (last − first, S), float32
    """
    variance, scale, slopes = tables
    weight_mask = np.uint64((1 << job.tables.weight_bits) - 1)
    for rows, frames, words in _sums(job, first, last):
        target = out[rows.start - first : rows.stop - first]
        for lane in range(LANES):
            codes = [frame[:, lane::LANES] for frame in frames]
            squares = sum((variance[lane].take(z) for z in codes), np.uint64(0))
            common = shared * sum((slopes[lane].take(z) for z in codes), np.float64(0))
            root = np.sqrt(np.asarray(squares, dtype=np.float64) / scale[lane] + common**2)
            weight = (words[:, lane::LANES] & weight_mask).astype(np.float64)
            infinite = np.full(weight.shape, np.inf)
            target[:, lane::LANES] = np.divide(root, weight, out=infinite, where=weight > 0)


def _arguments(job: Job, first: int, last: int, samples: int) -> tuple[Any, ...]:
    """First arguments of every merge of the kernel; a row has `samples` samples."""
    tables, compare = job.tables, None
    if (found := job.compared) is not None:
        compare = (job.channels, found.which, found.ranges, found.words)
    frames = tuple(job.frames)
    return frames, tables.words, tables.weight_bits, job.spans, compare, first, last, samples


def _blocks(job: Job, first: int, last: int) -> Iterator[tuple[slice, list[NDArray[np.uint8]]]]:
    """What is left of the frames, a cache-sized block of rows at a time."""
    height = max(1, _BLOCK_SAMPLES // job.frames[0].shape[1])
    for start in range(first, last, height):
        rows = slice(start, min(start + height, last))
        frames = [frame[rows] for frame in job.frames]
        if (found := job.compared) is not None:
            for (frame, count, *others), ranges in zip(found.which, found.ranges, strict=True):
                references = [frames[other] for other in others[:count]]
                frames[frame] = _reject(frames[frame], references, ranges, job.channels)
        yield rows, frames


def _reject(
    frame: NDArray[np.uint8],
    references: Sequence[NDArray[np.uint8]],
    ranges: NDArray[np.uint8],
    channels: int,
) -> NDArray[np.uint8]:
    """Copy a frame, with code 0, which has no weight, where a reference contradicts it."""
    codes = frame.reshape(-1, channels)
    left, asked = codes.copy(), np.ones(codes.shape, dtype=bool)
    for reference, lanes in zip(references, ranges[: len(references)], strict=True):
        other = reference.reshape(-1, channels)
        low, high = (
            np.stack([lanes[c][end].take(other[:, c]) for c in range(channels)], axis=1)
            for end in (0, 1)
        )
        stated = asked & (low <= high)
        contradicted = (stated & ((codes < low) | (codes > high))).any(axis=1, keepdims=True)
        left[stated & contradicted] = 0
        asked &= ~stated
    return left.reshape(frame.shape)


def _sums(
    job: Job, first: int, last: int
) -> Iterator[tuple[slice, list[NDArray[np.uint8]], NDArray[np.uint64]]]:
    """Rows, what is left of the frames there, and the sums of their table entries."""
    for rows, frames in _blocks(job, first, last):
        words = np.zeros(frames[0].shape, dtype=np.uint64)
        for frame, table in zip(frames, job.tables.words, strict=True):
            for lane in range(LANES):
                words[:, lane::LANES] += table[lane].take(frame[:, lane::LANES])
        yield rows, frames, words


def _quotient(
    words: NDArray[np.uint64], tables: BracketTables
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Give x, and the counters where the weight is zero (−1 elsewhere)."""
    lower = words.astype(np.uint32)
    weight = lower & np.uint32((1 << tables.weight_bits) - 1)
    counters = (lower >> np.uint32(tables.weight_bits)).astype(np.int32)
    empty = weight == 0
    counters[~empty] = -1
    weight[empty] = 1
    upper = (words >> np.uint64(32)).astype(np.float32)
    x: NDArray[np.float32] = np.divide(upper, weight.astype(np.float32), dtype=np.float32)
    return x, counters


def _climb(codes: NDArray[Any], x: NDArray[np.float32], edges: NDArray[np.float32]) -> None:
    """Raise each code while x has reached the next code's edge."""
    rising = x >= edges.take(codes.astype(np.int32) + 1)
    while rising.any():
        codes[rising] += 1
        rising[rising] = x[rising] >= edges.take(codes[rising].astype(np.int32) + 1)
