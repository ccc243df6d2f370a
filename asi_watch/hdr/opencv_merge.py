"""The two merges of OpenCV's kind: `debevec` (its own MergeDebevec) and `mertens` (fusion)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.bracket_frames import BracketFrames
from asi_watch.hdr.disc import RowSpans
from asi_watch.hdr.exposure_fusion import fuse_exposures
from asi_watch.hdr.merge_settings import (
    HalfRadiance,
    MergeSettings,
    Picture,
    PictureType,
    Pixels,
    Radiance,
)
from asi_watch.hdr.response import as_log_response
from asi_watch.hdr.tone import code_maximum
from asi_watch.hdr.weighted_merge import WeightedMerge
from asi_watch.hdr.weights import remap_codes

# The fixed display bounds of E suit times in µs around 320 (80 … 1280 µs, five exposures one
# stop apart twice over); every bracket's times are scaled to that geometric mean first, so that
# the picture is the same whatever the unit.
REFERENCE_TIME = 320.0
DEBEVEC_BOUNDS = (1e-5, 0.03)
MERTENS_WHITE = 1.5


class OpencvMerge(BracketFrames):
    """A bracket whose picture is made by OpenCV's functions, as a whole.

    Parameters
    ----------
    settings : MergeSettings
        With algorithm `debevec` or `mertens`.
    log_response : array_like, shape (256, C), or None
        g(z) for `debevec`; None calibrates from the bracket itself (OpenCV's CalibrateDebevec).
    shape : (int, int, int)
        (H, W, C).
    threads : int
        Of a radiance; pictures use OpenCV's own threads.
    mask : ndarray, shape (H, W), bool, or None
        False: black, and under-exposed.

    Raises
    ------
    ValueError
        If the response has another channel count, or the mask another shape.
    """

    def __init__(
        self,
        settings: MergeSettings,
        log_response: ArrayLike | None,
        shape: tuple[int, int, int],
        threads: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        self._response = None if log_response is None else as_log_response(log_response)
        if self._response is not None and self._response.shape[1] != shape[2]:
            raise ValueError(
                f"the response has {self._response.shape[1]} channels, the pictures {shape[2]}"
            )
        super().__init__(settings, self._response, shape)
        self._threads = threads
        self._spans = RowSpans.of(mask, shape)
        self._outside = None if mask is None else ~mask

    @property
    def works_by_rows(self) -> bool:
        """False: OpenCV merges whole pictures."""
        return False

    def picture(self, dtype: PictureType = np.uint8, out: Picture | None = None) -> Picture:
        """Display picture; see `Merge.picture`."""
        if out is not None:
            out[...] = self.picture(out.dtype.type)
            return out
        maximum = code_maximum(dtype)
        if self._settings.algorithm == "mertens":
            frames, _ = self._ordered()
            table = remap_codes(self._settings.low_clip, self._settings.high_clip)
            level = fuse_exposures(frames, table)
            level /= np.float32(MERTENS_WHITE)
            np.clip(level, 0.0, 1.0, out=level)
        else:
            level = self._debevec_level()
        level *= np.float32(maximum)
        codes = level.astype(dtype)
        self._spans.clear(codes, 0)
        return codes

    def picture_rows(self, first: int, last: int, out: Picture) -> None:
        """Write rows of the picture; computes the whole picture."""
        out[...] = self.picture(out.dtype.type)[first:last]

    def radiance(self) -> Radiance:
        """Radiance map of `debevec`: the weighted mean through the same curve.

        OpenCV's own mean gives weight to saturated codes, and a saturated sun less radiance than
        what is beside it.

        Raises
        ------
        ValueError
            For `mertens`, which makes a picture without radiance.
        """
        return self._weighted().radiance()

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance factor · E as half floats; see `Merge.radiance_half`."""
        return self._weighted().radiance_half(factor)

    def uncertainty(self) -> NDArray[np.float32]:
        """Refuse with a ValueError: the noise model is not that of OpenCV's merges."""
        name = self._settings.algorithm
        raise ValueError(f"'{name}' gives no uncertainty; use debevec_custom or debevec_exact")

    def _weighted(self) -> WeightedMerge:
        if self._settings.algorithm == "mertens":
            raise ValueError("exposure fusion ('mertens') makes no radiance; use a debevec merge")
        frames, times = self._ordered()
        response = self._response
        if response is None:
            with np.errstate(divide="ignore"):
                linear = np.maximum(self._calibrated(), np.finfo(np.float32).tiny)
            response = as_log_response(np.log(linear))
        settings = replace(self._settings, algorithm="debevec_custom", contradiction="warn")
        merge = WeightedMerge(settings, response, self._shape, self._threads, self._spans)
        for pixels, time in zip(frames, times, strict=True):
            merge.add(pixels, time, copy=False)
        return merge

    def _ordered(self) -> tuple[list[Pixels], list[float]]:
        """Frames by rising time, those of equal time in the order of their content.

        Floating-point sums depend on the order; arrival must not.
        """
        frames, times = self._used()
        order = sorted(range(len(times)), key=lambda i: (times[i], zlib.crc32(frames[i].data)))
        return [frames[i] for i in order], [times[i] for i in order]

    def _stretched(self) -> tuple[list[Pixels], list[float]]:
        frames, times = self._ordered()
        if len(frames) < 2:
            raise ValueError("'debevec' needs at least two exposures")
        table = remap_codes(self._settings.low_clip, self._settings.high_clip)
        stretched = []
        for pixels in frames:
            codes = np.asarray(cv2.LUT(pixels, table), dtype=np.uint8).reshape(self._shape)
            codes[self._white(pixels)] = 255
            stretched.append(codes)
        return stretched, times

    def _debevec_level(self) -> NDArray[np.float32]:
        irradiance, mean_time = self._irradiance()
        low, high = DEBEVEC_BOUNDS
        if self._settings.lnE_range is not None:
            to_reference = mean_time / REFERENCE_TIME
            low, high = (float(np.exp(end) * to_reference) for end in self._settings.lnE_range)
        frames, _ = self._ordered()
        saturated = np.logical_and.reduce([self._white(pixels) for pixels in frames])
        if saturated.any():
            irradiance[saturated] = irradiance.max()
        with np.errstate(over="ignore"):  # what overflows is white
            level = (irradiance - np.float32(low)) / np.float32(high - low)
        np.clip(level, 0.0, 1.0, out=level)
        return np.asarray(level ** np.float32(1.0 / self._settings.display_gamma), np.float32)

    def _irradiance(self) -> tuple[NDArray[np.float32], float]:
        """E by MergeDebevec, of times scaled to REFERENCE_TIME; and the mean time as given."""
        frames, given = self._stretched()
        times, mean_time = _scaled(given)
        if self._response is None:
            response: Any = _calibrate(frames, times)
        else:
            # MergeDebevec takes the logarithm of its response itself.
            linear = np.exp(self._response.astype(np.float64)).astype(np.float32)
            response = linear.reshape(256, 1, self._shape[2])
        merged = cv2.createMergeDebevec().process(frames, times, response)
        irradiance = np.nan_to_num(np.asarray(merged, dtype=np.float32)).reshape(self._shape)
        if self._outside is not None:
            # What is outside must not set the scale: it takes the darkest there is inside.
            inside = irradiance[~self._outside]
            irradiance[self._outside] = inside.min(axis=0) if len(inside) else 0.0
        return irradiance, mean_time

    def _calibrated(self) -> NDArray[np.float32]:
        """Response calibrated from the bracket itself, linear, shape (256, C)."""
        frames, given = self._stretched()
        found = np.asarray(_calibrate(frames, _scaled(given)[0]), dtype=np.float32)
        return found.reshape(256, self._shape[2])

    def _white(self, pixels: Pixels) -> NDArray[np.bool_]:
        """Pixels that the camera itself shows as white, in any channel."""
        scale = 255.0 / self._settings.saturation
        limit = int(np.ceil(254.0 / scale)) if scale > 1 else 254
        found = self.findings().saturated_from
        return np.asarray((pixels >= min(limit, found or 255)).any(axis=2))


def _scaled(times: Sequence[float]) -> tuple[NDArray[np.float32], float]:
    """Times scaled to a geometric mean of REFERENCE_TIME, and their mean as given."""
    given = np.array(times)
    mean = float(np.exp(np.log(given).mean()))
    return (given * (REFERENCE_TIME / mean)).astype(np.float32), mean


def _calibrate(frames: list[Pixels], times: NDArray[np.float32]) -> Any:
    """Response by OpenCV's CalibrateDebevec, linear, shape (256, 1, C)."""
    check_information(frames)
    return cv2.createCalibrateDebevec().process(frames, times)


def check_information(frames: Sequence[Pixels]) -> None:
    """Refuse frames from which no response can be calibrated.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        Codes stretched between the clips.

    Raises
    ------
    ValueError
        If no code is between black and white, or all frames are the same.
    """
    if all(((pixels == 0) | (pixels == 255)).all() for pixels in frames):
        raise ValueError(
            "no response can be calibrated from the bracket: all its pixels are black or"
            " saturated; give a response"
        )
    if all(np.array_equal(pixels, frames[0]) for pixels in frames[1:]):
        raise ValueError(
            "no response can be calibrated from the bracket: all exposures are the same picture,"
            " whatever their times; give a response"
        )
