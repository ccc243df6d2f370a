"""PNG, JPEG 2000, TIFF, WebP, DNG and FITS read strictly, at a cost that is bounded."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.images.decode_child import MISSING, REFUSED
from asi_watch.images.headers import PNG_MAGIC, Header, HeaderError, is_dng, jp2_boxes, png_chunks

MOST_PIXELS = 64_000_000
"""Of one exposure; what claims more is refused, undecoded."""
Levels = tuple[float | None, float | None]
"""Black and white as a file states them."""

_CHILD = Path(__file__).with_name("decode_child.py")
# Computing is limited more narrowly; this ends what waits without computing.
_PATIENCE = 300
# So many at once, whatever the number of threads: together they may take twice that memory.
_TURN = threading.BoundedSemaphore(2)


def decode_png(data: bytes, header: Header) -> NDArray[Any]:
    """Decode a PNG after checking all of its bytes, to (H, W, C) BGR or grey without alpha.

    HeaderError if it is incomplete or damaged.

    Parameters
    ----------
    data : bytes
        The whole file.
    header : Header
        What `read_header` found in it.
    """
    try:
        decoded = cv2.imdecode(
            np.frombuffer(_plain_png(data, header), np.uint8), cv2.IMREAD_UNCHANGED
        )
    except cv2.error:
        decoded = None
    if decoded is None:
        raise HeaderError("is damaged (the PNG does not decode)")
    if decoded.itemsize * 8 != header.depth or decoded.shape[:2] != (header.height, header.width):
        raise HeaderError("decodes to another size or depth than its header claims")
    channels = decoded.reshape(header.height, header.width, -1)
    if channels.shape[2] < header.channels:
        raise HeaderError("decodes to fewer channels than its header claims")
    return np.ascontiguousarray(channels[:, :, : header.channels])


def _plain_png(data: bytes, header: Header) -> bytes:
    """Check every chunk and the pixel stream; return the file with nothing but its picture.

    A decoder shows what it could read of a damaged file; this is what says that all is there.
    """
    inflate = zlib.decompressobj()
    # At most four channels, and bytes for the filters; interlacing has seven passes.
    left = (header.width * 4 * header.depth // 8 + 9) * (header.height + 8) + 64
    pieces = [PNG_MAGIC]
    for kind, payload in png_chunks(data):
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            body = kind + payload
            pieces.append(struct.pack(f">I{len(body)}sI", len(payload), body, zlib.crc32(body)))
        if kind == b"IEND":
            break
        # In small pieces, so that a bomb is met while it is small.
        while kind == b"IDAT" and payload and not inflate.eof:
            try:
                left -= len(inflate.decompress(payload, 1 << 18))
            except zlib.error:
                raise HeaderError("has a damaged PNG pixel stream") from None
            if left < 0:
                raise HeaderError("has a PNG pixel stream longer than its header claims")
            payload = inflate.unconsumed_tail
    else:
        raise HeaderError("ends before its end mark", incomplete=True)
    if not inflate.eof:
        raise HeaderError("has a PNG pixel stream that ends too early")
    return b"".join(pieces)


def decode_jp2(data: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode a JPEG 2000 picture in a process that may not take more than its size justifies.

    HeaderError if it is incomplete, refused by the decoder, or costs too much; OSError if no
    process can be started. Damage inside the code blocks cannot be seen: there are no checksums.

    Parameters
    ----------
    data : bytes
        The whole file.
    header : Header
        What `read_header` found in it.
    """
    boxes = jp2_boxes(data, 0, len(data))
    stream = next(data[begin:behind] for kind, begin, behind in boxes if kind == b"jp2c")
    if not stream.rstrip(b"\0").endswith(b"\xff\xd9"):  # which occurs nowhere within
        raise HeaderError("ends before its end mark", incomplete=True)
    pixels, _ = decode_in_child("jp2", data)
    if pixels.shape != (header.height, header.width, header.channels):
        raise HeaderError("decodes to another size than its header claims")
    return pixels


def kind_of(data: bytes) -> Literal["tiff", "dng", "webp", "fits"] | None:
    """Recognise what only a process of its own decodes.

    Parameters
    ----------
    data : bytes
        HeaderError if it is recognised and known to be incomplete.
    """
    if data.startswith((b"II*\0", b"MM\0*")):
        return "dng" if is_dng(data) else "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        if len(data) < 8 + int.from_bytes(data[4:8], "little"):
            raise HeaderError("ends before its end", incomplete=True)
        return "webp"
    return "fits" if data.startswith(b"SIMPLE  =") else None


def decode_in_child(kind: str, data: bytes) -> tuple[NDArray[Any], Levels | None]:
    """Decode a picture in a process with limits: its samples, (H, W, C), and its levels if stated.

    HeaderError if it is refused or costs too much; OSError if no process can be started.

    Parameters
    ----------
    kind : str
        "jp2", or what `kind_of` found.
    data : bytes
        The whole file.
    """
    command = [sys.executable, "-I", str(_CHILD), kind, str(MOST_PIXELS)]
    options: dict[str, Any] = {"capture_output": True, "cwd": "/", "timeout": _PATIENCE}
    try:
        with _TURN:
            done = subprocess.run(command, input=data, check=False, **options)
    except subprocess.TimeoutExpired:
        raise HeaderError(f"takes longer to decode than {_PATIENCE} s") from None
    said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"no {kind.upper()}"]
    if done.returncode == MISSING:
        extra = {"dng": "raw"}.get(kind, kind)
        text = f"is read with the package {said[0][:40]}: pip install 'asi-watch[{extra}]'"
        raise HeaderError(f"{text}")
    if done.returncode == REFUSED:
        if kind == "jp2":
            raise HeaderError(f"is damaged ({said[0][:120]})")
        # A file that is still being written ends too early in many ways.
        raise HeaderError(
            f"is a {kind.upper()} that cannot be read: {said[0][:120]}", incomplete=True
        )
    try:
        line, _, samples = done.stdout.partition(b"\n")
        found = json.loads(line)
        pixels = np.frombuffer(samples, found["dtype"]).reshape(found["shape"])
    except ValueError:
        raise HeaderError(
            "cannot be decoded with the memory and time that its size justifies"
        ) from None
    return pixels, found["levels"] and tuple(found["levels"])
