"""A bracket of exposures becomes one radiance map or one display picture.

`open_merge` gives a `Merge` to which exposures are added as they arrive; `merge_frames` takes
decoded frames at once; both give the same bytes. See
`asi_watch.hdr.reference` for the formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.bracket_frames import check_shape
from asi_watch.hdr.disc import RowSpans, SkyDisc, as_sky_disc, disc_spans
from asi_watch.hdr.merge_settings import (
    ALGORITHMS,
    Merge,
    MergeSettings,
    Picture,
    PictureType,
    Pixels,
    Radiance,
)
from asi_watch.hdr.opencv_merge import OpencvMerge
from asi_watch.hdr.weighted_merge import WeightedMerge

__all__ = [
    "ALGORITHMS",
    "Merge",
    "MergeSettings",
    "Radiance",
    "merge_exposure_series",
    "merge_frames",
    "merge_memory",
    "open_merge",
]


def open_merge(
    settings: MergeSettings,
    log_response: ArrayLike | None,
    shape: tuple[int, ...],
    *,
    threads: int = 2,
    mask: NDArray[np.bool_] | None = None,
) -> Merge:
    """Open a merge to which exposures are added as they arrive, in any order.

    Parameters
    ----------
    settings : MergeSettings
        How to merge.
    log_response : array_like, shape (256, C) or (256, 1, C), or None
        g(z), in the channel order of the pixels. `mertens` ignores it; `debevec` calibrates from
        the bracket without it.
    shape : (int, int) or (int, int, int)
        (H, W) or (H, W, C), C 1 or 3.
    threads : int, optional
        Threads that one call may start (`asi_watch.cores.merge_threads` gives a sensible number);
        OpenCV's merges use OpenCV's own.
    mask : ndarray, shape (H, W), bool, optional
        Pixels outside (False) are not merged: code 0, validity 1; `settings.sky_disc` is such a
        mask too, and both count. The weighted means leave these pixels out of the work, OpenCV's
        merges blacken them afterwards.

    Returns
    -------
    Merge

    Raises
    ------
    ValueError
        If the response, the mask or the disc is missing or does not fit, or a value is out of
        range.
    """
    sides, disc = check_shape(shape), settings.sky_disc
    if settings.algorithm in ("debevec", "mertens"):
        return OpencvMerge(settings, log_response, sides, threads, _inside(disc, mask, sides))
    if disc is not None and mask is None:
        spans = disc_spans(disc, sides)
    else:
        spans = RowSpans.of(_inside(disc, mask, sides), sides)
    return WeightedMerge(settings, log_response, sides, threads, spans)


def _inside(
    disc: SkyDisc | None, mask: NDArray[np.bool_] | None, shape: tuple[int, int, int]
) -> NDArray[np.bool_] | None:
    if disc is None:
        return mask
    inside = disc.mask(shape)
    return inside if mask is None else inside & mask


def merge_memory(algorithm: str, shape: tuple[int, ...], count: int) -> int:
    """Estimate what a merge and its largest result take at once, frames included.

    Parameters
    ----------
    algorithm : str
        As in `MergeSettings`.
    shape : (int, int) or (int, int, int)
        (H, W) or (H, W, C).
    count : int
        Number of exposures.

    Returns
    -------
    int
        Bytes; measured, and for pictures of megapixels within a fifth.
    """
    height, width, channels = check_shape(shape)
    per_pixel = {"debevec": (22 + count) * channels + 12, "mertens": 10 * channels + 33}
    # The weighted means: ln E in float32 and its validity.
    return height * width * (count * channels + per_pixel.get(algorithm, 5 * channels))


def merge_frames(
    frames: Sequence[Pixels],
    exposure_times: Sequence[float],
    settings: MergeSettings,
    log_response: ArrayLike | None,
    dtype: PictureType = np.uint8,
    *,
    threads: int = 2,
    mask: NDArray[np.bool_] | None = None,
    out: Picture | None = None,
) -> Picture:
    """Merge decoded frames into a display picture, at once.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C) or (H, W), uint8
        The exposures.
    exposure_times : sequence of float
        One per frame, positive, any unit.
    settings, log_response, threads, mask
        As for `open_merge`.
    dtype : type
        `numpy.uint8` or `numpy.uint16`.
    out : ndarray, shape (H, W, C), optional
        Written instead of a new picture; C-contiguous, its dtype counts.

    Returns
    -------
    ndarray, shape (H, W, C), uint8 or uint16

    Raises
    ------
    ValueError
        If there is no frame, sizes or counts differ, or the response does not fit.
    """
    if not len(frames):
        raise ValueError("no exposures to merge")
    if len(frames) != len(exposure_times):
        raise ValueError(f"{len(frames)} frames but {len(exposure_times)} exposure times")
    merge = open_merge(settings, log_response, np.shape(frames[0]), threads=threads, mask=mask)
    for pixels, time in zip(frames, exposure_times, strict=True):
        merge.add(pixels, time, copy=False)
    return merge.picture(dtype, out)


def merge_exposure_series(
    img_series: Iterable[Pixels],
    exposure_times: Iterable[float],
    algorithm: str = "debevec",
    response: ArrayLike | None = None,
    saturation: int = 255,
    low_clip: int = 5,
    high_clip: int = 250,
    weight_type: str = "triangle",
    lnE_range: tuple[float, float] | None = None,
    apply_tonemapping: bool = True,
    gamma: float = 2.2,
    filetype: str = ".jpg",
    *,
    sky_disc: SkyDisc | tuple[float, float, float] | None = None,
) -> Picture:
    """Merge one bracket of decoded images into the picture of one file type.

    Parameters
    ----------
    img_series : iterable of ndarray, shape (H, W, C), uint8
        The exposures (a pandas Series of arrays will do).
    exposure_times : iterable of float
        One per image, positive; any unit, the same as of `lnE_range`.
    algorithm, saturation, low_clip, high_clip, weight_type, lnE_range, apply_tonemapping, gamma
        As in `MergeSettings`.
    response : array_like, shape (256, C) or (256, 1, C), optional
        g(z) in the ln domain, in the channel order of the images.
    filetype : str
        `.jpg`/`.jpeg` gives 8 bit; `.png`, `.jp2` and the rest 16 bit.
    sky_disc : SkyDisc or (x, y, radius), optional
        Column, row and radius, pixels: only what is inside is merged, the rest is black.

    Returns
    -------
    ndarray, shape (H, W, C), uint8 or uint16

    Raises
    ------
    ValueError
        If something does not fit; the text says what.
    """
    settings = MergeSettings(
        algorithm=algorithm,
        weight_type=weight_type,
        low_clip=low_clip,
        high_clip=high_clip,
        gamma=gamma,
        lnE_range=None if lnE_range is None else (float(lnE_range[0]), float(lnE_range[1])),
        saturation=saturation,
        apply_tonemapping=apply_tonemapping,
        sky_disc=as_sky_disc(sky_disc),
    )
    kind: Any = np.uint8 if filetype.lower() in (".jpg", ".jpeg") else np.uint16
    frames, times = list(img_series), [float(time) for time in exposure_times]
    return merge_frames(frames, times, settings, response, kind)
