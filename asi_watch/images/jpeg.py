"""JPEGs read strictly: what lies between SOI and the picture's own end mark, whole or not at all.

The chain of segments and scans is walked here, so that second pictures, films and padding behind
the end mark are left alone. Each scan's entropy-coded data is checked by `_entropy` (C), because
decoders stay silent about many holes, above all in progressive pictures. What is then decoded is
the same picture with a plain header: scan parameters that sequential decoders ignore, versions and
other segments cannot give warnings any more, so every warning that remains is an error.
"""

import importlib
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.buffers import Allocate
from asi_watch.images.headers import Header, HeaderError, jpeg_segments

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

_entropy: Any
try:
    _entropy = importlib.import_module("asi_watch.images._entropy")
except ImportError:  # installed without a compiler
    _entropy = None


class _Component(NamedTuple):
    """One colour of the frame."""

    identity: int
    h: int
    v: int
    quantiser: int


class _Scan(NamedTuple):
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
    """The parts of a JPEG that make its picture; HeaderError if its structure is broken or cut.

    Parameters
    ----------
    data : bytes
        The whole file.
    header : Header
    """

    def __init__(self, data: bytes, header: Header) -> None:
        self._header = header
        self._data = data
        self._pieces = [b"\xff\xd8"]  # the plain header, with the parts between scans
        self._frame: list[_Component] = []
        self._scans: list[_Scan] = []
        self._padded: dict[int, int] = {}  # ends of padded scans, and where their data ends
        self._tables: dict[int, bytes] = {}
        self._steps: dict[int, int] = {}
        self._interval = 0
        try:
            self._walk()
        except HeaderError as error:
            if error.incomplete and self._scans:
                raise HeaderError("ends before its end mark", incomplete=True) from None
            raise
        if not self._scans:
            raise HeaderError("has a broken JPEG header (no scan)")

    def _walk(self) -> None:
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
        elif marker in (_DHT, _DQT, _DRI):
            self._take_tables(marker, payload)
            self._add(marker, payload)

    def _add(self, marker: int, payload: bytes) -> None:
        self._pieces.append(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload)

    def _take_frame(self, marker: int, payload: bytes) -> None:
        count = payload[5] if len(payload) > 5 else 0
        if self._frame or len(payload) != 6 + 3 * count or not count:
            raise HeaderError("has a broken JPEG header")
        for identity, factors, quantiser in zip(*[iter(payload[6:])] * 3, strict=True):
            self._frame.append(_Component(identity, factors >> 4, factors & 15, quantiser))
        if not all(1 <= c.h <= 4 and 1 <= c.v <= 4 for c in self._frame):
            raise HeaderError("has a broken JPEG header (sampling factors)")
        if len({c.identity for c in self._frame}) != count:
            raise HeaderError("is a JPEG whose components share a name, which is not read")
        self._add(marker, payload)

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
        places = {c.identity: index for index, c in enumerate(self._frame)}
        pairs = [payload[at : at + 2] for at in range(1, 1 + 2 * count, 2)]
        components = tuple((places.get(identity, -1), tables) for identity, tables in pairs)
        if components[0][0] < 0 or any(a[0] >= b[0] for a, b in pairwise(components)):
            raise HeaderError("has a broken JPEG scan header")
        first, last, bits = payload[-3:]
        if not self._header.progressive:  # they mean nothing here, and some encoders write others
            first, last, bits = 0, 63, 0
        self._add(_SOS, payload[:-3] + bytes([first, last, bits]))
        # Motion JPEG leaves out the usual tables, decoders know them.
        tables, steps = {**_USUAL_TABLES, **self._tables}, dict(self._steps)
        parameters = (components, first, last, bits >> 4, bits & 15, self._interval)
        self._scans.append(_Scan(*parameters, tables, steps, start, end, len(self._pieces)))

    def _check_scans(self) -> None:
        """Every coefficient must have been sent once, and refined to its last bit."""
        count, pixels = len(self._scans), self._header.height * self._header.width
        if count * pixels > _MAX_SCANS_TIMES_PIXELS:
            raise HeaderError(f"is a JPEG with too many scans ({count}) for its size")
        sent: list[list[int | None]] = [[None] * 64 for _ in self._frame]
        for scan in self._scans:
            dc_alone = scan.first == scan.last == 0
            if self._header.progressive and not (dc_alone or 0 < scan.first <= scan.last < 64):
                raise HeaderError("is damaged (broken progressive scan)")
            gap = scan.high and scan.low != scan.high - 1
            for component, _ in scan.components:
                for k in range(scan.first, scan.last + 1):
                    if gap or sent[component][k] != (scan.high or None):
                        raise HeaderError("is damaged (its scans do not follow each other)")
                    sent[component][k] = scan.low
        if any(low != 0 for coefficients in sent for low in coefficients):
            raise HeaderError("is damaged (scans are missing)")

    def _check_data(self) -> None:
        """Check that the data of the scans is exactly what the picture needs."""
        if _entropy is None:
            self._check_without_extension()
            return
        height, width, frame = self._header.height, self._header.width, self._frame
        wide, high = 8 * max(c.h for c in frame), 8 * max(c.v for c in frame)
        units = -(-width // wide), -(-height // high)
        # Blocks of each component: in the picture across and down, and in a row of whole units.
        sizes = [(-(-width * c.h // wide), -(-height * c.v // high), units[0] * c.h) for c in frame]
        kept: list[tuple[bytearray | None, bytearray | None]] = [(None, None)] * len(frame)
        if self._header.progressive:  # scans share which coefficients are not zero, and the DC
            blocks = [stride * units[1] * c.v for c, (*_, stride) in zip(frame, sizes, strict=True)]
            kept = [(bytearray(8 * count), bytearray(2 * count)) for count in blocks]
        for number, scan in enumerate(self._scans, 1):
            jobs = []
            for i, selectors in scan.components:
                tables = self._tables_of(scan, frame[i], selectors)
                jobs.append((frame[i].h, frame[i].v, *sizes[i], *tables, *kept[i]))
            self._check_scan(number, scan, units, tuple(jobs))

    def _tables_of(
        self, scan: _Scan, component: _Component, selectors: int
    ) -> tuple[int, bytes | None, bytes | None]:
        """Return the highest plausible DC, and the tables for DC and AC that the scan needs."""
        step = max(1, scan.steps.get(component.quantiser, 1))
        dc, ac = scan.tables.get(selectors >> 4), scan.tables.get(0x10 | (selectors & 15))
        if self._header.progressive:
            dc, ac = None if scan.first or scan.high else dc, ac if scan.first else None
        return (_MAX_DC + _DC_SLACK) // step + 2, dc, ac

    def _check_scan(
        self, number: int, scan: _Scan, units: tuple[int, int], jobs: tuple[object, ...]
    ) -> None:
        _, first, last, high, low, interval, _, _, start, end, _ = scan
        bits = (self._header.progressive, first, last, high, low, interval)
        try:
            wrong, done, behind, filled = _entropy.check_scan(
                self._data, start, end, *bits, *units, jobs
            )
        except ValueError as error:
            raise HeaderError(f"is damaged ({error} in scan {number})") from None
        if wrong:
            where = "its data" if len(self._scans) == 1 else f"scan {number}"
            raise HeaderError(f"is damaged ({where} {_WRONG[wrong]}, after {done} units)")
        # Bytes behind the last block are damage, unless they are a restart mark or padding.
        rest = self._data[behind:end]
        if not rest or (interval and len(rest) == 2 and rest[0] == 0xFF):
            return
        # Some encoders fill up a byte that is full, with eight ones.
        constant = len(set(rest)) == 1 or rest == b"\xff\x00"
        zeros_before = not rest[0] and not self._data[behind - 1]
        if not (number == len(self._scans) and constant and filled) or zeros_before:
            raise HeaderError(f"is damaged ({len(rest)} bytes are left over behind its last block)")
        self._padded[end] = behind

    def _check_without_extension(self) -> None:
        if self._header.progressive:
            raise HeaderError(
                "is a progressive JPEG, which cannot be checked here: install asi-watch where"
                " there is a C compiler"
            )
        for scan in self._scans:
            codes = [scan.tables.get(0x10 | (s & 15), b"")[16:17] for _, s in scan.components]
            # Where that is the end of a block, zero bytes are a flat picture.
            if set(codes) != {b"\0"} and self._data.find(_HOLE, scan.start, scan.end) >= 0:
                raise HeaderError("is damaged (zero bytes inside the picture)")

    def decode(self, allocate: Allocate) -> NDArray[np.uint8]:
        """Check and decode the picture, (H, W, C) uint8 BGR or grey; HeaderError if it is damaged.

        Parameters
        ----------
        allocate : callable
            Gives the memory for the pixels.
        """
        self._check_scans()
        height, width, channels = self._header.height, self._header.width, self._header.channels
        size = height * width * channels
        pixels = allocate(size)[:size].reshape(height, width, channels)
        if self._header.progressive or height * width < _WORTH_A_THREAD:
            self._check_data()
            failure = self._decode_into(pixels)
        else:
            # The check takes a third of the decoder's time; a thread of its own hides that.
            with ThreadPoolExecutor(1, "jpeg-check") as pool:
                check = pool.submit(self._check_data)
                failure = self._decode_into(pixels)
                check.result()
            if self._padded:
                failure = self._decode_into(pixels)
        if failure is not None and "subsampling" in failure and _entropy is not None:
            self._decode_rare_sampling(pixels)
        elif failure is not None:
            raise HeaderError(f"is damaged ({failure})")
        return pixels

    def _decode_into(self, pixels: NDArray[np.uint8]) -> str | None:
        """Decode strictly into this memory; return what went wrong."""
        space = "BGR" if pixels.shape[2] == 3 else "GRAY"
        try:
            decoded = simplejpeg.decode_jpeg(
                self._plain(), space, buffer=pixels.reshape(-1), strict=True
            )
        except ValueError as error:
            return (str(error).strip().splitlines() or ["ValueError"])[0][:120]
        return None if decoded.shape == pixels.shape else "another size than its header's"

    def _decode_rare_sampling(self, pixels: NDArray[np.uint8]) -> None:
        """Decode sampling factors that TurboJPEG has no name for; the data was checked before."""
        flag = cv2.IMREAD_COLOR if pixels.shape[2] == 3 else cv2.IMREAD_GRAYSCALE
        try:
            decoded = cv2.imdecode(np.frombuffer(self._plain(), np.uint8), flag)
        except cv2.error:
            decoded = None
        if decoded is None or decoded.shape[:2] != pixels.shape[:2]:
            raise HeaderError("is a JPEG with sampling factors that no decoder here reads")
        pixels[...] = decoded.reshape(pixels.shape)

    def _plain(self) -> bytes:
        """Return the picture with a plain header and nothing behind its end mark."""
        out, at = [], 0
        for scan in self._scans:
            out += self._pieces[at : scan.pieces]
            out.append(self._data[scan.start : self._padded.get(scan.end, scan.end)])
            at = scan.pieces
        return b"".join((*out, b"\xff\xd9"))


def _find_mark(data: bytes, start: int) -> int:
    """Return where the mark begins that ends entropy-coded data, or −1."""
    if _entropy is not None:
        return int(_entropy.find_mark(data, start))
    mark = _MARK.search(data, start)
    return -1 if mark is None else mark.start()


def _usual_tables() -> dict[int, bytes]:
    """Return the Huffman tables of the standard, from a picture that was encoded with them."""
    sample = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    return JpegPicture(sample, Header("jpeg", 8, 8, 3))._tables


_USUAL_TABLES: dict[int, bytes] = {}
_USUAL_TABLES.update(_usual_tables())
