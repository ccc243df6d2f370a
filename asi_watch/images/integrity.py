"""Signs that bytes of an image are missing or overwritten, beyond what decoders notice."""

from __future__ import annotations

import struct
import zlib

from asi_watch.images.headers import Header, HeaderError, jpeg_segments, png_chunks

__all__ = ["check_png", "has_hole", "is_whole"]

_HOLE = bytes(64)
_DHT, _SOS = 0xC4, 0xDA


def is_whole(data: bytes, header: Header) -> bool:
    """Tell whether the bytes reach the end mark of their format.

    The mark proves nothing about what lies before it; its absence proves that bytes are missing.
    """
    if header.container == "jpeg":
        # Inside entropy-coded data 0xFF is always followed by 0x00 or a restart mark, so this pair
        # after the scan's header can only be the end mark; bytes after it are allowed.
        return data.rfind(b"\xff\xd9") >= header.data_offset
    if header.container == "png":
        return data.find(b"IEND", header.data_offset) >= 0
    return _codestream_is_whole(data, header.data_offset)


def has_hole(data: bytes, header: Header) -> bool:
    """Tell whether zero bytes stand where a baseline JPEG's pixels should be.

    Holes are what power cuts and interrupted transfers leave. The entropy code synchronises itself
    again behind one, so that a strict decoder often meets the end mark with the right number of
    blocks and sees nothing wrong. With the usual tables, though, sixty-four zero bytes would mean
    two whole blocks of nothing but coefficients of −1; only where the all-zero code of every AC
    table in use is "end of block" can they be a flat picture.
    """
    if header.container != "jpeg" or header.progressive:
        return False
    end = data.rfind(b"\xff\xd9")
    if data.find(_HOLE, header.data_offset, end) < 0:
        return False
    return _first_ac_symbols(data) != {0x00}


def _first_ac_symbols(data: bytes) -> set[int]:
    """Return the symbols whose code is all zeros, over the AC tables that the scan uses."""
    first: dict[int, int] = {}
    for marker, offset, length in jpeg_segments(data):
        at, end = offset, offset + length
        while marker == _DHT and at + 18 <= end:
            if data[at] >> 4 == 1:
                first[data[at] & 15] = data[at + 17]
            at += 17 + sum(data[at + 1 : at + 17])
        if marker == _SOS:
            used = data[offset + 2 : offset + 1 + 2 * data[offset] : 2]
            return {first.get(tables & 15, -1) for tables in used}
    return set()


def check_png(data: bytes) -> None:
    """Check every chunk's CRC, the end chunk, and that the pixel stream inflates to its end.

    A PNG decoder shows what it could read of a damaged file; this is what says that all is there.

    Raises
    ------
    HeaderError
        If anything is missing, damaged or more than the header claims.
    """
    inflate = zlib.decompressobj()
    total = 0
    limit = _png_stream_limit(data)
    for kind, payload in png_chunks(data):
        if kind == b"IDAT":
            total += _inflated(inflate, payload, limit - total)
        if kind == b"IEND":
            break
    else:
        raise HeaderError("ends before the PNG's end mark", incomplete=True)
    if not inflate.eof:
        raise HeaderError("has a PNG pixel stream that ends too early")


def _png_stream_limit(data: bytes) -> int:
    """Bytes the inflated stream can have at most: four channels, filter bytes, interlacing."""
    width, height = struct.unpack_from(">II", data, 16)
    return int((width * 4 + 9) * (height + 8) + 64)


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


def _codestream_is_whole(data: bytes, begin: int) -> bool:
    """Follow the JPEG 2000 tile parts by their lengths to the end mark."""
    at = begin + 2
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFFD9:
            return True
        if marker == 0xFF90:  # start of tile part: its length spans the packets
            if at + 12 > len(data):
                return False
            part = struct.unpack_from(">I", data, at + 6)[0]
            if part == 0:
                return data.rstrip(b"\x00").endswith(b"\xff\xd9")
            at += max(part, 12)
        else:
            at += 2 + max(length, 2)
    return data[at : at + 2] == b"\xff\xd9"
