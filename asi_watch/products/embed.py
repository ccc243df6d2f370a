"""Carrying the provenance inside each format, and finding it again without decoding pixels.

jpg: EXIF for people, the JSON in comment segments; png: eXIf and an iTXt chunk; jp2: a UUID box;
exr: a string attribute; tiff: ImageDescription; hdr: comment lines. Reading looks at the first
megabyte only, where every one of these lies. EXIF says when the slot was, what wrote the picture,
and what it was made of.
"""

import os
import struct
import zlib
from collections.abc import Callable
from datetime import timedelta

from PIL import Image

from asi_watch.files import open_regular, shown
from asi_watch.images.headers import (
    JP2_MAGIC,
    JPEG_MAGIC,
    PNG_MAGIC,
    HeaderError,
    jp2_boxes,
    jpeg_segments,
    png_chunks,
)
from asi_watch.products.provenance import MARKER, Provenance, ProvenanceError

EXR_ATTRIBUTE = "asiWatchProvenance"
_PNG_KEYWORD = b"asi-watch"
_JP2_UUID = bytes.fromhex("b8a7f0b6f5f54f0c9d3fa51a7c4e1d02")
_HDR_PREFIX = b"#asi-watch:"
# Some readers of .hdr take lines of at most 127 characters.
_HDR_LINE = 100
_FIRST_BYTES, _HEAD_BYTES = 16 << 10, 1 << 20
_OPENING = f'{{"{MARKER}"'.encode()
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
    return exif.tobytes()


def _offset(provenance: Provenance) -> str:
    """Return the name clock's distance from UTC as ±HH:MM."""
    ahead = provenance.slot - provenance.slot_utc.replace(tzinfo=None)
    minutes = round(ahead / timedelta(minutes=1))
    hours, minutes_left = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02d}:{minutes_left:02d}"


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:_MAX_TEXT].replace("\0", " ")


def with_provenance(image: bytes | memoryview, provenance: Provenance) -> bytes:
    """Put the provenance into a whole JPEG, PNG, JP2 or Radiance picture, told by its first bytes.

    Parameters
    ----------
    image : bytes-like
    provenance : Provenance
    """
    view = memoryview(image)
    head = bytes(view[:4096])
    if head.startswith(JPEG_MAGIC):
        at, inserted = _for_jpeg(head, provenance)
    elif head.startswith(PNG_MAGIC):
        at, inserted = 33, _for_png(provenance)  # behind its header
    elif head.startswith(JP2_MAGIC):
        # A UUID box before its codestream.
        at = next(begin for kind, begin, _ in jp2_boxes(head, 0, 4096) if kind == b"jp2c") - 8
        text = provenance.to_json().encode("ascii")
        inserted = struct.pack(">I", 24 + len(text)) + b"uuid" + _JP2_UUID + text
    else:
        # Comment lines behind the first line of a Radiance picture.
        at = head.index(b"\n") + 1
        pieces = _pieces(provenance, _HDR_LINE - len(_HDR_PREFIX))
        inserted = b"".join(_HDR_PREFIX + one + b"\n" for one in pieces)
    return b"".join((view[:at], inserted, view[at:]))


def _for_jpeg(head: bytes, provenance: Provenance) -> tuple[int, bytes]:
    """Segments with EXIF and provenance, which go behind the JFIF segment."""
    at = 4 + int.from_bytes(head[4:6], "big") if head[2:4] == b"\xff\xe0" else 2
    pieces = [(0xE1, _exif(provenance)), *((0xFE, one) for one in _pieces(provenance, 65533))]
    segments = (struct.pack(">BBH", 0xFF, kind, len(one) + 2) + one for kind, one in pieces)
    return at, b"".join(segments)


def _for_png(provenance: Provenance) -> bytes:
    """Give an eXIf and an iTXt chunk."""
    text = _PNG_KEYWORD + b"\0\0\0\0\0" + provenance.to_json().encode("ascii")
    chunks = [b"eXIf" + _exif(provenance)[6:], b"iTXt" + text]
    return b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def _pieces(provenance: Provenance, step: int) -> list[bytes]:
    text = provenance.to_json().encode("ascii")
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
    read = next((read for magic, read in _READERS.items() if head.startswith(magic)), None)
    try:
        text = None if read is None else read(head)
    except (ValueError, struct.error, IndexError) as error:
        raise ProvenanceError(f"its header is damaged ({error})") from None
    if text is None or not text.startswith(_OPENING):
        raise ProvenanceError("holds no provenance of asi-watch")
    return Provenance.from_json(text)


def _in_jpeg(head: bytes) -> bytes:
    text = b""
    for marker, offset, length in jpeg_segments(head):
        piece = head[offset : offset + length]
        if marker == 0xFE and (text or piece.startswith(_OPENING)):
            text += piece
    return text


def _in_png(head: bytes) -> bytes | None:
    prefix = _PNG_KEYWORD + b"\0\0\0\0\0"
    for kind, payload in png_chunks(head):
        if kind == b"IDAT":
            return None
        if kind == b"iTXt" and payload.startswith(prefix):
            return payload[len(prefix) :]
    return None


def _in_jp2(head: bytes) -> bytes | None:
    for kind, begin, behind in jp2_boxes(head, 0, len(head)):
        if kind == b"jp2c":
            return None
        if kind == b"uuid" and head[begin : begin + 16] == _JP2_UUID:
            return head[begin + 16 : behind]
    return None


def _in_exr(head: bytes) -> bytes | None:
    at = 8
    while head[at] != 0:
        name_end = head.index(b"\0", at, at + 256)
        kind_end = head.index(b"\0", name_end + 1, name_end + 257)
        (size,) = struct.unpack_from("<i", head, kind_end + 1)
        begin = kind_end + 5
        if size < 0:
            raise HeaderError("an attribute of negative size")
        if head[at:name_end] == EXR_ATTRIBUTE.encode():
            return head[begin : begin + size]
        at = begin + size
    return None


def _in_hdr(head: bytes) -> bytes:
    end = head.find(b"\n\n")
    lines = head[: max(end, 0)].split(b"\n")
    return b"".join(line[len(_HDR_PREFIX) :] for line in lines if line.startswith(_HDR_PREFIX))


def _in_tiff(head: bytes) -> bytes | None:
    order = "<" if head.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", head, 4)
    (count,) = struct.unpack_from(f"{order}H", head, directory)
    for i in range(count):
        tag, kind, length, at = struct.unpack_from(f"{order}HHII", head, directory + 2 + 12 * i)
        if tag == 270 and kind == 2:
            return head[at : at + length].rstrip(b"\0")
    return None


_READERS: dict[bytes, Callable[[bytes], bytes | None]] = {
    JPEG_MAGIC: _in_jpeg,
    PNG_MAGIC: _in_png,
    JP2_MAGIC: _in_jp2,
    b"\x76\x2f\x31\x01": _in_exr,
    b"#?": _in_hdr,
    b"II*\0": _in_tiff,
    b"MM\0*": _in_tiff,
}
"""How a format, told by its first bytes, is searched for the provenance."""
