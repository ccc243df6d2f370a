"""A bracket of exposures becomes one radiance map or one display picture: by which class."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr import opencv_merge
from asi_watch.hdr.merge_settings import HalfRadiance, MergeSettings, Radiance, Shape
from asi_watch.hdr.weighted_merge import Merge, WeightedMerge


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
        opencv_merge.write_picture(out, *self._ordered(), self._settings, self._log_response, found)
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
            response = opencv_merge.calibrated_response(frames, times, settings, found)
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
