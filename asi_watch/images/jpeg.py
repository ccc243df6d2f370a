"""JPEGs read strictly: what lies between SOI and the picture's own end mark, whole or not at all.

The chain of segments and scans is walked here, so that second pictures, films and padding behind
the end mark are left alone. Each scan's entropy-coded data is checked by `_entropy` (C), because
decoders stay silent about many holes, above all in progressive pictures. What is then decoded is
the same picture with a plain header: scan parameters that sequential decoders ignore, versions and
other segments cannot give warnings any more, so every warning that remains is an error.
"""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.buffers import Allocate
from asi_watch.images.headers import Header, HeaderError, clause, jpeg_segments

__all__ = ["JpegPicture", "decode_jpeg"]

# Inside entropy-coded data 0xFF is followed by 0x00, or makes a restart mark; other marks end it.
_MARK = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_HOLE = bytes(64)
_DHT, _EOI, _SOS, _DQT, _DNL, _DRI, _APP0, _APP14 = 0xC4, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xE0, 0xEE
_BETWEEN_SCANS = (_DHT, _DQT, _DNL, _DRI, 0xFE)
_REFUSED = {0xCC: "an arithmetic", 0xDE: "a hierarchical", 0xDF: "a hierarchical"}
# Every scan of a progressive picture makes the decoder walk all of its blocks.
_MAX_SCANS, _MAX_SCANS_TIMES_PIXELS = 256, 64 * 64_000_000
# The transform of 8-bit samples gives a DC of −1024…1016; half a step more by rounding.
_MAX_DC, _DC_SLACK = 1024, 64
# Pixels from which on a picture is checked while it is decoded.
_WORTH_A_THREAD = 500_000
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_WRONG = {
    1: "ends too early",
    2: "has a code that is not in its table",
    3: "has a restart mark missing or in the wrong place",
    4: "has a coefficient out of range",
    5: "has a brightness out of range",
    6: "has a run of empty blocks that is too long",
    7: "has zero bytes where its picture should be",
    8: "has a broken Huffman table",
}


def _load_entropy() -> Any:
    try:
        return importlib.import_module("asi_watch.images._entropy")
    except ImportError:  # installed without a compiler
        return None


_entropy: Any = _load_entropy()


def _find_mark(data: bytes, start: int) -> int:
    """Return where the mark begins that ends entropy-coded data, or −1."""
    if _entropy is not None:
        return int(_entropy.find_mark(data, start))
    mark = _MARK.search(data, start)
    return -1 if mark is None else mark.start()


@dataclass(frozen=True, slots=True)
class _Component:
    """One colour of the frame: its sampling, and its blocks."""

    identity: int
    h: int
    v: int
    quantiser: int
    wide: int
    high: int
    stride: int  # blocks in a row when interleaved with the other components
    rows: int


@dataclass(frozen=True, slots=True)
class _Scan:
    """One scan, with all that was in force when it began."""

    components: tuple[tuple[int, int], ...]  # index of the component, table selectors
    first: int
    last: int
    high: int
    low: int
    interval: int
    tables: dict[int, bytes]
    steps: dict[int, int]
    start: int
    end: int
    pieces: int  # how many pieces of the plain header come before its data


class JpegPicture:
    """The parts of a JPEG that make its picture, from SOI to its own end mark.

    Parameters
    ----------
    data : bytes
        The whole file.
    header : Header
        What `read_header` found in it. A height that is only given behind the first scan (DNL)
        is put into the attribute of this name.

    Attributes
    ----------
    notes : list of str
        What was odd without being wrong.

    Raises
    ------
    HeaderError
        If the chain of segments is broken, or the bytes end before the end mark.
    """

    def __init__(self, data: bytes, header: Header) -> None:
        self.header = header
        self.notes: list[str] = []
        self._data = data
        self._pieces = [b"\xff\xd8"]  # the plain header, with the parts between scans
        self._frame: list[tuple[int, int, int, int]] = []  # identity, h, v, quantiser
        self._frame_piece = 0
        self._scans: list[_Scan] = []
        self._ends: dict[int, int] = {}  # where the data of padded scans ends
        self._tables: dict[int, bytes] = {}
        self._steps: dict[int, int] = {}
        self._interval = 0
        self._walk()

    # -- structure ------------------------------------------------------------------------------

    def _walk(self) -> None:
        try:
            self._walk_segments()
        except HeaderError as error:
            if error.incomplete and self._scans:
                raise HeaderError("ends before its end mark", incomplete=True) from None
            raise
        if not self._scans:
            raise HeaderError("has a broken JPEG header (no scan)")

    def _walk_segments(self) -> None:
        data, at, marker = self._data, 2, 0
        while marker != _EOI:
            for marker, offset, length in jpeg_segments(data, at):
                payload = data[offset : offset + length]
                if marker == _SOS:
                    at = _find_mark(data, offset + length)
                    if at < 0:
                        raise HeaderError("ends before its end mark", incomplete=True)
                    self._take_scan(payload, offset + length, at)
                elif marker != _EOI:
                    self._take_segment(marker, payload)

    def _take_segment(self, marker: int, payload: bytes) -> None:
        """Take in one segment before or between scans."""
        if self._scans and not (marker in _BETWEEN_SCANS or marker & 0xF0 == _APP0):
            raise HeaderError(f"is damaged (the mark {marker:02X} inside its data)")
        if marker in _REFUSED:
            raise HeaderError(f"is {_REFUSED[marker]} JPEG, which is not read")
        if marker == _APP0 and payload.startswith(b"JFIF\0"):
            self._pieces.append(_JFIF)
        elif marker == _APP14 and payload.startswith(b"Adobe") and len(payload) >= 12:
            # Decoders take an unknown transform for YCbCr, with a warning.
            known = payload[11] if payload[11] <= 1 else 1
            self._add(marker, b"Adobe\0\x64\0\0\0\0" + bytes([known]))
        elif 0xC0 <= marker <= 0xCF and marker != _DHT:
            self._take_frame(marker, payload)
        elif marker == _DNL:
            self._take_height(payload)
        elif marker in (_DHT, _DQT, _DRI):
            self._take_tables(marker, payload)
            self._add(marker, payload)

    def _add(self, marker: int, payload: bytes) -> None:
        self._pieces.append(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload)

    def _take_frame(self, marker: int, payload: bytes) -> None:
        count = payload[5] if len(payload) > 5 else 0
        if self._frame or len(payload) != 6 + 3 * count or not count:
            raise HeaderError("has a broken JPEG header")
        for at in range(6, len(payload), 3):
            identity, factors, quantiser = payload[at : at + 3]
            h, v = factors >> 4, factors & 15
            if not (1 <= h <= 4 and 1 <= v <= 4):
                raise HeaderError("has a broken JPEG header (sampling factors)")
            self._frame.append((identity, h, v, quantiser))
        if len({identity for identity, *_ in self._frame}) != count:
            raise HeaderError("is a JPEG whose components share a name, which is not read")
        self._frame_piece = len(self._pieces)
        self._add(marker, payload)

    def _take_height(self, payload: bytes) -> None:
        height = int.from_bytes(payload, "big")
        if len(payload) != 2 or self.header.height not in (0, height) or len(self._scans) != 1:
            raise HeaderError("is damaged (its two heights disagree)")
        self.header = replace(self.header, height=height)
        frame = self._pieces[self._frame_piece]
        self._pieces[self._frame_piece] = frame[:5] + payload + frame[7:]

    def _take_tables(self, marker: int, payload: bytes) -> None:
        at = 0
        if marker == _DRI:
            self._interval = int.from_bytes(payload[:2], "big")
            return
        while at < len(payload):
            kind = payload[at]
            if marker == _DHT:
                end = at + 17 + sum(payload[at + 1 : at + 17])
                self._tables[kind] = payload[at + 1 : end]
            else:
                size = 2 if kind >> 4 else 1
                end = at + 1 + 64 * size
                self._steps[kind & 15] = int.from_bytes(payload[at + 1 : at + 1 + size], "big")
            if end > len(payload) or end - at < 17:
                raise HeaderError("has a broken JPEG header (tables)")
            at = end

    def _take_scan(self, payload: bytes, start: int, end: int) -> None:
        """Take in a scan, whose entropy-coded data lies at start:end."""
        if len(self._scans) >= _MAX_SCANS:
            raise HeaderError(f"is a JPEG with too many scans (more than {_MAX_SCANS})")
        count = payload[0] if payload else 0
        if not 1 <= count <= 4 or len(payload) != 4 + 2 * count:
            raise HeaderError("has a broken JPEG scan header")
        known = [identity for identity, *_ in self._frame]
        pairs = [payload[at : at + 2] for at in range(1, 1 + 2 * count, 2)]
        if any(identity not in known for identity, _ in pairs):
            raise HeaderError("has a broken JPEG scan header")
        components = tuple((known.index(identity), tables) for identity, tables in pairs)
        if any(a[0] >= b[0] for a, b in pairwise(components)):
            raise HeaderError("has a broken JPEG scan header")
        first, last, bits = payload[-3:]
        if not self.header.progressive and (first, last, bits) != (0, 63, 0):
            self._note("its scan parameters, which mean nothing here, are odd")
            first, last, bits = 0, 63, 0
        self._add(_SOS, payload[:-3] + bytes([first, last, bits]))
        # Motion JPEG leaves out the usual tables, decoders know them.
        tables = {**_USUAL_TABLES, **self._tables}
        self._scans.append(
            _Scan(
                components,
                first,
                last,
                bits >> 4,
                bits & 15,
                self._interval,
                tables,
                dict(self._steps),
                start,
                end,
                len(self._pieces),
            )
        )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    @property
    def padded(self) -> bool:
        """Whether `check_data` found padding, which `plain` leaves out from then on."""
        return bool(self._ends)

    # -- checks ---------------------------------------------------------------------------------

    def check_scans(self) -> None:
        """Check that there are neither too many scans nor too few, without reading their data.

        Raises
        ------
        HeaderError
            If there are.
        """
        count, pixels = len(self._scans), self.header.height * self.header.width
        if count * pixels > _MAX_SCANS_TIMES_PIXELS:
            raise HeaderError(f"is a JPEG with too many scans ({count}) for its size")
        self._check_coverage()

    def check_data(self) -> None:
        """Check that the data of the scans is exactly what the picture needs.

        Raises
        ------
        HeaderError
            If anything is missing, left over, damaged, or cannot be checked.
        """
        if _entropy is None:
            self._check_without_extension()
            return
        units, components = self._layout()
        kept = [_kept(c) if self.header.progressive else (None, None) for c in components]
        for number, scan in enumerate(self._scans, 1):
            self._check_scan(number, scan, units, components, kept)

    def _layout(self) -> tuple[tuple[int, int], list[_Component]]:
        """Return the frame's units across and down, and its components."""
        height, width = self.header.height, self.header.width
        h_most = max(h for _, h, _, _ in self._frame)
        v_most = max(v for _, _, v, _ in self._frame)
        across, down = -(-width // (8 * h_most)), -(-height // (8 * v_most))
        components = []
        for identity, h, v, quantiser in self._frame:
            wide, high = -(-width * h // (8 * h_most)), -(-height * v // (8 * v_most))
            components.append(
                _Component(identity, h, v, quantiser, wide, high, across * h, down * v)
            )
        return (across, down), components

    def _check_coverage(self) -> None:
        """Every coefficient must have been sent once, and refined to its last bit."""
        sent: list[list[int | None]] = [[None] * 64 for _ in self._frame]
        for scan in self._scans:
            dc_alone = scan.first == scan.last == 0
            if self.header.progressive and not (dc_alone or 0 < scan.first <= scan.last < 64):
                raise HeaderError("is damaged (broken progressive scan)")
            for component, _ in scan.components:
                for k in range(scan.first, scan.last + 1):
                    if sent[component][k] != (scan.high or None) or (
                        scan.high and scan.low != scan.high - 1
                    ):
                        raise HeaderError("is damaged (its scans do not follow each other)")
                    sent[component][k] = scan.low
        if any(low != 0 for coefficients in sent for low in coefficients):
            raise HeaderError("is damaged (scans are missing)")

    def _check_scan(
        self,
        number: int,
        scan: _Scan,
        units: tuple[int, int],
        components: list[_Component],
        kept: Sequence[tuple[bytearray | None, bytearray | None]],
    ) -> None:
        progressive = self.header.progressive
        jobs = []
        for index, selectors in scan.components:
            c = components[index]
            step = max(1, scan.steps.get(c.quantiser, 1))
            limit = (_MAX_DC + _DC_SLACK) // step + 2
            dc, ac = scan.tables.get(selectors >> 4), scan.tables.get(0x10 | (selectors & 15))
            dc = None if progressive and (scan.first or scan.high) else dc
            ac = None if progressive and not scan.first else ac
            jobs.append((c.h, c.v, c.wide, c.high, c.stride, limit, dc, ac, *kept[index]))
        try:
            wrong, done, behind, filled = _entropy.check_scan(
                self._data,
                scan.start,
                scan.end,
                progressive,
                scan.first,
                scan.last,
                scan.high,
                scan.low,
                scan.interval,
                *units,
                tuple(jobs),
            )
        except ValueError as error:
            raise HeaderError(f"is damaged ({error} in scan {number})") from None
        if wrong:
            where = "its data" if len(self._scans) == 1 else f"scan {number}"
            raise HeaderError(f"is damaged ({where} {_WRONG[wrong]}, after {done} units)")
        self._judge_rest(scan, behind, filled=bool(filled), final=number == len(self._scans))

    def _judge_rest(self, scan: _Scan, behind: int, *, filled: bool, final: bool) -> None:
        """Bytes behind the last block are damage, unless they are a restart mark or padding."""
        rest = self._data[behind : scan.end]
        if not rest or (scan.interval and len(rest) == 2 and rest[0] == 0xFF):
            return
        # Some encoders fill up a byte that is full, with eight ones.
        constant = len(set(rest)) == 1 or rest == b"\xff\x00"
        zeros_before = not rest[0] and not self._data[behind - 1]
        if not (final and constant and filled) or zeros_before:
            raise HeaderError(f"is damaged ({len(rest)} bytes are left over behind its last block)")
        self._note(f"{len(rest)} bytes of padding before the end mark")
        self._ends[scan.end] = behind

    def _check_without_extension(self) -> None:
        if self.header.progressive:
            raise HeaderError(
                "is a progressive JPEG, which cannot be checked here: install asi-watch where"
                " there is a C compiler"
            )
        for scan in self._scans:
            codes = [scan.tables.get(0x10 | (s & 15), b"")[16:17] for _, s in scan.components]
            # With such a table zero bytes are a flat picture.
            flat = all(code == b"\0" for code in codes)
            if not flat and self._data.find(_HOLE, scan.start, scan.end) >= 0:
                raise HeaderError("is damaged (zero bytes inside the picture)")

    def plain(self) -> bytes:
        """Return the picture with a plain header and nothing behind its end mark."""
        out, at = [], 0
        for scan in self._scans:
            out += self._pieces[at : scan.pieces]
            out.append(self._data[scan.start : self._ends.get(scan.end, scan.end)])
            at = scan.pieces
        return b"".join((*out, b"\xff\xd9"))


def decode_jpeg(picture: JpegPicture, allocate: Allocate) -> NDArray[np.uint8]:
    """Check and decode a picture; every warning of the decoder is an error.

    Parameters
    ----------
    picture : JpegPicture
    allocate : callable
        Gives the memory for the pixels.

    Returns
    -------
    ndarray, shape (H, W, C), uint8

    Raises
    ------
    HeaderError
        If it is damaged.
    """
    picture.check_scans()
    header = picture.header
    shape = (header.height, header.width, header.channels)
    pixels = allocate(header.height * header.width * header.channels)[: np.prod(shape)]
    pixels = pixels.reshape(shape)
    if header.progressive or header.height * header.width < _WORTH_A_THREAD:
        picture.check_data()
        failure = _decode_into(pixels, picture)
    else:
        # The check takes a third of the decoder's time; a thread of its own hides that.
        with ThreadPoolExecutor(1, "jpeg-check") as pool:
            check = pool.submit(picture.check_data)
            failure = _decode_into(pixels, picture)
            check.result()
        if picture.padded:
            failure = _decode_into(pixels, picture)
    if failure is not None and "subsampling" in failure and _entropy is not None:
        pixels[...] = _decode_rare_sampling(picture)
    elif failure is not None:
        raise HeaderError(f"is damaged ({failure})")
    return pixels


def _decode_into(pixels: NDArray[np.uint8], picture: JpegPicture) -> str | None:
    """Decode strictly into the memory of `pixels`; return what went wrong."""
    space = "BGR" if pixels.shape[2] == 3 else "GRAY"
    try:
        decoded = simplejpeg.decode_jpeg(
            picture.plain(), space, buffer=pixels.reshape(-1), strict=True
        )
    except ValueError as error:
        return clause(error)
    return None if decoded.shape == pixels.shape else "decodes to another size than its header's"


def _decode_rare_sampling(picture: JpegPicture) -> NDArray[np.uint8]:
    """Decode sampling factors that TurboJPEG has no name for; the data was checked before."""
    header = picture.header
    flag = cv2.IMREAD_COLOR if header.channels == 3 else cv2.IMREAD_GRAYSCALE
    try:
        decoded = cv2.imdecode(np.frombuffer(picture.plain(), np.uint8), flag)
    except cv2.error:
        decoded = None
    if decoded is None or decoded.shape[:2] != (header.height, header.width):
        raise HeaderError("is a JPEG with sampling factors that no decoder here reads")
    return np.asarray(decoded, np.uint8).reshape(header.height, header.width, header.channels)


def _kept(component: _Component) -> tuple[bytearray, bytearray]:
    """Return the memory for what the scans of one component share: masks and DC levels."""
    blocks = component.stride * component.rows
    return bytearray(8 * blocks), bytearray(2 * blocks)


def _usual_tables() -> dict[int, bytes]:
    """Return the Huffman tables of the standard, from a picture that was encoded with them."""
    sample = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    return JpegPicture(sample, Header("jpeg", 8, 8, 3, 0))._tables


_USUAL_TABLES: dict[int, bytes] = {}
_USUAL_TABLES.update(_usual_tables())
