"""PNG and JPEG 2000: nothing is decoded that costs more than its size justifies."""

from __future__ import annotations

import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asi_watch.errors import ImageError
from asi_watch.images import read_image
from tests.images.pictures import jp2, put, sky


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", 8 + len(payload)) + kind + payload


def tiny_precincts(size: int, *, hidden: bool) -> bytes:
    """Some 180 bytes with a precinct for every pixel, which a tile's header asks for if hidden."""
    plain = struct.pack(">HHBBHBBBBBB", 0xFF52, 12, 0, 0, 1, 0, 0, 4, 4, 0, 1)
    tiny = struct.pack(">HHBBHBBBBBBB", 0xFF52, 13, 1, 0, 1, 0, 0, 4, 4, 0, 1, 0)
    siz = struct.pack(">HHH8IH", 0xFF51, 47, 0, size, size, 0, 0, size, size, 0, 0, 3)
    siz += bytes([7, 1, 1] * 3)
    quantiser = struct.pack(">HHBB", 0xFF5C, 4, 0x40, 0x40)
    head = b"\xff\x4f" + siz + (plain if hidden else tiny) + quantiser
    body = (tiny if hidden else b"") + b"\xff\x93" + bytes(8)
    tile = struct.pack(">HHHIBB", 0xFF90, 10, 0, 12 + len(body), 0, 1) + body
    stream = head + tile + b"\xff\xd9"
    ihdr = box(b"ihdr", struct.pack(">IIHBBBB", size, size, 3, 7, 7, 0, 0))
    colour = box(b"colr", struct.pack(">BBBI", 1, 0, 0, 16))
    return (
        b"\0\0\0\x0cjP  \r\n\x87\n"
        + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + box(b"jp2h", ihdr + colour)
        + box(b"jp2c", stream)
    )


@pytest.mark.parametrize("hidden", [False, True])
def test_a_tiny_file_cannot_cost_gigabytes(tmp_path: Path, hidden: bool) -> None:
    data = tiny_precincts(2000, hidden=hidden)
    assert len(data) < 220
    path = put(tmp_path, data, "a.jp2")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"memory|does not|damaged") as caught:
        read_image(path)
    assert not caught.value.may_recover
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # Of the largest child so far, in KiB.
    assert after <= max(before, 600 << 10)
    assert time.monotonic() - started < 60


def test_the_reason_is_the_same_every_time(tmp_path: Path) -> None:
    data = bytearray(jp2())
    at = data.index(b"\xff\x52")
    data[at + 9] = 77  # decomposition levels
    path = put(tmp_path, bytes(data), "a.jp2")
    said = set()
    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            read_image(path)
        said.add(str(caught.value))
    assert len(said) == 1
    assert "0x" not in said.pop()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile_size": (32, 32)},
        {"quality_layers": [40, 10, 1], "num_resolutions": 3},
        {"precinct_size": (64, 64), "codeblock_size": (16, 16)},
        {"irreversible": True, "progression": "RPCL"},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_sound_ones_of_many_settings_are_read(
    tmp_path: Path, mode: str, options: dict[str, Any]
) -> None:
    image = Image.fromarray(sky()[:, :, ::-1]).convert(mode)
    path = tmp_path / "a.jp2"
    image.save(path, **options)
    with Image.open(path) as decoded:
        expected = np.asarray(decoded).reshape(96, 128, -1)[:, :, ::-1]
    assert np.array_equal(read_image(path).pixels, expected)
