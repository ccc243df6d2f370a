"""Merges with OpenCV's parts: exposure fusion (Mertens et al. 2007) and its own MergeDebevec."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.disc import RowSpans
from asi_watch.hdr.exposure_fusion import fuse_exposures
from asi_watch.hdr.merge_settings import (
    OVER,
    UNDER,
    VALID,
    MergeSettings,
    Picture,
    PictureType,
    Pixels,
    Radiance,
    check_exposure,
)
from asi_watch.hdr.response import as_log_response
from asi_watch.hdr.tone import code_maximum
from asi_watch.hdr.weights import remap_codes

# The fixed display bounds of E suit times in µs around 320 (80 … 1280 µs, five exposures one
# stop apart twice over); every bracket's times are scaled to that geometric mean first, so that
# the picture is the same whatever the unit.
REFERENCE_TIME = 320.0
DEBEVEC_BOUNDS = (1e-5, 0.03)
MERTENS_WHITE = 1.5


class OpencvMerge:
    """A bracket merged by OpenCV once a result is asked for; it keeps the frames until then.

    Parameters
    ----------
    settings : MergeSettings
        With algorithm `debevec` or `mertens`.
    log_response : array_like, shape (256, C), or None
        g(z) for `debevec`; None calibrates from the bracket itself (OpenCV's CalibrateDebevec).
    shape : (int, int, int)
        (H, W, C).
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
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        self._settings = settings
        self._shape = shape
        self._spans = RowSpans.of(mask, shape)
        self._outside = None if mask is None else ~mask
        self._response = None if log_response is None else as_log_response(log_response)
        if self._response is not None and self._response.shape[1] != shape[2]:
            raise ValueError(
                f"the response has {self._response.shape[1]} channels, the pictures {shape[2]}"
            )
        self._frames: list[tuple[float, Pixels]] = []

    @property
    def exposure_times(self) -> tuple[float, ...]:
        """Exposure times added so far, rising."""
        return tuple(sorted(time for time, _ in self._frames))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the exposures and of the picture."""
        return self._shape

    @property
    def works_by_rows(self) -> bool:
        """False: OpenCV merges whole pictures."""
        return False

    @property
    def nbytes(self) -> int:
        """Bytes of the kept frames."""
        return sum(pixels.nbytes for _, pixels in self._frames)

    def add(self, pixels: Pixels, exposure_time: float, *, copy: bool = True) -> None:
        """Keep one exposure; `copy=False` hands the array over instead of copying it."""
        array, time = check_exposure(pixels, exposure_time, self._shape)
        if copy and np.may_share_memory(array, pixels):
            array = array.copy()
        self._frames.append((time, array))
        # Equal times are put in the order of their content, so that arrival cannot matter.
        self._frames.sort(key=lambda frame: (frame[0], zlib.crc32(frame[1].data)))

    def picture(self, dtype: PictureType = np.uint8, out: Picture | None = None) -> Picture:
        """Display picture, shape (H, W, C), uint8 or uint16; into `out` if given."""
        if out is not None:
            out[...] = self.picture(out.dtype.type)
            return out
        maximum = code_maximum(dtype)
        if self._settings.algorithm == "mertens":
            level = self._fused() / np.float32(MERTENS_WHITE)
            np.clip(level, 0.0, 1.0, out=level)
        else:
            level = self._debevec_level()
        level *= np.float32(maximum)
        codes = level.astype(dtype)
        self._spans.clear(codes, 0)
        return codes

    def picture_rows(self, first: int, last: int, out: Picture) -> None:
        """Write rows first:last of the picture into `out`; computes the whole picture."""
        out[...] = self.picture(out.dtype.type)[first:last]

    def radiance(self) -> Radiance:
        """Radiance map of `debevec`, scaled by the times as they were given.

        Raises
        ------
        ValueError
            For `mertens`, which makes a picture without radiance.
        """
        if self._settings.algorithm == "mertens":
            raise ValueError("exposure fusion ('mertens') makes no radiance; use a debevec merge")
        irradiance, mean_time = self._irradiance()
        frames = [pixels for _, pixels in self._frames]
        remap = remap_codes(self._settings.low_clip, self._settings.high_clip)
        under = remap[np.maximum.reduce(frames)] == 0
        over = remap[np.minimum.reduce(frames)] == 255
        validity = np.where(over, OVER, np.where(under, UNDER, VALID)).astype(np.uint8)
        self._spans.clear(validity, 0, UNDER)
        tiny = np.finfo(np.float32).tiny
        ln = np.log(np.maximum(irradiance, tiny)) + np.float32(np.log(REFERENCE_TIME / mean_time))
        return Radiance(ln.astype(np.float32), validity)

    def radiance_half(self, factor: float) -> None:
        """Give nothing: what the radiance spans is known only after it was made."""
        del factor

    def uncertainty(self) -> NDArray[np.float32]:
        """Refuse: OpenCV's merges tell no uncertainty.

        Raises
        ------
        ValueError
            Always.
        """
        name = self._settings.algorithm
        raise ValueError(f"'{name}' gives no uncertainty; use debevec_custom or debevec_exact")

    def _stretched(self) -> list[Pixels]:
        if not self._frames:
            raise ValueError("no exposure was added")
        table = remap_codes(self._settings.low_clip, self._settings.high_clip)
        return [
            np.asarray(cv2.LUT(pixels, table), dtype=np.uint8).reshape(self._shape)
            for _, pixels in self._frames
        ]

    def _fused(self) -> NDArray[np.float32]:
        return fuse_exposures(self._stretched())

    def _debevec_level(self) -> NDArray[np.float32]:
        irradiance, mean_time = self._irradiance()
        low, high = DEBEVEC_BOUNDS
        if self._settings.lnE_range is not None:
            to_reference = mean_time / REFERENCE_TIME
            low, high = (float(np.exp(end) * to_reference) for end in self._settings.lnE_range)
        saturated = self._saturated_in_all()
        if saturated.any():
            irradiance[saturated] = irradiance.max()
        with np.errstate(over="ignore"):  # what overflows is white
            level = (irradiance - np.float32(low)) / np.float32(high - low)
        np.clip(level, 0.0, 1.0, out=level)
        return np.asarray(level ** np.float32(1.0 / self._settings.display_gamma), np.float32)

    def _irradiance(self) -> tuple[NDArray[np.float32], float]:
        """E by MergeDebevec, of times scaled to REFERENCE_TIME; and the mean time as given."""
        frames = self._stretched()
        if len(frames) < 2:
            raise ValueError("'debevec' needs at least two exposures")
        for pixels, white in zip(frames, self._whites(), strict=True):
            pixels[white] = 255
        given = np.array(self.exposure_times)
        mean_time = float(np.exp(np.log(given).mean()))
        times = (given * (REFERENCE_TIME / mean_time)).astype(np.float32)
        merged = cv2.createMergeDebevec().process(
            frames, times, self._linear_response(frames, times)
        )
        irradiance = np.nan_to_num(np.asarray(merged, dtype=np.float32)).reshape(self._shape)
        if self._outside is not None:
            # What is outside must not set the scale: it takes the darkest there is inside.
            inside = irradiance[~self._outside]
            irradiance[self._outside] = inside.min(axis=0) if len(inside) else 0.0
        return irradiance, mean_time

    def _linear_response(self, frames: list[Pixels], times: NDArray[np.float32]) -> Any:
        """MergeDebevec takes the logarithm of its response itself, so it is handed exp(g)."""
        if self._response is None:
            check_information(frames)
            return cv2.createCalibrateDebevec().process(frames, times)
        linear = np.exp(self._response.astype(np.float64)).astype(np.float32)
        return linear.reshape(256, 1, self._shape[2])

    def _whites(self) -> list[NDArray[np.bool_]]:
        """Pixels of each frame that the camera itself calls white in any channel."""
        scale = 255.0 / self._settings.saturation
        limit = int(np.ceil(254.0 / scale)) if scale > 1 else 254
        return [np.asarray((pixels >= limit).any(axis=2)) for _, pixels in self._frames]

    def _saturated_in_all(self) -> NDArray[np.bool_]:
        return np.asarray(np.logical_and.reduce(self._whites()), dtype=np.bool_)


def check_information(frames: Sequence[Pixels]) -> None:
    """Refuse frames from which no response can be calibrated: one would be invented.

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
            "no response can be calibrated from it: all that it shows is black or saturated; give"
            " a response"
        )
    if all(np.array_equal(pixels, frames[0]) for pixels in frames[1:]):
        raise ValueError(
            "no response can be calibrated from it: all exposures are the same picture, whatever"
            " their times; give a response"
        )
