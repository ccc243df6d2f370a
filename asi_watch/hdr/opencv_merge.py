"""The two merges of OpenCV's kind: `debevec` (its own MergeDebevec) and `mertens` (fusion).

`mertens` is exposure fusion (Mertens, Kautz, Van Reeth 2007) with the same bits in every run: the
formula of OpenCV's MergeMertens with its default weights, contrast times saturation. OpenCV's adds
the exposures in whatever order its threads finish, so that floats round differently from run to
run, by up to one code of 16 bit. Here they are added in the order given, each step by OpenCV
functions for one picture, which give the same bits with any number of threads.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.disc import clear_outside
from asi_watch.hdr.lookup_tables import remap_codes
from asi_watch.hdr.merge_settings import HalfRadiance, Merge, MergeSettings, Pixels, Radiance, Shape
from asi_watch.hdr.response import as_log_response
from asi_watch.hdr.tone import code_maximum
from asi_watch.hdr.weighted_merge import WeightedMerge

# The fixed display bounds of E suit times in µs around 320 (80 … 1280 µs, five exposures one
# stop apart twice over); every bracket's times are scaled to that geometric mean first, so that
# the picture is the same whatever the unit.
_REFERENCE_TIME = 320.0
_DEBEVEC_BOUNDS = (1e-5, 0.03)
_MERTENS_WHITE = 1.5
# Keeps the sum of the fusion's weights above zero where no exposure has contrast or colour.
_TINY_WEIGHT = np.float32(1e-12)
# Weights of more exposures are computed twice rather than kept.
_KEPT_WEIGHTS = 5

Plane = NDArray[np.float32]


class OpencvMerge(Merge):
    """A bracket whose picture is made by OpenCV's functions, as a whole.

    Parameters
    ----------
    settings, log_response, shape, threads
        As for `merging.open_merge`; threads are those of a radiance.
    """

    def __init__(
        self, settings: MergeSettings, log_response: ArrayLike | None, shape: Shape, threads: int
    ) -> None:
        super().__init__(settings, log_response, shape)
        self._threads = threads
        disc = settings.sky_disc
        self._inside = None if disc is None else disc.mask(shape)

    def _write_picture(self, out: NDArray[Any]) -> None:
        if self._settings.algorithm == "mertens":
            table = remap_codes(self._settings.low_clip, self._settings.high_clip)
            level = fuse_exposures(self._ordered()[0], table)
            level /= np.float32(_MERTENS_WHITE)
            np.clip(level, 0.0, 1.0, out=level)
        else:
            level = self._debevec_level()
        level *= np.float32(code_maximum(out.dtype))
        np.copyto(out, level, casting="unsafe")
        if self._settings.sky_disc is not None:
            clear_outside(out, self._settings.sky_disc.spans(self.shape))

    def radiance(self) -> Radiance:
        """Radiance map of `debevec`: the weighted mean through the same curve.

        OpenCV's own mean gives weight to saturated codes, and a saturated sun less radiance than
        what is beside it. `mertens` makes a picture without radiance: ValueError.
        """
        return self._weighted().radiance()

    def _radiance_half(self, factor: float) -> HalfRadiance | None:
        return self._weighted().radiance_half(factor)

    def uncertainty(self) -> NDArray[np.float32]:
        """Refuse with a ValueError: the noise model is not that of OpenCV's merges."""
        name = self._settings.algorithm
        raise ValueError(f"'{name}' gives no uncertainty; use debevec_custom or debevec_exact")

    def _weighted(self) -> WeightedMerge:
        if self._settings.algorithm == "mertens":
            raise ValueError("exposure fusion ('mertens') makes no radiance; use a debevec merge")
        response = self._log_response
        if response is None:
            stretched, given = self._stretched()
            linear = self._linear_response(stretched, _scaled(given)[0])
            response = as_log_response(np.log(np.maximum(linear, np.finfo(np.float32).tiny)))
        settings = replace(self._settings, algorithm="debevec_custom", contradiction="warn")
        merge = WeightedMerge(settings, response, self.shape, self._threads)
        for pixels, time in zip(*self._ordered(), strict=True):
            merge.add(pixels, time)
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
            codes = np.asarray(cv2.LUT(pixels, table), dtype=np.uint8).reshape(self.shape)
            codes[self._white(pixels)] = 255
            stretched.append(codes)
        return stretched, times

    def _debevec_level(self) -> Plane:
        irradiance, mean_time = self._irradiance()
        low, high = _DEBEVEC_BOUNDS
        if self._settings.lnE_range is not None:
            to_reference = mean_time / _REFERENCE_TIME
            low, high = (float(np.exp(end) * to_reference) for end in self._settings.lnE_range)
        frames, _ = self._ordered()
        saturated = np.logical_and.reduce([self._white(pixels) for pixels in frames])
        if saturated.any():
            irradiance[saturated] = irradiance.max()
        with np.errstate(over="ignore"):  # what overflows is white
            level = (irradiance - np.float32(low)) / np.float32(high - low)
        np.clip(level, 0.0, 1.0, out=level)
        return np.asarray(level ** np.float32(1.0 / self._settings.display_gamma), np.float32)

    def _irradiance(self) -> tuple[Plane, float]:
        """E by MergeDebevec, of times scaled to _REFERENCE_TIME; and the mean time as given."""
        frames, given = self._stretched()
        times, mean_time = _scaled(given)
        response = self._linear_response(frames, times).reshape(256, 1, self.shape[2])
        merged = cv2.createMergeDebevec().process(frames, times, response)
        irradiance = np.nan_to_num(np.asarray(merged, dtype=np.float32)).reshape(self.shape)
        if self._inside is not None:
            # What is outside must not set the scale: it takes the darkest there is inside.
            irradiance[~self._inside] = irradiance[self._inside].min(axis=0)
        return irradiance, mean_time

    def _linear_response(self, frames: list[Pixels], times: Plane) -> Plane:
        """exp(g), shape (256, C): of the curve given, or of OpenCV's CalibrateDebevec."""
        if self._log_response is not None:
            # MergeDebevec takes the logarithm of its response itself.
            return np.exp(self._log_response.astype(np.float64)).astype(np.float32)
        _check_information(frames)
        found = cv2.createCalibrateDebevec().process(frames, times)
        return np.asarray(found, dtype=np.float32).reshape(256, self.shape[2])

    def _white(self, pixels: Pixels) -> NDArray[np.bool_]:
        """Pixels that the camera itself shows as white, in any channel."""
        scale = 255.0 / self._settings.saturation
        limit = int(np.ceil(254.0 / scale)) if scale > 1 else 254
        found = self.findings().saturated_from
        return np.asarray((pixels >= min(limit, found or 255)).any(axis=2))


def _scaled(times: Sequence[float]) -> tuple[Plane, float]:
    """Times scaled to a geometric mean of _REFERENCE_TIME, and their mean as given."""
    given = np.array(times)
    mean = float(np.exp(np.log(given).mean()))
    return (given * (_REFERENCE_TIME / mean)).astype(np.float32), mean


def _check_information(frames: Sequence[Pixels]) -> None:
    """Refuse, by ValueError, frames from which no response can be calibrated."""
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


def fuse_exposures(
    frames: Sequence[NDArray[np.uint8]], table: NDArray[np.uint8] | None = None
) -> Plane:
    """Fuse exposures by contrast and saturation, in Laplacian pyramids.

    Channels are fused one after the other, and weights of many exposures are computed twice
    rather than kept: besides the frames it needs the memory of about 20 frames, for any number.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        C 1 or 3; BGR. The order counts in the last bit.
    table : ndarray, shape (256,), uint8, optional
        What each code becomes first.

    Returns
    -------
    ndarray, shape (H, W, C), float32
        About 0 … 1, and somewhat beyond.
    """
    height, width, channels = frames[0].shape
    levels = int(np.log2(min(height, width)))
    # Codes as 0 … 1.
    unit = (np.arange(256) if table is None else table) * np.float32(1 / 255)
    unit = np.asarray(unit, dtype=np.float32)
    total = np.zeros((height, width), np.float32)
    kept: list[Plane] = []
    for frame in frames:
        weight = _weight(frame, unit)
        total += weight
        if len(frames) <= _KEPT_WEIGHTS:
            kept.append(weight)
    fused: list[list[Plane]] = [[] for _ in range(channels)]
    for number, frame in enumerate(frames):
        weight = kept[number] if kept else _weight(frame, unit)
        weight /= total
        shares = _pyramid(weight, levels)
        if kept:
            kept[number] = total  # the weight itself is no longer needed
        for channel, sums in enumerate(fused):
            bands = _laplacian_pyramid(_levels(frame[..., channel], unit), levels)
            for level, (band, share) in enumerate(zip(bands, shares, strict=True)):
                band *= share
                if len(sums) == level:
                    sums.append(band)
                else:
                    sums[level] += band
    del kept, total, shares, bands
    result = np.empty((height, width, channels), np.float32)
    for channel, sums in enumerate(fused):
        result[..., channel] = _collapsed(sums)
    return result


def _weight(frame: NDArray[np.uint8], unit: Plane) -> Plane:
    """Contrast (absolute Laplacian of the grey picture) times saturation (spread of colours)."""
    if frame.shape[2] == 1:
        weight = np.abs(_laplacian(_levels(frame[..., 0], unit)))
    else:
        # OpenCV's fusion takes its first channel for red; so do we, to give its pictures.
        grey = np.asarray(cv2.cvtColor(_levels(frame, unit), cv2.COLOR_RGB2GRAY), dtype=np.float32)
        weight = np.abs(_laplacian(grey))
        planes = [_levels(frame[..., c], unit) for c in range(3)]
        mean = np.add(planes[0], planes[1], out=grey)
        mean += planes[2]
        mean *= np.float32(1 / 3)
        spread = np.zeros_like(mean)
        for plane in planes:
            plane -= mean
            plane *= plane
            spread += plane
        weight *= np.sqrt(spread, out=spread)
    weight += _TINY_WEIGHT
    return weight


def _levels(codes: NDArray[np.uint8], unit: Plane) -> Plane:
    """Look codes up; OpenCV's function needs no copy of them as wide indices."""
    return np.asarray(cv2.LUT(np.ascontiguousarray(codes), unit), dtype=np.float32)


def _laplacian(plane: Plane) -> Plane:
    return np.asarray(cv2.Laplacian(plane, cv2.CV_32F), dtype=np.float32)


def _pyramid(plane: Plane, levels: int) -> list[Plane]:
    pyramid = [plane]
    for _ in range(levels):
        pyramid.append(np.asarray(cv2.pyrDown(pyramid[-1]), dtype=np.float32))
    return pyramid


def _laplacian_pyramid(plane: Plane, levels: int) -> list[Plane]:
    """What each level of the pyramid adds to the next coarser one; the coarsest as it is."""
    pyramid = _pyramid(plane, levels)
    for finer, coarser in pairwise(pyramid):
        finer -= _up(coarser, finer)
    return pyramid


def _collapsed(pyramid: list[Plane]) -> Plane:
    """Add up the levels of a Laplacian pyramid, which is emptied."""
    result = pyramid.pop()
    while pyramid:
        finer = pyramid.pop()
        finer += _up(result, finer)
        result = finer
    return result


def _up(coarse: Plane, like: Plane) -> Plane:
    """Enlarge a level to the size of another."""
    size = (like.shape[1], like.shape[0])
    return np.asarray(cv2.pyrUp(coarse, dstsize=size), dtype=np.float32)
