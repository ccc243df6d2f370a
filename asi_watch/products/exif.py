"""The EXIF block of a picture: when its slot was, what wrote it, what it was made of.

Written by hand, because it is seven fields: Exif 3.0 (CIPA DC-008-2023), little-endian TIFF.
"""

from __future__ import annotations

import struct
from datetime import UTC, timedelta

from asi_watch.products.provenance import Provenance

__all__ = ["describe", "exif_block"]

_ASCII, _SHORT, _LONG, _UNDEFINED = 2, 3, 4, 7
_TYPE_BYTES = {_ASCII: 1, _SHORT: 2, _LONG: 4, _UNDEFINED: 1}
# Readers show whole descriptions; nobody reads a thousand exposures there.
_MAX_TEXT = 2000

_Entry = tuple[int, int, bytes]


def describe(provenance: Provenance) -> str:
    """Return one ASCII sentence for people: exposures, camera, slot, algorithm."""
    times = ", ".join(f"{source.exposure_us:g}" for source in provenance.sources)
    of = f" of {provenance.expected}" if provenance.expected is not None else ""
    curve = f", response curve {provenance.curve_id}" if provenance.curve_id else ""
    revision = f", revision {provenance.revision}" if provenance.revision > 1 else ""
    text = (
        f"HDR image from {provenance.used}{of} exposures ({times} us), camera {provenance.camera}, "
        f"slot {provenance.slot.isoformat(' ')} (UTC{_offset(provenance)}), "
        f"{provenance.algorithm}{curve}{revision}"
    )
    return _ascii(text)


def exif_block(provenance: Provenance) -> bytes:
    """Return the TIFF structure of an EXIF block, without any container's prefix.

    Parameters
    ----------
    provenance : Provenance
        Slot time (in the camera's name clock), software and description come from it.

    Returns
    -------
    bytes
    """
    moment = provenance.slot.strftime("%Y:%m:%d %H:%M:%S")
    picture = [
        _text(0x010E, describe(provenance)),  # ImageDescription
        (0x0112, _SHORT, struct.pack("<H", 1)),  # Orientation: as stored
        _text(0x0131, provenance.software),  # Software
        (0x8769, _LONG, b"\0\0\0\0"),  # Exif IFD, filled in below
    ]
    used = ", ".join(f"{source.path} ({source.exposure_us:g} us)" for source in provenance.sources)
    shot = [
        (0x9000, _UNDEFINED, b"0300"),  # ExifVersion
        _text(0x9003, moment),  # DateTimeOriginal
        _text(0x9011, _offset(provenance)),  # OffsetTimeOriginal
        (0x9286, _UNDEFINED, b"ASCII\0\0\0" + _ascii(f"exposures used: {used}").encode()),
    ]
    start = 8 + _directory_bytes(picture)
    picture[3] = (0x8769, _LONG, struct.pack("<I", start))
    return b"II*\0" + struct.pack("<I", 8) + _directory(picture, 8) + _directory(shot, start)


def _offset(provenance: Provenance) -> str:
    """Return the name clock's distance from UTC as ±HH:MM."""
    ahead = provenance.slot - provenance.slot_utc.astimezone(UTC).replace(tzinfo=None)
    minutes = round(ahead / timedelta(minutes=1))
    hours, minutes_left = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02d}:{minutes_left:02d}"


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:_MAX_TEXT].replace("\0", " ")


def _text(tag: int, text: str) -> _Entry:
    return tag, _ASCII, _ascii(text).encode() + b"\0"


def _directory_bytes(entries: list[_Entry]) -> int:
    outside = sum(len(data) + len(data) % 2 for _, _, data in entries if len(data) > 4)
    return 2 + 12 * len(entries) + 4 + outside


def _directory(entries: list[_Entry], start: int) -> bytes:
    """Lay out one IFD at `start`: entries by tag, then what does not fit into four bytes."""
    rows = [struct.pack("<H", len(entries))]
    outside = b""
    behind = start + 2 + 12 * len(entries) + 4
    for tag, kind, data in entries:
        count = len(data) // _TYPE_BYTES[kind]
        if len(data) <= 4:
            value = data.ljust(4, b"\0")
        else:
            value = struct.pack("<I", behind + len(outside))
            outside += data + b"\0" * (len(data) % 2)
        rows.append(struct.pack("<HHI", tag, kind, count) + value)
    return b"".join([*rows, b"\0\0\0\0", outside])
