"""The weighted mean of ln E over a bracket."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr import engine
from asi_watch.hdr.disc import clear_outside
from asi_watch.hdr.frame_checks import Findings
from asi_watch.hdr.lookup_tables import WeightedMean, bracket_tables, variance_tables
from asi_watch.hdr.merge_settings import (
    OVER,
    UNDER,
    HalfRadiance,
    Merge,
    MergeSettings,
    Radiance,
    Shape,
    check_target,
)
from asi_watch.hdr.tone import CodeTable, half_code, half_codes, picture_table

# The bands of one call: a few per thread even out a core that is busy with something else.
_BANDS_PER_THREAD = 8


class WeightedMerge(Merge):
    """A bracket merged by the weighted mean.

    Parameters
    ----------
    settings, log_response, shape, threads
        As for `merging.open_merge`.
    spans : ndarray, shape (H, 2), int32, optional
        First and last column (half-open) of each row that are merged, in place of the sky disc.
    """

    works_by_rows = True

    def __init__(
        self,
        settings: MergeSettings,
        log_response: ArrayLike | None,
        shape: Shape,
        threads: int,
        spans: NDArray[np.int32] | None = None,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1; got {threads}")
        super().__init__(settings, log_response, shape)
        if self._log_response is None:
            raise ValueError(f"'{settings.algorithm}' needs a response curve")
        self._mean = WeightedMean.of(settings, self._log_response)
        self._threads = threads
        disc = settings.sky_disc
        self._spans = disc.spans(shape) if spans is None and disc is not None else spans
        self._prepared: tuple[Findings, WeightedMean, engine.Job] | None = None

    def use_findings(self, findings: Findings) -> None:
        """Take what is known of the whole frames, where the frames added are rows of them.

        Parameters
        ----------
        findings : Findings
        """
        self._findings = findings

    def picture_rows(self, first: int, last: int, out: NDArray[Any]) -> None:
        """Write rows of the picture; several threads may do this at once, each for its own rows.

        Parameters
        ----------
        first, last, out
            As for `Merge.picture_rows`.
        """
        if not 0 <= first < last <= self.shape[0]:
            raise ValueError(f"rows {first}:{last} of {self.shape} do not fit")
        check_target(out, (last - first, *self.shape[1:]))
        job = self._prepare()[1]
        engine.merge_codes(job, self._codes(out.dtype), first, last, _plane(out))

    def _write_picture(self, out: NDArray[Any]) -> None:
        job, codes = self._prepare()[1], self._codes(out.dtype)

        def band(first: int, last: int) -> None:
            engine.merge_codes(job, codes, first, last, _plane(out[first:last]))

        self._in_bands(band)

    def radiance(self) -> Radiance:
        """Radiance map; see `Merge.radiance`."""
        _, job = self._prepare()
        ln_radiance = np.empty(self.shape, dtype=np.float32)
        validity = np.empty(self.shape, dtype=np.uint8)
        channels = self.shape[2]
        lowest, highest = (
            bound[:channels].astype(np.float32)
            for bound in (job.tables.minimum, job.tables.maximum)
        )

        def band(first: int, last: int) -> None:
            ln_rows, flag_rows = ln_radiance[first:last], validity[first:last]
            engine.merge_radiance(job, first, last, _plane(ln_rows), _plane(flag_rows))
            places = self._saturated(first, last)
            ln_rows[places] = highest[places[2]]
            flag_rows[places] = OVER
            self._clear(ln_rows, first, lowest)
            self._clear(flag_rows, first, UNDER)

        self._in_bands(band)
        return Radiance(ln_radiance, validity)

    def _radiance_half(self, factor: float) -> HalfRadiance | None:
        # One pass, without ln E, exp() and a conversion, and within half a unit of the last place
        # of what those would give.
        _, job = self._prepare()
        codes = half_codes(job.tables, factor)
        if codes is None:
            return None
        height, width, channels = self.shape
        planes = np.empty((channels, height, width), np.uint16)
        validity = np.empty((channels, height, width), np.uint8)
        highest = half_code(job.tables.maximum, factor)

        def band(first: int, last: int) -> None:
            engine.merge_half(job, codes, first, last, planes, validity)
            rows, columns, channel = self._saturated(first, last)
            planes[channel, first + rows, columns] = highest[channel]
            validity[channel, first + rows, columns] = OVER

        self._in_bands(band)
        return HalfRadiance(planes.view(np.float16), validity)

    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E from the noise model, √(Σ w² σ²) / Σ w; inf where invalid.

        σ²(z) of `lookup_tables.log_variance`: shot, read and quantisation noise of the exposures
        used. Errors of g itself and clouds that moved between the exposures are not included.
        """
        mean, job = self._prepare()
        table, scale = variance_tables(mean, job.tables)
        out = np.empty(self.shape, dtype=np.float32)

        def band(first: int, last: int) -> None:
            engine.merge_uncertainty(job, table, scale, first, last, _plane(out[first:last]))
            out[first:last][self._saturated(first, last)] = np.inf
            self._clear(out[first:last], first, np.inf)

        self._in_bands(band)
        return out

    def _prepare(self) -> tuple[WeightedMean, engine.Job]:
        """Tables for the frames of now: further frames bring other findings."""
        findings, prepared = self.findings(), self._prepared
        if prepared is None or prepared[0] is not findings:
            frames, times = self._used()
            mean = self._mean.saturated_from(findings.saturated_from)
            spans = None if self._spans is None else self._spans * np.int32(self.shape[2])
            job = engine.Job([_plane(f) for f in frames], bracket_tables(mean, times), spans)
            prepared = self._prepared = findings, mean, job
        return prepared[1:]

    def _saturated(self, first: int, last: int) -> tuple[NDArray[np.intp], ...]:
        """Find rows, columns and channels where the shortest exposure is saturated.

        A longer one may show a code that is not, because JPEG blurs edges: that would make the
        sun's rim darker by the ratio of their times.
        """
        mean, _ = self._prepare()
        frames, times = self._used()
        codes = (np.arange(256) >= mean.brightest) & (mean.weights == 0).all(axis=1)
        lowest = int(np.argmax(codes)) if codes.any() else 256
        shortest = [f for f, time in zip(frames, times, strict=True) if time == min(times)]
        # The sun is in few rows: the others cost little.
        brightest = _plane(shortest[0][first:last]).max(axis=1)
        sunny = np.flatnonzero(brightest >= lowest)
        here = np.logical_and.reduce([frame[first + sunny] >= lowest for frame in shortest])
        rows, columns, channels = np.unravel_index(np.flatnonzero(here), here.shape)
        rows = sunny[rows]
        if self._spans is not None:
            start, stop = self._spans[first + rows].T
            inside = (columns >= start) & (columns < stop)
            rows, columns, channels = rows[inside], columns[inside], channels[inside]
        return rows, columns, channels

    def _codes(self, dtype: np.dtype[Any]) -> CodeTable:
        settings, (_, job) = self._settings, self._prepare()
        return picture_table(job.tables, settings.lnE_range, settings.display_gamma, dtype)

    def _clear(self, rows: NDArray[Any], first: int, value: ArrayLike) -> None:
        if self._spans is not None:
            clear_outside(rows, self._spans[first : first + len(rows)], value)

    def _in_bands(self, work: Callable[[int, int], None]) -> None:
        """Call `work(first, last)` for bands of rows, on the threads allowed."""
        rows, threads = self.shape[0], self._threads
        if threads <= 1 or rows < 2 * threads:
            work(0, rows)
            return
        count = min(rows, _BANDS_PER_THREAD * threads)
        edges = [rows * i // count for i in range(count + 1)]
        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(work, a, b) for a, b in itertools.pairwise(edges)]:
                future.result()


def _plane(array: NDArray[Any]) -> NDArray[Any]:
    """(rows, W, C) as (rows, W · C), without a copy."""
    return array.reshape(array.shape[0], -1)
