"""Strict reading of exposures: a file either gives all of its pixels, or the reason why not.

Common decoders return a picture for half a file. Here a file is judged by its content in the order
of cost: kind of file, size, header, end mark, and at last a decode that takes warnings for errors.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch import files
from asi_watch.buffers import Allocate, fresh
from asi_watch.errors import ImageError
from asi_watch.files import FileSignature, open_regular
from asi_watch.images import headers
from asi_watch.images.headers import JPEG_MAGIC, PNG_MAGIC, HeaderError, Metadata, read_header
from asi_watch.images.jpeg import JpegPicture
from asi_watch.images.other_formats import (
    MOST_PIXELS,
    Levels,
    decode_in_child,
    decode_jp2,
    decode_png,
    kind_of,
)

# How much a file may ask for before it is refused, undecoded.
_MAX_BYTES = 64 << 20
_TAIL_BYTES = _HEAD_BYTES = 65536


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One exposure, decoded."""

    # BGR, or one channel for a grey image; as stored, never rotated. uint8, of a linear camera
    # also uint16 or float32.
    pixels: NDArray[Any]
    signature: FileSignature  # which content of the file this is
    metadata: Metadata  # its orientation is not applied
    levels: Levels | None = None  # black and white, where the file states them


def read_image(
    path: str | os.PathLike[str], *, allocate: Allocate = fresh, linear: bool = False
) -> Frame:
    """Read one exposure, whole or not at all; ImageError says whether it may still be growing.

    Parameters
    ----------
    path : path-like
        Names with undecodable bytes are fine.
    allocate : callable
        Gives the memory for the pixels, e.g. `BufferPool.take`.
    linear : bool
        16-bit and floating-point samples are read as well; otherwise they are refused.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise ImageError(name, "is no possible file name")
    try:
        data, sign = _read_bytes(name)
    except files.NotRegularFileError as error:
        raise ImageError(name, str(error)) from None
    except FileNotFoundError:
        raise ImageError(name, "no such file", may_recover=True) from None
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise ImageError(name, reason, may_recover=True) from error
    try:
        pixels, levels = _decode(data, allocate)
    except HeaderError as error:
        raise ImageError(name, str(error), may_recover=error.incomplete) from None
    except OSError as error:
        reason = f"cannot be decoded ({error.strerror or error})"
        raise ImageError(name, reason, may_recover=True) from error
    if pixels.dtype != np.uint8 and not linear:
        text = f"has {8 * pixels.itemsize} bits per sample; more than 8 need `response: linear`"
        raise ImageError(name, text)
    return Frame(pixels, sign, headers.read_metadata(data), levels)


def looks_complete(path: str | os.PathLike[str]) -> bool:
    """Return False if a file is empty, unreadable, or lacks its end mark; True proves nothing.

    Parameters
    ----------
    path : path-like
        Only the end marks of JPEG and PNG are looked for.
    """
    try:
        descriptor, status = open_regular(path)
        with os.fdopen(descriptor, "rb") as stream:
            head = stream.read(16)
            stream.seek(max(0, status.st_size - _TAIL_BYTES))
            tail = stream.read(_TAIL_BYTES)
    except (OSError, ValueError):
        return False
    if head.startswith(JPEG_MAGIC):
        return b"\xff\xd9" in tail
    return b"IEND" in tail if head.startswith(PNG_MAGIC) else bool(head.strip(b"\x00"))


def _read_bytes(name: str) -> tuple[bytes, FileSignature]:
    descriptor, status = open_regular(name)
    with os.fdopen(descriptor, "rb") as stream:
        before = files.signature(descriptor)
        if status.st_size > _MAX_BYTES:
            raise ImageError(name, f"has {status.st_size} bytes; the limit is {_MAX_BYTES}")
        # One byte more than expected, so that a file that is still growing is noticed.
        data = stream.read(status.st_size + 1)
        after = files.signature(descriptor)
    if before != after or before != files.signature(name) or len(data) != after.size:
        raise ImageError(name, "changed while it was read", may_recover=True)
    return data, after


def _decode(data: bytes, allocate: Allocate) -> tuple[NDArray[Any], Levels | None]:
    if (kind := kind_of(data)) is not None:
        return decode_in_child(kind, data)
    header = read_header(data)
    claim = f"{header.width}×{header.height} pixels"
    if not header.height * header.width:
        raise HeaderError(f"claims a size of {claim}")
    if header.height * header.width > MOST_PIXELS:
        raise HeaderError(f"claims {claim}; the limit is {MOST_PIXELS} in all")
    if header.container == "jpeg":
        return JpegPicture(data, header).decode(allocate), None
    decode = decode_png if header.container == "png" else decode_jp2
    return decode(data, header), None


def read_stated(path: str | os.PathLike[str]) -> Metadata:
    """Read the metadata of a file that may be damaged; OSError if it cannot be read at all.

    Parameters
    ----------
    path : path-like
    """
    descriptor, status = open_regular(path)
    with os.fdopen(descriptor, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
        found = headers.read_metadata(head)
        more = _HEAD_BYTES < status.st_size <= _MAX_BYTES and headers.may_state_more(head)
        if found.exposure_us is None and more:
            found = headers.read_metadata(head + stream.read(status.st_size))
    return found
