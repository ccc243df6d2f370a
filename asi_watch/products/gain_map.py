"""A JPEG that is also HDR: a gain map beside the picture (Ultra HDR, ISO 21496-1).

Programs that know nothing of it show the picture. Others decode a second JPEG behind it, which says
for each sample by how many stops the scene differs from what the picture shows, and get radiance
back: (picture + offset) · 2^gain − offset, in sRGB's linear light. The gain is computed from the
picture as it will be decoded, so that the errors of its compression cancel.

Which samples are valid travels in segments of the second JPEG. Both ways of stating the metadata
are written, ISO's binary segment and the XMP that came before it; a multi-picture index (MPF) and
an XMP directory say where the second JPEG lies.
"""

import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.images.headers import jpeg_segments
from asi_watch.products.radiance import RADIANCE_SCALE, RadianceLayers, opencv_encoded

GAIN_MAP_WHITE = "gain_map_log2_white"
"""Where the provenance of a picture says what its gain map's radiance is relative to."""

_OFFSET = 2.0**-12
_STEP = 1024  # limits of the gain are whole multiples of 1/1024 stop
# Of the map: 2.4 times the bytes of the picture alone at its quality 95; 95 gives 3.1 times.
_QUALITY = 90
_ROWS = 64
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ISO = b"urn:iso:std:iso:ts:21496:-1\0"
_VALIDITY = b"asi-watch validity\0"
_APP1, _APP2, _APP9 = 0xE1, 0xE2, 0xE9
_HDRGM = 'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    " {}</rdf:RDF></x:xmpmeta>"
)
_CONTAINER = "http://ns.google.com/photos/1.0/container/"
_LENGTH = re.compile(rb'Item:Semantic="GainMap"[^>]*Item:Length="(\d{1,9})"')


def _linear() -> NDArray[np.float64]:
    codes = np.arange(256) / 255
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


_LINEAR = _linear()
"""sRGB's linear light of each code."""


class GainMap(NamedTuple):
    """The second JPEG, and what turns its radiance into that of other products."""

    jpeg: bytes
    log2_white: float  # log2 of the picture's white, in radiance per millisecond


def make_gain_map(picture: bytes, layers: RadianceLayers) -> GainMap:
    """Compare a picture with the radiance of its scene.

    Parameters
    ----------
    picture : bytes
        A JPEG without gain map.
    layers : RadianceLayers
        Of the same shape.
    """
    grey = layers.ln_radiance.shape[2] == 1
    codes = simplejpeg.decode_jpeg(picture, "GRAY" if grey else "BGR", strict=True)
    if codes.shape != layers.ln_radiance.shape:
        raise ValueError(f"a picture of {codes.shape} has no radiance {layers.ln_radiance.shape}")
    layers.bounds()
    white = _white(codes, layers)
    # Twice over: the gain of the whole picture would take four times its memory.
    ends = [(float(gain.min()), float(gain.max())) for _, gain in _gains(codes, layers, white)]
    low = math.floor(min(least for least, _ in ends) * _STEP)
    high = max(math.ceil(max(most for _, most in ends) * _STEP), low + 1)
    coded = np.empty(codes.shape, np.uint8)
    for rows, gain in _gains(codes, layers, white):
        gain -= np.float32(low / _STEP)
        gain *= np.float32(255 * _STEP / (high - low))
        coded[rows] = np.rint(gain, out=gain)
    jpeg: bytes = simplejpeg.encode_jpeg(
        coded, _QUALITY, "GRAY" if grey else "BGR", "Gray" if grey else "444"
    )
    segments = [_xmp(_gain_xmp(low, high)), (_APP2, _ISO + _metadata(low, high))]
    if layers.validity is not None:
        mask = opencv_encoded(".png", np.ascontiguousarray(layers.validity)).tobytes()
        step = 65533 - len(_VALIDITY)
        pieces = (mask[i : i + step] for i in range(0, len(mask), step))
        segments += [(_APP9, _VALIDITY + piece) for piece in pieces]
    return GainMap(jpeg[:2] + _joined(segments) + jpeg[2:], white)


def _white(codes: NDArray[np.uint8], layers: RadianceLayers) -> float:
    """Log2 of the radiance that the picture's middle tones make white."""
    step = max(1, math.isqrt(codes.size // 100_000))
    some, ln = codes[::step, ::step], layers.ln_radiance[::step, ::step]
    usable = (some >= 20) & (some <= 235)
    if layers.validity is not None:
        usable &= layers.validity[::step, ::step] == 0
    if not usable.any():
        return float(np.median(ln)) / math.log(2) + math.log2(RADIANCE_SCALE)
    stops = ln[usable] / math.log(2) - np.log2(_LINEAR[some[usable]])
    return round(float(np.median(stops)) + math.log2(RADIANCE_SCALE), 6)


def _gains(
    codes: NDArray[np.uint8], layers: RadianceLayers, log2_white: float
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield stops from the picture to the scene, in blocks of rows."""
    ln, log_base = layers.ln_radiance, np.log2(_LINEAR + _OFFSET).astype(np.float32)
    shift = np.float32(math.log(RADIANCE_SCALE) - log2_white * math.log(2))
    for top in range(0, len(ln), _ROWS):
        block = ln[top : top + _ROWS] + shift
        np.exp(block, out=block)
        block += np.float32(_OFFSET)
        np.log2(block, out=block)
        block -= log_base[codes[top : top + _ROWS]]
        yield slice(top, top + _ROWS), block


def with_gain_map(picture: bytes, gain_map: bytes) -> bytes:
    """Put a gain map behind its picture, and say in the picture where it lies.

    Parameters
    ----------
    picture : bytes
        A JPEG, with all else that it is to hold.
    gain_map : bytes
        The second JPEG.
    """
    at = 2
    for marker, offset, length in jpeg_segments(picture):
        if marker not in (0xE0, _APP1, 0xFE):
            break
        at = offset + length
    # MPF counts from its own header, which stands behind the segment's head and its name.
    before = _joined([_xmp(_directory_xmp(len(gain_map))), (_APP2, _ISO + bytes(4))])
    index_length = 4 + len(_index(0, 0, 0))
    header_at = at + len(before) + 8
    size = len(picture) + len(before) + index_length
    index = _joined([(_APP2, _index(size, len(gain_map), size - header_at))])
    return b"".join((picture[:at], before, index, picture[at:], gain_map))


def _joined(segments: list[tuple[int, bytes]]) -> bytes:
    heads = (struct.pack(">BBH", 0xFF, marker, len(data) + 2) for marker, data in segments)
    return b"".join(head + data for head, (_, data) in zip(heads, segments, strict=True))


def _xmp(text: str) -> tuple[int, bytes]:
    return _APP1, _XMP + _PACKET.format(text).encode("ascii")


def _gain_xmp(low: int, high: int) -> str:
    values = {
        "Version": "1.0",
        "GainMapMin": low / _STEP,
        "GainMapMax": high / _STEP,
        "Gamma": 1,
        "OffsetSDR": _OFFSET,
        "OffsetHDR": _OFFSET,
        "HDRCapacityMin": 0,
        "HDRCapacityMax": max(high, 1) / _STEP,
        "BaseRenditionIsHDR": "False",
    }
    written = " ".join(f'hdrgm:{name}="{value}"' for name, value in values.items())
    return f"{_HDRGM} {written}/>"


def _directory_xmp(length: int) -> str:
    item = (
        '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="{}" Item:Mime="image/jpeg"'
    )
    return (
        f'xmlns:Container="{_CONTAINER}" xmlns:Item="{_CONTAINER}item/" {_HDRGM}'
        ' hdrgm:Version="1.0"><Container:Directory><rdf:Seq>'
        f"{item.format('Primary')}/></rdf:li>"
        f'{item.format("GainMap")} Item:Length="{length}"/></rdf:li>'
        "</rdf:Seq></Container:Directory></rdf:Description>"
    )


def _metadata(low: int, high: int) -> bytes:
    """ISO 21496-1: versions, flags, headroom of both renditions, and one set for all channels."""
    offset = (1, round(1 / _OFFSET))
    headroom = (0, 1, max(high, 1), _STEP)
    return struct.pack(
        ">HHB4I4i2I4i", 0, 0, 1 << 6, *headroom, low, _STEP, high, _STEP, 1, 1, *offset, *offset
    )


def _index(size: int, length: int, offset: int) -> bytes:
    """Multi-picture format (CIPA DC-007): two pictures, the second at `offset` from here."""
    entries = struct.pack(">IIIHH", 0x030000, size, 0, 0, 0)
    entries += struct.pack(">IIIHH", 0, length, offset, 0, 0)
    tags = (
        struct.pack(">HHI4s", 0xB000, 7, 4, b"0100"),
        struct.pack(">HHII", 0xB001, 4, 1, 2),
        struct.pack(">HHII", 0xB002, 7, len(entries), 8 + 2 + 3 * 12 + 4),
    )
    folder = struct.pack(">H", len(tags)) + b"".join(tags) + bytes(4)
    return b"MPF\0" + b"MM\0*" + struct.pack(">I", 8) + folder + entries


def read_gain_map(
    data: bytes, log2_white: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Return radiance (H, W, C), per millisecond, and validity of a picture; else ValueError.

    Parameters
    ----------
    data : bytes
        A whole file, as `with_gain_map` gives it.
    log2_white : float
        As in `GainMap`.
    """
    place = _LENGTH.search(data, 0, 1 << 20)
    length = int(place[1]) if place else 0
    if not 0 < length < len(data):
        raise ValueError("has no gain map")
    second = data[len(data) - length :]
    own = dict.fromkeys((_APP2, _APP9), b"")
    for marker, offset, size in jpeg_segments(second):
        piece = second[offset : offset + size]
        prefix = {_APP2: _ISO, _APP9: _VALIDITY}.get(marker)
        if prefix is not None and piece.startswith(prefix):
            own[marker] += piece[len(prefix) :]
    try:
        _, _, _, *numbers = struct.unpack(">HHB4I4i2I4i", own[_APP2])
    except struct.error:
        raise ValueError("has a gain map of another kind") from None
    low, high = numbers[4] / numbers[5], numbers[6] / numbers[7]
    grey = simplejpeg.decode_jpeg_header(second)[2] == "Gray"
    space = "GRAY" if grey else "BGR"
    codes = simplejpeg.decode_jpeg(data[: len(data) - length], space, strict=True)
    gains = simplejpeg.decode_jpeg(second, space, strict=True)
    if codes.shape != gains.shape:
        raise ValueError(f"has a gain map of {gains.shape} for a picture of {codes.shape}")
    gain = np.exp2(low + np.arange(256) * ((high - low) / 255)).astype(np.float32)
    radiance = (_LINEAR + _OFFSET).astype(np.float32)[codes] * gain[gains]
    radiance -= np.float32(_OFFSET)
    np.maximum(radiance, np.float32(_OFFSET / 64), out=radiance)
    radiance *= np.float32(2.0**log2_white)
    mask = None
    if own[_APP9]:
        decoded = cv2.imdecode(np.frombuffer(own[_APP9], np.uint8), cv2.IMREAD_UNCHANGED)
        mask = None if decoded is None else np.asarray(decoded, np.uint8).reshape(codes.shape)
    return radiance, mask
