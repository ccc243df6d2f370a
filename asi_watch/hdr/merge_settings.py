"""The settings of a merge, and the radiance that comes out."""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.disc import SkyDisc

Algorithm = Literal["debevec_custom", "debevec_exact", "debevec", "mertens", "linear"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
WEIGHT_TYPES = ("triangle", "sine", "noise")
OPERATORS = ("photographic", "gamma", "reinhard", "drago", "mantiuk", "local")
_CONTRADICTION = ("exclude", "warn")
_DEGHOST = ("off", "weights", "align")

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]

VALID, UNDER, OVER = 0, 1, 2
MAX_EXPOSURES = 64
FULL_WELL = 15_000.0
"""Electrons that saturate a sensor of which nothing else is known: pixels of 2 to 3 µm."""


@dataclass(frozen=True)
class Sensor:
    """What the codes of a linear sensor mean; a value out of range raises ValueError."""

    black: float | None = None  # code without light; None: as the file says, else 0
    white: float | None = None  # lowest saturated code; None: as the file says, else the largest
    gain: float | None = None  # electrons per code; None: `FULL_WELL` from black to white
    read_noise: float = 5.0  # electrons

    def __post_init__(self) -> None:
        numbers = [n for n in (self.black, self.white, self.gain, self.read_noise) if n is not None]
        possible = (self.gain is None or self.gain > 0) and self.read_noise >= 0
        if not (possible and np.isfinite(numbers).all()):
            raise ValueError(f"a sensor has finite levels, gain > 0 and read_noise ≥ 0; got {self}")

    def gain_between(self, black: float, white: float) -> float:
        """Electrons per code.

        Parameters
        ----------
        black, white : float
        """
        return FULL_WELL / (white - black) if self.gain is None else self.gain


@dataclass(frozen=True)
class Tone:
    """From radiance to a picture; a value out of range raises ValueError.

    `photographic`: Reinhard et al. 2002, global, on each channel, with the sRGB transfer. `gamma`:
    linear between black and white, then 1/γ. `reinhard` (2005), `drago`, `mantiuk`: OpenCV's.
    `local`: photographic on what is left without details, which are added again.
    """

    operator: str = "gamma"
    # Where the numbers of `photographic` and `local` come from, if `lnE_range` does not give them:
    # "curve": as stored with the curve, else the bracket; "bracket": always the bracket.
    scale: str = "curve"
    key: float = 0.18  # of the white: how bright `photographic` and `local` show the middle
    adaptation: float = 0.0  # of `reinhard`, 0 … 1: from the whole picture's light to the pixel's
    bias: float = 0.85  # of `drago`, 0.5 … 1: less shows more in the dark
    contrast: float = 0.7  # of `mantiuk`, 0.1 … 2
    detail: float = 1.3  # of `local`: contrast of details, 1 as they are

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS or self.scale not in ("curve", "bracket"):
            found = f"got {self.operator!r} and {self.scale!r}"
            known = f"operator is one of {', '.join(OPERATORS)}, scale curve or bracket"
            raise ValueError(f"{known}; {found}")
        for name, low, high in (
            ("key", 0.01, 1.0),
            ("adaptation", 0.0, 1.0),
            ("bias", 0.5, 1.0),
            ("contrast", 0.1, 2.0),
            ("detail", 0.0, 5.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {low:g} … {high:g}; got {getattr(self, name)}")


@dataclass(frozen=True)
class MergeSettings:
    """How a bracket becomes one picture; a value out of range raises ValueError.

    Algorithms: `debevec_custom`: codes stretched from [low_clip, high_clip] to 0 … 255, then the
    weighted mean of g(z) − ln t. `debevec_exact`: the same mean over the codes as they are, so
    that radiance is not bent by the stretch. `debevec`: the picture of OpenCV's MergeDebevec on
    stretched codes, which weighs saturated codes too; its radiance is that of `debevec_custom`.
    `mertens`: exposure fusion (Mertens et al. 2007) on stretched codes; no radiance. `linear`: the
    mean of least variance over codes that rise linearly with the light (`linear_merge`).
    """

    algorithm: str
    weight_type: str = "triangle"  # w(z) of the two weighted means
    low_clip: int = 5  # 0 ≤ low < high ≤ 255
    high_clip: int = 250
    gamma: float = 2.2  # of the display picture
    # ln E of black and of white; of `photographic` and `local`: of the middle and of white. None:
    # as `tone.scale` says; of `gamma`: the range the exposures can tell apart, per channel.
    lnE_range: tuple[float, float] | None = None  # noqa: N815 - the field's own name
    saturation: int = 255  # for `debevec`: the camera's own white code
    apply_tonemapping: bool = True  # False leaves the picture linear
    # Only what is inside is merged; outside, pictures are black and radiance is under-exposed.
    sky_disc: SkyDisc | None = None
    # Whether a frame that contradicts its time, while the others agree, is left out.
    contradiction: str = "exclude"
    deghost: str = "off"  # of the weighted means, see `deghost`
    sensor: Sensor | None = None  # of `linear`: what the codes mean
    tone: Tone = Tone()

    def __post_init__(self) -> None:
        for name, known in (
            ("algorithm", ALGORITHMS),
            ("weight_type", WEIGHT_TYPES),
            ("contradiction", _CONTRADICTION),
            ("deghost", _DEGHOST),
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
        # Of a linear merge alone; it needs one.
        sensor = (self.sensor or Sensor()) if self.algorithm == "linear" else None
        object.__setattr__(self, "sensor", sensor)
        if self.lnE_range is not None:
            low, high = self.lnE_range
            object.__setattr__(self, "lnE_range", (float(low), float(high)))
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(f"lnE_range is (low, high) with low < high; got {self.lnE_range}")

    @property
    def is_weighted(self) -> bool:
        """True for the weighted means, which merge each pixel by itself."""
        return self.algorithm in ("debevec_custom", "debevec_exact")

    @property
    def works_by_rows(self) -> bool:
        """True where a row of the result needs no other rows of the frames."""
        return self.is_weighted and self.deghost != "align"

    @property
    def maps_whole(self) -> bool:
        """True if the picture needs the whole radiance map, not one pixel after the other."""
        pixelwise = not self.apply_tonemapping or self.tone.operator in ("gamma", "photographic")
        return not pixelwise and self.algorithm != "mertens"

    @property
    def display_gamma(self) -> float:
        """γ to apply: 1 when the picture is to stay linear."""
        return self.gamma if self.apply_tonemapping else 1.0

    def parameters(self) -> dict[str, str | int | float | bool | None]:
        """Name what shaped a merge besides its algorithm, for the product's provenance."""
        low, high = self.lnE_range or (None, None)
        disc = {} if self.sky_disc is None else asdict(self.sky_disc)
        off = self.deghost == "off" or self.sensor is not None
        deghost = {} if off else {"deghost": self.deghost}
        # Version 0.1 knew `gamma` alone: its products are still recognised.
        tone = {} if self.tone.operator == "gamma" else asdict(self.tone)
        codes: dict[str, str | int | float | bool | None] = {
            "weight_type": self.weight_type,
            "low_clip": self.low_clip,
            "high_clip": self.high_clip,
            "saturation": self.saturation,
        }
        if self.sensor is not None:
            codes = {f"sensor_{key}": value for key, value in asdict(self.sensor).items()}
        return {
            **codes,
            "gamma": self.gamma,
            "lnE_min": low,
            "lnE_max": high,
            "tonemapping": self.apply_tonemapping,
            **deghost,
            **{f"sky_{key}": value for key, value in disc.items()},
            **{f"tone_{key}": value for key, value in tone.items()},
        }


@dataclass(frozen=True, eq=False)
class Radiance:
    """A merged radiance map."""

    ln_radiance: NDArray[np.float32]  # ln E, relative, in 1 / (unit of the exposure times)
    # Per sample, 0 valid, 1 under-exposed in every frame, 2 over-exposed in every frame. The ln E
    # of invalid samples is the nearer end of what the exposures can tell apart.
    validity: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class HalfRadiance:
    """A merged radiance map as files of half floats hold it: plane by plane."""

    planes: NDArray[np.float16]  # factor · E, the channels in the order of the pixels
    validity: NDArray[np.uint8]  # as in `Radiance`
