"""One JPEG encoded as horizontal strips in parallel, joined by restart markers.

The entropy coder of a baseline JPEG carries only the last DC values from block to block, and a
restart marker resets them (ITU-T T.81, E.1.4 and F.1.1.5.1). Strips of whole block rows, encoded
separately with the same tables, therefore join into one image that decodes to the very same pixels
as if it had been encoded at once: a segment that announces the restart interval, the full height
in the frame header, and a marker between the strips are all that is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.cores import merge_threads
from asi_watch.images.headers import jpeg_segments
from asi_watch.products.spec import ProductSpec

__all__ = ["FillRows", "encode_jpeg", "strip_bounds"]

FillRows = Callable[[int, int, NDArray[np.uint8]], None]
"""Writes the picture's rows first:last into an array of shape (last − first, W, C)."""

_DRI, _SOF0, _SOS = 0xDD, 0xC0, 0xDA
_MAX_INTERVAL = 65535
# Width and height of a minimum coded unit, in pixels.
_UNITS = {"Gray": (8, 8), "444": (8, 8), "422": (16, 8), "420": (16, 16)}


@dataclass(frozen=True, slots=True)
class _Strip:
    """One encoded strip, cut into what is to be joined."""

    head: bytes  # all segments before the scan's, height in the frame header set to zero
    frame: int  # where the frame header's payload begins in `head`
    scan: bytes  # the scan's header
    coded: memoryview  # entropy-coded data, without the end mark


def encode_jpeg(
    spec: ProductSpec, picture: NDArray[np.uint8], fill: FillRows | None = None
) -> bytes:
    """Encode a picture as one JPEG, in `spec.strips` strips by two threads.

    Parameters
    ----------
    spec : ProductSpec
        `quality`, `subsampling` and `strips` are heeded.
    picture : ndarray, shape (H, W, C), uint8
        BGR or grey.
    fill : callable, optional
        Makes the rows of `picture` when they are needed, while they are in the cache; called from
        several threads at once, each for its own rows.

    Returns
    -------
    bytes
        A baseline JPEG without EXIF, the same however the rows came.
    """
    bounds = strip_bounds(spec, picture.shape)

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
    return _joined(strips, bounds, _interval(spec, picture.shape, bounds))


def strip_bounds(spec: ProductSpec, shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and last row of each strip: equal whole block rows, the last may be less.

    `spec.strips` is the wish: small pictures get fewer, and only one where strips are impossible.

    Parameters
    ----------
    spec : ProductSpec
    shape : sequence of int
        (H, W, C).
    """
    height, width, channels = shape
    across, down = _unit(spec, channels)
    block_rows = -(-height // down)
    rows_each = -(-block_rows // spec.strips)
    if rows_each * -(-width // across) > _MAX_INTERVAL:
        return [(0, height)]
    step = rows_each * down
    return [(top, min(top + step, height)) for top in range(0, height, step)]


def _unit(spec: ProductSpec, channels: int) -> tuple[int, int]:
    return _UNITS["Gray" if channels == 1 else spec.subsampling]


def _interval(spec: ProductSpec, shape: Sequence[int], bounds: Sequence[tuple[int, int]]) -> int:
    """Coded units between two restart markers."""
    across, down = _unit(spec, shape[2])
    return (bounds[0][1] // down) * -(-shape[1] // across)


def _encode(spec: ProductSpec, picture: NDArray[np.uint8]) -> bytes:
    grey = picture.shape[2] == 1
    encoded: bytes = simplejpeg.encode_jpeg(
        picture,
        quality=spec.quality,
        colorspace="GRAY" if grey else "BGR",
        colorsubsampling="Gray" if grey else spec.subsampling,
    )
    return encoded


def _joined(strips: Sequence[bytes], bounds: Sequence[tuple[int, int]], interval: int) -> bytes:
    cut = [_cut(strip) for strip in strips]
    first = cut[0]
    if any((one.head, one.scan) != (first.head, first.scan) for one in cut[1:]):
        raise ValueError("the encoder used different tables for two strips of one picture")
    head = bytearray(first.head)
    struct.pack_into(">H", head, first.frame + 1, bounds[-1][1])
    pieces: list[Any] = [head, struct.pack(">BBHH", 0xFF, _DRI, 4, interval), first.scan]
    for i, one in enumerate(cut):
        if i:
            pieces.append(bytes((0xFF, 0xD0 + (i - 1) % 8)))
        pieces.append(one.coded)
    pieces.append(b"\xff\xd9")
    return b"".join(pieces)


def _cut(strip: bytes) -> _Strip:
    frame = scan = coded = 0
    for marker, offset, length in jpeg_segments(strip):
        if marker == _SOF0:
            frame = offset
        elif marker == _SOS:
            scan, coded = offset - 4, offset + length
        elif (0xC0 < marker <= 0xCF and marker != 0xC4) or marker == _DRI:
            raise ValueError("strips need a plain baseline JPEG")
    if not frame or not strip.endswith(b"\xff\xd9"):
        raise ValueError("strips need a plain baseline JPEG")
    head = bytearray(strip[:scan])
    struct.pack_into(">H", head, frame + 1, 0)
    return _Strip(bytes(head), frame, strip[scan:coded], memoryview(strip)[coded:-2])
