"""The settings of a merge, its results, and the interface that all merges share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.frame_checks import Findings
from asi_watch.hdr.weights import WEIGHT_TYPES

Algorithm = Literal["debevec_custom", "debevec_exact", "debevec", "mertens"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

OnContradiction = Literal["exclude", "warn"]

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
        radiance is not bent by the stretch. `debevec`: the picture of OpenCV's MergeDebevec on
        stretched codes, which weighs saturated codes too; its radiance is that of
        `debevec_custom`. `mertens`: exposure fusion (Mertens et al. 2007) on stretched codes; no
        radiance.
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
    contradiction : {"exclude", "warn"}
        Whether a frame that contradicts its exposure time is left out of the merge, where the
        others agree without it (see `frame_checks`).

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
    contradiction: str = "exclude"

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
        if self.contradiction not in get_args(OnContradiction):
            names = ", ".join(get_args(OnContradiction))
            raise ValueError(f"contradiction is one of {names}; got {self.contradiction!r}")
        if not 1 <= self.saturation <= 255:
            raise ValueError(f"saturation is a code 1 … 255; got {self.saturation}")
        if self.lnE_range is not None:
            low, high = self.lnE_range
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(f"lnE_range is (low, high) with low < high; got {self.lnE_range}")

    @property
    def is_weighted(self) -> bool:
        """True for the weighted means, which merge each pixel by itself."""
        return self.algorithm in ("debevec_custom", "debevec_exact")

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

    The result does not depend, to the byte, on the order of the `add` calls. Taking a result
    leaves the merge open: later exposures may still be added. Not safe for several threads at
    once, except `picture_rows` calls among themselves. Results raise ValueError if nothing was
    added, if an argument does not fit, or if the algorithm has no such result.
    """

    @property
    def exposure_times(self) -> tuple[float, ...]:
        """Exposure times added so far, rising."""

    @property
    def nbytes(self) -> int:
        """Bytes of image-sized memory that this merge holds."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the exposures and of the picture."""

    @property
    def works_by_rows(self) -> bool:
        """Whether `picture_rows` costs only its rows; if not, it makes the whole picture."""

    def add(self, pixels: Pixels, exposure_time: float, *, copy: bool = True) -> None:
        """Add one exposure; `copy=False` hands the array over instead of copying it.

        Parameters
        ----------
        pixels : ndarray, shape (H, W, C), uint8
        exposure_time : float
            Positive.
        copy : bool
            False hands the array over: the caller leaves it as it is while the merge lives.

        Raises
        ------
        ValueError
            If the pixels do not fit, the time is not positive, or the merge is full.
        """

    def findings(self) -> Findings:
        """Frames that contradict their times (and are left out), and the camera's white."""

    def picture(self, dtype: PictureType = np.uint8, out: Picture | None = None) -> Picture:
        """Display picture of what was added, shape (H, W, C), uint8 or uint16.

        Parameters
        ----------
        dtype : type
            `numpy.uint8` or `numpy.uint16`; that of `out` counts if given.
        out : ndarray, shape (H, W, C), optional
            Written instead of a new picture; C-contiguous.
        """

    def picture_rows(self, first: int, last: int, out: Picture) -> None:
        """Write rows first:last of the picture into `out`, shape (last − first, W, C).

        Parameters
        ----------
        first, last : int
            Rows.
        out : ndarray, shape (last − first, W, C), uint8 or uint16
            Written to.
        """

    def radiance(self) -> Radiance:
        """Radiance map of what was added."""

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance factor · E as half floats; None where they cannot hold its whole range.

        Parameters
        ----------
        factor : float
            Positive.
        """

    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E (= relative error of E), shape (H, W, C); inf where invalid."""
