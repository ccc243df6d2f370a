"""The weighted mean of ln E over a bracket: on arrival, or over decoded frames at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr import _engine as engine
from asi_watch.hdr._finish import ToneTable, channel_ranges, tone_table
from asi_watch.hdr._layout import Layout, choose_layout, exposure_table
from asi_watch.hdr._mask import RowSpans
from asi_watch.hdr.reference import remap_codes
from asi_watch.hdr.response import as_log_response
from asi_watch.hdr.settings import (
    UNDER,
    MergeSettings,
    Picture,
    PictureType,
    Pixels,
    Radiance,
    check_exposure,
)
from asi_watch.hdr.tonemapping import code_maximum
from asi_watch.hdr.weights import log_variance, weight_table


@dataclass(frozen=True, eq=False)
class WeightedMean:
    """Everything about a merge that does not depend on the bracket.

    Parameters
    ----------
    settings : MergeSettings
        With algorithm `debevec_custom` or `debevec_exact`.
    log_response, weights : ndarray, shape (256, C), float64
        g and w over the looked-up code.
    codes : ndarray, shape (256,), uint8
        Looked-up code of each raw code.
    darkest, brightest : int
        Raw codes at or below (above) which a frame says only "under" ("over").
    layout : Layout
        Format of the accumulators.
    """

    settings: MergeSettings
    log_response: NDArray[np.float64]
    weights: NDArray[np.float64]
    codes: NDArray[np.uint8]
    darkest: int
    brightest: int
    layout: Layout

    @classmethod
    def of(
        cls,
        settings: MergeSettings,
        log_response: ArrayLike | None,
        channels: int,
        precision: str,
        max_exposures: int,
    ) -> WeightedMean:
        """Prepare a merge; see `open_merge` for the arguments and errors."""
        if log_response is None:
            raise ValueError(f"'{settings.algorithm}' needs a response curve")
        curve = as_log_response(log_response)
        if curve.shape[1] != channels:
            raise ValueError(f"the response has {curve.shape[1]} channels, the pictures {channels}")
        g = curve.astype(np.float64)
        weights = weight_table(settings.weight_type, curve)
        low, high = settings.low_clip, settings.high_clip
        z = np.arange(256)
        if settings.algorithm == "debevec_custom":
            codes = remap_codes(low, high)
            low, high = int(z[codes == 0].max()), int(z[codes == 255].min())
        else:
            codes = z.astype(np.uint8)
            weights[(z < low) | (z > high)] = 0.0
        layout = choose_layout(weights, g, precision, max_exposures)
        return cls(settings, g, weights, codes, low, high, layout)

    def table(self, time: float) -> NDArray[Any]:
        """Table of one exposure, shape (C, 256)."""
        return exposure_table(
            self.layout, self.weights, self.log_response, self.codes, float(np.log(time))
        )

    def reading(self, times: Sequence[float]) -> engine.Reading:
        """How the words of a bracket of these times are read.

        Raises
        ------
        ValueError
            If there is no exposure, or the times lie too far apart.
        """
        if not times:
            raise ValueError("no exposure was added")
        ln_times = np.log(np.asarray(times, dtype=np.float64))
        if np.ptp(ln_times) > self.layout.time_range:
            ratio = np.exp(self.layout.time_range)
            raise ValueError(
                f"exposure times {min(times):g} and {max(times):g} lie further apart than "
                f"1 : {ratio:,.0f}; merge with precision 'radiance' or leave one out"
            )
        remap = self.settings.algorithm == "debevec_custom"
        return engine.Reading(
            self.layout, channel_ranges(self.layout, self.log_response, ln_times, remap)
        )

    def tone(self, reading: engine.Reading, dtype: Any) -> ToneTable:
        """Tone table of a bracket for pictures of `dtype`."""
        return tone_table(
            self.layout,
            reading.ranges,
            self.settings.lnE_range,
            self.settings.display_gamma,
            np.dtype(dtype),
        )

    def merge_frames(
        self,
        frames: Sequence[Pixels],
        exposure_times: Sequence[float],
        out: Picture,
        threads: int,
        mask: NDArray[np.bool_] | None,
    ) -> None:
        """Merge whole frames into `out`, shape (H, W, C); see `merging.merge_frames`."""
        if not out.flags.c_contiguous:
            raise ValueError("out must be C-contiguous")
        shape = (out.shape[0], out.shape[1], out.shape[2])
        checked = [
            check_exposure(pixels, time, shape)
            for pixels, time in zip(frames, exposure_times, strict=True)
        ]
        times = [time for _, time in checked]
        planes = [_plane(pixels) for pixels, _ in checked]
        tables = [self.table(time) for time in times]
        reading = self.reading(times)
        tone = self.tone(reading, out.dtype)
        spans = RowSpans.of(mask, shape)
        order = np.argsort(times, kind="stable")
        # Exposures of equal time are asked together, so that their order cannot matter.
        shortest = [int(i) for i in order if times[i] == times[order[0]]]
        longest = [int(i) for i in order if times[i] == times[order[-1]]]
        target = _plane(out)

        def band(first: int, last: int) -> None:
            engine.merge_picture(
                [plane[first:last] for plane in planes],
                tables,
                (shortest, self.darkest),
                (longest, self.brightest),
                reading,
                tone,
                target[first:last],
                spans.rows(first, last),
            )
            spans.clear(out[first:last], first)

        in_bands(band, shape[0], threads)


class WeightedMerge:
    """A bracket merged on arrival: each exposure is added to kept integer sums.

    Parameters
    ----------
    mean : WeightedMean
        What to sum and how.
    shape : (int, int, int)
        (H, W, C).
    threads : int
        Threads that one call may use.
    mask : ndarray, shape (H, W), bool, optional
        Pixels to merge.
    keep_variance : bool
        True to keep what `uncertainty` needs.
    """

    def __init__(
        self,
        mean: WeightedMean,
        shape: tuple[int, int, int],
        threads: int,
        mask: NDArray[np.bool_] | None,
        *,
        keep_variance: bool,
    ) -> None:
        self._mean = mean
        self._shape = shape
        self._threads = threads
        self._spans = RowSpans.of(mask, shape)
        rows, samples = shape[0], shape[1] * shape[2]
        self._words = np.empty((rows, samples), dtype=mean.layout.dtype)
        self._under = np.zeros((rows, (samples + 7) // 8), dtype=np.uint8)
        self._over = np.zeros_like(self._under)
        self._variance = _VarianceSums(mean, rows, samples) if keep_variance else None
        self._times: list[float] = []

    @property
    def exposure_times(self) -> tuple[float, ...]:
        """Exposure times added so far, rising."""
        return tuple(sorted(self._times))

    @property
    def nbytes(self) -> int:
        """Bytes of image-sized memory that this merge holds."""
        kept = self._words.nbytes + self._under.nbytes + self._over.nbytes
        return kept + (self._variance.nbytes if self._variance else 0)

    def add(self, pixels: Pixels, exposure_time: float) -> None:
        """Add one exposure; `pixels` may be reused by the caller afterwards.

        Raises
        ------
        ValueError
            If the pixels do not fit, the time is not positive, the merge is full, or the times
            lie too far apart for it. The merge is then as it was before.
        """
        array, time = check_exposure(pixels, exposure_time, self._shape)
        if len(self._times) == self._mean.layout.max_exposures:
            raise ValueError(f"this merge holds {len(self._times)} exposures, no more")
        self._mean.reading([*self._times, time])
        codes, table = _plane(array), self._mean.table(time)
        first = not self._times
        shortest = first or time <= min(self._times)
        longest = first or time >= max(self._times)
        join_under, join_over = time in self._times and shortest, time in self._times and longest

        def band(start: int, stop: int) -> None:
            rows = slice(start, stop)
            spans = self._spans.rows(start, stop)
            engine.accumulate(self._words[rows], codes[rows], table, spans, first=first)
            if shortest:
                engine.dark_bits(codes[rows], self._mean.darkest, self._under[rows], join_under)
            if longest:
                engine.bright_bits(codes[rows], self._mean.brightest, self._over[rows], join_over)
            if self._variance:
                self._variance.add(rows, codes[rows])

        in_bands(band, self._shape[0], self._threads)
        self._times.append(time)

    def picture(self, dtype: PictureType = np.uint8) -> Picture:
        """Display picture of what was added, shape (H, W, C), uint8 or uint16.

        Raises
        ------
        ValueError
            If nothing was added, or 16 bit is asked of a merge opened for 8-bit pictures.
        """
        out: Picture = np.empty(self._shape, dtype=dtype)
        self._prepare(out.dtype)
        in_bands(
            lambda first, last: self.picture_rows(first, last, out[first:last]),
            self._shape[0],
            self._threads,
        )
        return out

    def picture_rows(self, first: int, last: int, out: Picture) -> None:
        """Write rows first:last of the picture into `out`, shape (last − first, W, C).

        Several threads may do this at once, each for its own rows.

        Raises
        ------
        ValueError
            If the rows or `out` do not fit.
        """
        wanted = (last - first, *self._shape[1:])
        if not 0 <= first < last <= self._shape[0] or out.shape != wanted:
            raise ValueError(f"rows {first}:{last} of {self._shape} do not fit into {out.shape}")
        if not out.flags.c_contiguous:
            raise ValueError("out must be C-contiguous")
        reading, tone = self._prepare(out.dtype)
        rows = slice(first, last)
        engine.finish_picture(
            self._words[rows],
            self._under[rows],
            self._over[rows],
            reading,
            tone,
            _plane(out),
            self._spans.rows(first, last),
        )
        self._spans.clear(out, first)

    def radiance(self) -> Radiance:
        """Radiance map of what was added.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        reading = self._mean.reading(self._times)
        ln_radiance = np.empty(self._shape, dtype=np.float32)
        validity = np.empty(self._shape, dtype=np.uint8)
        lowest = np.array([r.minimum for r in reading.ranges], dtype=np.float32)

        def band(start: int, stop: int) -> None:
            rows = slice(start, stop)
            engine.finish_radiance(
                self._words[rows],
                self._under[rows],
                self._over[rows],
                reading,
                _plane(ln_radiance[rows]),
                _plane(validity[rows]),
                self._spans.rows(start, stop),
            )
            self._spans.clear(ln_radiance[rows], start, lowest)
            self._spans.clear(validity[rows], start, UNDER)

        in_bands(band, self._shape[0], self._threads)
        return Radiance(ln_radiance, validity)

    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E from the noise model, shape (H, W, C); inf where invalid.

        √(Σ w² σ²) / Σ w, with σ²(z) of `weights.log_variance`: shot, read and quantisation
        noise of the exposures that were used. It says nothing of an error in g itself, nor of
        clouds that moved between the exposures.

        Raises
        ------
        ValueError
            If the merge was opened without `uncertainty`, or nothing was added.
        """
        if self._variance is None:
            raise ValueError("open the merge with uncertainty=True to ask for its uncertainty")
        self._mean.reading(self._times)
        out = np.empty(self._shape, dtype=np.float32)

        def band(start: int, stop: int) -> None:
            rows = slice(start, stop)
            assert self._variance is not None
            self._variance.standard_error(self._words[rows], rows, _plane(out[rows]))
            self._spans.clear(out[rows], start, np.inf)

        in_bands(band, self._shape[0], self._threads)
        return out

    def _prepare(self, dtype: np.dtype[Any]) -> tuple[engine.Reading, ToneTable]:
        if code_maximum(dtype) > 255 and self._mean.layout.bits == 32:
            raise ValueError("16 bit needs a merge opened with precision 'radiance'")
        reading = self._mean.reading(self._times)
        return reading, self._mean.tone(reading, dtype)


class _VarianceSums:
    """Σ w² σ² per sample, in integers."""

    def __init__(self, mean: WeightedMean, rows: int, samples: int) -> None:
        layout = mean.layout
        scaled = mean.weights * layout.weight_scale
        squares = scaled**2 * log_variance(mean.log_response)
        self._scale = 2.0**62 / layout.max_exposures / float(squares.max())
        self._table = np.ascontiguousarray(
            np.rint(squares * self._scale).astype(np.uint64)[mean.codes].T
        )
        self._layout = layout
        self._sums = np.zeros((rows, samples), dtype=np.uint64)

    @property
    def nbytes(self) -> int:
        return self._sums.nbytes

    def add(self, rows: slice, codes: NDArray[np.uint8]) -> None:
        engine.accumulate(self._sums[rows], codes, self._table, None, first=False)

    def standard_error(self, words: NDArray[Any], rows: slice, out: NDArray[np.float32]) -> None:
        for row, word, target in zip(self._sums[rows], words, out, strict=True):
            total = engine.weight_sums(word, self._layout)
            root = np.sqrt(row.astype(np.float64) / self._scale)
            target[...] = np.divide(root, total, out=np.full(total.shape, np.inf), where=total > 0)


def in_bands(work: Callable[[int, int], None], rows: int, threads: int) -> None:
    """Run `work(first, last)` over bands of rows, on up to `threads` threads."""
    if threads <= 1 or rows < 2 * threads:
        work(0, rows)
        return
    # A few bands per thread even out a core that is busy with something else.
    count = min(rows, 4 * threads)
    edges = [rows * i // count for i in range(count + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, a, b) for a, b in itertools.pairwise(edges)]:
            future.result()


def _plane(array: NDArray[Any]) -> NDArray[Any]:
    """(rows, W, C) as (rows, W · C), without a copy."""
    return array.reshape(array.shape[0], -1)
