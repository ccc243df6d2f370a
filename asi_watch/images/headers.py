"""What an image file says of itself in its header: its kind, its size, its exposure time.

Read from the bytes without decoding, on hostile input, before any decoder runs: lengths are checked
against the bytes that are there, nothing is allocated by a claimed size, and every loop moves
forward.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JP2_MAGIC = b"\x00\x00\x00\x0cjP  \r\n\x87\n"

# Chunks, segments or boxes of one file: each costs time, and some need only a few bytes.
MOST_PARTS = 20_000

_READ = "JPEG, PNG, JP2, WebP, TIFF, DNG and FITS"
_DNG_VERSION = 0xC612

_OTHERS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"RIFF", "a RIFF file (AVI, WAV)"),
    (b"\0\5\x16\7", "an AppleDouble file (what macOS notes about another file)"),
    (b"<", "text (HTML or XML)"),
)
# Marks of frames, by what they say of their coding.
_FRAMES = {
    **dict.fromkeys((0xC0, 0xC1, 0xC2), ""),
    **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7), "of the lossless or hierarchical kind"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "with arithmetic coding"),
    0xF7: "of the kind JPEG-LS",
}
_FILL = re.compile(rb"\xff*")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}


class HeaderError(ValueError):
    """The bytes are no image we read, for this reason; if incomplete, more bytes could make it one.

    Parameters
    ----------
    reason : str
    incomplete : bool
    """

    def __init__(self, reason: str, *, incomplete: bool = False) -> None:
        super().__init__(reason)
        self.incomplete = incomplete


@dataclass(frozen=True, slots=True)
class Header:
    """Size and kind of an image, as its header claims."""

    container: Literal["jpeg", "png", "jp2"]
    height: int
    width: int
    channels: int  # 1 (grey) or 3: what decoding will give, alpha left out
    depth: int = 8  # bits per sample: 8, or 16 of a PNG
    progressive: bool = False  # a JPEG sent in several scans


def read_header(data: bytes) -> Header:
    """Recognise an image by its content and read what it claims; HeaderError if we cannot read it.

    Parameters
    ----------
    data : bytes
        The whole file, or its beginning. Read are 8 bits per sample, 1 or 3 colour channels.
    """
    if data.startswith(JPEG_MAGIC):
        return _jpeg_header(data)
    if data.startswith(PNG_MAGIC):
        return _png_header(data)
    if data.startswith(JP2_MAGIC):
        return _jp2_header(data)
    if not data:
        raise HeaderError("is empty", incomplete=True)
    if not data.strip(b"\x00"):
        # Left by a power cut, or space reserved by a writer that has yet to fill it.
        raise HeaderError("holds nothing but zero bytes", incomplete=True)
    if any(magic.startswith(data) for magic in (JPEG_MAGIC, PNG_MAGIC, JP2_MAGIC)):
        raise HeaderError(f"ends after {len(data)} bytes", incomplete=True)
    film = "a film, HEIC or AVIF" if data[4:8] == b"ftyp" else None
    other = next((name for magic, name in _OTHERS if data.startswith(magic)), film)
    if other:
        raise HeaderError(f"is {other}, none of {_READ}")
    raise HeaderError(f"is not an image (content is none of {_READ})")


def _checked(header: Header, depth: int) -> Header:
    """Return the header if exposures may have this depth and number of channels."""
    if depth != header.depth:
        raise HeaderError(f"has {depth} bits per sample; exposures need 8")
    if header.channels not in (1, 3):
        kind = " (CMYK or YCCK)" if (header.container, header.channels) == ("jpeg", 4) else ""
        raise HeaderError(f"has {header.channels} components{kind}; exposures need 1 or 3")
    return header


def jpeg_segments(data: bytes, at: int = 2) -> Iterator[tuple[int, int, int]]:
    """Walk a JPEG's segments up to and including the next start of scan or end mark.

    Gives marker (second byte), offset and length of each payload; HeaderError if it breaks off.

    Parameters
    ----------
    data : bytes
    at : int
        Where a segment begins; default: behind SOI.
    """
    for _ in range(MOST_PARTS):
        at = max(at, _FILL.match(data, at).end() - 1)  # type: ignore[union-attr]
        if data[at : at + 2] == b"\xff\xd9":
            yield 0xD9, at + 2, 0
            return
        if at + 4 > len(data):
            raise HeaderError("ends inside the JPEG header", incomplete=True)
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF:
            zeros = not data[at:].strip(b"\0")  # the writer has reserved space, or lost power
            raise HeaderError("has a broken JPEG header", incomplete=zeros)
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7 or length < 2:
            raise HeaderError("has a broken JPEG header")
        if at + 2 + length > len(data):
            raise HeaderError("ends inside the JPEG header", incomplete=True)
        yield marker, at + 4, length - 2
        if marker == 0xDA:
            return
        at += 2 + length
    raise HeaderError(f"has more than {MOST_PARTS} segments")


def _jpeg_header(data: bytes) -> Header:
    frame: tuple[int, int, int, int] | None = None
    progressive = False
    for marker, offset, length in jpeg_segments(data):
        if marker not in _FRAMES:
            continue
        if marker > 0xC2:
            raise HeaderError(f"is a JPEG {_FRAMES[marker]}, which is not read")
        if frame is not None or length < 6:
            raise HeaderError("has a broken JPEG header")
        frame = struct.unpack_from(">BHHB", data, offset)
        progressive = marker == 0xC2
    if frame is None:
        raise HeaderError("has a broken JPEG header (no frame)")
    depth, height, width, components = frame
    if not height and b"\xff\xdc" in data:
        raise HeaderError("gives its height behind its pixels, a rare kind that is not read")
    return _checked(Header("jpeg", height, width, components, progressive=progressive), depth)


def _png_header(data: bytes) -> Header:
    if len(data) < 33:
        raise HeaderError("ends inside the PNG header", incomplete=True)
    length, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13 or colour not in _PNG_CHANNELS:
        raise HeaderError("has a broken PNG header")
    bits = 16 if depth == 16 else 8
    return _checked(Header("png", height, width, _PNG_CHANNELS[colour], bits), depth)


def is_dng(data: bytes) -> bool:
    """Tell whether a TIFF has the tag of DNG.

    Parameters
    ----------
    data : bytes
    """
    order = "<" if data.startswith(b"II") else ">"
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        entries = range(at + 2, at + 2 + 12 * count, 12)
        return any(struct.unpack_from(f"{order}H", data, i)[0] == _DNG_VERSION for i in entries)
    except struct.error:
        return False


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk the types and payloads of a PNG's chunks; HeaderError if one is damaged or cut.

    Parameters
    ----------
    data : bytes
    """
    at = 8
    for _ in range(MOST_PARTS):
        if at >= len(data):
            return
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            raise HeaderError("ends inside a PNG chunk", incomplete=True)
        body = memoryview(data)[at + 4 : end]
        if zlib.crc32(body) != int.from_bytes(data[end : end + 4], "big"):
            raise HeaderError("has a PNG chunk whose checksum is wrong")
        yield bytes(body[:4]), bytes(body[4:])
        at = end + 4
    raise HeaderError(f"has more than {MOST_PARTS} chunks")


def jp2_boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Walk JP2 boxes: type, offset of the payload, offset behind it; HeaderError if one is broken.

    Parameters
    ----------
    data : bytes
    start, end : int
        Offsets; what lies behind `end` is left out.
    """
    at = start
    for _ in range(MOST_PARTS):
        if at + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 16 if length == 1 else 8
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        elif length == 0:
            length = end - at
        if length < head:
            raise HeaderError("has a broken JP2 box")
        yield kind, at + head, min(at + length, end)
        at += length
    raise HeaderError(f"has more than {MOST_PARTS} boxes")


def _jp2_header(data: bytes) -> Header:
    sizes: tuple[int, int, int, int] | None = None
    for kind, begin, behind in jp2_boxes(data, 0, len(data)):
        if kind == b"jp2h":
            for inner, inner_begin, inner_end in jp2_boxes(data, begin, behind):
                if inner == b"ihdr" and inner_end - inner_begin >= 14:
                    sizes = struct.unpack_from(">IIHB", data, inner_begin)
        elif kind == b"jp2c" and sizes is None:
            raise HeaderError("has a JP2 codestream before its header")
        elif kind == b"jp2c" and sizes is not None and begin + 40 <= len(data):
            height, width, components, depth = sizes
            # The decoder believes the codestream's own size, so no cap counts unless they agree.
            soc, siz, _, _, x1, y1, x0, y0 = struct.unpack_from(">HHHHIIII", data, begin)
            if (soc, siz) != (0xFF4F, 0xFF51) or (x1 - x0, y1 - y0) != (width, height):
                raise HeaderError("has a broken JP2 header")
            header = Header("jp2", height, width, components)
            return _checked(header, 8 if depth == 7 else (depth & 0x7F) + 1)
    raise HeaderError("ends inside the JP2 header", incomplete=True)


# --- what cameras state of an exposure ------------------------------------------------------------

_APP1, _COMMENT, _SCAN = 0xE1, 0xFE, 0xDA
_ORIENTATION, _EXIF_FOLDER, _EXPOSURE_TIME = 0x0112, 0x8769, 0x829A
_RATIONAL = 5
_NUMBERS = {3: "H", 4: "I", _RATIONAL: "I"}  # kinds of tags
_MOST_TAGS = 512
_FITS = re.compile(
    rb"(?:EXPTIME |EXPOSURE)= *([0-9]{1,20}(?:\.[0-9]*)?(?:[EeDd][+-]?[0-9]{1,3})?) *(?:/|$)"
)
_CARD, _MOST_CARDS = 80, 3_600
# In microseconds, as a whole number; the same comment holds the settings of the camera.
_MOBOTIX = re.compile(rb"(?:^|[\s\0])EXP=([0-9]{1,9})(?![0-9.])")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file states; nothing in it is believed."""

    exposure_us: float | None = None  # None where it is not stated; may be 0, or absurd
    orientation: int = 1  # of the EXIF tag, 1 … 8; 1 where there is none


def read_metadata(data: bytes) -> Metadata:
    """Read what EXIF, a Mobotix comment or a FITS header states; never raises.

    Parameters
    ----------
    data : bytes
        The file, or its beginning.
    """
    if data.startswith(b"SIMPLE  ="):
        return Metadata(_fits_exposure_us(data))
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _exif(data)
    found = Metadata()
    for block in _blocks(data):
        if block.startswith(b"Exif\0\0"):
            found = _exif(block[6:])
        elif b"PRD=MOBOTIX" in block and found.exposure_us is None:
            match = _MOBOTIX.search(block)
            found = replace(found, exposure_us=float(match[1]) if match else None)
    return found


def may_state_more(head: bytes) -> bool:
    """Tell whether metadata may lie behind the beginning of a file.

    Parameters
    ----------
    head : bytes
    """
    if head.startswith(JPEG_MAGIC):
        try:
            return not any(marker == _SCAN for marker, _, _ in jpeg_segments(head))
        except HeaderError as error:
            return error.incomplete
    return not (head.startswith(PNG_MAGIC) and b"IDAT" in head)


def _exif(tiff: bytes) -> Metadata:
    tags = _tags(tiff)
    orientation = tags.get(_ORIENTATION, (1, 1))[0]
    seconds, parts = tags.get(_EXPOSURE_TIME, (None, 1))
    exposure_us = None
    if seconds is not None:
        exposure_us = seconds * 1_000_000 / parts if parts else 0.0
    return Metadata(exposure_us, orientation if 1 <= orientation <= 8 else 1)


def _blocks(data: bytes) -> Iterator[bytes]:
    """Walk the parts of a header that may hold metadata, as far as they are whole."""
    with contextlib.suppress(HeaderError):
        if data.startswith(JPEG_MAGIC):
            for marker, offset, length in jpeg_segments(data):
                if marker in (_APP1, _COMMENT):
                    yield data[offset : offset + length]
        elif data.startswith(PNG_MAGIC):
            for kind, payload in takewhile(lambda chunk: chunk[0] != b"IDAT", png_chunks(data)):
                if kind == b"eXIf":
                    yield b"Exif\0\0" + payload
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            yield from _webp_exif(data)


def _webp_exif(data: bytes) -> Iterator[bytes]:
    at = 12
    for _ in range(MOST_PARTS):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            yield b"Exif\0\0" + data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0")
        at += 8 + size + size % 2
        if at >= len(data):
            return


def _fits_exposure_us(data: bytes) -> float | None:
    """Read EXPTIME or EXPOSURE, in seconds, of the first header of a FITS file."""
    for at in range(0, min(len(data), _MOST_CARDS * _CARD), _CARD):
        card = data[at : at + _CARD]
        if card.startswith(b"END "):
            return None
        if match := _FITS.match(card):
            return float(match[1].upper().replace(b"D", b"E")) * 1e6
    return None


def _tags(tiff: bytes) -> dict[int, tuple[int, int]]:
    """Read the numbers in the first folder of EXIF and in the one for the exposure, as ratios."""
    order = ">" if tiff.startswith(b"MM") else "<"
    found: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(struct.error):
        found |= _folder(tiff, order, *struct.unpack_from(f"{order}I", tiff, 4))
        found |= _folder(tiff, order, found.get(_EXIF_FOLDER, (len(tiff), 1))[0])
    return found


def _folder(tiff: bytes, order: str, at: int) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(struct.error):
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * min(count, _MOST_TAGS), 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", tiff, entry)
            if number == 1 and kind in _NUMBERS:
                (value,) = struct.unpack_from(order + _NUMBERS[kind], tiff, entry + 8)
                ratio = struct.unpack_from(f"{order}II", tiff, value) if kind == _RATIONAL else ()
                found[tag] = ratio or (value, 1)
    return found
