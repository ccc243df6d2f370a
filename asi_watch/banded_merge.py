"""A merge of frames that do not fit into memory together: read again for each band of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.brackets import Exposure
from asi_watch.frames import Frames
from asi_watch.hdr.frame_checks import Findings, check_frames, sample_frame
from asi_watch.hdr.merge_settings import (
    HalfRadiance,
    Merge,
    MergeSettings,
    Picture,
    PictureType,
    Radiance,
)
from asi_watch.hdr.merging import open_merge

__all__ = ["BandedMerge"]


class BandedMerge:
    """Gives to the byte what a weighted merge of the whole frames gives, in less memory.

    Every result reads all frames once for each band.

    Parameters
    ----------
    settings : MergeSettings
        With a weighted algorithm: each pixel is merged by itself.
    log_response : array_like, shape (256, C)
    frames : Frames
        Where the exposures are read from; none is held there.
    exposures : sequence of Exposure
    shape : (int, int, int)
        (H, W, C) of every exposure.
    memory : int
        Bytes for the frames of one band; at least sixteen rows are merged at once.
    threads : int

    Raises
    ------
    ImageError
        Now or whenever a result is asked for, if an exposure cannot be read any more.
    ValueError
        If the exposures differ in size.
    """

    def __init__(
        self,
        settings: MergeSettings,
        log_response: ArrayLike,
        frames: Frames,
        exposures: Sequence[Exposure],
        shape: tuple[int, int, int],
        memory: int,
        threads: int,
    ) -> None:
        self._settings, self._log_response, self._shape = settings, log_response, shape
        self._frames, self._exposures, self._threads = frames, exposures, threads
        self._memory = memory
        disc = settings.sky_disc
        self._mask = None if disc is None else disc.mask(shape)
        times = [exposure.exposure_us for exposure in exposures]
        samples = [sample_frame(pixels) for pixels in self._read(exposures)]
        exclude = settings.contradiction == "exclude"
        self._findings = check_frames(
            samples, times, log_response, high_clip=settings.high_clip, exclude=exclude
        )
        excluded = {found.index for found in self._findings.excluded}
        self._used = [one for i, one in enumerate(exposures) if i not in excluded]

    @property
    def exposure_times(self) -> tuple[float, ...]:
        """Exposure times, rising."""
        return tuple(sorted(exposure.exposure_us for exposure in self._exposures))

    @property
    def nbytes(self) -> int:
        """0: no frame is held."""
        return 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the exposures and of the picture."""
        return self._shape

    @property
    def works_by_rows(self) -> bool:
        """False: strips would read all frames once each."""
        return False

    def add(self, pixels: NDArray[np.uint8], exposure_time: float, *, copy: bool = True) -> None:
        """Refuse: the exposures were given at the beginning."""
        raise ValueError("a merge in bands takes no further exposures")

    def findings(self) -> Findings:
        """Frames that contradict their times (and are left out), and the camera's white."""
        return self._findings

    def picture(self, dtype: PictureType = np.uint8, out: Picture | None = None) -> Picture:
        """Display picture, shape (H, W, C), uint8 or uint16; into `out` if given.

        Parameters
        ----------
        dtype : type
            `numpy.uint8` or `numpy.uint16`.
        out : ndarray, optional
        """
        whole = np.empty(self._shape, dtype) if out is None else out
        for rows, merge in self._bands():
            whole[rows] = merge.picture(whole.dtype.type)
            del merge
        return whole

    def picture_rows(self, first: int, last: int, out: Picture) -> None:
        """Write rows first:last of the picture into `out`; computes the whole picture.

        Parameters
        ----------
        first, last : int
        out : ndarray, shape (last − first, W, C)
        """
        out[...] = self.picture(out.dtype.type)[first:last]

    def radiance(self) -> Radiance:
        """Radiance map."""
        ln = np.empty(self._shape, np.float32)
        validity = np.empty(self._shape, np.uint8)
        for rows, merge in self._bands():
            part = merge.radiance()
            ln[rows], validity[rows] = part.ln_radiance, part.validity
            del merge, part
        return Radiance(ln, validity)

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance factor · E as half floats; None where they cannot hold its whole range.

        Parameters
        ----------
        factor : float
            Positive.
        """
        height, width, channels = self._shape
        planes = np.empty((channels, height, width), np.float16)
        validity = np.empty((channels, height, width), np.uint8)
        for rows, merge in self._bands():
            part = merge.radiance_half(factor)
            if part is None:
                return None
            planes[:, rows], validity[:, rows] = part.planes, part.validity
            del merge, part
        return HalfRadiance(planes, validity)

    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E, shape (H, W, C)."""
        whole = np.empty(self._shape, np.float32)
        for rows, merge in self._bands():
            whole[rows] = merge.uncertainty()
            del merge
        return whole

    def _bands(self) -> Iterator[tuple[slice, Merge]]:
        height = self._shape[0]
        row = math.prod(self._shape[1:])
        count = max(16, min(height, self._memory // (row * len(self._used))))
        settings = replace(self._settings, sky_disc=None, contradiction="warn")
        found = replace(self._findings, contradictions=())
        for first in range(0, height, count):
            rows = slice(first, min(first + count, height))
            shape = (rows.stop - first, *self._shape[1:])
            mask = None if self._mask is None else self._mask[rows]
            merge: Any = open_merge(
                settings, self._log_response, shape, threads=self._threads, mask=mask
            )
            for exposure, pixels in zip(self._used, self._read(self._used), strict=True):
                merge.add(pixels[rows].copy(), exposure.exposure_us, copy=False)
            # What the whole frames have shown counts, not what this band alone would.
            merge.use_findings(found)
            yield rows, merge
            # Whoever asked lets go of it too: two bands at once would be twice the memory.
            del merge

    def _read(self, exposures: Sequence[Exposure]) -> Iterator[NDArray[np.uint8]]:
        for exposure in exposures:
            pixels = self._frames.get(exposure)
            if pixels.shape != self._shape:
                raise ValueError(f"{exposure.path} has the shape {pixels.shape}, not {self._shape}")
            yield pixels
            self._frames.keep_only(())
