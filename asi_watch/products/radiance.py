"""Radiance products: linear relative irradiance per millisecond, from ln E per microsecond.

The merge works in ln E with exposure times in microseconds; files carry E × 1000, which puts
daylight all-sky radiances into the middle of what half floats resolve. Work goes block by block
of rows, so that only the file's own planes are image-sized.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.products.embedding import EXR_ATTRIBUTE, into_hdr
from asi_watch.products.exif import describe
from asi_watch.products.provenance import Provenance, Scalar
from asi_watch.products.spec import ProductSpec

__all__ = [
    "RADIANCE_SCALE",
    "RadianceLayers",
    "encode_exr",
    "encode_hdr",
    "encode_tiff",
    "round_to_half",
]

RADIANCE_SCALE = 1000.0
"""Radiance in files = exp(lnE) × this: per millisecond, where lnE is per microsecond."""

VALIDITY_CODE = "sum over channels, B first, of state * 4**i; 0 valid, 1 under, 2 over"
"""How the validity channel of an EXR packs the channels: three planes would cost thrice as much."""

_LN_SCALE = np.float32(math.log(RADIANCE_SCALE))
# Smallest normal and largest half float: below, precision fades; above, there is only infinity.
_HALF_MIN, _HALF_MAX = 2.0**-14, 65504.0
_BLOCK_VALUES = 48 << 10
_NAMES: dict[int, tuple[str, ...]] = {1: ("Y",), 3: ("B", "G", "R")}


@dataclass(frozen=True, slots=True, eq=False)
class RadianceLayers:
    """What a radiance product holds.

    Parameters
    ----------
    ln_radiance : ndarray, shape (H, W, C), float32
        ln E, E in 1/µs of exposure; BGR or one channel; finite.
    validity : ndarray, shape (H, W, C), uint8, optional
        0 valid, 1 too dark in every exposure, 2 saturated in every exposure.
    uncertainty : ndarray, shape (H, W, C), float, optional
        Standard deviation of ln E.

    Raises
    ------
    ValueError
        If shapes or types differ from that.
    """

    ln_radiance: NDArray[np.float32]
    validity: NDArray[np.uint8] | None = None
    uncertainty: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        ln = self.ln_radiance
        if ln.dtype != np.float32 or ln.ndim != 3 or ln.shape[2] not in _NAMES or ln.size == 0:
            raise ValueError(f"ln_radiance is float32 (H, W, 1 or 3); got {ln.dtype} {ln.shape}")
        for name, layer in (("validity", self.validity), ("uncertainty", self.uncertainty)):
            if layer is not None and layer.shape != ln.shape:
                raise ValueError(f"{name} has shape {layer.shape}, ln_radiance {ln.shape}")
        if self.validity is not None and self.validity.dtype != np.uint8:
            raise ValueError(f"validity is uint8; got {self.validity.dtype}")

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and largest radiance, in the file's unit.

        Raises
        ------
        ValueError
            If a value is not finite.
        """
        low, high = float(self.ln_radiance.min()), float(self.ln_radiance.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("ln_radiance holds values that are not finite")
        return _exp(low), _exp(high)


def encode_exr(spec: ProductSpec, layers: RadianceLayers, provenance: Provenance) -> memoryview:
    """Encode an OpenEXR file: channels B, G, R (or Y), half or float, and the layers there are.

    Parameters
    ----------
    spec : ProductSpec
        `compression`, `pixel_type`, `validity` and `uncertainty` are heeded.
    layers : RadianceLayers
        The radiance.
    provenance : Provenance
        Stored as the string attribute ``asiWatchProvenance``.

    Returns
    -------
    memoryview
        The file's bytes.

    Raises
    ------
    ValueError
        If the radiance is not finite.
    """
    import OpenEXR

    half = _is_half(spec, layers)
    names = _NAMES[layers.ln_radiance.shape[2]]
    planes = dict(zip(names, _half_planes(layers) if half else _float_planes(layers), strict=True))
    kept = []
    if spec.validity and layers.validity is not None:
        kept.append("validity")
        planes["validity"] = _packed_validity(layers.validity)
    if spec.uncertainty and layers.uncertainty is not None:
        kept.append("uncertainty")
        for i, name in enumerate(names):
            planes[f"uncertainty.{name}"] = layers.uncertainty[:, :, i].astype(np.float16)
    noted = _noted(provenance, "half" if half else "float", kept)
    header = {
        "type": OpenEXR.scanlineimage,
        "compression": getattr(OpenEXR, _exr_compression(spec, half=half)),
        EXR_ATTRIBUTE: noted.to_json(),
        "comments": describe(noted),
        "software": noted.software,
        "capDate": noted.slot.strftime("%Y:%m:%d %H:%M:%S"),
        # OpenEXR: UTC = local time + utcOffset.
        "utcOffset": -(noted.slot - noted.slot_utc.replace(tzinfo=None)).total_seconds(),
    }
    if "validity" in kept:
        header["validityCode"] = VALIDITY_CODE
    # The writer reads memory as if every plane were contiguous, without a word if it is not.
    channels = {name: np.ascontiguousarray(plane) for name, plane in planes.items()}
    stream = io.BytesIO()
    OpenEXR.File(header, channels, num_threads=0).write(stream)
    return stream.getbuffer()


def encode_tiff(layers: RadianceLayers, provenance: Provenance) -> memoryview:
    """Encode an uncompressed float32 TIFF, RGB or grey; provenance in ImageDescription.

    Parameters
    ----------
    layers : RadianceLayers
        The radiance; other layers are left out.
    provenance : Provenance
        Stored as ImageDescription.

    Returns
    -------
    memoryview
        The file's bytes.

    Raises
    ------
    ValueError
        If the radiance is not finite.
    """
    import tifffile

    layers.bounds()
    height, width, channels = layers.ln_radiance.shape
    pixels = np.empty((height, width, channels), np.float32)
    for rows, block in _blocks(layers.ln_radiance):
        pixels[rows] = block[:, :, ::-1]
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        pixels if channels == 3 else pixels[:, :, 0],
        photometric="rgb" if channels == 3 else "minisblack",
        description=_noted(provenance, "float", []).to_json(),
        software=provenance.software.encode("ascii", "backslashreplace").decode(),
        datetime=provenance.slot,
        metadata=None,
    )
    return stream.getbuffer()


def encode_hdr(layers: RadianceLayers, provenance: Provenance) -> bytes:
    """Encode a Radiance RGBE picture (one exponent per pixel: about 1 % steps).

    Parameters
    ----------
    layers : RadianceLayers
        The radiance; grey is written as three equal channels, other layers are left out.
    provenance : Provenance
        Stored as comment lines.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        If the radiance is not finite or the encoder fails.
    """
    import cv2

    layers.bounds()
    height, width, _ = layers.ln_radiance.shape
    pixels = np.empty((height, width, 3), np.float32)
    for rows, block in _blocks(layers.ln_radiance):
        pixels[rows] = block
    done, data = cv2.imencode(".hdr", pixels)
    if not done:
        raise ValueError("the Radiance picture could not be encoded")
    return into_hdr(data.data, _noted(provenance, "rgbe", []))


def _exr_compression(spec: ProductSpec, *, half: bool) -> str:
    """PIZ is made for half floats; on full floats it takes twice the time of ZIP."""
    name = "zip" if spec.compression == "piz" and not half else spec.compression
    return {"none": "NO", "zip": "ZIP", "piz": "PIZ", "htj2k": "HTJ2K256"}[name] + "_COMPRESSION"


def _packed_validity(validity: NDArray[np.uint8]) -> NDArray[np.float16]:
    code = validity[:, :, 0].copy()
    for i in range(1, validity.shape[2]):
        code += validity[:, :, i] << (2 * i)
    return np.arange(256).astype(np.float16)[code]


def _exp(ln_value: float) -> float:
    return math.inf if ln_value > 700 else math.exp(ln_value) * RADIANCE_SCALE


def _is_half(spec: ProductSpec, layers: RadianceLayers) -> bool:
    low, high = layers.bounds()
    # A hair inside the range, as exp in float32 may round outwards.
    fits = low >= _HALF_MIN * 1.001 and high <= _HALF_MAX * 0.999
    return spec.pixel_type == "half" or (spec.pixel_type == "auto" and fits)


def _noted(provenance: Provenance, number: str, kept: list[str]) -> Provenance:
    pixels: dict[str, Scalar] = {
        "content": "linear relative irradiance per millisecond of exposure",
        "scale": RADIANCE_SCALE,
        "number": number,
        "layers": " ".join(kept),
    }
    return replace(provenance, pixels=pixels)


def _blocks(ln: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield radiance in cache-sized blocks of rows; the block's memory is used again."""
    height, width, channels = ln.shape
    rows = max(1, _BLOCK_VALUES // (width * channels))
    scratch = np.empty((rows, width, channels), np.float32)
    for top in range(0, height, rows):
        part = ln[top : top + rows]
        block = scratch[: len(part)]
        np.add(part, _LN_SCALE, out=block)
        np.exp(block, out=block)
        yield slice(top, top + len(part)), block


def _float_planes(layers: RadianceLayers) -> NDArray[np.float32]:
    height, width, channels = layers.ln_radiance.shape
    planes = np.empty((channels, height, width), np.float32)
    for rows, block in _blocks(layers.ln_radiance):
        planes[:, rows] = block.transpose(2, 0, 1)
    return planes


def _half_planes(layers: RadianceLayers) -> NDArray[np.float16]:
    height, width, channels = layers.ln_radiance.shape
    planes = np.empty((channels, height, width), np.float16)
    for rows, block in _blocks(layers.ln_radiance):
        planes[:, rows] = round_to_half(block).transpose(2, 0, 1)
    return planes


def round_to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round positive numbers to half floats by integer arithmetic, nearest, ties to even.

    Takes a third of the time of NumPy's conversion, because values are first held to the normal
    range of half floats.

    Parameters
    ----------
    values : ndarray, float32
        Overwritten.

    Returns
    -------
    ndarray of the same shape, float16
    """
    np.clip(values, np.float32(_HALF_MIN), np.float32(_HALF_MAX), out=values)
    bits = values.view(np.uint32)
    odd = (bits >> 13) & 1
    # Shift the exponent's bias from 127 to 15 and round off the 13 bits that go.
    bits += odd
    bits -= np.uint32((112 << 23) - 0xFFF)
    bits >>= 13
    return bits.astype(np.uint16).view(np.float16)
