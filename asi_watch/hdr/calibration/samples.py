"""What calibration works on: the same places seen in every exposure of a bracket."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.disc import SkyDisc

CODES = 256
# What surrounds a place is RADIUS pixels each way; it tells no level when more than a tenth of it
# is clipped (codes up to BLACK, or from WHITE on).
RADIUS = 2
BLACK, WHITE = 1, 253
CLIPPED_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class BracketSamples:
    """Places of one bracket, each seen in all of its exposures.

    Parameters
    ----------
    codes : ndarray, shape (P, N, C), uint8
        The pixel's codes as they are in the files, exposures in the order of `exposure_times`.
    exposure_times : ndarray, shape (N,), float64
        Positive, strictly ascending; any unit.
    positions : ndarray, shape (P, 2), int32
        Row and column in the picture.
    levels : ndarray, shape (P, N, C), float32, optional
        Mean code of the surroundings, finer than one code, moved places followed; NaN where they
        cannot be used. None: the bare codes are all there is.
    roughness : ndarray, shape (P, N, C), float16, optional
        Standard deviation of the codes around the place: the less, the safer.
    motion : ndarray, shape (N, 2), float32, optional
        Median displacement (rows, columns) of the places in each exposure, pixels.
    white : ndarray, shape (C,), uint8, optional
        Codes from which on the pictures are white.
    disc : SkyDisc, optional
        What the places were taken from; None: from the whole picture, or from a mask.
    """

    codes: NDArray[np.uint8]
    exposure_times: NDArray[np.float64]
    positions: NDArray[np.int32]
    levels: NDArray[np.float32] | None = None
    roughness: NDArray[np.float16] | None = None
    motion: NDArray[np.float32] | None = None
    white: NDArray[np.uint8] | None = None
    disc: SkyDisc | None = None

    def __post_init__(self) -> None:
        if self.codes.ndim != 3 or self.codes.dtype != np.uint8:
            raise ValueError("sample codes must be uint8 of shape (P, N, C)")
        check_times(self.exposure_times)
        if self.codes.shape[1] != len(self.exposure_times):
            raise ValueError(
                f"{self.codes.shape[1]} exposures sampled, {len(self.exposure_times)} times given"
            )
        if (np.diff(self.exposure_times) <= 0).any():
            raise ValueError("exposure times of samples must ascend")
        for name in ("levels", "roughness"):
            values = getattr(self, name)
            if values is not None and values.shape != self.codes.shape:
                raise ValueError(f"sample {name} must have the shape of the codes")

    @property
    def count(self) -> int:
        """Number of places P."""
        return int(self.codes.shape[0])

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.codes.shape[2])

    def every(self, stride: int) -> BracketSamples:
        """Give every stride-th place, without copying."""
        return self._part(slice(None, None, stride))

    def inside(self, disc: SkyDisc) -> BracketSamples:
        """Give the places inside a disc; they were taken from there, then."""
        rows, columns = self.positions.T
        return replace(self._part(disc.holds(rows, columns)), disc=disc)

    def _part(self, part: slice | NDArray[np.bool_]) -> BracketSamples:
        return replace(
            self,
            codes=self.codes[part],
            positions=self.positions[part],
            levels=None if self.levels is None else self.levels[part],
            roughness=None if self.roughness is None else self.roughness[part],
        )


def check_times(exposure_times: NDArray[np.float64]) -> None:
    """Refuse exposure times that no response can be calibrated from.

    Raises
    ------
    ValueError
        Fewer than two exposures, a time that is not positive and finite, or all times equal.
    """
    if exposure_times.ndim != 1 or exposure_times.size < 2:
        raise ValueError(
            f"calibration needs at least two exposures of a bracket, got {exposure_times.size}"
        )
    if not (np.isfinite(exposure_times).all() and (exposure_times > 0).all()):
        raise ValueError(
            f"exposure times must be positive and finite, got {exposure_times.tolist()}"
        )
    if np.unique(exposure_times).size == 1:
        raise ValueError(
            f"all exposure times are equal ({exposure_times[0]:g}): "
            "a response needs exposures of different length"
        )
