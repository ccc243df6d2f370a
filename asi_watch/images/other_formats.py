"""PNG and JPEG 2000 read strictly, at a cost that is known before anything is decoded."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.images.headers import PNG_MAGIC, Header, HeaderError, jp2_boxes, png_chunks
from asi_watch.images.jp2_child import REFUSED

_CHILD = Path(__file__).with_name("jp2_child.py")
# Measured on 1 and 6 million pixels: the decoder takes 21 to 48 bytes for a pixel of three
# channels, and 0.1 to 0.7 s of computing for a million.
_MEMORY, _MEMORY_PER_SAMPLE, _MOST_MEMORY = 64 << 20, 16, 2 << 30
_SECONDS, _PIXELS_PER_SECOND = 5, 500_000
# A computer under load computes slowly; this ends what waits without computing.
_PATIENCE = 10
# So many at once, whatever the number of threads: together they may take twice that memory.
_TURN = threading.BoundedSemaphore(2)


def decode_png(data: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode a PNG after checking all of its bytes, to (H, W, C) uint8 BGR or grey without alpha.

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
    if decoded.dtype != np.uint8 or decoded.shape[:2] != (header.height, header.width):
        raise HeaderError("decodes to another size or depth than its header claims")
    channels = decoded.reshape(header.height, header.width, -1)
    if channels.shape[2] < header.channels:
        raise HeaderError("decodes to fewer channels than its header claims")
    return np.ascontiguousarray(channels[:, :, : header.channels], np.uint8)


def _plain_png(data: bytes, header: Header) -> bytes:
    """Check every chunk and the pixel stream; return the file with nothing but its picture.

    A decoder shows what it could read of a damaged file; this is what says that all is there.
    """
    inflate = zlib.decompressobj()
    # At most four channels, and bytes for the filters; interlacing has seven passes.
    left = (header.width * 4 + 9) * (header.height + 8) + 64
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
    samples = header.height * header.width * header.channels
    memory = min(_MEMORY + _MEMORY_PER_SAMPLE * samples, _MOST_MEMORY)
    seconds = _SECONDS + header.height * header.width // _PIXELS_PER_SECOND
    mode = "RGB" if header.channels == 3 else "L"
    command = [sys.executable, "-I", str(_CHILD), mode, str(memory), str(seconds)]
    options: dict[str, Any] = {"capture_output": True, "cwd": "/", "timeout": seconds * _PATIENCE}
    try:
        with _TURN:
            done = subprocess.run(command, input=data, check=False, **options)
    except subprocess.TimeoutExpired:
        raise HeaderError(f"takes longer to decode than {seconds * _PATIENCE} s") from None
    if done.returncode == REFUSED:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no JPEG 2000"]
        raise HeaderError(f"is damaged ({reason[0][:120]})")
    if done.returncode or len(done.stdout) != samples:
        raise HeaderError(
            f"cannot be decoded with {memory >> 20} MiB of memory and {seconds} s of computing"
        )
    pixels = np.frombuffer(done.stdout, np.uint8)
    shaped = pixels.reshape(header.height, header.width, header.channels)
    return np.ascontiguousarray(shaped[:, :, ::-1])
