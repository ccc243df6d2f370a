"""The weighted mean of ln E over a bracket, and what all merges have in common.

Frames are kept as they arrive and summed once, when a result is asked for. Keeping sums instead
was measured and found worse: a sum takes eight bytes per sample where a frame takes one, and
moving it through memory for every exposure costs more than the look-ups.
"""

import itertools
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr import engine
from asi_watch.hdr.deghost import Motion, aligned, cloud_motion, comparisons
from asi_watch.hdr.disc import clear_outside
from asi_watch.hdr.frame_checks import (
    Findings,
    Sample,
    check_frames,
    codec_error,
    fine_detail,
    sample_frame,
)
from asi_watch.hdr.lookup_tables import WeightedMean, bracket_tables, variance_tables, weighted_mean
from asi_watch.hdr.merge_settings import (
    MAX_EXPOSURES,
    OVER,
    UNDER,
    HalfRadiance,
    MergeSettings,
    Pixels,
    Radiance,
    Shape,
)
from asi_watch.hdr.response import as_log_response
from asi_watch.hdr.tone import (
    CodeTable,
    GammaCurve,
    PhotographicCurve,
    ToneCurve,
    ToneScale,
    code_maximum,
    half_code,
    half_codes,
    picture_table,
    scale_of,
    whole_levels,
)

# The bands of one call: a few per thread even out a core that is busy with something else.
_BANDS_PER_THREAD = 8
# So many codes below white channels count as saturated: beside a saturated one of the same pixel,
# and in pixels beside it. Measured on rendered suns of several colours, q75 to lossless.
_OTHER_CHANNELS, _BESIDE = 90, 35


def bracket_scale(
    samples: Sequence[Sample], exposure_times: Sequence[float], log_response: ArrayLike
) -> ToneScale | None:
    """Give the tone scale of one bracket; None where nearly all of it is too dark.

    Parameters
    ----------
    samples : sequence of ndarray, shape (n, C), uint8
        From `sample_frame`, one per exposure.
    exposure_times : sequence of float
    log_response : array_like, shape (256, C)
        g(z), in the channel order of the samples.
    """
    count, channels = samples[0].shape
    settings = MergeSettings("debevec_exact")
    merge = WeightedMerge(settings, log_response, (count, 1, channels), threads=1)
    for sample, time in zip(samples, exposure_times, strict=True):
        merge.add(sample[:, np.newaxis], time)
    merge.use_findings(Findings())
    radiance = merge.radiance()
    return scale_of(radiance.ln_radiance, radiance.validity)


def curve_scale(
    brackets: Iterable[tuple[Sequence[Sample], Sequence[float]]], log_response: ArrayLike
) -> ToneScale | None:
    """Give the tone scale to be stored with a curve: the median over brackets, None without any.

    Parameters
    ----------
    brackets : iterable of (samples, exposure_times)
        As for `bracket_scale`.
    log_response : array_like, shape (256, C)
    """
    scales = [bracket_scale(*bracket, log_response) for bracket in brackets]
    known = [scale for scale in scales if scale is not None]
    return ToneScale(*np.median(known, axis=0).tolist()) if known else None


class Merge(ABC):
    """A bracket being merged: exposures go in, in any order; a picture or radiance comes out.

    The result does not depend, to the byte, on the order of the `add` calls, and later exposures
    may be added after it was taken. Not safe for several threads at once, except `picture_rows`
    calls among themselves. Results raise ValueError if nothing was added, if an argument does not
    fit, or if the algorithm has no such result. Parameters as for `open_merge`.
    """

    _threads = 1
    _by_rows = False

    def __init__(
        self, settings: MergeSettings, log_response: ArrayLike | None, shape: Shape
    ) -> None:
        curve = None if log_response is None else as_log_response(log_response)
        if curve is not None and curve.shape[1] != shape[2]:
            raise ValueError(f"the response has {curve.shape[1]} channels, the pictures {shape[2]}")
        disc = settings.sky_disc
        self.shape = shape
        self._settings, self._log_response = settings, curve
        self._spans = None if disc is None else disc.spans(shape)
        self._frames: list[Pixels] = []
        self._times: list[float] = []
        self._samples: list[Sample] = []
        self._findings: Findings | None = None
        self._scale: tuple[float, float] | None = None
        self._own_scale: tuple[Findings, ToneScale] | None = None

    def use_scale(self, scale: tuple[float, float] | None) -> None:
        """Take the tone scale that is stored with the curve, if there is one.

        Parameters
        ----------
        scale : (float, float) or None
            As `ToneScale`.
        """
        self._scale = scale

    def add(self, pixels: Pixels, exposure_time: float) -> None:
        """Add one exposure; after an error (ValueError) the merge is as it was before.

        Parameters
        ----------
        pixels : ndarray, shape (H, W, C) or (H, W), uint8
            Not copied: the caller leaves it as it is while the merge lives.
        exposure_time : float
            Positive.
        """
        array, time = self._checked(pixels), float(exposure_time)
        if not (np.isfinite(time) and time > 0):
            raise ValueError(f"an exposure time is a positive number; got {exposure_time!r}")
        if len(self._times) == MAX_EXPOSURES:
            raise ValueError(f"a bracket has at most {MAX_EXPOSURES} exposures")
        self._frames.append(array)
        self._times.append(time)
        self._samples.append(self._sample(array))
        self._findings = None

    def findings(self) -> Findings:
        """Frames that contradict their times (and are left out), and the camera's white."""
        if self._findings is None:
            self._findings = check_frames(
                self._samples,
                self._times,
                self._log_response,
                high_clip=self._high_clip(),
                exclude=self._settings.contradiction == "exclude",
            )
        return self._findings

    def picture(self, dtype: type[Any] = np.uint8, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Display picture of what was added, shape (H, W, C), uint8 or uint16.

        Parameters
        ----------
        dtype : type
            `numpy.uint8` or `numpy.uint16`; that of `out` counts if given.
        out : ndarray, shape (H, W, C), optional
            Written instead of a new picture; C-contiguous.
        """
        whole = np.empty(self.shape, dtype) if out is None else out
        if self._settings.maps_whole:
            levels = whole_levels(self.radiance(), self._settings, self.scale())
            levels *= np.float32(code_maximum(whole.dtype))
            np.copyto(whole, levels, casting="unsafe")
            self._clear(whole, 0, 0)
        else:
            self._write_picture(whole)
        return whole

    def scale(self) -> ToneScale:
        """Middle and white of the picture, as the settings, the curve or the bracket has them."""
        settings = self._settings
        if settings.lnE_range is not None:
            return ToneScale(*settings.lnE_range)
        if settings.tone.scale == "curve" and self._scale is not None:
            return ToneScale(*self._scale)
        if self._log_response is None:
            raise ValueError("a tone scale needs a response curve")
        findings = self.findings()
        if self._own_scale is None or self._own_scale[0] is not findings:
            self._own_scale = findings, self._bracket_scale(self._log_response)
        return self._own_scale[1]

    def _bracket_scale(self, log_response: NDArray[np.float32]) -> ToneScale:
        used = self._used_indexes()
        samples, times = [self._samples[i] for i in used], [self._times[i] for i in used]
        found = bracket_scale(samples, times, log_response)
        if found is None:  # all is dark, and stays so: code 128 of the longest exposure is middle
            middle = float(log_response[128].mean()) - math.log(max(times))
            found = ToneScale(middle, middle + 3.0)
        return found

    @property
    def works_by_rows(self) -> bool:
        """Whether `picture_rows` costs only its rows; if not, it makes the whole picture."""
        return self._by_rows and not self._settings.maps_whole

    @abstractmethod
    def _write_picture(self, out: NDArray[Any]) -> None:
        """Write the display picture."""

    def picture_rows(self, first: int, last: int, out: NDArray[Any]) -> None:
        """Write rows first:last of the picture.

        Parameters
        ----------
        first, last : int
        out : ndarray, shape (last − first, W, C), uint8 or uint16
            C-contiguous.
        """
        out[...] = self.picture(out.dtype.type)[first:last]

    @abstractmethod
    def radiance(self) -> Radiance:
        """Radiance map of what was added."""

    @abstractmethod
    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance factor · E as half floats; None where they cannot hold its whole range.

        Parameters
        ----------
        factor : float
            Positive.
        """

    @abstractmethod
    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E (= relative error of E), shape (H, W, C); inf where invalid."""

    def _tone_curve(
        self, lowest: float | tuple[float, ...], highest: float | tuple[float, ...]
    ) -> ToneCurve:
        """Make the curve of an operator that maps pixel by pixel, from what exposures can tell."""
        settings = self._settings
        if settings.tone.operator == "gamma" or not settings.apply_tonemapping:
            black, white = settings.lnE_range or (lowest, highest)
            return GammaCurve(black, white, settings.display_gamma)
        return PhotographicCurve(*self.scale(), settings.tone.key)

    def _used_indexes(self) -> list[int]:
        excluded = {found.index for found in self.findings().excluded}
        return [i for i in range(len(self._times)) if i not in excluded]

    def _used(self) -> tuple[list[Pixels], list[float]]:
        """Frames to be merged, without the excluded ones, and their times."""
        if not self._times:
            raise ValueError("no exposure was added")
        used = self._used_indexes()
        return [self._frames[i] for i in used], [self._times[i] for i in used]

    def cloud_motion(self, seconds: Sequence[float]) -> tuple[float, float, float] | None:
        """Velocity of the clouds, where exposures are aligned; see `deghost.cloud_motion`.

        Parameters
        ----------
        seconds : sequence of float
            When each exposure was taken, in the order of rising exposure times.
        """
        return None

    def _ordered(self) -> tuple[list[Pixels], list[float]]:
        """Frames by rising time, those of equal time in the order of their content.

        Some results depend on the order; arrival must not.
        """
        frames, times = self._used()
        tied = [times.count(time) > 1 for time in times]
        keys = [
            (t, zlib.crc32(f.data) if tie else 0)
            for f, t, tie in zip(frames, times, tied, strict=True)
        ]
        order = sorted(range(len(times)), key=keys.__getitem__)
        return [frames[i] for i in order], [times[i] for i in order]

    def _sample(self, array: Pixels) -> Sample:
        """What frames are compared by."""
        return sample_frame(array, self._settings.sky_disc)

    def _high_clip(self) -> int:
        """Codes above are known to be saturated."""
        return self._settings.high_clip

    def _checked(self, pixels: Pixels) -> Pixels:
        """Bring an exposure into its plain form: (H, W, C), uint8, C-contiguous."""
        array = np.asarray(pixels)
        if array.dtype != np.uint8:
            raise ValueError(
                "an exposure has 8-bit pixels (uint8, 0 … 255);"
                f" got {array.dtype}: convert it first"
            )
        if array.ndim == 2:
            array = array[:, :, np.newaxis]
        if array.shape != self.shape:
            raise ValueError(
                f"the exposures of a bracket have one size: {self.shape}, got {array.shape}"
            )
        return np.ascontiguousarray(array)

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

    def _clear(self, rows: NDArray[Any], first: int, value: ArrayLike) -> None:
        """Set what lies outside the disc in rows that begin at `first`."""
        if self._spans is not None:
            clear_outside(rows, self._spans[first : first + len(rows)], value)


class WeightedMerge(Merge):
    """A bracket merged by the weighted mean of ln E.

    Parameters
    ----------
    settings, log_response, shape, threads
        As for `open_merge`.
    spans : ndarray, shape (H, 2), int32, optional
        First and last column (half-open) of each row that are merged, in place of the sky disc.
    """

    _by_rows = True

    def __init__(
        self,
        settings: MergeSettings,
        log_response: ArrayLike | None,
        shape: Shape,
        threads: int,
        spans: NDArray[np.int32] | None = None,
    ) -> None:
        if spans is not None:
            settings = replace(settings, sky_disc=None)
        super().__init__(settings, log_response, shape)
        if threads < 1:
            raise ValueError(f"threads must be at least 1; got {threads}")
        if self._log_response is None:
            raise ValueError(f"'{settings.algorithm}' needs a response curve")
        self._threads = threads
        if spans is not None:
            self._spans = spans
        self._prepared: tuple[Findings, WeightedMean, engine.Job] | None = None
        self._motions: list[Motion | None] = []
        self._codec_error: float | None = None

    def use_findings(self, findings: Findings, codec_error: float | None = None) -> None:
        """Take what is known of the whole frames, where the frames added are rows of them.

        Parameters
        ----------
        findings : Findings
        codec_error : float, optional
            See `frame_checks.codec_error`.
        """
        self._findings, self._codec_error = findings, codec_error

    def picture_rows(self, first: int, last: int, out: NDArray[Any]) -> None:
        """Write rows of the picture; several threads may do this at once, each for its own rows.

        Parameters
        ----------
        first, last, out
            As for `Merge.picture_rows`.
        """
        if not 0 <= first < last <= self.shape[0] or out.shape != (last - first, *self.shape[1:]):
            raise ValueError(f"rows {first}:{last} of {self.shape} do not fit into {out.shape}")
        if not out.flags.c_contiguous:
            raise ValueError("a picture is written to contiguous memory")
        job = self._prepare()[1]
        engine.merge_codes(job, self._codes(out.dtype), first, last, _plane(out))

    def _write_picture(self, out: NDArray[Any]) -> None:
        self._codes(out.dtype)  # before the threads: made once, or refused
        self._in_bands(lambda first, last: self.picture_rows(first, last, out[first:last]))

    def radiance(self) -> Radiance:
        """Radiance map; see `Merge.radiance`."""
        _, job = self._prepare()
        ln_radiance = np.empty(self.shape, dtype=np.float32)
        validity = np.empty(self.shape, dtype=np.uint8)
        ends = (job.tables.minimum, job.tables.maximum)
        lowest, highest = (bound[: self.shape[2]].astype(np.float32) for bound in ends)

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

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance as half floats, in one pass; see `Merge.radiance_half`.

        Parameters
        ----------
        factor : float
            Positive.
        """
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
        """Standard error of ln E from noise and lossy compression; inf where invalid.

        Errors of g itself and clouds that moved between the exposures are not included.
        """
        mean, job = self._prepare()
        tables = variance_tables(mean, job.tables)
        shared = self._codec_error
        if shared is None:
            shared = codec_error([fine_detail(frame) for frame in self._used()[0]])
        out = np.empty(self.shape, dtype=np.float32)

        def band(first: int, last: int) -> None:
            engine.merge_uncertainty(job, tables, shared, first, last, _plane(out[first:last]))
            out[first:last][self._saturated(first, last)] = np.inf
            self._clear(out[first:last], first, np.inf)

        self._in_bands(band)
        return out

    def cloud_motion(self, seconds: Sequence[float]) -> tuple[float, float, float] | None:
        """Velocity of the clouds; see `Merge.cloud_motion`.

        Parameters
        ----------
        seconds : sequence of float
        """
        self._prepare()
        if len(seconds) != len(self._motions):
            return None
        return cloud_motion(self._motions, seconds)

    def _prepare(self) -> tuple[WeightedMean, engine.Job]:
        """Tables for the frames of now: further frames bring other findings."""
        findings, prepared = self.findings(), self._prepared
        if prepared is None or prepared[0] is not findings:
            frames, times = self._ordered()
            assert self._log_response is not None
            mean = weighted_mean(self._settings, self._log_response, findings.saturated_from)
            spans = None if self._spans is None else self._spans * np.int32(self.shape[2])
            tables = bracket_tables(mean, tuple(times))
            deghost = self._settings.deghost
            if deghost == "align":
                frames, self._motions = aligned(frames, times, mean)
            compared = None if deghost == "off" else comparisons(mean, tuple(times))
            planes, channels = [_plane(f) for f in frames], self.shape[2]
            shortest = times.count(times[0])
            job = engine.Job(planes, shortest, channels, tables, spans, compared)
            prepared = self._prepared = findings, mean, job
        return prepared[1:]

    def _saturated(self, first: int, last: int) -> tuple[NDArray[np.intp], ...]:
        """Find rows, columns and channels where the shortest exposure is saturated.

        A longer one may show a code that is not, because JPEG blurs edges.
        """
        mean, job = self._prepare()
        codes = (np.arange(256) >= mean.brightest) & (mean.weights == 0).all(axis=1)
        lowest = int(np.argmax(codes)) if codes.any() else 256
        shortest = [frame.reshape(self.shape) for frame in job.frames[: job.shortest]]
        # The sun is in few rows: the others cost little.
        top = max(first - 1, 0)
        lit = np.flatnonzero(_plane(shortest[0][top : last + 1]).max(axis=1) >= lowest)
        if not len(lit):
            return (np.empty(0, np.intp),) * 3
        top, bottom = max(top + int(lit[0]) - 1, 0), top + int(lit[-1]) + 2
        here = saturated_region(reduce(np.minimum, [f[top:bottom] for f in shortest]), lowest)
        rows, columns, channels = np.nonzero(here)
        inside = (rows + top >= first) & (rows + top < last)
        if self._spans is not None:
            start, stop = self._spans[np.minimum(rows + top, self.shape[0] - 1)].T
            inside &= (columns >= start) & (columns < stop)
        return rows[inside] + (top - first), columns[inside], channels[inside]

    def _codes(self, dtype: np.dtype[Any]) -> CodeTable:
        _, job = self._prepare()
        tables = job.tables
        ends = (tuple(tables.minimum.tolist()), tuple(tables.maximum.tolist()))
        return picture_table(tables, self._tone_curve(*ends), np.dtype(dtype))


def saturated_region(codes: Pixels, lowest: int) -> NDArray[np.bool_]:
    """Tell which samples are saturated, or cannot be told from it: shape (H, W, C).

    JPEG lowers codes at the edge of the sun, and single channels by the mean of the colours around:
    what is called valid there is up to ten stops too dark.

    Parameters
    ----------
    codes : ndarray, shape (H, W, C), uint8
        Of the shortest exposure.
    lowest : int
        Lowest saturated code.
    """
    core: NDArray[np.bool_] = np.asarray(codes >= lowest)
    some: NDArray[np.bool_] = np.asarray(core.any(axis=2))
    near = np.asarray(cv2.dilate(some.astype(np.uint8), np.ones((3, 3), np.uint8)), dtype=bool)
    core |= some[..., np.newaxis] & (codes >= max(lowest - _OTHER_CHANNELS, 1))
    core |= near[..., np.newaxis] & (codes >= max(lowest - _BESIDE, 1))
    return core


def _plane(array: NDArray[Any]) -> NDArray[Any]:
    """(rows, W, C) as (rows, W · C), without a copy."""
    return array.reshape(array.shape[0], -1)
