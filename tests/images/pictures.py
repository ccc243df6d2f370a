"""Pictures for tests: sound ones of several encoders, and a zoo of what must be refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image


def sky(height: int = 96, width: int = 128, channels: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (height // 8, width // 8, channels), dtype=np.uint8)
    smooth = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, np.uint8).reshape(height, width, channels)


def noisy(height: int = 256, width: int = 320) -> NDArray[np.uint8]:
    noise = np.random.default_rng(5).normal(0, 5, (height, width, 3))
    return np.clip(sky(height, width) * 0.7 + 30 + noise, 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8] | None = None, quality: int = 92) -> bytes:
    image = sky() if pixels is None else pixels
    grey = image.shape[2] == 1
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image),
        quality=quality,
        colorspace="GRAY" if grey else "BGR",
        colorsubsampling="Gray" if grey else "420",
    )
    return data


def pillow(
    mode: str, kind: str = "JPEG", *, picture: NDArray[np.uint8] | None = None, **options: Any
) -> bytes:
    stream = io.BytesIO()
    pixels = sky() if picture is None else picture
    Image.fromarray(pixels[:, :, ::-1]).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def png(pixels: NDArray[Any] | None = None) -> bytes:
    done, data = cv2.imencode(".png", sky() if pixels is None else pixels)
    assert done
    return bytes(data)


def jp2() -> bytes:
    done, data = cv2.imencode(".jp2", sky())
    assert done
    return bytes(data)


def chunk(kind: bytes, payload: bytes) -> bytes:
    body = kind + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def png_of(width: int, height: int, stream: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    )


def zeroed(data: bytes, count: int) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(count) + data[middle + count :]


def claiming(data: bytes, height: int, width: int) -> bytes:
    """The same JPEG with another size in its frame header."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def put(folder: Path, data: bytes, name: str = "20240501120000_80.jpg") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# --- the zoo ----------------------------------------------------------------------------------

HALF = (True, "ends before its end mark")
Case = tuple[Callable[[], bytes], bool, str]
ZOO: dict[str, Case] = {
    "empty": (lambda: b"", True, "is empty"),
    "one byte": (lambda: b"\xff", True, "ends after 1 bytes"),
    "magic only": (lambda: b"\xff\xd8\xff", True, "ends inside the JPEG header"),
    "zeros": (lambda: bytes(5000), True, "nothing but zero bytes"),
    "garbage": (lambda: np.random.default_rng(1).bytes(5000), False, "is not an image"),
    "text": (lambda: b"<html>404</html>", False, "text (HTML or XML)"),
    "gif": (lambda: pillow("P", "GIF"), False, "is a GIF"),
    "bmp": (lambda: pillow("RGB", "BMP"), False, "is a BMP"),
    "avi": (lambda: b"RIFF\x10\0\0\0AVI LIST", False, "RIFF"),
    "jpeg cut in the header": (lambda: jpeg()[:300], True, "ends inside the JPEG header"),
    "jpeg cut at half": (lambda: jpeg()[: len(jpeg()) // 2], *HALF),
    "jpeg without its last byte": (lambda: jpeg()[:-1], *HALF),
    "jpeg cut, end mark appended": (
        lambda: jpeg()[: len(jpeg()) // 2] + b"\xff\xd9",
        False,
        "is damaged",
    ),
    "jpeg zeroed in the middle": (lambda: zeroed(jpeg(), 200), False, "is damaged"),
    "jpeg of zero height": (lambda: claiming(jpeg(), 0, 128), False, "claims a size of 128×0"),
    "jpeg of 30000 x 30000": (lambda: claiming(jpeg(), 30000, 30000), False, "30000×30000"),
    "jpeg higher than its data": (lambda: claiming(jpeg(), 960, 128), False, "is damaged"),
    "jpeg of 12 bits": (
        lambda: jpeg().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        False,
        "12 bits per sample",
    ),
    "jpeg with two frames": (
        lambda: jpeg().replace(b"\xff\xc4", jpeg()[158:177] + b"\xff\xc4", 1),
        False,
        "broken JPEG header",
    ),
    "jpeg without a frame": (
        lambda: jpeg().replace(b"\xff\xc0\x00\x11", b"\xff\xfe\x00\x11"),
        False,
        "no frame",
    ),
    "jpeg with a segment of length 0": (
        lambda: b"\xff\xd8\xff\xe0\x00\x00" + bytes(64) + b"\xff\xd9",
        False,
        "broken JPEG header",
    ),
    "png cut in the header": (lambda: png()[:20], True, "ends inside the PNG header"),
    "png cut at half": (lambda: png()[: len(png()) // 2], True, "ends inside a PNG chunk"),
    "png without its last byte": (lambda: png()[:-1], True, "ends inside a PNG chunk"),
    "png zeroed in the middle": (lambda: zeroed(png(), 50), False, "checksum"),
    "png with a flipped bit": (
        lambda: png()[:700] + bytes([png()[700] ^ 4]) + png()[701:],
        False,
        "checksum",
    ),
    "png of 16 bits": (
        lambda: png(sky().astype(np.uint16) * 257),
        False,
        "has 16 bits per sample; more than 8 need `response: linear`",
    ),
    "png of 1 bit": (lambda: pillow("1", "PNG"), False, "1 bits per sample"),
    "png whose stream ends early": (
        lambda: png_of(128, 96, zlib.compress(bytes(38496))[:-9]),
        False,
        "ends too early",
    ),
    "png with too few rows": (
        lambda: png_of(128, 960, zlib.compress(bytes(385 * 96))),
        False,
        "does not decode",
    ),
    "png bomb": (
        lambda: png_of(16, 16, zlib.compress(bytes(40 << 20))),
        False,
        "longer than its header claims",
    ),
    "png of 30000 x 30000": (
        lambda: png_of(30000, 30000, zlib.compress(bytes(100))),
        False,
        "30000×30000",
    ),
    "png without IHDR": (
        lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", bytes(40)),
        False,
        "broken PNG header",
    ),
    "jp2 cut at half": (lambda: jp2()[: len(jp2()) // 2], True, "ends before its end mark"),
    "jp2 cut in the header": (lambda: jp2()[:60], True, "ends inside the JP2 header"),
    "jp2 whose box and codestream disagree": (
        lambda: jp2().replace(struct.pack(">II", 96, 128), struct.pack(">II", 90, 128), 1),
        False,
        "broken JP2 header",
    ),
    "jp2 of 16 bits": (
        lambda: bytes(cv2.imencode(".jp2", sky().astype(np.uint16))[1]),
        False,
        "16 bits per sample",
    ),
}


# --- what cameras state of an exposure ---------------------------------------------------------


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with one more segment at its beginning."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def exif(numerator: int, denominator: int, order: str = "<") -> bytes:
    """EXIF with an orientation, and with an exposure time in seconds in the folder for that."""
    first = struct.pack(f"{order}HHHIHHHHIII", 2, 0x0112, 3, 1, 6, 0, 0x8769, 4, 1, 38, 0)
    second = struct.pack(f"{order}HHHIII", 1, 0x829A, 5, 1, 56, 0)
    ratio = struct.pack(f"{order}II", numerator, denominator)
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    return b"Exif\0\0" + head + first + second + ratio


def stating(data: bytes, exposure_us: int) -> bytes:
    """A JPEG whose EXIF states an exposure time."""
    return with_segment(data, 0xE1, exif(exposure_us, 1_000_000))


def mobotix(data: bytes, exposure: str) -> bytes:
    """A JPEG with the text of a Mobotix camera in a comment."""
    text = "#:M1IMG\r\nVER=1.0\nPRD=MOBOTIX\nDAT=2026-06-21\nTIM=12:00:00.250\nTZN=GMT+1\n"
    return with_segment(data, 0xFE, f"{text}AEXP=7\nEXP={exposure}\nLXR=120\n\0\0".encode())
