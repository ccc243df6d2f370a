"""The weighted mean of ln E over a bracket.

The frames of a bracket are kept as they arrive and summed once, when a result is asked for.
Keeping sums instead was measured and found worse: a sum takes eight bytes per sample where a
frame takes one, and moving it through memory for every exposure costs more than looking an
exposure up does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr import engine as engine
from asi_watch.hdr.disc import RowSpans
from asi_watch.hdr.merge_settings import (
    UNDER,
    HalfRadiance,
    MergeSettings,
    Picture,
    PictureType,
    Pixels,
    Radiance,
    check_exposure,
)
from asi_watch.hdr.packed_tables import MAX_EXPOSURES, WeightedMean, bracket_tables, variance_tables
from asi_watch.hdr.tone import CodeTable, HalfCodes, picture_table

# The bands of one call: a few per thread even out a core that is busy with something else.
_BANDS_PER_THREAD = 8


class WeightedMerge:
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
        self._settings = settings
        self._mean = WeightedMean.of(settings, log_response, shape[2])
        self._shape = shape
        self._threads = threads
        self._spans = spans
        self._frames: list[Pixels] = []
        self._times: list[float] = []
        self._job: engine.Job | None = None

    @property
    def exposure_times(self) -> tuple[float, ...]:
        """Exposure times added so far, rising."""
        return tuple(sorted(self._times))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the exposures and of the picture."""
        return self._shape

    @property
    def works_by_rows(self) -> bool:
        """True: rows are merged one by one."""
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of the frames held."""
        return sum(frame.nbytes for frame in self._frames)

    def add(self, pixels: Pixels, exposure_time: float, *, copy: bool = True) -> None:
        """Add one exposure.

        Parameters
        ----------
        pixels : ndarray, shape (H, W, C), uint8
            The exposure.
        exposure_time : float
            Positive.
        copy : bool
            False hands the array over: the caller then leaves it as it is while the merge lives.

        Raises
        ------
        ValueError
            If the pixels do not fit, the time is not positive, or the merge is full. The merge
            is then as it was before.
        """
        array, time = check_exposure(pixels, exposure_time, self._shape)
        if len(self._times) == MAX_EXPOSURES:
            raise ValueError(f"a bracket has at most {MAX_EXPOSURES} exposures")
        if copy and np.may_share_memory(array, pixels):
            array = array.copy()
        self._frames.append(array)
        self._times.append(time)
        self._job = None

    def picture(self, dtype: PictureType = np.uint8, out: Picture | None = None) -> Picture:
        """Display picture of what was added, shape (H, W, C).

        Parameters
        ----------
        dtype : type
            `numpy.uint8` or `numpy.uint16`; that of `out` counts if given.
        out : ndarray, shape (H, W, C), optional
            Written instead of a new picture; C-contiguous.

        Raises
        ------
        ValueError
            If nothing was added, or `dtype` or `out` do not fit.
        """
        if out is None:
            out = np.empty(self._shape, dtype=dtype)
        self._merge(self._display(out.dtype), out)
        return out

    def picture_rows(self, first: int, last: int, out: Picture) -> None:
        """Write rows first:last of the picture into `out`, shape (last − first, W, C).

        Several threads may do this at once, each for its own rows.

        Raises
        ------
        ValueError
            If nothing was added, or the rows or `out` do not fit.
        """
        wanted = (last - first, *self._shape[1:])
        if not 0 <= first < last <= self._shape[0] or out.shape != wanted:
            raise ValueError(f"rows {first}:{last} of {self._shape} do not fit into {out.shape}")
        _check_target(out)
        self._merge_rows(self._display(out.dtype), first, last, out)

    def radiance(self) -> Radiance:
        """Radiance map of what was added.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        job = self._prepare()
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
        """Radiance factor · E as planes of half floats.

        For files of half floats: one pass, without ln E, exp() and a conversion, and within half
        a unit of their last place of what those would give.

        Parameters
        ----------
        factor : float
            Positive; 1000 turns "per µs" into "per ms".

        Returns
        -------
        HalfRadiance or None
            None unless all that the exposures can tell apart lies in the normal range of half
            floats.

        Raises
        ------
        ValueError
            If nothing was added or the factor is not positive.
        """
        if not (np.isfinite(factor) and factor > 0):
            raise ValueError(f"the factor must be above 0; got {factor}")
        job = self._prepare()
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
        """Standard error of ln E from the noise model, shape (H, W, C); inf where invalid.

        √(Σ w² σ²) / Σ w, with σ²(z) of `weights.log_variance`: shot, read and quantisation
        noise of the exposures that were used. It says nothing of an error in g itself, nor of
        clouds that moved between the exposures.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        job = self._prepare()
        table, scale = variance_tables(self._mean, job.tables)
        out = np.empty(self._shape, dtype=np.float32)

        def band(first: int, last: int) -> None:
            rows = out[first:last]
            engine.merge_uncertainty(job, table, scale, first, last, _plane(rows))
            self._spans.clear(rows, first, np.inf)

        in_bands(band, self._shape[0], self._threads)
        return out

    def _prepare(self) -> engine.Job:
        job = self._job
        if job is None:
            if not self._times:
                raise ValueError("no exposure was added")
            tables = bracket_tables(self._mean, self._times)
            planes = [_plane(frame) for frame in self._frames]
            job = self._job = engine.Job(planes, tables, self._spans.spans)
        return job

    def _display(self, dtype: np.dtype[Any]) -> CodeTable:
        settings = self._settings
        tables = self._prepare().tables
        return picture_table(tables, settings.lnE_range, settings.display_gamma, dtype)

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
        engine.merge_codes(self._prepare(), codes, first, last, _plane(out))
        self._spans.clear_holes(out, first)


def in_bands(work: Callable[[int, int], None], rows: int, threads: int) -> None:
    """Run `work(first, last)` over bands of rows, on up to `threads` threads."""
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
