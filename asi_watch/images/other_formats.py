"""PNG and JPEG 2000 read strictly, at a cost that is known before anything is decoded."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.images.headers import MOST_PARTS, PNG_MAGIC, Header, HeaderError, png_chunks
from asi_watch.images.jp2_child import REFUSED

__all__ = ["decode_jp2", "decode_png"]

# --- PNG ------------------------------------------------------------------------------------------


def decode_png(data: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode a PNG after checking all of its bytes, to (H, W, C) uint8 BGR or grey without alpha.

    Parameters
    ----------
    data : bytes
        The whole file; HeaderError if it is incomplete or damaged.
    header : Header
        What `read_header` found in it.
    """
    plain = _plain_png(data)
    try:
        decoded = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
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


def _plain_png(data: bytes) -> bytes:
    """Check every chunk and the pixel stream; return the file with nothing but its picture.

    A decoder shows what it could read of a damaged file; this is what says that all is there.
    """
    inflate = zlib.decompressobj()
    width, height = struct.unpack_from(">II", data, 16)
    # At most four channels, and bytes for the filters; interlacing has seven passes.
    left = (width * 4 + 9) * (height + 8) + 64
    pieces = [PNG_MAGIC]
    for kind, payload in png_chunks(data):
        if kind == b"IDAT":
            left -= _inflated(inflate, payload, left)
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            body = kind + payload
            pieces.append(struct.pack(">I", len(payload)) + body)
            pieces.append(struct.pack(">I", zlib.crc32(body)))
        if kind == b"IEND":
            break
    else:
        raise HeaderError("ends before its end mark", incomplete=True)
    if not inflate.eof:
        raise HeaderError("has a PNG pixel stream that ends too early")
    return b"".join(pieces)


def _inflated(inflate: zlib._Decompress, payload: bytes, limit: int) -> int:
    """Inflate one chunk in small pieces, so that a zip bomb is met while it is small."""
    total = 0
    try:
        while payload and not inflate.eof:
            total += len(inflate.decompress(payload, 1 << 18))
            if total > limit:
                raise HeaderError("has a PNG pixel stream longer than its header claims")
            payload = inflate.unconsumed_tail
    except zlib.error:
        raise HeaderError("has a damaged PNG pixel stream") from None
    return total


# --- JPEG 2000 ------------------------------------------------------------------------------------

_CHILD = Path(__file__).with_name("jp2_child.py")
# Measured on 1 and 6 million pixels: the decoder takes 21 to 48 bytes for a pixel of three
# channels, and 0.1 to 0.7 s of computing for a million.
_MEMORY, _MEMORY_PER_SAMPLE, _MOST_MEMORY = 64 << 20, 16, 2 << 30
_SECONDS, _PIXELS_PER_SECOND = 5, 500_000
# A computer under load computes slowly; this ends what waits without computing.
_PATIENCE = 10
# So many at once, whatever the number of threads: together they may take twice that memory.
_TURN = threading.BoundedSemaphore(2)
_PIXELS_PER_PACKET, _FREE_PACKETS = 16, 100_000
_TILE, _END = 0xFF90, 0xFFD9


def decode_jp2(data: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode a JPEG 2000 picture in a process that may not take more than its size justifies.

    Damage inside the code blocks cannot be seen: JPEG 2000 has no checksums. OSError if no process
    can be started.

    Parameters
    ----------
    data : bytes
        The whole file; HeaderError if it is incomplete, refused by the decoder, or costs too much.
    header : Header
        What `read_header` found in it.
    """
    _check_codestream(data, header)
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


def _check_codestream(data: bytes, header: Header) -> None:
    """Follow the tile parts to the end mark; refuse a main header with absurdly many packets.

    A packet costs memory even if it is empty, and precincts of 1 × 1 pixel make one for each.
    """
    parts = list(_codestream_parts(data, header.codestream))
    if not _is_whole(data, parts):
        raise HeaderError("ends before its end mark", incomplete=True)
    x1, y1, x0, y0, tile_x, tile_y = struct.unpack_from(">6I", data, header.codestream + 8)
    if not (tile_x and tile_y):
        raise HeaderError("has a broken JP2 header")
    wide, high = min(tile_x, x1 - x0), min(tile_y, y1 - y0)
    tiles = -(-(x1 - x0) // wide) * -(-(y1 - y0) // high)
    for marker, at in takewhile(lambda part: part[0] != _TILE, parts):
        if marker == 0xFF52 and at + 14 <= len(data):
            style, _, layers, _, levels = struct.unpack_from(">BBHBB", data, at + 4)
            sizes = data[at + 14 : at + 15 + levels] if style & 1 else bytes([0xFF]) * 33
            packets = layers * header.channels * tiles * _precincts(wide, high, levels, sizes)
            if packets > _FREE_PACKETS + header.height * header.width // _PIXELS_PER_PACKET:
                raise HeaderError(f"is a JP2 with too many packets ({packets}: tiny precincts?)")


def _precincts(wide: int, high: int, levels: int, sizes: bytes) -> int:
    """Precincts of one tile and component, over all of its resolutions."""
    total = 0
    for size, level in zip(sizes, range(levels, -1, -1), strict=False):
        across, down = -(-wide >> level) or 1, -(-high >> level) or 1
        total += -(-across >> (size & 15)) * -(-down >> (size >> 4))
    return max(total, 1)


def _is_whole(data: bytes, parts: list[tuple[int, int]]) -> bool:
    marker, at = parts[-1] if parts else (0, 0)
    if marker == _TILE and data[at + 6 : at + 10] == bytes(4):  # as long as the rest
        return data.rstrip(b"\0").endswith(b"\xff\xd9")
    return marker == _END


def _codestream_parts(data: bytes, begin: int) -> Iterator[tuple[int, int]]:
    """Walk the markers and tile parts of a codestream to its end mark, each with its offset."""
    at = begin + 2
    for _ in range(MOST_PARTS):
        if at + 2 > len(data):
            return
        marker = int.from_bytes(data[at : at + 2], "big")
        yield marker, at
        if marker == _END:
            return
        size = 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
        if marker == _TILE and at + 12 <= len(data):  # its length spans the packets
            size = struct.unpack_from(">I", data, at + 6)[0]
            size = len(data) - at if size == 0 else max(size, 12)
        at += size
    raise HeaderError(f"has more than {MOST_PARTS} parts in its codestream")
