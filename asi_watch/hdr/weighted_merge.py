"""The weighted mean of ln E over a bracket."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr import engine
from asi_watch.hdr.bracket_frames import BracketFrames
from asi_watch.hdr.disc import RowSpans
from asi_watch.hdr.merge_settings import (
    UNDER,
    HalfRadiance,
    MergeSettings,
    Picture,
    PictureType,
    Radiance,
)
from asi_watch.hdr.packed_tables import WeightedMean, bracket_tables, variance_tables
from asi_watch.hdr.tone import CodeTable, HalfCodes, picture_table

# The bands of one call: a few per thread even out a core that is busy with something else.
_BANDS_PER_THREAD = 8


class WeightedMerge(BracketFrames):
    """A bracket merged by the weighted mean; see `merging.open_merge` for the parameters."""

    def __init__(
        self,
        settings: MergeSettings,
        log_response: ArrayLike | None,
        shape: tuple[int, int, int],
        threads: int,
        spans: RowSpans,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1; got {threads}")
        super().__init__(settings, log_response, shape)
        self._mean = WeightedMean.of(settings, log_response, shape[2])
        self._threads = threads
        self._spans = spans
        self._prepared: tuple[WeightedMean, engine.Job] | None = None

    @property
    def works_by_rows(self) -> bool:
        """True: rows are merged one by one."""
        return True

    def picture(self, dtype: PictureType = np.uint8, out: Picture | None = None) -> Picture:
        """Display picture; see `Merge.picture`."""
        if out is None:
            out = np.empty(self._shape, dtype=dtype)
        self._merge(self._display(out.dtype), out)
        return out

    def picture_rows(self, first: int, last: int, out: Picture) -> None:
        """Write rows of the picture; several threads may do this at once, each for its own rows."""
        wanted = (last - first, *self._shape[1:])
        if not 0 <= first < last <= self._shape[0] or out.shape != wanted:
            raise ValueError(f"rows {first}:{last} of {self._shape} do not fit into {out.shape}")
        _check_target(out)
        self._merge_rows(self._display(out.dtype), first, last, out)

    def radiance(self) -> Radiance:
        """Radiance map; see `Merge.radiance`."""
        _, job = self._prepare()
        ln_radiance = np.empty(self._shape, dtype=np.float32)
        validity = np.empty(self._shape, dtype=np.uint8)
        lowest = job.tables.minimum[: self._shape[2]].astype(np.float32)

        def band(first: int, last: int) -> None:
            ln_rows, flag_rows = ln_radiance[first:last], validity[first:last]
            engine.merge_radiance(job, first, last, _plane(ln_rows), _plane(flag_rows))
            self._spans.clear(ln_rows, first, lowest)
            self._spans.clear(flag_rows, first, UNDER)

        in_bands(band, self._shape[0], self._threads)
        return Radiance(ln_radiance, validity)

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance factor · E as half floats; see `Merge.radiance_half`.

        One pass, without ln E, exp() and a conversion, and within half a unit of the last place
        of what those would give.
        """
        if not (np.isfinite(factor) and factor > 0):
            raise ValueError(f"the factor must be above 0; got {factor}")
        _, job = self._prepare()
        codes = HalfCodes.of(job.tables, float(factor))
        if codes is None:
            return None
        height, width, channels = self._shape
        planes = np.empty((channels, height, width), np.uint16)
        validity = np.empty((channels, height, width), np.uint8)

        def band(first: int, last: int) -> None:
            engine.merge_half(job, codes, first, last, planes, validity)

        in_bands(band, height, self._threads)
        self._spans.clear_plane_holes(planes, codes.darkest[:channels])
        self._spans.clear_plane_holes(validity, UNDER)
        return HalfRadiance(planes.view(np.float16), validity)

    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E from the noise model, √(Σ w² σ²) / Σ w; inf where invalid.

        σ²(z) of `weights.log_variance`: shot, read and quantisation noise of the exposures used.
        Errors of g itself and clouds that moved between the exposures are not included.
        """
        mean, job = self._prepare()
        table, scale = variance_tables(mean, job.tables)
        out = np.empty(self._shape, dtype=np.float32)

        def band(first: int, last: int) -> None:
            rows = out[first:last]
            engine.merge_uncertainty(job, table, scale, first, last, _plane(rows))
            self._spans.clear(rows, first, np.inf)

        in_bands(band, self._shape[0], self._threads)
        return out

    def _forget(self) -> None:
        self._prepared = None

    def _prepare(self) -> tuple[WeightedMean, engine.Job]:
        prepared = self._prepared
        if prepared is None:
            frames, times = self._used()
            mean = self._mean.saturated_from(self.findings().saturated_from)
            planes = [_plane(frame) for frame in frames]
            job = engine.Job(planes, bracket_tables(mean, times), self._spans.spans)
            prepared = self._prepared = mean, job
        return prepared

    def _display(self, dtype: np.dtype[Any]) -> CodeTable:
        settings = self._settings
        _, job = self._prepare()
        return picture_table(job.tables, settings.lnE_range, settings.display_gamma, dtype)

    def _merge(self, codes: CodeTable, out: NDArray[Any]) -> None:
        if out.shape != self._shape:
            raise ValueError(f"out has the shape {out.shape}, the pictures {self._shape}")
        _check_target(out)
        in_bands(
            lambda first, last: self._merge_rows(codes, first, last, out[first:last]),
            self._shape[0],
            self._threads,
        )

    def _merge_rows(self, codes: CodeTable, first: int, last: int, out: NDArray[Any]) -> None:
        engine.merge_codes(self._prepare()[1], codes, first, last, _plane(out))
        self._spans.clear_holes(out, first)


def in_bands(work: Callable[[int, int], None], rows: int, threads: int) -> None:
    """Run `work(first, last)` over bands of rows, on up to `threads` threads.

    Parameters
    ----------
    work : callable
        Called with the first and last row of a band.
    rows : int
        Of the picture.
    threads : int
        At most so many.
    """
    if threads <= 1 or rows < 2 * threads:
        work(0, rows)
        return
    count = min(rows, _BANDS_PER_THREAD * threads)
    edges = [rows * i // count for i in range(count + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, a, b) for a, b in itertools.pairwise(edges)]:
            future.result()


def _check_target(out: NDArray[Any]) -> None:
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out must be C-contiguous and writeable")


def _plane(array: NDArray[Any]) -> NDArray[Any]:
    """(rows, W, C) as (rows, W · C), without a copy."""
    return array.reshape(array.shape[0], -1)
