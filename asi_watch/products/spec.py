"""What kind of file a product is."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from asi_watch.naming import PRODUCT_TEMPLATE, ProductName

Format = Literal["jpg", "png", "jp2", "exr", "tiff", "hdr"]
Kind = Literal["picture8", "picture16", "radiance"]

_KINDS: dict[str, Kind] = {"jpg": "picture8", "png": "picture16", "jp2": "picture16"}
_SIDES = {"jpg": (1, 65500), "jp2": (32, 65535)}
"""Smallest and largest side in pixels that an encoder takes; jp2: six wavelet levels."""
_ANY_SIDE = (1, 1_000_000)
_MEMORY = {"jpg": 2, "png": 6, "jp2": 10, "exr": 6, "tiff": 11, "hdr": 14}

_named = lru_cache(64)(ProductName)


@dataclass(frozen=True, slots=True, config=ConfigDict(strict=True))
class ProductSpec:
    """Format of a product and its options, each heeded by its own formats only; else ValueError."""

    format: Format  # jpg (8 bit), png and jp2 (16 bit), exr, tiff and hdr (linear radiance)
    quality: Annotated[int, Field(ge=1, le=100)] = 95  # jpg
    # jpg: chroma subsampling. 4:2:0 encodes in two thirds of the time of 4:4:4.
    subsampling: Literal["420", "422", "444"] = "420"
    strips: Annotated[int, Field(ge=1, le=16)] = 8  # jpg: encode as so many strips, in two threads
    # jp2: keep every bit; else errors stay within some 0.2 % of full scale, in 40 % of the bytes.
    # Both take seconds.
    lossless: bool = False
    # exr: piz (lossless, readable everywhere; full floats get zip instead), zip, none, or htj2k
    # (OpenEXR ≥ 3.4 to read).
    compression: Literal["none", "zip", "piz", "htj2k"] = "piz"
    # exr: half, float, or auto = half unless the radiances leave its normal range.
    pixel_type: Literal["auto", "half", "float"] = "auto"
    # exr, tiff, hdr: also store which samples are valid, too dark or saturated.
    validity: bool = True
    uncertainty: bool = False  # exr: also store the standard error of ln E
    name: str = PRODUCT_TEMPLATE  # of the file, without its extension; see `ProductName`
    timezone: str | None = None  # of the name; None: that of the slots
    output: Path | None = None  # folder that it lies below; None: that of the camera
    latest: bool = False  # the newest one is also put at `latest.FORMAT`
    # jpg: carry over the text that the camera wrote into the middle exposure, its EXP set to 0.
    keep_camera_header: bool = False
    gain_map: bool = False  # jpg: radiance beside the picture, where there is any

    @property
    def suffix(self) -> str:
        """File name suffix, with its dot."""
        return f".{self.format}"

    @property
    def kind(self) -> Kind:
        """Which pixels it needs: picture8, picture16 or radiance."""
        return _KINDS.get(self.format, "radiance")

    @property
    def memory(self) -> int:
        """What making it takes beside the frames of its bracket, in sizes of one, as measured."""
        full = self.format == "exr" and (self.pixel_type == "float" or self.uncertainty)
        return 9 if self.gain_map else 15 if full else _MEMORY[self.format]

    def made_by(self, algorithm: str) -> bool:
        """Tell whether an algorithm gives such a product: exposure fusion gives no radiance.

        Parameters
        ----------
        algorithm : str
        """
        return algorithm != "mertens" or self.kind != "radiance"

    def target(self, camera: str, folder: str, slot: datetime, slot_utc: datetime) -> str:
        """Return where the product of a bracket lies: below the camera's output, or absolute.

        Parameters
        ----------
        camera : str
        folder : str
            Sub-folder of the output.
        slot, slot_utc : datetime
            On the clock of the camera's names (naive), and in UTC.
        """
        stem = _named(self.name, camera, self.timezone).stem(slot, slot_utc)
        return str(PurePosixPath(self.output or "", folder, f"{stem}{self.suffix}"))

    @property
    def latest_target(self) -> str:
        """Where a copy of the newest product lies, at the root of its folder; see `target`."""
        return str(PurePosixPath(self.output or "", f"latest{self.suffix}"))

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why a picture of shape (H, W, …) cannot be written in this format; None if it can.

        Parameters
        ----------
        shape : tuple of int
        """
        least, most = _SIDES.get(self.format, _ANY_SIDE)
        height, width = shape[:2]
        if least <= min(height, width) and max(height, width) <= most:
            return None
        return (
            f"{self.format} holds {least} to {most} pixels a side; the picture is {width}×{height}"
        )
