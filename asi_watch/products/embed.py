"""Carrying the provenance inside each format, and finding it again without decoding pixels.

jpg: EXIF for people, the JSON in comment segments; png: an iTXt chunk and eXIf; jp2: a UUID box;
exr: a string attribute; tiff: ImageDescription; hdr: comment lines. Reading looks at the first
megabyte only, where every one of these lies: the JSON is recognised by its first key. EXIF says
when the slot was, what wrote the picture, and what it was made of.
"""

import os
import re
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from PIL import Image

from asi_watch.files import open_regular, shown
from asi_watch.images.headers import JP2_MAGIC, JPEG_MAGIC, PNG_MAGIC, jp2_boxes, jpeg_segments
from asi_watch.products.provenance import MARKER, Provenance, ProvenanceError, Scalar

EXR_ATTRIBUTE = "asiWatchProvenance"
_HDR_MAGIC = b"#?"
_MAGICS = (JPEG_MAGIC, PNG_MAGIC, JP2_MAGIC, _HDR_MAGIC, b"\x76\x2f\x31\x01", b"II*\0", b"MM\0*")
_PNG_KEYWORD = b"asi-watch"
_JP2_UUID = bytes.fromhex("b8a7f0b6f5f54f0c9d3fa51a7c4e1d02")
_HDR_PREFIX = b"#asi-watch:"
# Some readers of .hdr take lines of at most 127 characters.
_HDR_LINE = 100
_FIRST_BYTES, _HEAD_BYTES = 16 << 10, 1 << 20
_OPENING = f'{{"{MARKER}"'.encode()
_HEADER_EXPOSURE = re.compile(rb"(\bEXP=)\d{1,9}")
# Readers show whole descriptions; nobody reads a thousand exposures there.
_MAX_TEXT = 2000


def describe(provenance: Provenance) -> str:
    """Return one ASCII sentence for people: exposures, camera, slot, algorithm.

    Parameters
    ----------
    provenance : Provenance
    """
    times = ", ".join(f"{source.exposure_us:g}" for source in provenance.sources)
    of = f" of {provenance.expected}" if provenance.expected is not None else ""
    curve = f", response curve {provenance.curve_id}" if provenance.curve_id else ""
    revision = f", revision {provenance.revision}" if provenance.revision > 1 else ""
    doubt = "; doubtful: " + "; ".join(provenance.notes) if provenance.notes else ""
    return _ascii(
        f"HDR image from {provenance.used}{of} exposures ({times} us), camera {provenance.camera}, "
        f"slot {provenance.slot.isoformat(' ')} (UTC{_offset(provenance)}), "
        f"{provenance.algorithm}{curve}{revision}{doubt}"
    )


def _exif(provenance: Provenance) -> bytes:
    """Return an EXIF block, with the prefix that a JPEG wants."""
    used = ", ".join(f"{source.path} ({source.exposure_us:g} us)" for source in provenance.sources)
    exif = Image.Exif()
    exif[0x010E] = describe(provenance)  # ImageDescription
    exif[0x0112] = 1  # Orientation: as stored
    exif[0x0131] = _ascii(provenance.software)  # Software
    shot = exif.get_ifd(0x8769)
    shot[0x9000] = b"0300"  # ExifVersion
    shot[0x9003] = provenance.slot.strftime("%Y:%m:%d %H:%M:%S")  # DateTimeOriginal
    shot[0x9011] = _offset(provenance)  # OffsetTimeOriginal
    shot[0x9286] = b"ASCII\0\0\0" + _ascii(f"exposures used: {used}").encode()  # UserComment
    geometry = provenance.geometry
    if isinstance(lens := geometry.get("lens"), str):
        shot[0xA434] = _ascii(lens)  # LensModel
    exif.get_ifd(0x8825).update(_gps(geometry))
    return exif.tobytes()


def _gps(geometry: Mapping[str, Scalar]) -> dict[int, Any]:
    """Return the tags of position and direction."""
    found: dict[int, Any] = {}
    for tag, key, (positive, negative) in ((1, "latitude", "NS"), (3, "longitude", "EW")):
        if isinstance(degrees := geometry.get(key), (int, float)):
            minutes, seconds = divmod(abs(degrees) * 3600, 60)
            whole, minutes = divmod(minutes, 60)
            found[tag] = negative if degrees < 0 else positive
            found[tag + 1] = (whole, minutes, round(seconds, 4))
    if isinstance(altitude := geometry.get("altitude"), (int, float)):
        found |= {5: b"\1" if altitude < 0 else b"\0", 6: abs(float(altitude))}
    if isinstance(direction := geometry.get("direction"), (int, float)):
        found |= {16: "T", 17: float(direction)}  # of true north
    return found


def _offset(provenance: Provenance) -> str:
    """Return the name clock's distance from UTC as ±HH:MM."""
    ahead = provenance.slot - provenance.slot_utc.replace(tzinfo=None)
    minutes = round(ahead / timedelta(minutes=1))
    hours, minutes_left = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02d}:{minutes_left:02d}"


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:_MAX_TEXT].replace("\0", " ")


def camera_header(head: bytes) -> bytes | None:
    """Return the text header that a camera wrote into a JPEG, such as Mobotix; None without one.

    The exposure time in it is set to 0, which stands for a merged picture.

    Parameters
    ----------
    head : bytes
        The file, or its beginning.
    """
    with suppress(ValueError):
        for marker, offset, length in jpeg_segments(head) if head.startswith(JPEG_MAGIC) else ():
            text = head[offset : offset + length]
            # What could be taken for a provenance is no camera's.
            if marker == 0xFE and _HEADER_EXPOSURE.search(text) and MARKER.encode() not in text:
                return _HEADER_EXPOSURE.sub(rb"\g<1>0", text)
    return None


def with_provenance(
    image: bytes | memoryview, provenance: Provenance, header: bytes | None = None
) -> bytes:
    """Put the provenance into a whole JPEG, PNG, JP2 or Radiance picture, told by its first bytes.

    Parameters
    ----------
    image : bytes-like
    provenance : Provenance
    header : bytes, optional
        Text of the camera; of a JPEG alone, where it comes first: some look no further than 5000
        bytes.
    """
    view, text = memoryview(image), provenance.to_json().encode("ascii")
    head = bytes(view[:4096])
    if head.startswith(JPEG_MAGIC):
        # Behind the JFIF segment.
        at = 4 + int.from_bytes(head[4:6], "big") if head[2:4] == b"\xff\xe0" else 2
        comments = [*([header] if header else []), *_pieces(text, 65533)]
        parts = [(0xFE, comment) for comment in comments]
        parts.insert(1 if header else 0, (0xE1, _exif(provenance)))
        inserted = b"".join(struct.pack(">BBH", 0xFF, k, len(p) + 2) + p for k, p in parts)
    elif head.startswith(PNG_MAGIC):
        at = 33  # behind its header
        chunks = (b"iTXt" + _PNG_KEYWORD + bytes(5) + text, b"eXIf" + _exif(provenance)[6:])
        inserted = b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
            for chunk in chunks
        )
    elif head.startswith(JP2_MAGIC):
        at = next(begin for kind, begin, _ in jp2_boxes(head, 0, 4096) if kind == b"jp2c") - 8
        inserted = struct.pack(">I", 24 + len(text)) + b"uuid" + _JP2_UUID + text
    else:
        at = head.index(b"\n") + 1
        pieces = _pieces(text, _HDR_LINE - len(_HDR_PREFIX))
        inserted = b"".join(_HDR_PREFIX + piece + b"\n" for piece in pieces)
    return b"".join((view[:at], inserted, view[at:]))


def _pieces(text: bytes, step: int) -> list[bytes]:
    return [text[i : i + step] for i in range(0, len(text), step)]


def read_provenance(path: str | os.PathLike[str]) -> Provenance:
    """Read the provenance out of a product of any format; ProvenanceError if it has none.

    Parameters
    ----------
    path : path-like
    """
    try:
        descriptor, _ = open_regular(path)
        try:
            return provenance_of_open_file(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ProvenanceError(f"{shown(path)}: cannot be read ({error})") from error
    except ValueError as error:
        raise ProvenanceError(f"{shown(path)}: {error}") from None


def provenance_of_open_file(descriptor: int) -> Provenance:
    """Read the provenance out of an open file; see `read_provenance`.

    Parameters
    ----------
    descriptor : int
        Stays open.
    """
    head = os.pread(descriptor, _FIRST_BYTES, 0)
    try:
        return find_provenance(head)
    except ProvenanceError:
        if len(head) < _FIRST_BYTES:
            raise
    return find_provenance(os.pread(descriptor, _HEAD_BYTES, 0))


def find_provenance(head: bytes) -> Provenance:
    """Find the provenance in a product's bytes; ProvenanceError if there is none, or a damaged one.

    Parameters
    ----------
    head : bytes
        The first megabyte, or all.
    """
    text = head if head.startswith(_MAGICS) else b""
    try:
        if head.startswith(JPEG_MAGIC):
            text = b"".join(
                head[offset : offset + length]
                for marker, offset, length in jpeg_segments(head)
                if marker == 0xFE
            )
        elif head.startswith(_HDR_MAGIC):
            lines = head[: max(head.find(b"\n\n"), 0)].split(b"\n")
            ours = (line for line in lines if line.startswith(_HDR_PREFIX))
            text = b"".join(line[len(_HDR_PREFIX) :] for line in ours)
    except ValueError as error:
        raise ProvenanceError(f"its header is damaged ({error})") from None
    at = text.find(_OPENING)
    if at < 0:
        raise ProvenanceError("holds no provenance of asi-watch")
    return Provenance.from_json(text[at : at + _HEAD_BYTES])
