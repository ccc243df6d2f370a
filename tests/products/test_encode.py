from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import pytest
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.merging import open_merge
from asi_watch.products import (
    ProductSpec,
    ProvenanceError,
    RadianceLayers,
    encode,
    encode_merge,
    find_provenance,
    read_provenance,
)
from asi_watch.products.encode import encode_jpeg
from asi_watch.products.radiance import flag_beyond_half
from tests.hdr.brackets import TIMES, curve, shoot
from tests.products.making import FORMATS, layers, picture, pixels_for, provenance

SHAPE = (67, 90, 3)


def decoded(data: bytes | memoryview) -> NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return np.asarray(image)


def exr(data: bytes | memoryview) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    file = OpenEXR.File(io.BytesIO(data), separate_channels=True)
    return file.header(), {name: channel.pixels for name, channel in file.channels().items()}


# --- provenance in every format ---------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format_", FORMATS)
def test_the_provenance_comes_back_from_every_format(
    tmp_path: Path, format_: Any, channels: int
) -> None:
    spec = ProductSpec(format_)
    data = encode(spec, pixels_for(spec, (*SHAPE[:2], channels)), provenance())
    path = tmp_path / f"a{spec.suffix}"
    path.write_bytes(data)
    found = read_provenance(path)
    assert replace(found, pixels={}) == provenance()
    assert found.pixels["content"]
    assert find_provenance(bytes(data)) == found


@pytest.mark.parametrize("format_", FORMATS)
def test_a_long_provenance_comes_back_too(format_: Any) -> None:
    spec = ProductSpec(format_)
    long = provenance(sources=provenance().sources * 400)
    assert len(long.to_json()) > 3 * 65536
    data = encode(spec, pixels_for(spec, SHAPE), long)
    assert replace(find_provenance(bytes(data)), pixels={}) == long
    if format_ == "exr":
        assert exr(data)[1]["B"].shape == SHAPE[:2]
    else:
        assert decoded(data).shape == SHAPE


@pytest.mark.parametrize("format_", FORMATS)
def test_equal_arguments_give_equal_bytes(format_: Any) -> None:
    spec = ProductSpec(format_)
    first, second = (bytes(encode(spec, pixels_for(spec, SHAPE), provenance())) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("format_", FORMATS)
def test_damaged_products_raise_provenance_errors_only(format_: Any) -> None:
    spec = ProductSpec(format_)
    data = bytes(encode(spec, pixels_for(spec, (40, 40, 3)), provenance()))
    rng = np.random.default_rng(5)
    for _ in range(300):
        hurt = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.5 else data)
        for at in rng.integers(0, min(len(hurt), 3000), 4):
            hurt[at] = rng.integers(0, 256)
        try:
            find_provenance(bytes(hurt))
        except ProvenanceError:
            continue


def test_files_without_provenance_say_so(tmp_path: Path) -> None:
    plain = {
        "jpg": simplejpeg.encode_jpeg(picture(SHAPE, np.uint8)),
        "png": cv2.imencode(".png", picture(SHAPE, np.uint8))[1].tobytes(),
        "hdr": cv2.imencode(".hdr", np.ones(SHAPE, np.float32))[1].tobytes(),
        "tiff": cv2.imencode(".tiff", picture(SHAPE, np.uint8))[1].tobytes(),
        "jp2": cv2.imencode(".jp2", picture(SHAPE, np.uint8))[1].tobytes(),
        "none": b"",
        "text": b"hello",
    }
    for name, data in plain.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ProvenanceError, match=name):
            read_provenance(path)
    with pytest.raises(ProvenanceError, match="cannot be read"):
        read_provenance(tmp_path / "gone")
    (tmp_path / "link").symlink_to(tmp_path / "jpg")
    with pytest.raises(ProvenanceError, match="symbolic link"):
        read_provenance(tmp_path / "link")


# --- pictures ---------------------------------------------------------------------------------


def test_a_jpg_is_what_the_quality_allows_and_carries_exif() -> None:
    pixels = picture((64, 96, 3), np.uint8)
    data = bytes(encode(ProductSpec("jpg"), pixels, provenance()))
    assert simplejpeg.decode_jpeg(data, "BGR", strict=True).shape == (64, 96, 3)
    assert np.abs(decoded(data).astype(int) - pixels).mean() < 3
    assert len(encode(ProductSpec("jpg", quality=50), pixels, provenance())) < len(data)
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        shot = exif.get_ifd(0x8769)
    assert shot[0x9003] == "2024:05:01 12:00:30"
    assert shot[0x9011] == "+01:00"
    assert exif[0x0131] == "asi-watch 0.1.0"
    assert exif[0x0112] == 1
    assert exif[0x010E].startswith(
        "HDR image from 3 of 5 exposures (80, 160, 320.5 us), camera dach s\\xfcd, "
        "slot 2024-05-01 12:00:30 (UTC+01:00), debevec_custom"
    )
    assert b"_320.5.jpg (320.5 us)" in shot[0x9286]


def test_west_of_greenwich_the_offset_is_negative() -> None:
    moved = provenance(slot=provenance().slot_utc.replace(tzinfo=None, hour=7, minute=30))
    data = bytes(encode(ProductSpec("jpg"), picture((8, 8, 1), np.uint8), moved))
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get_ifd(0x8769)[0x9011] == "-03:30"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spec", [ProductSpec("png"), ProductSpec("jp2", lossless=True)])
def test_sixteen_bits_are_kept(spec: ProductSpec, channels: int) -> None:
    pixels = picture((*SHAPE[:2], channels), np.uint16)
    back = decoded(encode(spec, pixels, provenance()))
    assert back.dtype == np.uint16
    assert np.array_equal(back.reshape(pixels.shape), pixels)


def test_png_tells_other_programs_too() -> None:
    data = bytes(encode(ProductSpec("png"), picture(SHAPE, np.uint16)[:, :, :1], provenance()))
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["asi-watch"].startswith('{"asi_watch_provenance": 1')
        assert image.getexif()[0x0131] == "asi-watch 0.1.0"


def test_lossy_jp2_is_smaller_and_close() -> None:
    pixels = picture((256, 256, 3), np.uint16)
    lossy = encode(ProductSpec("jp2"), pixels, provenance())
    exact = encode(ProductSpec("jp2", lossless=True), pixels, provenance())
    assert len(lossy) < len(exact)
    assert np.abs(decoded(lossy).astype(int) - pixels).mean() < 65535 * 0.002


@pytest.mark.parametrize("shape", [(70, 90, 3), (17, 16, 3), (255, 1, 3), (100, 61, 1), (8, 8, 3)])
@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
def test_strips_decode_to_the_same_pixels_everywhere(
    shape: tuple[int, int, int], subsampling: Any
) -> None:
    pixels = picture(shape, np.uint8)
    whole = bytes(encode(ProductSpec("jpg", subsampling=subsampling), pixels, provenance()))
    for count in (2, 3, 16):
        spec = ProductSpec("jpg", subsampling=subsampling, strips=count)
        data = bytes(encode(spec, pixels, provenance()))
        for read in (
            lambda jpeg: simplejpeg.decode_jpeg(jpeg, "BGR", strict=True),
            decoded,
            lambda jpeg: np.asarray(Image.open(io.BytesIO(jpeg))),
        ):
            assert np.array_equal(read(data), read(whole))

        def fill(first: int, last: int, out: NDArray[np.uint8]) -> None:
            out[...] = pixels[first:last]

        made = np.empty(shape, np.uint8)
        assert encode_jpeg(spec, made, fill) == encode_jpeg(spec, pixels)
        assert np.array_equal(made, pixels)


def test_more_units_than_a_restart_interval_counts_are_encoded_at_once() -> None:
    pixels = np.zeros((1040, 8192, 1), np.uint8)
    spec = ProductSpec("jpg", strips=2)
    data = bytes(encode(spec, pixels, provenance()))
    assert b"\xff\xdd\x00\x04" not in data
    assert b"\xff\xdd\x00\x04" in bytes(encode(spec, pixels[:1008], provenance()))


# --- radiance ---------------------------------------------------------------------------------


def test_an_exr_holds_radiance_per_millisecond_as_half_floats() -> None:
    made = layers(SHAPE)
    header, channels = exr(encode(ProductSpec("exr", uncertainty=True), made, provenance()))
    radiance = np.exp(made.ln_radiance.astype(np.float64)) * 1000
    for i, name in enumerate("BGR"):
        assert channels[name].dtype == np.float16
        assert np.allclose(channels[name], radiance[:, :, i], rtol=2**-11 * 1.01, atol=0)
    assert made.validity is not None
    assert made.uncertainty is not None
    packed = channels["validity"].astype(int)
    for i, name in enumerate("BGR"):
        assert np.array_equal(packed >> (2 * i) & 3, made.validity[:, :, i])
        assert np.allclose(
            channels[f"uncertainty.{name}"], made.uncertainty[:, :, i], rtol=1e-3, atol=1e-4
        )
    assert header["capDate"] == "2024:05:01 12:00:30"
    assert header["utcOffset"] == -3600
    assert "4**i" in header["validityCode"]


@pytest.mark.parametrize("ln_value", [-17.0, 5.0])
def test_beyond_the_half_range_full_floats_are_written(ln_value: float) -> None:
    ln = np.full((4, 5, 3), -3, np.float32)
    ln[0, 0, 0] = ln_value
    data = encode(ProductSpec("exr"), RadianceLayers(ln), provenance())
    _, channels = exr(data)
    assert channels["B"].dtype == np.float32
    assert channels["B"][0, 0] == pytest.approx(math.exp(ln_value) * 1000, rel=1e-5)
    assert find_provenance(bytes(data)).pixels["number"] == "float"
    forced = encode(ProductSpec("exr", pixel_type="half"), RadianceLayers(ln), provenance())
    assert exr(forced)[1]["B"][0, 0] in (np.float16(2.0**-14), np.float16(65504))


@pytest.mark.parametrize("compression", ["none", "zip", "piz", "htj2k"])
@pytest.mark.parametrize("pixel_type", ["half", "float"])
def test_every_compression_keeps_every_bit(compression: Any, pixel_type: Any) -> None:
    made = layers(SHAPE)
    plain = exr(
        encode(ProductSpec("exr", compression="none", pixel_type=pixel_type), made, provenance())
    )[1]
    spec = ProductSpec("exr", compression=compression, pixel_type=pixel_type)
    for name, pixels in exr(encode(spec, made, provenance()))[1].items():
        assert np.array_equal(pixels, plain[name]), name


@pytest.mark.parametrize("channels", [1, 3])
def test_half_floats_straight_from_a_merge_are_the_radiance(channels: int) -> None:
    shape = (40, 30, channels)
    frames = shoot(TIMES, shape=shape)
    how = MergeSettings("debevec_custom", "triangle", 5, 250, 2.2, None, 255, True)
    merge = open_merge(how, curve(channels), shape)
    for pixels, time in zip(frames, TIMES, strict=True):
        merge.add(pixels, time)
    radiance = merge.radiance()
    made = RadianceLayers(radiance.ln_radiance, radiance.validity)
    wanted = exr(encode(ProductSpec("exr"), made, provenance()))[1]
    data = encode_merge(ProductSpec("exr"), merge, provenance()).data
    found = exr(data)[1]
    assert set(found) == set(wanted)
    assert np.array_equal(found["validity"], wanted["validity"])
    for name in set(found) - {"validity"}:
        assert found[name].dtype == np.float16
        steps = found[name].view(np.uint16).astype(int) - wanted[name].view(np.uint16)
        assert np.abs(steps).max() <= 1
    assert find_provenance(bytes(data)).pixels["number"] == "half"
    full = exr(encode_merge(ProductSpec("exr", pixel_type="float"), merge, provenance()).data)[1]
    assert {pixels.dtype for name, pixels in full.items() if name != "validity"} == {
        np.dtype(np.float32)
    }


def test_layers_are_left_out_on_request_or_where_there_are_none() -> None:
    spec = ProductSpec("exr", validity=False, uncertainty=False)
    assert set(exr(encode(spec, layers(SHAPE), provenance()))[1]) == {"B", "G", "R"}
    grey = RadianceLayers(layers((5, 6, 1)).ln_radiance)
    assert set(exr(encode(ProductSpec("exr"), grey, provenance()))[1]) == {"Y"}


def test_a_tiff_is_float_rgb() -> None:
    made = layers(SHAPE)
    data = encode(ProductSpec("tiff"), made, provenance())
    back = tifffile.imread(io.BytesIO(data))
    assert back.dtype == np.float32
    assert np.allclose(back[:, :, ::-1], np.exp(made.ln_radiance) * 1000, rtol=1e-5)
    grey = RadianceLayers(made.ln_radiance[:, :, :1].copy())
    assert tifffile.imread(io.BytesIO(encode(ProductSpec("tiff"), grey, provenance()))).ndim == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_and_a_radiance_picture_say_what_is_valid(channels: int) -> None:
    made = layers((*SHAPE[:2], channels))
    assert made.validity is not None
    wanted = np.broadcast_to(made.validity, SHAPE)
    with tifffile.TiffFile(io.BytesIO(encode(ProductSpec("tiff"), made, provenance()))) as file:
        assert len(file.pages) == 2
        mask = file.pages[1].asarray()
    assert np.array_equal(mask.reshape(made.validity.shape)[:, :, ::-1], made.validity)
    data = bytes(encode(ProductSpec("hdr"), made, provenance()))
    assert np.array_equal(decoded(data[data.rindex(b"\x89PNG") :]), wanted)
    assert find_provenance(data).pixels["layers"] == "validity"
    for format_ in ("tiff", "hdr"):
        plain = bytes(encode(ProductSpec(format_, validity=False), made, provenance()))
        assert find_provenance(plain).pixels["layers"] == ""
        assert len(plain) < len(data) or format_ == "tiff"


def test_half_floats_that_are_forced_call_what_they_cannot_hold_invalid() -> None:
    ln = np.full((4, 50, 3), -3, np.float32)
    ln[0, 0], ln[0, 1] = -17.0, 5.0
    validity = np.zeros(ln.shape, np.uint8)
    validity[0, 1, 0] = 1
    flagged, (note,) = flag_beyond_half(RadianceLayers(ln, validity))
    assert flagged.validity is not None
    assert note.startswith("0.83 % of the samples lie beyond what half floats hold")
    assert flagged.validity[0, :3].tolist() == [[1, 1, 1], [1, 2, 2], [0, 0, 0]]
    within = RadianceLayers(ln[1:], validity[1:])
    assert flag_beyond_half(within) == (within, ())


@pytest.mark.parametrize(
    ("format_", "shape", "fits"),
    [
        ("jpg", (65500, 1, 3), True),
        ("jpg", (70000, 1, 3), False),
        ("jp2", (65500, 1, 3), False),
        ("jp2", (32, 40, 3), True),
        ("tiff", (70000, 1, 3), True),
    ],
)
def test_the_limits_of_a_format_are_known_before_it_is_encoded(
    format_: Any, shape: tuple[int, int, int], fits: bool
) -> None:
    assert (ProductSpec(format_).refusal(shape) is None) == fits


def test_a_radiance_picture_is_within_its_steps() -> None:
    made = layers(SHAPE, spread=0.3)
    # Rounded up, its largest channel needs the next exponent.
    made.ln_radiance[0, 0] = np.log([0.01, 0.4, 255.8 / 256])
    back = decoded(encode(ProductSpec("hdr"), made, provenance()))
    radiance = np.exp(made.ln_radiance) * 1000
    exponent = np.frexp(np.maximum(radiance.max(axis=2), back.max(axis=2)))[1]
    off = (back - radiance) / np.ldexp(1.0, exponent - 8)[..., np.newaxis]
    assert np.abs(off).max() <= 0.501
    assert abs(off.mean()) < 0.02


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["exr", "tiff", "hdr"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_radiance_must_be_finite(format_: Any, value: float) -> None:
    ln = np.zeros((4, 4, 3), np.float32)
    ln[1, 2, 0] = value
    with pytest.raises(ValueError, match="not finite"):
        encode(ProductSpec(format_), RadianceLayers(ln), provenance())


def test_pixels_must_fit_the_format() -> None:
    eight = picture(SHAPE, np.uint8)
    with pytest.raises(ValueError, match="needs uint16; got uint8"):
        encode(ProductSpec("png"), eight, provenance())
    with pytest.raises(ValueError, match="made from radiance"):
        encode(ProductSpec("exr"), eight, provenance())
    with pytest.raises(ValueError, match="made from picture8"):
        encode(ProductSpec("jpg"), layers(SHAPE), provenance())
    with pytest.raises(ValueError, match="has shape"):
        encode(ProductSpec("jpg"), eight[:, :, 0], provenance())
    with pytest.raises(ValueError, match="holds 32 to 65535 pixels a side"):
        encode(ProductSpec("jp2"), picture((31, 40, 3), np.uint16), provenance())
    with pytest.raises(ValueError, match="ln_radiance is float32"):
        RadianceLayers(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="validity has shape"):
        RadianceLayers(np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 1), np.uint8))


@pytest.mark.parametrize(
    "options",
    [
        {"format": "gif"},
        {"format": "jpg", "quality": 0},
        {"format": "jpg", "subsampling": "411"},
        {"format": "jpg", "strips": 0},
        {"format": "exr", "compression": "dwaa"},
        {"format": "exr", "pixel_type": "double"},
    ],
)
def test_options_must_be_known(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is"):
        ProductSpec(**options)


def test_a_merge_that_works_by_rows_gives_the_same_jpeg() -> None:
    whole = picture((70, 50, 3), np.uint8)

    class Merge:
        shape = whole.shape
        works_by_rows = True

        def cloud_motion(self, seconds: object) -> None:
            return None

        def picture_rows(self, first: int, last: int, out: NDArray[np.uint8]) -> None:
            out[...] = whole[first:last]

    spec = ProductSpec("jpg", strips=3)
    by_rows = encode_merge(spec, Merge(), provenance()).data  # type: ignore[arg-type]
    assert bytes(by_rows) == bytes(encode(spec, whole, provenance()))


def test_a_merge_is_asked_only_for_what_is_needed() -> None:
    asked = []

    class Merge:
        shape = SHAPE
        works_by_rows = False

        def cloud_motion(self, seconds: object) -> tuple[float, float, float]:
            return 1.25, -0.5, 0.75

        def picture(self, dtype: Any) -> NDArray[Any]:
            asked.append(np.dtype(dtype).name)
            return picture(SHAPE, dtype)

        def radiance(self) -> RadianceLayers:
            asked.append("radiance")
            return layers(SHAPE)

        def radiance_half(self, factor: float) -> None:
            asked.append(f"half × {factor:g}")

        def uncertainty(self) -> NDArray[np.float32]:
            asked.append("uncertainty")
            return np.ones(SHAPE, np.float32)

    for format_ in FORMATS:
        encode_merge(ProductSpec(format_), Merge(), provenance())  # type: ignore[arg-type]
    pictures = ["uint8", "uint16", "uint16"]
    assert asked == [*pictures, "half × 1000", "radiance", "radiance", "radiance"]
    asked.clear()
    spec = ProductSpec("exr", uncertainty=True, pixel_type="float")
    data = encode_merge(spec, Merge(), provenance()).data  # type: ignore[arg-type]
    assert asked == ["uncertainty", "radiance"]
    assert find_provenance(bytes(data)).pixels["layers"] == "validity uncertainty"
