"""From merged pixels to the bytes of a product, its provenance inside.

A JPEG is encoded as horizontal strips in parallel, joined by restart markers. The entropy coder of
a baseline JPEG carries only the last DC values from block to block, and a restart marker resets
them (ITU-T T.81, E.1.4 and F.1.1.5.1). Strips of whole block rows, encoded separately with the
same tables, therefore join into one image that decodes to the very same pixels as if it had been
encoded at once: a segment that announces the restart interval, the full height in the frame
header, and a marker between the strips are all that is needed.
"""

import math
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.buffers import Allocate, fresh
from asi_watch.hdr.weighted_merge import Merge
from asi_watch.images.headers import jpeg_segments
from asi_watch.processes import merge_threads
from asi_watch.products import radiance as radiance_files
from asi_watch.products.embed import with_provenance
from asi_watch.products.gain_map import GAIN_MAP_WHITE, make_gain_map, with_gain_map
from asi_watch.products.provenance import Provenance
from asi_watch.products.radiance import RADIANCE_SCALE, RadianceLayers
from asi_watch.products.spec import ProductSpec

Encoded = bytes | memoryview
FillRows = Callable[[int, int, NDArray[np.uint8]], None]
"""Writes the picture's rows first:last into an array of shape (last − first, W, C)."""

_RADIANCE: dict[str, Callable[[ProductSpec, RadianceLayers, Provenance], Encoded]] = {
    "exr": radiance_files.encode_exr,
    "tiff": radiance_files.encode_tiff,
    "hdr": radiance_files.encode_hdr,
}
_DTYPES = {"picture8": np.uint8, "picture16": np.uint16}
_DRI, _SOF0, _SOS = 0xDD, 0xC0, 0xDA
_MAX_INTERVAL = 65535
# Width and height of a minimum coded unit, in pixels.
_UNITS = {"Gray": (8, 8), "444": (8, 8), "422": (16, 8), "420": (16, 16)}


class Product(NamedTuple):
    """A product's bytes, and what makes it doubtful beyond what its provenance was given."""

    data: Encoded
    notes: tuple[str, ...]


def encode_merge(
    spec: ProductSpec,
    merge: Merge,
    provenance: Provenance,
    *,
    allocate: Allocate = fresh,
    header: bytes | None = None,
) -> Product:
    """Encode one product of a finished merge; errors as in `encode`.

    Parameters
    ----------
    spec : ProductSpec
    merge : Merge
        Asked only for what `spec` needs.
    provenance : Provenance
    allocate : callable
        Gives the memory for an 8-bit picture; free again when this returns.
    header : bytes, optional
        See `with_provenance`.
    """
    provenance = _with_motion(merge, provenance)
    if spec.kind == "radiance":
        return _encode_radiance(spec, merge, provenance)
    if spec.format == "jpg" and merge.works_by_rows:
        # Each strip is merged and encoded by one thread while its rows are in the cache.
        size = math.prod(merge.shape)
        picture = allocate(size)[:size].reshape(merge.shape)
        data = encode_jpeg(spec, picture, merge.picture_rows)
        if spec.gain_map:
            return Product(_with_radiance(data, merge, provenance, header), ())
        return Product(with_provenance(data, _noted(provenance, "uint8"), header), ())
    if spec.gain_map and spec.format == "jpg" and provenance.algorithm != "mertens":
        data = encode_jpeg(spec, _checked(spec, merge.picture(np.uint8)))
        return Product(_with_radiance(data, merge, provenance, header), ())
    return Product(encode(spec, merge.picture(_DTYPES[spec.kind]), provenance, header), ())


def _with_radiance(
    picture: bytes, merge: Merge, provenance: Provenance, header: bytes | None
) -> bytes:
    """Give a JPEG its provenance and a gain map."""
    radiance = merge.radiance()
    made = make_gain_map(picture, RadianceLayers(radiance.ln_radiance, radiance.validity))
    noted = _noted(provenance, "uint8")
    pixels = {**noted.pixels, GAIN_MAP_WHITE: made.log2_white}
    whole = with_provenance(picture, replace(noted, pixels=pixels), header)
    return with_gain_map(whole, made.jpeg)


def _with_motion(merge: Merge, provenance: Provenance) -> Provenance:
    """Note the velocity of the clouds where the merge has seen it; x to the right, y down."""
    rising = sorted(provenance.sources, key=lambda source: source.exposure_us)
    seconds = [(source.timestamp - rising[0].timestamp).total_seconds() for source in rising]
    if (found := merge.cloud_motion(seconds)) is None:
        return provenance
    names = ("cloud_motion_x", "cloud_motion_y", "cloud_motion_confidence")
    motion = {name: round(value, 3) for name, value in zip(names, found, strict=True)}
    return replace(provenance, pixels={**provenance.pixels, **motion})


def _encode_radiance(spec: ProductSpec, merge: Merge, provenance: Provenance) -> Product:
    exr = spec.format == "exr"
    uncertainty = merge.uncertainty() if spec.uncertainty and exr else None
    if exr and spec.pixel_type != "float":
        half = merge.radiance_half(RADIANCE_SCALE)
        if half is not None:
            parts = half.planes, half.validity, uncertainty
            return Product(radiance_files.encode_exr_planes(spec, *parts, provenance), ())
    radiance, notes = merge.radiance(), tuple[str, ...]()
    layers = RadianceLayers(radiance.ln_radiance, radiance.validity, uncertainty)
    if exr and spec.pixel_type == "half":
        layers, notes = radiance_files.flag_beyond_half(layers)
    noted = replace(provenance, notes=(*provenance.notes, *notes))
    return Product(encode(spec, layers, noted), notes)


def encode(
    spec: ProductSpec,
    pixels: NDArray[Any] | RadianceLayers,
    provenance: Provenance,
    header: bytes | None = None,
) -> Encoded:
    """Encode a product; equal arguments give equal bytes.

    ValueError if the pixels are not what the format needs, or the encoder fails.

    Parameters
    ----------
    spec : ProductSpec
    pixels : ndarray, shape (H, W, C), or RadianceLayers
        What `spec.kind` says: uint8 for picture8, uint16 for picture16 (both BGR or one channel),
        RadianceLayers for radiance.
    provenance : Provenance
        Embedded in the file; its `pixels` are filled in here.
    header : bytes, optional
        See `with_provenance`.
    """
    if isinstance(pixels, RadianceLayers) != (spec.kind == "radiance"):
        raise ValueError(f"a {spec.format} product is made from {spec.kind}")
    if isinstance(pixels, RadianceLayers):
        return _RADIANCE[spec.format](spec, pixels, provenance)
    picture = _checked(spec, pixels)
    noted = _noted(provenance, f"uint{8 * picture.itemsize}")
    if spec.format == "jpg":
        return with_provenance(encode_jpeg(spec, picture), noted, header)
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    parameters = lossless if spec.format == "jp2" and spec.lossless else []
    return with_provenance(radiance_files.opencv_encoded(spec.suffix, picture, parameters), noted)


def _noted(provenance: Provenance, number: str) -> Provenance:
    pixels = {**provenance.pixels, "content": "tone-mapped picture", "number": number}
    return replace(provenance, pixels=pixels)


def _checked(spec: ProductSpec, pixels: NDArray[Any]) -> NDArray[Any]:
    dtype = np.dtype(_DTYPES[spec.kind])
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
        raise ValueError(f"a picture has shape (H, W, 1 or 3); got {pixels.shape}")
    if pixels.dtype != dtype:
        raise ValueError(f"this format needs {dtype}; got {pixels.dtype}")
    if (reason := spec.refusal(pixels.shape)) is not None:
        raise ValueError(reason)
    return np.ascontiguousarray(pixels)


def encode_jpeg(
    spec: ProductSpec, picture: NDArray[np.uint8], fill: FillRows | None = None
) -> bytes:
    """Encode a picture as one baseline JPEG without EXIF, the same however its rows came.

    Parameters
    ----------
    spec : ProductSpec
        `quality`, `subsampling` and `strips` are heeded; small pictures get fewer strips.
    picture : ndarray, shape (H, W, C), uint8
        BGR or grey.
    fill : callable, optional
        Makes the rows of `picture` when they are needed, while they are in the cache; called from
        two threads at once, each for its own rows.
    """
    bounds, interval = _strips(spec, picture.shape)

    def strip(rows: tuple[int, int]) -> bytes:
        part = picture[slice(*rows)]
        if fill is not None:
            fill(rows[0], rows[1], part)
        return _encode(spec, part)

    if len(bounds) == 1:
        return strip(bounds[0])
    # Fewer threads than strips: one whose core is busy leaves them to the other.
    with ThreadPoolExecutor(min(merge_threads(), len(bounds))) as pool:
        strips = list(pool.map(strip, bounds))
    return _joined(strips, picture.shape[0], interval)


def _strips(spec: ProductSpec, shape: Sequence[int]) -> tuple[list[tuple[int, int]], int]:
    """First and last row of each strip (equal whole block rows), and coded units of a strip."""
    height, width, channels = shape
    across, down = _UNITS["Gray" if channels == 1 else spec.subsampling]
    block_rows = -(-height // down)
    rows_each = -(-block_rows // spec.strips)
    interval = rows_each * -(-width // across)
    if interval > _MAX_INTERVAL:
        return [(0, height)], 0
    step = rows_each * down
    return [(top, min(top + step, height)) for top in range(0, height, step)], interval


def _encode(spec: ProductSpec, picture: NDArray[np.uint8]) -> bytes:
    grey = picture.shape[2] == 1
    encoded: bytes = simplejpeg.encode_jpeg(
        picture,
        quality=spec.quality,
        colorspace="GRAY" if grey else "BGR",
        colorsubsampling="Gray" if grey else spec.subsampling,
    )
    return encoded


class _Strip(NamedTuple):
    """One encoded strip, cut into what is to be joined."""

    head: bytes  # all segments before the scan's, height in the frame header set to zero
    frame: int  # where the frame header's payload begins in `head`
    scan: bytes  # the scan's header
    coded: memoryview  # entropy-coded data, without the end mark


def _joined(strips: Sequence[bytes], height: int, interval: int) -> bytes:
    cut = [_cut(strip) for strip in strips]
    first = cut[0]
    if any((one.head, one.scan) != (first.head, first.scan) for one in cut[1:]):
        raise ValueError("the encoder used different tables for two strips of one picture")
    head = bytearray(first.head)
    struct.pack_into(">H", head, first.frame + 1, height)
    pieces: list[Any] = [head, struct.pack(">BBHH", 0xFF, _DRI, 4, interval), first.scan]
    for i, one in enumerate(cut):
        if i:
            pieces.append(bytes((0xFF, 0xD0 + (i - 1) % 8)))
        pieces.append(one.coded)
    return b"".join((*pieces, b"\xff\xd9"))


def _cut(strip: bytes) -> _Strip:
    frame = scan = coded = 0
    plain = strip.endswith(b"\xff\xd9")
    for marker, offset, length in jpeg_segments(strip):
        if marker == _SOF0:
            frame = offset
        elif marker == _SOS:
            scan, coded = offset - 4, offset + length
        elif (0xC0 < marker <= 0xCF and marker != 0xC4) or marker == _DRI:
            plain = False
    if not (plain and frame):
        raise ValueError("strips need a plain baseline JPEG")
    head = bytearray(strip[:scan])
    struct.pack_into(">H", head, frame + 1, 0)
    return _Strip(bytes(head), frame, strip[scan:coded], memoryview(strip)[coded:-2])
