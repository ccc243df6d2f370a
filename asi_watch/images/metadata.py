"""What a camera says of an exposure inside the file: EXIF, a Mobotix comment, a FITS header."""

import contextlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

from asi_watch.images.headers import (
    JPEG_MAGIC,
    MOST_PARTS,
    PNG_MAGIC,
    HeaderError,
    jpeg_segments,
    png_chunks,
)

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
