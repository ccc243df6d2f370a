"""From merged pixels to the bytes of a product, its provenance inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.buffers import Allocate, fresh
from asi_watch.hdr.merge_settings import Merge
from asi_watch.products.embed import into_jp2, into_jpeg, into_png
from asi_watch.products.provenance import Provenance
from asi_watch.products.radiance import (
    RADIANCE_SCALE,
    RadianceLayers,
    encode_exr,
    encode_exr_planes,
    encode_hdr,
    encode_tiff,
    flag_beyond_half,
)
from asi_watch.products.spec import ProductSpec
from asi_watch.products.strips import encode_jpeg

__all__ = ["Encoded", "Product", "encode", "encode_merge"]

Encoded = bytes | memoryview
_RADIANCE: dict[str, Callable[[ProductSpec, RadianceLayers, Provenance], Encoded]] = {
    "exr": encode_exr,
    "tiff": encode_tiff,
    "hdr": encode_hdr,
}
_DTYPES = {"picture8": np.uint8, "picture16": np.uint16}


class Product(NamedTuple):
    """A product's bytes, and what makes it doubtful beyond what its provenance was given."""

    data: Encoded
    notes: tuple[str, ...]


def encode_merge(
    spec: ProductSpec, merge: Merge, provenance: Provenance, *, allocate: Allocate = fresh
) -> Product:
    """Encode one product of a finished merge.

    Parameters
    ----------
    spec : ProductSpec
        The kind of file.
    merge : Merge
        Asked only for what `spec` needs.
    provenance : Provenance
        Embedded in the file.
    allocate : callable
        Gives the memory for an 8-bit picture; free again when this returns.

    Returns
    -------
    Product

    Raises
    ------
    ValueError
        As `encode`.
    """
    if spec.kind == "radiance":
        return _encode_radiance(spec, merge, provenance)
    if spec.format == "jpg" and merge.works_by_rows:
        # Each strip is merged and encoded by one thread while its rows are in the cache.
        size = math.prod(merge.shape)
        picture = allocate(size)[:size].reshape(merge.shape)
        data = encode_jpeg(spec, picture, merge.picture_rows)
        return Product(into_jpeg(data, _noted(provenance, "uint8")), ())
    return Product(encode(spec, merge.picture(_DTYPES[spec.kind]), provenance), ())


def _encode_radiance(spec: ProductSpec, merge: Merge, provenance: Provenance) -> Product:
    exr = spec.format == "exr"
    uncertainty = merge.uncertainty() if spec.uncertainty and exr else None
    half = merge.radiance_half(RADIANCE_SCALE) if exr and spec.pixel_type != "float" else None
    if half is not None:
        data = encode_exr_planes(spec, half.planes, half.validity, uncertainty, provenance)
        return Product(data, ())
    radiance = merge.radiance()
    layers = RadianceLayers(radiance.ln_radiance, radiance.validity, uncertainty)
    if not (exr and spec.pixel_type == "half"):
        return Product(encode(spec, layers, provenance), ())
    layers, note = flag_beyond_half(layers)
    notes = () if note is None else (note,)
    noted = replace(provenance, notes=(*provenance.notes, *notes))
    return Product(encode(spec, layers, noted), notes)


def encode(
    spec: ProductSpec,
    pixels: NDArray[Any] | RadianceLayers,
    provenance: Provenance,
) -> Encoded:
    """Encode a product. Equal arguments give equal bytes.

    Parameters
    ----------
    spec : ProductSpec
        The kind of file.
    pixels : ndarray, shape (H, W, C), or RadianceLayers
        What `spec.kind` says: uint8 for picture8, uint16 for picture16 (both BGR or one channel),
        RadianceLayers for radiance.
    provenance : Provenance
        Embedded in the file; its `pixels` are filled in here.

    Returns
    -------
    bytes or memoryview
        The file's content, for `publish`.

    Raises
    ------
    ValueError
        If the pixels are not what the format needs, or the encoder fails.
    """
    if isinstance(pixels, RadianceLayers) != (spec.kind == "radiance"):
        raise ValueError(f"a {spec.format} product is made from {spec.kind}")
    if isinstance(pixels, RadianceLayers):
        return _RADIANCE[spec.format](spec, pixels, provenance)
    picture = _checked(spec, pixels)
    noted = _noted(provenance, f"uint{8 * picture.itemsize}")
    if spec.format == "jpg":
        return into_jpeg(encode_jpeg(spec, picture), noted)
    if spec.format == "png":
        return into_png(_opencv(".png", picture, []), noted)
    parameters = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if spec.lossless else []
    return into_jp2(_opencv(".jp2", picture, parameters), noted)


def _noted(provenance: Provenance, number: str) -> Provenance:
    return replace(provenance, pixels={"content": "tone-mapped picture", "number": number})


def _checked(spec: ProductSpec, pixels: NDArray[Any]) -> NDArray[Any]:
    dtype = np.dtype(_DTYPES[spec.kind])
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
        raise ValueError(f"a picture has shape (H, W, 1 or 3); got {pixels.shape}")
    if pixels.dtype != dtype:
        raise ValueError(f"this format needs {dtype}; got {pixels.dtype}")
    if (reason := spec.refusal(pixels.shape)) is not None:
        raise ValueError(reason)
    return np.ascontiguousarray(pixels)


def _opencv(suffix: str, picture: NDArray[Any], parameters: list[int]) -> memoryview:
    try:
        done, data = cv2.imencode(suffix, picture, parameters)
    except cv2.error as error:
        raise ValueError(f"the {suffix} could not be encoded: {error}") from None
    if not done:
        raise ValueError(f"the {suffix} could not be encoded")
    encoded: memoryview = data.data
    return encoded
