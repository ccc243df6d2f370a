"""What a merge is told, what it gives, and the one shape all merges have."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.weights import WEIGHT_TYPES

Algorithm = Literal["debevec_custom", "debevec_exact", "debevec", "mertens"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

Pixels = NDArray[np.uint8]
Picture = NDArray[Any]
PictureType = type[Any]

VALID, UNDER, OVER = 0, 1, 2


@dataclass(frozen=True)
class MergeSettings:
    """How a bracket becomes one picture.

    Parameters
    ----------
    algorithm : {"debevec_custom", "debevec_exact", "debevec", "mertens"}
        `debevec_custom`: codes stretched from [low_clip, high_clip] to 0 … 255, then the weighted
        mean of g(z) − ln t. `debevec_exact`: the same mean over the codes as they are, so that
        radiance is not bent by the stretch. `debevec`: OpenCV's MergeDebevec on stretched codes.
        `mertens`: OpenCV's exposure fusion (Mertens et al. 2007) on stretched codes; no radiance.
    weight_type : {"triangle", "sine", "noise"}
        w(z) of the two weighted means.
    low_clip, high_clip : int
        0 ≤ low < high ≤ 255.
    gamma : float
        γ of the display picture, above 0.
    lnE_range : (float, float) or None
        ln E shown as black and as white; None: the range the bracket's exposures can tell apart,
        per channel. A fixed range keeps the scale of a whole day.
    saturation : int
        1 … 255, for `debevec`: the camera's own white code.
    apply_tonemapping : bool
        False leaves the picture linear.
    sky_disc : SkyDisc or None
        Only what is inside is merged; outside pictures are black and radiance is invalid
        (under-exposed). None: all of the picture.

    Raises
    ------
    ValueError
        If a value is outside what is said here.
    """

    algorithm: str
    weight_type: str
    low_clip: int
    high_clip: int
    gamma: float
    lnE_range: tuple[float, float] | None  # noqa: N815 - the field's own name
    saturation: int
    apply_tonemapping: bool
    sky_disc: SkyDisc | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            names = ", ".join(ALGORITHMS)
            raise ValueError(f"algorithm is one of {names}; got {self.algorithm!r}")
        if self.weight_type not in WEIGHT_TYPES:
            names = ", ".join(WEIGHT_TYPES)
            raise ValueError(f"weight_type is one of {names}; got {self.weight_type!r}")
        if not 0 <= self.low_clip < self.high_clip <= 255:
            found = f"{self.low_clip}, {self.high_clip}"
            raise ValueError(f"low_clip and high_clip: 0 ≤ low < high ≤ 255; got {found}")
        if not (np.isfinite(self.gamma) and self.gamma > 0):
            raise ValueError(f"gamma must be above 0; got {self.gamma}")
        if not 1 <= self.saturation <= 255:
            raise ValueError(f"saturation is a code 1 … 255; got {self.saturation}")
        if self.lnE_range is not None:
            low, high = self.lnE_range
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(f"lnE_range is (low, high) with low < high; got {self.lnE_range}")

    def parameters(self) -> dict[str, str | int | float | bool | None]:
        """Name what shaped a merge besides its algorithm, for the product's provenance."""
        low, high = self.lnE_range or (None, None)
        disc = self.sky_disc
        shape = {} if disc is None else {f"sky_{key}": value for key, value in asdict(disc).items()}
        return {
            "weight_type": self.weight_type,
            "low_clip": self.low_clip,
            "high_clip": self.high_clip,
            "gamma": self.gamma,
            "lnE_min": low,
            "lnE_max": high,
            "saturation": self.saturation,
            "tonemapping": self.apply_tonemapping,
            **shape,
        }

    @property
    def display_gamma(self) -> float:
        """γ to apply: 1 when the picture is to stay linear."""
        return self.gamma if self.apply_tonemapping else 1.0


@dataclass(frozen=True, eq=False)
class Radiance:
    """A merged radiance map.

    Parameters
    ----------
    ln_radiance : ndarray, shape (H, W, C), float32
        ln E, relative, in 1 / (unit of the exposure times).
    validity : ndarray, shape (H, W, C), uint8
        0 valid, 1 under-exposed in every frame, 2 over-exposed in every frame. The ln E of
        invalid samples is the nearer end of what the exposures can tell apart.
    """

    ln_radiance: NDArray[np.float32]
    validity: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class HalfRadiance:
    """A merged radiance map as files of half floats hold it: plane by plane.

    Parameters
    ----------
    planes : ndarray, shape (C, H, W), float16
        factor · E, the channels in the order of the pixels.
    validity : ndarray, shape (C, H, W), uint8
        As in `Radiance`.
    """

    planes: NDArray[np.float16]
    validity: NDArray[np.uint8]


class Merge(Protocol):
    """A bracket being merged: exposures go in, in any order; a picture or radiance comes out.

    The result does not depend, to the byte, on the order of the `add` calls (only OpenCV's
    fusion, `mertens`, sums in parallel and may differ by one code from itself). Taking a result
    leaves the merge open: later exposures may still be added. Not safe for several threads at
    once, except `picture_rows` calls among themselves.
    """

    @property
    def exposure_times(self) -> tuple[float, ...]:
        """Exposure times added so far, rising."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of image-sized memory that this merge holds."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the exposures and of the picture."""
        ...

    @property
    def works_by_rows(self) -> bool:
        """Whether `picture_rows` costs only its rows; if not, it makes the whole picture."""
        ...

    def add(self, pixels: Pixels, exposure_time: float, *, copy: bool = True) -> None:
        """Add one exposure; `copy=False` hands the array over instead of copying it."""
        ...

    def picture(self, dtype: PictureType = np.uint8, out: Picture | None = None) -> Picture:
        """Display picture of what was added, shape (H, W, C), uint8 or uint16."""
        ...

    def picture_rows(self, first: int, last: int, out: Picture) -> None:
        """Write rows first:last of the picture into `out`, shape (last − first, W, C)."""
        ...

    def radiance(self) -> Radiance:
        """Radiance map of what was added."""
        ...

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance factor · E as half floats; None where only `radiance` tells it well."""
        ...

    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E (= relative error of E), shape (H, W, C); inf where invalid."""
        ...


def check_exposure(
    pixels: Pixels, exposure_time: float, shape: tuple[int, int, int]
) -> tuple[Pixels, float]:
    """Give one exposure its plain form, or say what is wrong with it.

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
        raise ValueError(f"an exposure has 8-bit pixels; got {array.dtype}")
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.shape != shape:
        raise ValueError(f"exposures of one bracket share one size: {shape}, got {array.shape}")
    time = float(exposure_time)
    if not (np.isfinite(time) and time > 0):
        raise ValueError(f"an exposure time is a positive number; got {exposure_time!r}")
    return np.ascontiguousarray(array), time


def check_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Read (H, W) or (H, W, C) as (H, W, C).

    Raises
    ------
    ValueError
        If a side is empty or C is neither 1 nor 3.
    """
    sides = tuple(int(side) for side in shape)
    if len(sides) == 2:
        sides = (*sides, 1)
    if len(sides) != 3 or min(sides) < 1 or sides[2] not in (1, 3):
        raise ValueError(f"pictures have the shape (H, W) or (H, W, C), C 1 or 3; got {shape}")
    return sides[0], sides[1], sides[2]
