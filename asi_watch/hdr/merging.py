"""A merge is opened: the weighted mean, or OpenCV's `debevec` (its MergeDebevec) and `mertens`.

`mertens` is exposure fusion (Mertens, Kautz, Van Reeth 2007) with the same bits in every run: the
formula of OpenCV's MergeMertens with its default weights, contrast times saturation. OpenCV's adds
the exposures in whatever order its threads finish, so that floats round differently from run to
run, by up to one code of 16 bit. Here they are added in the order given, each step by OpenCV
functions for one picture, which give the same bits with any number of threads.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.lookup_tables import remap_codes
from asi_watch.hdr.merge_settings import HalfRadiance, MergeSettings, Pixels, Radiance, Shape
from asi_watch.hdr.response import as_log_response
from asi_watch.hdr.tone import code_maximum
from asi_watch.hdr.weighted_merge import Merge, WeightedMerge

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


def open_merge(
    settings: MergeSettings,
    log_response: ArrayLike | None,
    shape: tuple[int, ...],
    *,
    threads: int = 2,
    scale: tuple[float, float] | None = None,
) -> Merge:
    """Open a merge to which exposures are added as they arrive, in any order.

    Parameters
    ----------
    settings : MergeSettings
    log_response : array_like, shape (256, C) or (256, 1, C), or None
        g(z), in the channel order of the pixels; the weighted means need it. `mertens` ignores
        it; `debevec` calibrates from the bracket without it.
    shape : (int, int) or (int, int, int)
        (H, W) or (H, W, C), C 1 or 3; ValueError where curve or disc do not fit it.
    threads : int, optional
        Threads that one call may start; OpenCV's merges use OpenCV's own.
    scale : (float, float), optional
        The tone scale that is stored with the curve.
    """
    kind = WeightedMerge if settings.is_weighted else OpencvMerge
    merge = kind(settings, log_response, _checked_shape(shape), threads)
    merge.use_scale(scale)
    return merge


def merge_memory(algorithm: str, shape: tuple[int, ...], count: int, itemsize: int = 1) -> int:
    """Estimate the bytes of a merge and its largest result, frames included, within a fifth.

    Parameters
    ----------
    algorithm : str
        As in `MergeSettings`.
    shape : (int, int) or (int, int, int)
        (H, W) or (H, W, C).
    count : int
        Number of exposures.
    itemsize : int
        Bytes of one of their samples.
    """
    height, width, channels = _checked_shape(shape)
    count *= itemsize
    per_pixel = {"debevec": (22 + count) * channels + 12, "mertens": 10 * channels + 33}
    # The weighted means: ln E in float32 and its validity.
    return height * width * (count * channels + per_pixel.get(algorithm, 5 * channels))


class OpencvMerge(Merge):
    """A bracket whose picture is made as a whole, by OpenCV's functions.

    Its radiance is the weighted mean through the same curve: OpenCV's own mean gives weight to
    saturated codes, and a saturated sun less radiance than what is beside it.

    Parameters
    ----------
    settings, log_response, shape, threads
        As for `open_merge`; threads are those of a radiance.
    """

    def __init__(
        self, settings: MergeSettings, log_response: ArrayLike | None, shape: Shape, threads: int
    ) -> None:
        super().__init__(settings, log_response, shape)
        self._threads = threads

    def picture(self, dtype: type[Any] = np.uint8, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Display picture; of `debevec` by OpenCV's mean with `gamma`, else of its radiance.

        Parameters
        ----------
        dtype, out
            As for `Merge.picture`.
        """
        settings = self._settings
        if settings.algorithm == "mertens" or settings.tone.operator == "gamma":
            return super().picture(dtype, out)
        return self._weighted().picture(dtype, out)

    def _write_picture(self, out: NDArray[Any]) -> None:
        found = self.findings().saturated_from
        _write_picture(out, *self._ordered(), self._settings, self._log_response, found)
        self._clear(out, 0, 0)

    def radiance(self) -> Radiance:
        """Radiance map; see `Merge.radiance`. ValueError for `mertens`, which has none."""
        return self._weighted().radiance()

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance as half floats; see `Merge.radiance_half`.

        Parameters
        ----------
        factor : float
            Positive.
        """
        return self._weighted().radiance_half(factor)

    def uncertainty(self) -> NDArray[np.float32]:
        """Refuse with a ValueError: the noise model is not that of OpenCV's merges."""
        name = self._settings.algorithm
        raise ValueError(f"'{name}' gives no uncertainty; use debevec_custom or debevec_exact")

    def _weighted(self) -> WeightedMerge:
        settings, (frames, times) = self._settings, self._ordered()
        if settings.algorithm == "mertens":
            raise ValueError("exposure fusion ('mertens') makes no radiance; use a debevec merge")
        response = self._log_response
        if response is None:
            found = self.findings().saturated_from
            response = _calibrated_response(frames, times, settings, found)
        settings = replace(settings, algorithm="debevec_custom", contradiction="warn")
        merge = WeightedMerge(settings, response, self.shape, self._threads)
        merge.use_scale(self._scale)
        for pixels, time in zip(frames, times, strict=True):
            merge.add(pixels, time)
        return merge


def _checked_shape(shape: tuple[int, ...]) -> Shape:
    """Read (H, W) or (H, W, C) as (H, W, C); ValueError if empty or C is neither 1 nor 3."""
    sides = tuple(int(side) for side in shape)
    if len(sides) == 2:
        sides = (*sides, 1)
    if len(sides) != 3 or min(sides) < 1 or sides[2] not in (1, 3):
        raise ValueError(
            f"pictures have the shape (H, W) or (H, W, C), C 1 or 3 (no alpha channel); got {sides}"
        )
    return sides[0], sides[1], sides[2]


def _write_picture(
    out: NDArray[Any],
    frames: Sequence[Pixels],
    times: Sequence[float],
    settings: MergeSettings,
    log_response: Plane | None,
    saturated_from: int | None,
) -> None:
    """Write the picture of a bracket; ValueError if the algorithm can make none of it.

    Parameters
    ----------
    out : ndarray, shape (H, W, C), uint8 or uint16
    frames : sequence of ndarray, shape (H, W, C), uint8
        The order counts in the last bit.
    times : sequence of float
    settings : MergeSettings
        Of `debevec` or `mertens`.
    log_response : ndarray, shape (256, C), or None
        g(z) for `debevec`; None: it calibrates from the frames.
    saturated_from : int or None
        The camera's white, where the frames have shown it.
    """
    maximum = code_maximum(out.dtype)
    if settings.algorithm == "mertens":
        table = remap_codes(settings.low_clip, settings.high_clip)
        level = fuse_exposures(frames, table)
        level /= np.float32(_MERTENS_WHITE)
        # Without contrast or colour anywhere a saturated sun would be grey in a bright ring.
        limit = min(settings.high_clip, saturated_from or 255)
        level[(reduce(np.minimum, frames) >= limit).all(axis=2)] = 1.0
        np.clip(level, 0.0, 1.0, out=level)
    else:
        level = _debevec_level(frames, times, settings, log_response, saturated_from)
    level *= np.float32(maximum)
    np.copyto(out, level, casting="unsafe")


def _calibrated_response(
    frames: Sequence[Pixels],
    times: Sequence[float],
    settings: MergeSettings,
    saturated_from: int | None,
) -> Plane:
    """Give g(z), shape (256, C), of OpenCV's CalibrateDebevec on stretched codes.

    Parameters
    ----------
    frames, times, settings, saturated_from
        As for `_write_picture`.
    """
    white = [_white(pixels, settings, saturated_from) for pixels in frames]
    linear = _calibrated(_stretched(frames, white, settings), _scaled(times)[0])
    return as_log_response(np.log(np.maximum(linear, np.finfo(np.float32).tiny)))


def _debevec_level(
    frames: Sequence[Pixels],
    times: Sequence[float],
    settings: MergeSettings,
    log_response: Plane | None,
    saturated_from: int | None,
) -> Plane:
    """Irradiance of MergeDebevec between the display bounds, as levels 0 … 1."""
    white = [_white(pixels, settings, saturated_from) for pixels in frames]
    stretched, (scaled, mean_time) = _stretched(frames, white, settings), _scaled(times)
    if log_response is None:
        response = _calibrated(stretched, scaled)
    else:
        # MergeDebevec takes the logarithm of its response itself.
        response = np.exp(log_response.astype(np.float64)).astype(np.float32)
    merged = cv2.createMergeDebevec().process(stretched, scaled, response[:, np.newaxis])
    irradiance = np.nan_to_num(np.asarray(merged, dtype=np.float32)).reshape(frames[0].shape)
    if settings.sky_disc is not None:
        # What is outside must not set the scale: it takes the darkest there is inside.
        inside = settings.sky_disc.mask(irradiance.shape)
        irradiance[~inside] = irradiance[inside].min(axis=0)
    saturated = np.logical_and.reduce(white)
    if saturated.any():
        irradiance[saturated] = irradiance.max()
    low, high = _DEBEVEC_BOUNDS
    if settings.lnE_range is not None:
        to_reference = mean_time / _REFERENCE_TIME
        low, high = (float(np.exp(end) * to_reference) for end in settings.lnE_range)
    with np.errstate(over="ignore"):  # what overflows is white
        level = (irradiance - np.float32(low)) / np.float32(high - low)
    np.clip(level, 0.0, 1.0, out=level)
    return np.asarray(level ** np.float32(1.0 / settings.display_gamma), np.float32)


def _white(
    pixels: Pixels, settings: MergeSettings, saturated_from: int | None
) -> NDArray[np.bool_]:
    """Pixels that the camera itself shows as white, in any channel."""
    limit = int(np.ceil(254.0 / (255.0 / settings.saturation)))
    return np.asarray((pixels >= min(limit, saturated_from or 255)).any(axis=2))


def _stretched(
    frames: Sequence[Pixels], white: Sequence[NDArray[np.bool_]], settings: MergeSettings
) -> list[Pixels]:
    if len(frames) < 2:
        raise ValueError("'debevec' needs at least two exposures")
    table = remap_codes(settings.low_clip, settings.high_clip)
    stretched = []
    for pixels, here in zip(frames, white, strict=True):
        codes = np.asarray(cv2.LUT(pixels, table), dtype=np.uint8).reshape(pixels.shape)
        codes[here] = 255
        stretched.append(codes)
    return stretched


def _scaled(times: Sequence[float]) -> tuple[Plane, float]:
    """Times scaled to a geometric mean of _REFERENCE_TIME, and their mean as given."""
    given = np.array(times)
    mean = float(np.exp(np.log(given).mean()))
    return (given * (_REFERENCE_TIME / mean)).astype(np.float32), mean


def _calibrated(frames: Sequence[Pixels], times: Plane) -> Plane:
    """exp(g), shape (256, C), of OpenCV's CalibrateDebevec; ValueError without information."""
    reason = None
    if all(((pixels == 0) | (pixels == 255)).all() for pixels in frames):
        reason = "all its pixels are black or saturated"
    elif all(np.array_equal(pixels, frames[0]) for pixels in frames[1:]):
        reason = "all exposures are the same picture, whatever their times"
    if reason is not None:
        raise ValueError(
            f"no response can be calibrated from the bracket: {reason}; give a response"
        )
    found = cv2.createCalibrateDebevec().process(list(frames), times)
    return np.asarray(found, dtype=np.float32).reshape(256, -1)


def fuse_exposures(
    frames: Sequence[NDArray[np.uint8]], table: NDArray[np.uint8] | None = None
) -> Plane:
    """Fuse exposures in Laplacian pyramids: float32 (H, W, C), 0 … 1 and somewhat beyond.

    Besides the frames it needs the memory of about 20 frames, for any number of them.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        C 1 or 3; BGR. The order counts in the last bit.
    table : ndarray, shape (256,), uint8, optional
        What each code becomes first.
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
