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
from asi_watch.images.headers import Metadata, may_state_more, read_metadata
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
STATING = {
    "exif": stating(PLAIN, 80),
    "mobotix": mobotix(PLAIN, "80"),
    "tiff": pillow("RGB", "TIFF"),
    "webp": pillow("RGB", "WEBP"),
    "fits": b"SIMPLE  =".ljust(80) + b"EXPTIME = 2.0".ljust(80),
}


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


def test_exif_of_tiff_and_webp_is_read() -> None:
    for order in "<>":
        assert read_metadata(exif(1, 400, order)[6:]) == Metadata(2500.0, 6)
    tags = Image.Exif()
    tags[0x8769] = {0x829A: IFDRational(1, 400)}
    assert read_metadata(pillow("RGB", "WEBP", exif=tags)).exposure_us == 2500
    assert read_metadata(pillow("RGB", "WEBP")).exposure_us is None


@pytest.mark.parametrize(
    ("card", "exposure_us"),
    [
        ("EXPTIME =               0.0025 / seconds", 2500),
        ("EXPOSURE= 2.5E-03", 2500),
        ("EXPTIME = 1.D0", 1e6),
        ("EXPTIME =                    2", 2e6),
        ("EXPTIME = 0.0", 0),
        ("EXPTIME = 1e999", float("inf")),
        ("EXPTIME = 'long'", None),
        ("EXPTIMES= 2.0", None),
        ("COMMENT   EXPTIME = 2.0", None),
    ],
)
def test_the_header_of_a_fits_file_is_read(card: str, exposure_us: float | None) -> None:
    cards = ["SIMPLE  =                    T", "BITPIX  =  16", card, "END", "EXPTIME = 7.0"]
    data = "".join(f"{one:80}" for one in cards).encode().ljust(2880)
    assert read_metadata(data).exposure_us == exposure_us


@pytest.mark.parametrize(
    ("text", "exposure_us"), [("80", 80), ("000160", 160), ("8.5", None), ("", None), ("-1", None)]
)
def test_the_comment_of_a_mobotix_camera_is_read(text: str, exposure_us: float | None) -> None:
    assert read_metadata(mobotix(PLAIN, text)).exposure_us == exposure_us


def test_other_comments_say_nothing() -> None:
    for text in (b"EXP=80\n", b"PRD=OTHER\nEXP=80\n"):
        assert read_metadata(with_segment(PLAIN, 0xFE, text)) == Metadata()
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
    # Not for what lies behind the pixels.
    large = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    assert not may_state_more(jpeg(large)[:65536])
    assert not may_state_more(png(large)[:65536])
    assert may_state_more(data[:65536])
    with pytest.raises(OSError, match="a folder"):
        read_stated(tmp_path)


def test_a_folder_of_exif_that_names_itself_ends() -> None:
    data = bytearray(exif(1, 500))
    at = data.index(struct.pack("<HHI", 0x8769, 4, 1)) + 8
    data[at : at + 4] = struct.pack("<I", 8)
    assert read_metadata(with_segment(PLAIN, 0xE1, bytes(data))) == Metadata(None, 6)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 120), st.sampled_from(sorted(STATING)))
def test_nothing_raises(noise: bytes, at: int, kind: str) -> None:
    data = bytearray(STATING[kind])
    data[at : at + len(noise)] = noise
    read_metadata(bytes(data))
    read_metadata(bytes(data[:at]))
