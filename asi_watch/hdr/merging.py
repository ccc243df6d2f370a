"""A bracket of exposures becomes one radiance map or one display picture.

`open_merge` gives a `Merge` to which exposures are added as they arrive; `merge_frames` takes
decoded frames at once; both give the same bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.merge_settings import Merge, MergeSettings, Pixels, check_shape
from asi_watch.hdr.opencv_merge import OpencvMerge
from asi_watch.hdr.weighted_merge import WeightedMerge

__all__ = ["Merge", "MergeSettings", "merge_frames", "merge_memory", "open_merge"]


def open_merge(
    settings: MergeSettings,
    log_response: ArrayLike | None,
    shape: tuple[int, ...],
    *,
    threads: int = 2,
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
        Threads that one call may start; `merge_threads` gives a sensible number, and
        OpenCV's merges use OpenCV's own.

    Raises
    ------
    ValueError
        If the response or the disc is missing or does not fit.
    """
    merge = WeightedMerge if settings.is_weighted else OpencvMerge
    return merge(settings, log_response, check_shape(shape), threads)


def merge_memory(algorithm: str, shape: tuple[int, ...], count: int) -> int:
    """Estimate the bytes of a merge and its largest result, frames included.

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
        Measured, and for pictures of megapixels within a fifth.
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
    dtype: type[Any] = np.uint8,
    *,
    threads: int = 2,
) -> NDArray[Any]:
    """Merge decoded frames into a display picture, at once.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C) or (H, W), uint8
        The exposures; ValueError where sizes or counts differ.
    exposure_times : sequence of float
        One per frame, positive, any unit.
    settings, log_response, threads
        As for `open_merge`.
    dtype : type
        `numpy.uint8` or `numpy.uint16`.
    """
    if not len(frames):
        raise ValueError("no exposures to merge")
    if len(frames) != len(exposure_times):
        raise ValueError(f"{len(frames)} frames but {len(exposure_times)} exposure times")
    merge = open_merge(settings, log_response, np.shape(frames[0]), threads=threads)
    for pixels, time in zip(frames, exposure_times, strict=True):
        merge.add(pixels, time)
    return merge.picture(dtype)
