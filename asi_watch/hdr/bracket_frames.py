"""The frames of a bracket that is being merged: checked, held until a result is asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from asi_watch.hdr.frame_checks import Findings, Sample, check_frames, sample_frame
from asi_watch.hdr.merge_settings import MergeSettings, Pixels
from asi_watch.hdr.packed_tables import MAX_EXPOSURES


class BracketFrames:
    """Holds the frames of one bracket; the merges are derived from it.

    Frames are kept as they arrive and summed once, when a result is asked for. Keeping sums
    instead was measured and found worse: a sum takes eight bytes per sample where a frame takes
    one, and moving it through memory for every exposure costs more than the look-ups.

    Parameters
    ----------
    settings : MergeSettings
    log_response : array_like, shape (256, C), or None
        g(z), which frames are compared through.
    shape : (int, int, int)
        (H, W, C).
    """

    def __init__(
        self, settings: MergeSettings, log_response: ArrayLike | None, shape: tuple[int, int, int]
    ) -> None:
        self._settings = settings
        self._log_response = log_response
        self._shape = shape
        self._frames: list[Pixels] = []
        self._times: list[float] = []
        self._samples: list[Sample] = []
        self._findings: Findings | None = None

    @property
    def exposure_times(self) -> tuple[float, ...]:
        """Exposure times added so far, rising."""
        return tuple(sorted(self._times))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the exposures and of the picture."""
        return self._shape

    @property
    def nbytes(self) -> int:
        """Bytes of the frames held."""
        return sum(frame.nbytes for frame in self._frames)

    def add(self, pixels: Pixels, exposure_time: float, *, copy: bool = True) -> None:
        """Add one exposure; see `Merge.add`. After an error the merge is as it was before."""
        array, time = check_exposure(pixels, exposure_time, self._shape)
        if len(self._times) == MAX_EXPOSURES:
            raise ValueError(f"a bracket has at most {MAX_EXPOSURES} exposures")
        if copy and np.may_share_memory(array, pixels):
            array = array.copy()
        self._frames.append(array)
        self._times.append(time)
        self._samples.append(sample_frame(array))
        self._findings = None
        self._forget()

    def findings(self) -> Findings:
        """Look at the frames (once): which contradict their times, and the camera's white."""
        if self._findings is None:
            self._findings = check_frames(
                self._samples,
                self._times,
                self._log_response,
                high_clip=self._settings.high_clip,
                exclude=self._settings.contradiction == "exclude",
            )
        return self._findings

    def use_findings(self, findings: Findings) -> None:
        """Take what is known of the frames from elsewhere, where these are parts of them.

        Parameters
        ----------
        findings : Findings
            Of the whole frames.
        """
        self._findings = findings
        self._forget()

    def _forget(self) -> None:
        """Drop what was prepared for fewer frames."""

    def _used(self) -> tuple[list[Pixels], list[float]]:
        """Frames to be merged, without the excluded ones, and their times."""
        if not self._times:
            raise ValueError("no exposure was added")
        excluded = {found.index for found in self.findings().excluded}
        used = [i for i in range(len(self._times)) if i not in excluded]
        return [self._frames[i] for i in used], [self._times[i] for i in used]


def check_exposure(
    pixels: Pixels, exposure_time: float, shape: tuple[int, int, int]
) -> tuple[Pixels, float]:
    """Check one exposure and bring it into its plain form.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C) or (H, W), uint8
        Copied only where not contiguous.
    exposure_time : float
        Positive.
    shape : (int, int, int)
        What the merge was opened for.

    Returns
    -------
    pixels : ndarray, shape (H, W, C), uint8, C-contiguous
    exposure_time : float

    Raises
    ------
    ValueError
        If dtype, shape or time does not fit.
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8:
        raise ValueError(
            f"an exposure has 8-bit pixels (uint8, 0 … 255); got {array.dtype}: convert it first"
        )
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.shape != shape:
        raise ValueError(
            f"the exposures of a bracket have one size: {_size(shape)}, got {_size(array.shape)}"
        )
    time = float(exposure_time)
    if not (np.isfinite(time) and time > 0):
        raise ValueError(f"an exposure time is a positive number; got {exposure_time!r}")
    return np.ascontiguousarray(array), time


def check_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Read (H, W) or (H, W, C) as (H, W, C).

    Parameters
    ----------
    shape : tuple of int
        Of an array.

    Raises
    ------
    ValueError
        If a side is empty or C is neither 1 nor 3.
    """
    sides = tuple(int(side) for side in shape)
    if len(sides) == 2:
        sides = (*sides, 1)
    if len(sides) != 3 or min(sides) < 1 or sides[2] not in (1, 3):
        raise ValueError(
            "pictures have the shape (H, W) or (H, W, C), C 1 or 3 (no alpha channel); got"
            f" {_size(shape)}"
        )
    return sides[0], sides[1], sides[2]


def _size(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(side) for side in shape) + ")"
