"""JPEGs: whole ones of every habit are read, and damage of every kind is seen."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from asi_watch.errors import ImageError
from asi_watch.images import jpeg as module
from asi_watch.images import read_image
from asi_watch.images.headers import jpeg_segments
from tests.images.pictures import jpeg, noisy, pillow, put, sky

Pixels = NDArray[np.uint8]


def pil(image: Pixels, mode: str = "RGB", **options: Any) -> bytes:
    return pillow(mode, picture=image, **options)


def parts(data: bytes) -> list[tuple[int, bytes]]:
    """The segments up to the first scan's header, each as it stands in the file."""
    return [(m, data[at - 4 : at + length]) for m, at, length in jpeg_segments(data)]


def scan_starts(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]


def reread(folder: Path, data: bytes) -> Pixels:
    return read_image(put(folder, data)).pixels


def refusal(folder: Path, data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        reread(folder, data)
    return caught.value.reason


# --- whole ones ---------------------------------------------------------------------------------

EXIF = b"\xff\xe1" + struct.pack(">H", 400) + b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(384)
SECOND = jpeg(sky(48, 64))
BEHIND: dict[str, bytes] = {
    "a second picture": SECOND,
    "zeros and a second picture": bytes(4000) + SECOND,
    "a second picture with EXIF": SECOND[:2] + EXIF + SECOND[2:],
    "half a second picture": SECOND[:700],
    "a film": b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(200_000),
    "0xFF": b"\xff" * 700,
    "spaces and line ends": b"  \r\n" * 20,
}


@pytest.mark.parametrize("kind", BEHIND)
def test_what_lies_behind_the_end_mark_is_not_the_picture(tmp_path: Path, kind: str) -> None:
    for first in (jpeg(), pillow("RGB", progressive=True)):
        expected = simplejpeg.decode_jpeg(first, "BGR")
        assert np.array_equal(reread(tmp_path, first + BEHIND[kind]), expected)
        assert "is damaged" in refusal(tmp_path, first[:-700] + first[-2:] + BEHIND[kind])
        # What comes next does not make a picture whole whose own end is missing.
        refusal(tmp_path, first[:-700] + BEHIND[kind])


def test_odd_scan_parameters_and_versions_are_notes(tmp_path: Path) -> None:
    good = jpeg()
    at = good.index(b"\xff\xda") + 11
    for three in (b"\0\0\0", b"\0\x3f\1", b"\1\x3f\0", b"\xff\xff\xff"):
        frame = read_image(put(tmp_path, good[:at] + three + good[at + 3 :]))
        assert np.array_equal(frame.pixels, simplejpeg.decode_jpeg(good, "BGR"))
    jfif = good.index(b"JFIF\0") + 5
    odd_version = good[:jfif] + b"\7\7" + good[jfif + 2 :]
    assert np.array_equal(reread(tmp_path, odd_version), simplejpeg.decode_jpeg(good, "BGR"))
    plain = good[:2] + good[20:]  # without JFIF, Adobe's segment says which colours these are
    for transform in (1, 2, 9):
        adobe = b"\xff\xee\0\x0eAdobe\7\7\0\0\0\0" + bytes([transform])
        data = plain[:2] + adobe + plain[2:]
        assert np.array_equal(reread(tmp_path, data), simplejpeg.decode_jpeg(good, "BGR"))


def test_rgb_jpegs_keep_their_colours(tmp_path: Path) -> None:
    for progressive in (False, True):
        data = pil(sky(), keep_rgb=True, quality=95, progressive=progressive)
        pixels = reread(tmp_path, data)
        assert np.abs(pixels.astype(int) - sky()).mean() < 2


@pytest.mark.parametrize("padding", [b"U", b"UUU", b"U" * 16, bytes(64), b"\xff\xff", b"\xff\0"])
def test_padding_before_the_end_mark_passes(tmp_path: Path, padding: bytes) -> None:
    good = jpeg(noisy())
    pixels = reread(tmp_path, good[:-2] + padding + good[-2:])
    assert np.array_equal(pixels, simplejpeg.decode_jpeg(good, "BGR"))


def test_other_stray_bytes_before_the_end_mark_are_damage(tmp_path: Path) -> None:
    good = jpeg(noisy())
    said = refusal(tmp_path, good[:-2] + b"stray" + good[-2:])
    assert said == "is damaged (5 bytes are left over behind its last block)"


def test_frames_of_motion_jpeg_are_read(tmp_path: Path) -> None:
    good = jpeg()
    head = parts(good)
    coded = good[good.index(head[-1][1]) + len(head[-1][1]) :]
    for first, left_out in ((b"", [0xC4]), (b"\xff\xe0\0\x10AVI1" + bytes(10), [0xC4, 0xE0])):
        kept = b"".join(part for marker, part in head if marker not in left_out)
        pixels = reread(tmp_path, b"\xff\xd8" + first + kept + coded)
        assert np.array_equal(pixels, simplejpeg.decode_jpeg(good, "BGR"))


def test_fill_bytes_before_marks_are_read_over(tmp_path: Path) -> None:
    good = pil(noisy(), restart_marker_rows=1)
    filled = b"\xff\xd8" + b"".join(b"\xff\xff" + part for _, part in parts(good))
    coded = good[good.index(parts(good)[-1][1]) + len(parts(good)[-1][1]) :]
    coded = coded.replace(b"\xff\xd1", b"\xff\xff\xff\xd1")[:-2] + b"\xff\xff\xff\xd9"
    assert np.array_equal(reread(tmp_path, filled + coded), simplejpeg.decode_jpeg(good, "BGR"))


def test_a_height_that_is_given_behind_the_pixels_alone_is_refused_by_name(tmp_path: Path) -> None:
    good = jpeg()
    tail = b"\xff\xdc\0\4" + struct.pack(">H", 96) + good[-2:]
    pixels = reread(tmp_path, good[:-2] + tail)
    assert np.array_equal(pixels, simplejpeg.decode_jpeg(good, "BGR"))
    at = good.index(b"\xff\xc0") + 5
    without = good[:at] + b"\0\0" + good[at + 2 : -2]
    assert "height behind its pixels" in refusal(tmp_path, without + tail)


def flat_blocks(levels: NDArray[np.int64], factors: list[tuple[int, int]]) -> bytes:
    """A JPEG of 32 × 32 pixels for each level (rows, columns, 3), with any sampling factors.

    Every block is flat: its DC step has a code of four bits that says how many bits follow, and
    the one code of the AC table ends it.
    """
    rows, columns, _ = levels.shape
    wide, high = max(h for h, _ in factors), max(v for _, v in factors)
    text, before = "", [0, 0, 0]
    for y, x in itertools.product(range(rows * 4 // high), range(columns * 4 // wide)):
        for i, (h, v) in enumerate(factors):
            for by, bx in itertools.product(range(v), range(h)):
                row, column = y * high + by * high // v, x * wide + bx * wide // h
                level = int(levels[row // 4, column // 4, i])
                step, before[i] = level - before[i], level
                size = abs(step).bit_length()
                text += f"{size:04b}"
                if size:
                    text += f"{step if step > 0 else step + 2**size - 1:0{size}b}"
                text += "0"
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, rows * 32, columns * 32, 3)
    frame += b"".join(bytes([i, h << 4 | v, 0]) for i, (h, v) in enumerate(factors, 1))
    segments = {
        0xDB: b"\0" + b"\4" * 64,
        0xC0: frame,
        0xC4: b"\0\0\0\0\x0c" + bytes(12) + bytes(range(12)) + b"\x10\1" + bytes(16),
        0xDA: b"\3\1\0\2\0\3\0\0\x3f\0",
    }
    head = b"".join(
        struct.pack(">BBH", 255, marker, len(body) + 2) + body for marker, body in segments.items()
    )
    return b"\xff\xd8" + head + coded + b"\xff\xd9"


@pytest.mark.parametrize(
    "factors",
    ["11 11 11", "22 11 11", "41 11 11", "42 11 11", "24 11 11", "14 11 11", "44 11 11",
     "41 21 21", "11 21 21", "11 12 12", "21 11 21", "22 21 12", "22 22 11"],
)  # fmt: skip
def test_every_sampling_is_read(tmp_path: Path, factors: str) -> None:
    pairs = [(int(pair[0]), int(pair[1])) for pair in factors.split()]
    levels = np.random.default_rng(6).integers(-80, 80, (3, 4, 3))
    data = flat_blocks(levels, pairs)
    if sum(h * v for h, v in pairs) > 10:
        # More blocks than a unit may have.
        assert "sampling factors that no decoder here reads" in refusal(tmp_path, data)
        return
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(reread(tmp_path, data).astype(int) - expected).max() <= 1
    assert "ends too early" in refusal(tmp_path, data[:-20] + data[-2:])


def scenes() -> dict[str, Pixels]:
    y, x = np.mgrid[:72, :104]
    ramp = np.stack([60 + x, 40 + y, 30 + (x + y) // 2], -1).astype(np.uint8)
    night = np.abs(np.random.default_rng(2).normal(2, 2, (200, 300, 3))).astype(np.uint8)
    return {
        "noise": noisy(72, 104),
        "ramp": ramp,
        "stripes": np.where(x // 8 % 2, 90, 170)[:, :, np.newaxis].astype(np.uint8).repeat(3, 2),
        "checks": ((x + y) % 2 * 255)[:, :, np.newaxis].repeat(3, 2).astype(np.uint8),
        "black": np.zeros((512, 640, 3), np.uint8),
        "white": np.full((512, 640, 3), 255, np.uint8),
        "night": night,
        "tiny": noisy(8, 8),
        "odd": noisy(40, 24)[:33, :17],
    }


def test_sound_ones_of_many_settings_are_read(tmp_path: Path) -> None:
    count = 0
    for image, progressive, optimize, sampling, quality in itertools.product(
        scenes().values(), (False, True), (False, True), (0, 1, 2), (30, 98)
    ):
        kind: dict[str, Any] = {"progressive": progressive, "quality": quality}
        files = [pil(image, optimize=optimize, subsampling=sampling, **kind)]
        if sampling == 0:
            restarts = [cv2.IMWRITE_JPEG_RST_INTERVAL, 3, cv2.IMWRITE_JPEG_QUALITY, quality]
            restarts += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
            files += [cv2.imencode(".jpg", image, restarts)[1].tobytes(), pil(image, "L", **kind)]
        for data in files:
            expected = np.asarray(Image.open(io.BytesIO(data)))
            expected = expected.reshape(*expected.shape[:2], -1)[:, :, ::-1]
            assert np.array_equal(reread(tmp_path, data), expected)
            count += 1
    assert count >= 300
    # Zero bytes of a flat picture are no hole.
    assert bytes(64) in pil(scenes()["black"], optimize=True)


# --- damaged ones -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_hole_is_seen_wherever_it_lies(tmp_path: Path, mode: str, progressive: bool) -> None:
    data = pil(noisy(384, 512), mode, progressive=progressive, quality=85)
    start = data.index(b"\xff\xda") + 20
    for hole, fill in ((80, b"\0"), (512, b"\0"), (512, b"\xff"), (4096, b"\0")):
        for at in np.linspace(start, len(data) - hole - 2, 60).astype(int):
            reason = refusal(tmp_path, data[:at] + fill * hole + data[at + hole :])
            assert "is damaged" in reason or "broken" in reason or "ends before" in reason


def test_scans_must_be_there_once_each(tmp_path: Path) -> None:
    data = pil(noisy(), progressive=True)
    starts = scan_starts(data)
    assert len(starts) == 10
    for cut in starts[1:]:
        # A file that was cut where a scan ends has lost precision, not blocks.
        tables = data.rfind(b"\xff\xc4", 0, cut)
        for behind in (cut, tables):
            assert "is damaged" in refusal(tmp_path, data[:behind] + b"\xff\xd9")
    first, second = (data.rfind(b"\xff\xc4", 0, at) for at in starts[1:3])
    assert "do not follow" in refusal(tmp_path, data[:first] + data[second:])
    assert "do not follow" in refusal(tmp_path, data[:second] + data[first:])
    last = data.rfind(b"\xff\xc4", 0, starts[-1])
    assert "scans are missing" in refusal(tmp_path, data[:last] + b"\xff\xd9")


def test_restart_marks_must_stand_where_they_belong(tmp_path: Path) -> None:
    data = pil(noisy(), restart_marker_rows=1)
    at, behind = data.index(b"\xff\xd1"), data.index(b"\xff\xd3")
    for damaged in (
        data[:at] + data[at + 2 :],
        data[:at] + b"\xff\xd5" + data[at + 2 :],
        data[:at] + data[behind:],
        data[:at] + data[at : at + 2] + data[at:],
        data[: at + 40] + data[at + 340 :],
    ):
        assert "is damaged" in refusal(tmp_path, damaged)


def test_a_splice_of_two_pictures_is_seen(tmp_path: Path) -> None:
    one, two = jpeg(noisy()), jpeg(np.ascontiguousarray(noisy()[::-1]))
    start = one.index(b"\xff\xda") + 14
    seen = 0
    for at in np.linspace(start, min(len(one), len(two)) - 100, 40).astype(int):
        try:
            reread(tmp_path, one[:at] + two[at:])
        except ImageError:
            seen += 1
    # A few give the right number of blocks by chance: those are JPEGs like any other.
    assert seen >= 34


def test_a_brightness_that_no_encoder_writes_is_damage(tmp_path: Path) -> None:
    levels = np.full((1, 1, 3), 300)  # at a quantiser of 4: beyond white
    assert "brightness out of range" in refusal(tmp_path, flat_blocks(levels, [(1, 1)] * 3))
    assert reread(tmp_path, flat_blocks(levels - 50, [(1, 1)] * 3)).max() == 255


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.replace(b"\xff\xc0", b"\xff\xc3", 1), "lossless"),
        (lambda d: d.replace(b"\xff\xc0", b"\xff\xc9", 1), "arithmetic coding"),
        (lambda d: d.replace(b"\xff\xc0", b"\xff\xc5", 1), "hierarchical"),
        (lambda d: d.replace(b"\xff\xc0", b"\xff\xf7", 1), "JPEG-LS"),
        (lambda d: bytes(4) + b"ftypheic" + d, "HEIC"),
        (lambda d: b"\0\5\x16\7" + bytes(78), "AppleDouble"),
        (lambda d: pillow("CMYK"), "4 components (CMYK or YCCK)"),
    ],
)
def test_rare_kinds_are_refused_by_their_name(
    tmp_path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    said = refusal(tmp_path, change(jpeg()))
    assert reason in said
    assert "damaged" not in said


def test_too_many_scans_cost_too_much(tmp_path: Path) -> None:
    data = pillow("RGB", progressive=True)
    scan = b"\xff\xda\0\x08\1\1\0\1\5\0"
    assert "too many scans" in refusal(tmp_path, data[:-2] + scan * 300 + data[-2:])


def test_a_large_picture_is_checked_while_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WORTH_A_THREAD", 1)
    good = jpeg(noisy())
    expected = simplejpeg.decode_jpeg(good, "BGR")
    assert np.array_equal(reread(tmp_path, good), expected)
    assert np.array_equal(reread(tmp_path, good[:-2] + bytes(50) + good[-2:]), expected)
    middle = len(good) // 2
    assert "zero bytes" in refusal(tmp_path, good[:middle] + bytes(99) + good[middle + 99 :])


def test_without_a_compiler_nothing_unchecked_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_entropy", None)
    good = jpeg(noisy())
    assert np.array_equal(reread(tmp_path, good), simplejpeg.decode_jpeg(good, "BGR"))
    middle = len(good) // 2
    assert "damaged" in refusal(tmp_path, good[:middle] + bytes(99) + good[middle + 99 :])
    assert "C compiler" in refusal(tmp_path, pillow("RGB", progressive=True))
