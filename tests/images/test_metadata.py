"""What files state of their exposure, however they state it, and whatever else they hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from asi_watch.images import read_image, read_stated
from asi_watch.images.metadata import Metadata, read_metadata
from tests.images.pictures import (
    chunk,
    exif,
    jpeg,
    mobotix,
    pillow,
    png,
    put,
    stating,
    with_segment,
)

PLAIN = jpeg()


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_states_orientation_and_exposure(order: str) -> None:
    data = with_segment(PLAIN, 0xE1, exif(1, 500, order))
    assert read_metadata(data) == Metadata(2000.0, 6)


def test_exif_of_a_png_and_of_another_writer_is_read() -> None:
    data = png()
    assert (
        read_metadata(data[:33] + chunk(b"eXIf", exif(3, 2)[6:]) + data[33:]).exposure_us == 1.5e6
    )
    tags = Image.Exif()
    tags[0x8769] = {0x829A: IFDRational(1, 800)}
    assert read_metadata(pillow("RGB", exif=tags)).exposure_us == pytest.approx(1250)


@pytest.mark.parametrize(
    ("text", "exposure_us"), [("80", 80), ("000160", 160), ("8.5", None), ("", None), ("-1", None)]
)
def test_the_comment_of_a_mobotix_camera_is_read(text: str, exposure_us: float | None) -> None:
    assert read_metadata(mobotix(PLAIN, text)).exposure_us == exposure_us


def test_other_comments_say_nothing() -> None:
    assert read_metadata(with_segment(PLAIN, 0xFE, b"EXP=80\n")) == Metadata()
    assert read_metadata(PLAIN) == Metadata()


@pytest.mark.parametrize("ratio", [(0, 1), (0, 0), (1, 0)])
def test_a_time_that_is_none_is_stated_as_zero(ratio: tuple[int, int]) -> None:
    assert read_metadata(with_segment(PLAIN, 0xE1, exif(*ratio))).exposure_us == 0


def test_a_frame_brings_its_metadata(tmp_path: Path) -> None:
    path = put(tmp_path, stating(PLAIN, 81))
    frame = read_image(path)
    assert frame.metadata == read_stated(path) == Metadata(81.0, 6)
    assert np.array_equal(frame.pixels, read_image(put(tmp_path, PLAIN, "b.jpg")).pixels)


def test_a_file_is_read_on_where_large_blocks_come_first(tmp_path: Path) -> None:
    data = mobotix(PLAIN, "160")
    for _ in range(3):
        data = with_segment(data, 0xE2, bytes(65_000))
    assert read_stated(put(tmp_path, data)).exposure_us == 160
    with pytest.raises(OSError, match="a folder"):
        read_stated(tmp_path)


def test_a_folder_of_exif_that_names_itself_ends() -> None:
    data = bytearray(exif(1, 500))
    at = data.index(struct.pack("<HHI", 0x8769, 4, 1)) + 8
    data[at : at + 4] = struct.pack("<I", 8)
    assert read_metadata(with_segment(PLAIN, 0xE1, bytes(data))) == Metadata(None, 6)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 120), st.sampled_from(["exif", "mobotix"]))
def test_nothing_raises(noise: bytes, at: int, kind: str) -> None:
    data = bytearray(stating(PLAIN, 80) if kind == "exif" else mobotix(PLAIN, "80"))
    data[at : at + len(noise)] = noise
    read_metadata(bytes(data))
    read_metadata(bytes(data[:at]))
