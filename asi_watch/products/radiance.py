"""Radiance products: linear relative irradiance per millisecond, as files of three formats."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.products.embedding import EXR_ATTRIBUTE, into_hdr
from asi_watch.products.exif import describe
from asi_watch.products.provenance import Provenance, Scalar
from asi_watch.products.radiance_layers import (
    CHANNEL_NAMES,
    HALF_RANGE,
    RADIANCE_SCALE,
    HalfLayers,
    RadianceLayers,
    blocks,
    float_planes,
    half_planes,
)
from asi_watch.products.spec import ProductSpec

__all__ = ["encode_exr", "encode_hdr", "encode_tiff"]

VALIDITY_CODE = "sum over channels, B first, of state * 4**i; 0 valid, 1 under, 2 over"
"""How the validity channel of an EXR packs the channels: three planes would cost thrice as much."""


def encode_exr(
    spec: ProductSpec, layers: RadianceLayers | HalfLayers, provenance: Provenance
) -> memoryview:
    """Encode an OpenEXR file: channels B, G, R (or Y), half or float, and the layers there are.

    Parameters
    ----------
    spec : ProductSpec
        `compression`, `pixel_type`, `validity` and `uncertainty` are heeded.
    layers : RadianceLayers or HalfLayers
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

    half, radiance, validity = _exr_planes(spec, layers)
    names = CHANNEL_NAMES[len(radiance)]
    planes: dict[str, NDArray[Any]] = dict(zip(names, radiance, strict=True))
    kept = []
    if spec.validity and validity is not None:
        kept.append("validity")
        planes["validity"] = _packed_validity(validity)
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
    for rows, block in blocks(layers.ln_radiance):
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
    """Encode a Radiance RGBE picture (one exponent per pixel: about 1 % steps, rounded).

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
    for rows, block in blocks(layers.ln_radiance):
        pixels[rows] = block
        pixels[rows] += _half_a_step(pixels[rows])
    done, data = cv2.imencode(".hdr", pixels)
    if not done:
        raise ValueError("the Radiance picture could not be encoded")
    return into_hdr(data.data, _noted(provenance, "rgbe", []))


def _half_a_step(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the encoder's cutting off needs to round instead, shape (rows, W, 1)."""
    largest = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    # Rounded up, the largest channel may need the next exponent, and twice the step.
    largest += _power_of_two(largest) / np.float32(256)
    return (_power_of_two(largest) / np.float32(256))[..., np.newaxis]


def _power_of_two(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest power of two up to each positive number: its exponent without its fraction."""
    powers: NDArray[np.float32] = (values.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    return powers


def _exr_compression(spec: ProductSpec, *, half: bool) -> str:
    """PIZ is made for half floats; on full floats it takes twice the time of ZIP."""
    name = "zip" if spec.compression == "piz" and not half else spec.compression
    return {"none": "NO", "zip": "ZIP", "piz": "PIZ", "htj2k": "HTJ2K256"}[name] + "_COMPRESSION"


def _exr_planes(
    spec: ProductSpec, layers: RadianceLayers | HalfLayers
) -> tuple[bool, NDArray[Any], NDArray[np.uint8] | None]:
    """Whether it is half floats, the radiance and the validity, both (C, H, W)."""
    if isinstance(layers, HalfLayers):
        return True, layers.planes, layers.validity
    half = _is_half(spec, layers)
    planes = half_planes(layers) if half else float_planes(layers)
    validity = layers.validity
    return half, planes, None if validity is None else validity.transpose(2, 0, 1)


def _packed_validity(validity: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Pack planes of shape (C, H, W) into one."""
    import cv2

    code = validity[0].copy()
    for i, plane in enumerate(validity[1:], 1):
        code += plane << (2 * i)
    numbers = np.arange(256).astype(np.float16).view(np.uint16)
    # A fifth of the time of numpy's look-up, whose indices are eight bytes long.
    packed: NDArray[np.uint16] = np.asarray(cv2.LUT(code, numbers), np.uint16)
    return packed.view(np.float16).reshape(code.shape)


def _is_half(spec: ProductSpec, layers: RadianceLayers) -> bool:
    low, high = layers.bounds()
    # A hair inside the range, as exp in float32 may round outwards.
    fits = low >= HALF_RANGE[0] * 1.001 and high <= HALF_RANGE[1] * 0.999
    return spec.pixel_type == "half" or (spec.pixel_type == "auto" and fits)


def _noted(provenance: Provenance, number: str, kept: list[str]) -> Provenance:
    pixels: dict[str, Scalar] = {
        "content": "linear relative irradiance per millisecond of exposure",
        "scale": RADIANCE_SCALE,
        "number": number,
        "layers": " ".join(kept),
    }
    return replace(provenance, pixels=pixels)
