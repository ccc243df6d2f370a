"""TIFF, WebP, DNG and FITS: whole or refused, with the levels that the file states."""

from __future__ import annotations

import io
import resource
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from asi_watch.errors import ImageError
from asi_watch.images import Frame, read_image
from asi_watch.images.decode_child import demosaiced
from tests.images.pictures import pillow, png, put, sky

BLACK, WHITE = 256, 4095


def deep(channels: int = 3) -> NDArray[np.uint16]:
    """A picture of 12 bits that uses all of them."""
    noise = np.random.default_rng(3).integers(0, 16, (96, 128, channels), dtype=np.uint16)
    return sky(channels=channels).astype(np.uint16) * 16 + noise


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    rgb = pixels[:, :, ::-1] if pixels.shape[2] == 3 else pixels[:, :, 0]
    photometric = "rgb" if pixels.shape[2] == 3 else "minisblack"
    tifffile.imwrite(stream, rgb, photometric=photometric, metadata=None, **options)
    return stream.getvalue()


def mosaic(height: int = 64, width: int = 96) -> NDArray[np.uint16]:
    """A smooth scene through an RGGB filter: red is twice green, blue half of it."""
    rows, columns = np.mgrid[0:height, 0:width]
    green = 700.0 + 300.0 * np.sin(rows / 17.0) * np.cos(columns / 23.0)
    factor = np.ones((height, width))
    factor[0::2, 0::2], factor[1::2, 1::2] = 2.0, 0.5
    return np.asarray(np.round(green * factor) + BLACK, np.uint16)


def dng(raw: NDArray[np.uint16], black: int = BLACK, white: int = WHITE) -> bytes:
    """Write a DNG as a camera would: one uncompressed mosaic."""
    stream = io.BytesIO()
    unit = (1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1)
    tags: list[tuple[int, str, int, Any, bool]] = [
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50707, "B", 4, (1, 1, 0, 0), True),
        (50708, "s", 0, "Simulated Sensor", True),  # UniqueCameraModel
        (50714, "I", 1, black, True),  # BlackLevel
        (50717, "I", 1, white, True),  # WhiteLevel
        (50721, "2i", 9, unit, True),  # ColorMatrix1
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
    ]
    options: dict[str, Any] = {"photometric": "cfa", "metadata": None, "extratags": tags}
    tifffile.imwrite(stream, raw, software="none", **options)
    return stream.getvalue()


def fits(pixels: NDArray[Any], **cards: Any) -> bytes:
    from astropy.io import fits as astropy_fits

    stream = io.BytesIO()
    header = astropy_fits.Header(list(cards.items()))
    astropy_fits.PrimaryHDU(pixels, header).writeto(stream)
    return stream.getvalue()


def read(folder: Path, data: bytes, name: str = "a.bin", **options: Any) -> Frame:
    return read_image(put(folder, data, name), **{"linear": True, **options})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("how", ["plain", "deflate", "lzw", "tiles", "planes", "big-endian"])
def test_sixteen_bit_tiffs_are_read_sample_for_sample(
    tmp_path: Path, channels: int, how: str
) -> None:
    pixels = deep(channels)
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "deflate": {"compression": "zlib", "rowsperstrip": 16},
        "tiles": {"tile": (32, 32)},
        "planes": {"planarconfig": "separate"} if channels == 3 else {},
        "big-endian": {"byteorder": ">"},
    }
    if how == "lzw":
        done, coded = cv2.imencode(".tiff", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
        assert done
        data = bytes(coded)
    elif how == "planes" and channels == 3:
        stream = io.BytesIO()
        planes = np.moveaxis(pixels[:, :, ::-1], -1, 0)
        more: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate", "metadata": None}
        tifffile.imwrite(stream, planes, **more)
        data = stream.getvalue()
    else:
        data = tiff(pixels, **options[how])
    frame = read(tmp_path, data)
    assert frame.pixels.dtype == np.uint16
    assert np.array_equal(frame.pixels, pixels)
    assert frame.levels is None


def test_eight_bit_tiff_and_webp_need_no_linear_camera(tmp_path: Path) -> None:
    pixels = sky()
    assert np.array_equal(read(tmp_path, tiff(pixels), linear=False).pixels, pixels)
    webp = read(tmp_path, pillow("RGB", "WEBP", lossless=True), linear=False)
    assert np.array_equal(webp.pixels, pixels)


def test_sixteen_bit_png_is_read_for_a_linear_camera_alone(tmp_path: Path) -> None:
    for channels in (1, 3):
        frame = read(tmp_path, png(deep(channels)))
        assert np.array_equal(frame.pixels, deep(channels))
    for data in (png(deep()), tiff(deep())):
        with pytest.raises(ImageError, match=r"has 16 bits per sample.*response: linear"):
            read(tmp_path, data, linear=False)


def test_a_float_tiff_is_read(tmp_path: Path) -> None:
    pixels = deep().astype(np.float32) / 7
    assert np.array_equal(read(tmp_path, tiff(pixels)).pixels, pixels)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_is_cut_is_refused_wherever_it_ends(
    tmp_path: Path, compression: str | None
) -> None:
    data = tiff(deep(), compression=compression, rowsperstrip=16)
    for share in (0.05, 0.5, 0.9):
        with pytest.raises(ImageError) as caught:
            read(tmp_path, data[: int(len(data) * share)])
        assert caught.value.may_recover
    damaged = bytearray(tiff(deep(), compression="zlib"))
    damaged[len(damaged) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="TIFF that cannot be read"):
        read(tmp_path, bytes(damaged))


def test_a_deflate_bomb_cannot_cost_gigabytes(tmp_path: Path) -> None:
    bomb = tiff(np.zeros((30_000, 2_000, 1), np.uint16), compression="zlib", rowsperstrip=30_000)
    # 120 MB of samples, said to be 2 × 2 pixels.
    small = bomb
    for tag, said in ((256, 2000), (257, 30_000)):
        for kind in (3, 4):
            true, false = (struct.pack("<HHII", tag, kind, 1, size) for size in (said, 2))
            small = small.replace(true, false)
    assert small != bomb
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with pytest.raises(ImageError):
        read(tmp_path, small)
    # Of the largest child so far, in KiB.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 700 << 10)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"photometric": "miniswhite"}, "neither grey nor RGB"),
        ({"subfiletype": 1}, "read as DNG alone"),
    ],
)
def test_what_a_tiff_may_be_besides_is_refused(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, deep(1)[:, :, 0], metadata=None, **options)
    with pytest.raises(ImageError, match=reason):
        read(tmp_path, stream.getvalue())


def test_several_pictures_in_one_file_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.stack([deep(1)[:, :, 0]] * 2), metadata=None)
    with pytest.raises(ImageError, match="several pictures"):
        read(tmp_path, stream.getvalue())
    stream = io.BytesIO()
    films = [Image.fromarray(sky()), Image.fromarray(255 - sky())]
    films[0].save(stream, "WEBP", save_all=True, append_images=films[1:])
    with pytest.raises(ImageError, match="several pictures"):
        read(tmp_path, stream.getvalue())
    whole = pillow("RGB", "WEBP")
    with pytest.raises(ImageError, match="ends before") as caught:
        read(tmp_path, whole[:-100])
    assert caught.value.may_recover


def test_a_dng_is_demosaiced_and_states_its_levels(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    frame = read(tmp_path, dng(mosaic()), "a.dng")
    assert frame.levels == (BLACK, WHITE)
    assert frame.pixels.shape == (64, 96, 3)
    blue, green, red = np.moveaxis(frame.pixels[8:-8, 8:-8].astype(float) - BLACK, -1, 0)
    assert np.abs(red / green - 2.0).max() < 0.05
    assert np.abs(blue / green - 0.5).max() < 0.05
    with pytest.raises(ImageError) as caught:
        read(tmp_path, dng(mosaic())[:-3000], "b.dng")
    assert caught.value.may_recover


def test_what_a_saturated_sample_has_a_part_in_is_saturated() -> None:
    raw = mosaic()
    raw[32, 32], raw[40, 41] = WHITE, WHITE  # a red and a green sample
    picture = demosaiced(raw, "RGGB", WHITE)
    assert (picture[31:34, 31:34, 2] >= WHITE).all()
    assert (picture[39:42, 40:43, 1] >= WHITE).all()
    assert (picture[:, :, 0] < WHITE).all()


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_every_bayer_pattern_gives_its_colours(pattern: str) -> None:
    raw = np.zeros((16, 16), np.uint16)
    values = {"R": 300, "G": 200, "B": 100}
    for place, name in enumerate(pattern):
        raw[place // 2 :: 2, place % 2 :: 2] = values[name]
    picture = demosaiced(raw, pattern, WHITE)
    assert (picture[2:-2, 2:-2] == (100, 200, 300)).all()


def test_fits_in_the_ways_that_cameras_write_it(tmp_path: Path) -> None:
    pytest.importorskip("astropy")
    grey = deep(1)
    frame = read(tmp_path, fits(grey[:, :, 0], SATURATE=4000))
    assert frame.pixels.dtype == np.uint16
    assert np.array_equal(frame.pixels, grey)
    assert frame.levels == (None, 4000.0)
    rgb = np.moveaxis(deep()[:, :, ::-1], -1, 0)
    assert np.array_equal(read(tmp_path, fits(np.ascontiguousarray(rgb))).pixels, deep())
    single = grey[:, :, 0].astype(np.float32)
    assert np.array_equal(read(tmp_path, fits(single)).pixels[:, :, 0], single)
    # An odd card is no damage.
    data = fits(grey[:, :, 0], OBSERVER="x" * 20).replace(b"x" * 20, b"Zenith \xb0".ljust(20))
    assert np.array_equal(read(tmp_path, data).pixels, grey)
    coloured = read(tmp_path, fits(mosaic(), BAYERPAT="RGGB"))
    assert coloured.pixels.shape == (64, 96, 3)
    with pytest.raises(ImageError, match="no numbers"):
        read(tmp_path, fits(np.full((8, 8), np.nan, np.float32)))
    with pytest.raises(ImageError) as caught:
        read(tmp_path, fits(grey[:, :, 0])[:-5760])
    assert caught.value.may_recover


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asi_watch.images import other_formats

    child = tmp_path / "child.py"
    child.write_text("import sys; sys.stderr.write('rawpy'); sys.exit(4)")
    monkeypatch.setattr(other_formats, "_CHILD", child)
    with pytest.raises(ImageError, match=r"rawpy: pip install 'asi-watch\[raw\]'") as caught:
        read(tmp_path, dng(mosaic()), "a.dng")
    assert not caught.value.may_recover


def test_exposure_times_are_read_from_exif_and_from_fits(tmp_path: Path) -> None:
    pytest.importorskip("astropy")
    data = fits(deep(1)[:, :, 0], EXPTIME=0.00125)
    assert read(tmp_path, data).metadata.exposure_us == pytest.approx(1250.0)
    assert read(tmp_path, fits(deep(1)[:, :, 0])).metadata.exposure_us is None
    found = read(tmp_path, tiff(deep(), extratags=[(33434, "2I", 1, (1, 800), True)])).metadata
    assert found.exposure_us == pytest.approx(1250.0)
