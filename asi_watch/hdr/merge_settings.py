"""The settings of a merge, its results, and what all merges have in common."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.frame_checks import Findings, Sample, check_frames, sample_frame
from asi_watch.hdr.response import as_log_response

Algorithm = Literal["debevec_custom", "debevec_exact", "debevec", "mertens"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
WEIGHT_TYPES = ("triangle", "sine", "noise")
_CONTRADICTION = ("exclude", "warn")

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]

VALID, UNDER, OVER = 0, 1, 2
MAX_EXPOSURES = 64


@dataclass(frozen=True)
class MergeSettings:
    """How a bracket becomes one picture; a value out of range raises ValueError.

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
    """

    algorithm: str
    weight_type: str = "triangle"
    low_clip: int = 5
    high_clip: int = 250
    gamma: float = 2.2
    lnE_range: tuple[float, float] | None = None  # noqa: N815 - the field's own name
    saturation: int = 255
    apply_tonemapping: bool = True
    sky_disc: SkyDisc | None = None
    contradiction: str = "exclude"

    def __post_init__(self) -> None:
        for name, known in (
            ("algorithm", ALGORITHMS),
            ("weight_type", WEIGHT_TYPES),
            ("contradiction", _CONTRADICTION),
        ):
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise ValueError(f"{name} is one of {', '.join(known)}; got {found!r}")
        if not 0 <= self.low_clip < self.high_clip <= 255:
            clips = f"{self.low_clip}, {self.high_clip}"
            raise ValueError(f"low_clip and high_clip: 0 ≤ low < high ≤ 255; got {clips}")
        if not (np.isfinite(self.gamma) and self.gamma > 0):
            raise ValueError(f"gamma must be above 0; got {self.gamma}")
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

    @property
    def display_gamma(self) -> float:
        """γ to apply: 1 when the picture is to stay linear."""
        return self.gamma if self.apply_tonemapping else 1.0

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


@dataclass(frozen=True, eq=False)
class Radiance:
    """A merged radiance map."""

    ln_radiance: NDArray[np.float32]  # ln E, relative, in 1 / (unit of the exposure times)
    # 0 valid, 1 under-exposed in every frame, 2 over-exposed in every frame. The ln E of invalid
    # samples is the nearer end of what the exposures can tell apart.
    validity: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class HalfRadiance:
    """A merged radiance map as files of half floats hold it: plane by plane."""

    planes: NDArray[np.float16]  # factor · E, the channels in the order of the pixels
    validity: NDArray[np.uint8]  # as in `Radiance`


class Merge(ABC):
    """A bracket being merged: exposures go in, in any order; a picture or radiance comes out.

    The result does not depend, to the byte, on the order of the `add` calls. Taking a result
    leaves the merge open: later exposures may still be added. Not safe for several threads at
    once, except `picture_rows` calls among themselves. Results raise ValueError if nothing was
    added, if an argument does not fit, or if the algorithm has no such result.

    Frames are kept as they arrive and summed once, when a result is asked for. Keeping sums
    instead was measured and found worse: a sum takes eight bytes per sample where a frame takes
    one, and moving it through memory for every exposure costs more than the look-ups.

    Parameters
    ----------
    settings, log_response, shape
        As for `merging.open_merge`; shape is (H, W, C).
    """

    works_by_rows = False
    """Whether `picture_rows` costs only its rows; if not, it makes the whole picture."""

    def __init__(
        self, settings: MergeSettings, log_response: ArrayLike | None, shape: Shape
    ) -> None:
        curve = None if log_response is None else as_log_response(log_response)
        if curve is not None and curve.shape[1] != shape[2]:
            raise ValueError(f"the response has {curve.shape[1]} channels, the pictures {shape[2]}")
        self.shape = shape
        self._settings, self._log_response = settings, curve
        self._frames: list[Pixels] = []
        self._times: list[float] = []
        self._samples: list[Sample] = []
        self._findings: Findings | None = None

    def add(self, pixels: Pixels, exposure_time: float) -> None:
        """Add one exposure; after an error (ValueError) the merge is as it was before.

        Parameters
        ----------
        pixels : ndarray, shape (H, W, C) or (H, W), uint8
            Not copied: the caller leaves it as it is while the merge lives.
        exposure_time : float
            Positive.
        """
        array = self._checked(pixels)
        time = float(exposure_time)
        if not (np.isfinite(time) and time > 0):
            raise ValueError(f"an exposure time is a positive number; got {exposure_time!r}")
        if len(self._times) == MAX_EXPOSURES:
            raise ValueError(f"a bracket has at most {MAX_EXPOSURES} exposures")
        self._frames.append(array)
        self._times.append(time)
        self._samples.append(sample_frame(array))
        self._findings = None

    def findings(self) -> Findings:
        """Frames that contradict their times (and are left out), and the camera's white."""
        if self._findings is None:
            self._findings = check_frames(
                self._samples,
                self._times,
                self._log_response,
                high_clip=self._settings.high_clip,
                exclude=self._settings.contradiction == "exclude",
            )
        return self._findings

    def picture(self, dtype: type[Any] = np.uint8, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Display picture of what was added, shape (H, W, C), uint8 or uint16.

        Parameters
        ----------
        dtype : type
            `numpy.uint8` or `numpy.uint16`; that of `out` counts if given.
        out : ndarray, shape (H, W, C), optional
            Written instead of a new picture; C-contiguous.
        """
        whole = np.empty(self.shape, dtype) if out is None else out
        check_target(whole, self.shape)
        self._write_picture(whole)
        return whole

    @abstractmethod
    def _write_picture(self, out: NDArray[Any]) -> None:
        """Write the display picture."""

    def picture_rows(self, first: int, last: int, out: NDArray[Any]) -> None:
        """Write rows first:last of the picture into `out`.

        Parameters
        ----------
        first, last : int
        out : ndarray, shape (last − first, W, C), uint8 or uint16
        """
        out[...] = self.picture(out.dtype.type)[first:last]

    @abstractmethod
    def radiance(self) -> Radiance:
        """Radiance map of what was added."""

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance factor · E as half floats; None where they cannot hold its whole range.

        Parameters
        ----------
        factor : float
            Positive.
        """
        if not (np.isfinite(factor) and factor > 0):
            raise ValueError(f"the factor must be above 0; got {factor}")
        return self._radiance_half(float(factor))

    @abstractmethod
    def _radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance as half floats."""

    @abstractmethod
    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E (= relative error of E), shape (H, W, C); inf where invalid."""

    def _used(self) -> tuple[list[Pixels], list[float]]:
        """Frames to be merged, without the excluded ones, and their times."""
        if not self._times:
            raise ValueError("no exposure was added")
        excluded = {found.index for found in self.findings().excluded}
        used = [i for i in range(len(self._times)) if i not in excluded]
        return [self._frames[i] for i in used], [self._times[i] for i in used]

    def _checked(self, pixels: Pixels) -> Pixels:
        """Bring an exposure into its plain form: (H, W, C), uint8, C-contiguous."""
        array = np.asarray(pixels)
        if array.dtype != np.uint8:
            raise ValueError(
                "an exposure has 8-bit pixels (uint8, 0 … 255);"
                f" got {array.dtype}: convert it first"
            )
        if array.ndim == 2:
            array = array[:, :, np.newaxis]
        if array.shape != self.shape:
            raise ValueError(
                f"the exposures of a bracket have one size: {self.shape}, got {array.shape}"
            )
        return np.ascontiguousarray(array)


def check_target(out: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse, by ValueError, an array that a picture of this shape cannot be written to.

    Parameters
    ----------
    out : ndarray
    shape : tuple of int
    """
    if out.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a picture is uint8 or uint16; got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"a picture of the shape {shape} does not fit into {out.shape}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out must be C-contiguous and writeable")


def check_shape(shape: tuple[int, ...]) -> Shape:
    """Read (H, W) or (H, W, C) as (H, W, C); ValueError if empty or C is neither 1 nor 3.

    Parameters
    ----------
    shape : tuple of int
        Of an array.
    """
    sides = tuple(int(side) for side in shape)
    if len(sides) == 2:
        sides = (*sides, 1)
    if len(sides) != 3 or min(sides) < 1 or sides[2] not in (1, 3):
        raise ValueError(
            f"pictures have the shape (H, W) or (H, W, C), C 1 or 3 (no alpha channel); got {sides}"
        )
    return sides[0], sides[1], sides[2]
