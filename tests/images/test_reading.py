"""Reading exposures: everything that is wrong with a file is found before its pixels are used."""

from __future__ import annotations

import os
import socket
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from asi_watch.buffers import BufferPool
from asi_watch.errors import ImageError
from asi_watch.files import signature
from asi_watch.images import looks_complete, read_image
from tests.images.pictures import ZOO, chunk, jp2, jpeg, pillow, png, put, sky

# --- good ones --------------------------------------------------------------------------------


def test_a_colour_jpeg_gives_bgr_pixels_as_the_decoder_does(tmp_path: Path) -> None:
    path = put(tmp_path, jpeg())
    frame = read_image(path)
    assert frame.pixels.shape == (96, 128, 3)
    assert frame.pixels.dtype == np.uint8
    assert np.array_equal(frame.pixels, simplejpeg.decode_jpeg(jpeg(), "BGR"))
    assert np.abs(frame.pixels.astype(int) - sky()).mean() < 4
    assert frame.signature == signature(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_exact(tmp_path: Path, channels: int) -> None:
    pixels = sky(channels=channels)
    frame = read_image(put(tmp_path, png(pixels), "a.png"))
    assert np.array_equal(frame.pixels, pixels)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 3), ("LA", 1), ("P", 3)])
def test_png_alpha_is_left_out_and_palettes_are_resolved(
    tmp_path: Path, mode: str, channels: int
) -> None:
    frame = read_image(put(tmp_path, pillow(mode, "PNG"), "a.png"))
    assert frame.pixels.shape == (96, 128, channels)
    assert frame.pixels.flags.c_contiguous


def test_an_interlaced_png_decodes(tmp_path: Path) -> None:
    flat = np.full((9, 9, 3), 77, np.uint8)
    passes = [(2, 2), (2, 1), (1, 3), (3, 2), (2, 5), (5, 4), (4, 9)]  # rows, columns of 9 × 9
    stream = b"".join((b"\0" + bytes([77] * 3 * columns)) * rows for rows, columns in passes)
    header = struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 1)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(stream), b"IEND": b""}
    data = png()[:8] + b"".join(chunk(kind, payload) for kind, payload in parts.items())
    assert np.array_equal(read_image(put(tmp_path, data, "a.png")).pixels, flat)


def test_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    frame = read_image(put(tmp_path, pillow("RGB", exif=exif)))
    assert frame.pixels.shape == (96, 128, 3)
    assert frame.metadata.orientation == 6


def test_a_name_that_is_no_utf8_is_read_and_shown(tmp_path: Path) -> None:
    path = put(tmp_path, jpeg(), os.fsdecode(b"2024\xff\xfe_80.jpg"))
    assert read_image(path).pixels.shape == (96, 128, 3)
    assert read_image(str(path)).pixels.shape == (96, 128, 3)
    os.truncate(path, 900)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    str(caught.value).encode()


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    assert np.array_equal(read_image(put(tmp_path, png(), "a.jpg")).pixels, sky())


def test_memory_comes_from_the_pool_and_returns_to_it(tmp_path: Path) -> None:
    path = put(tmp_path, jpeg())
    pool = BufferPool(1 << 20)
    first = read_image(path, allocate=pool.take)
    expected = first.pixels.copy()
    address = first.pixels.ctypes.data
    pool.give(first.pixels)
    again = read_image(path, allocate=pool.take)
    assert again.pixels.ctypes.data == address
    assert np.array_equal(again.pixels, expected)


# --- the zoo ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ZOO)
def test_bad_content_is_refused_with_its_reason(tmp_path: Path, kind: str) -> None:
    make, may_recover, reason = ZOO[kind]
    path = put(tmp_path, make())
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert reason in caught.value.reason
    assert caught.value.may_recover is may_recover
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)


def test_too_many_bytes_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ImageError, match="the limit is 67108864") as caught:
        read_image(path)
    assert not caught.value.may_recover


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * (30 << 20),
        b"\xff\xd8" + b"\xff\xfe\0\2" * (8 << 20),
        b"\xff\xd8"
        + jpeg()[2 : jpeg().index(b"\xff\xda")]
        + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * (1 << 20)
        + b"\xff\xd9",
        png()[:33] + chunk(b"IDAT", b"") * (2 << 20),
        jp2()[:12] + (b"\0\0\0\x08free" * (4 << 20)),
        jp2()[:85] + b"\xff\x4f" + b"\xff\x64\0\2" * (4 << 20),
    ],
    ids=["fill bytes", "segments", "scans", "chunks", "boxes", "markers"],
)
def test_many_tiny_parts_cost_little_time(tmp_path: Path, data: bytes) -> None:
    path = put(tmp_path, data)
    started = time.process_time()
    with pytest.raises(ImageError):
        read_image(path)
    assert time.process_time() - started < 1.0


def test_files_that_ask_for_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, jpeg())
    limits = {"MOST_PIXELS": 96 * 128, "_MAX_BYTES": path.stat().st_size}
    for name, limit in limits.items():
        monkeypatch.setattr(f"asi_watch.images.reading.{name}", limit)
        assert read_image(path).pixels.size
        monkeypatch.setattr(f"asi_watch.images.reading.{name}", limit - 1)
        with pytest.raises(ImageError, match=f"the limit is {limit - 1}"):
            read_image(path)
        monkeypatch.undo()


def test_nothing_that_is_no_regular_file_is_opened(tmp_path: Path) -> None:
    good = put(tmp_path, jpeg(), "good.jpg")
    odd = {name: tmp_path / f"{name}.jpg" for name in ("fifo", "zero", "link", "folder", "socket")}
    os.mkfifo(odd["fifo"])
    odd["zero"].symlink_to("/dev/zero")
    odd["link"].symlink_to(good)
    odd["folder"].mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # socket paths are short
        listener.bind("socket.jpg")
        os.chdir(here)
    said = {}
    for name, path in odd.items():
        with pytest.raises(ImageError) as caught:
            read_image(path)
        said[name] = caught.value.reason
        assert not caught.value.may_recover
        assert not looks_complete(path)
    with pytest.raises(ImageError, match="is a character device"):
        read_image("/dev/zero")
    assert said == {
        "fifo": "is a FIFO, not a regular file",
        "zero": "is a symbolic link, not a regular file",
        "link": "is a symbolic link, not a regular file",
        "folder": "is a folder, not a regular file",
        "socket": "is a socket, not a regular file",
    }


def test_a_fifo_that_takes_the_files_place_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    os.mkfifo(path)
    regular = os.lstat(put(tmp_path, jpeg(), "b.jpg"))
    monkeypatch.setattr("asi_watch.files.os.lstat", lambda _path, **_: regular)
    with pytest.raises(ImageError, match="is a FIFO"):
        read_image(path)


def test_a_link_that_takes_the_files_place_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular = os.lstat(put(tmp_path, jpeg(), "b.jpg"))
    path = tmp_path / "a.jpg"
    path.symlink_to(tmp_path / "b.jpg")
    monkeypatch.setattr("asi_watch.files.os.lstat", lambda _path, **_: regular)
    with pytest.raises(ImageError, match="symbolic links"):
        read_image(path)


def test_a_missing_file_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file") as caught:
        read_image(tmp_path / "a.jpg")
    assert caught.value.may_recover
    with pytest.raises(ImageError, match="no possible file name"):
        read_image("a\0b.jpg")


def test_a_read_error_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = put(tmp_path, jpeg())
    monkeypatch.setattr("asi_watch.files.os.open", fail)
    with pytest.raises(ImageError, match="Permission denied") as caught:
        read_image(path)
    assert caught.value.may_recover


@pytest.mark.parametrize("change", ["grow", "touch", "replace"])
def test_a_file_that_changes_while_it_is_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = put(tmp_path, jpeg())
    real = os.fstat
    seen = []

    def fstat(descriptor: int) -> os.stat_result:
        seen.append(descriptor)
        if len(seen) == 3:
            if change == "grow":
                with path.open("ab") as stream:
                    stream.write(b"\0")
            elif change == "touch":
                os.utime(path, ns=(1, 1))
            else:
                put(tmp_path, jpeg(), "new.jpg").replace(path)
        return real(descriptor)

    # FileIO makes an fstat of its own in C; only ours are counted.
    monkeypatch.setattr("os.fstat", fstat)
    with pytest.raises(ImageError, match="changed while it was read") as caught:
        read_image(path)
    assert caught.value.may_recover


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    paths = [put(tmp_path, make(), f"{i}.jpg") for i, (make, *_) in enumerate(ZOO.values())]
    for path in [*paths, put(tmp_path, jpeg())]:
        looks_complete(path)
        try:
            read_image(path)
        except ImageError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("make", [jpeg, png, jp2])
def test_no_cut_of_a_file_is_ever_taken_for_whole(
    tmp_path: Path, make: Callable[[], bytes]
) -> None:
    data = make()
    path = tmp_path / "a.jpg"
    for length in np.linspace(0, len(data) - 1, 120).astype(int):
        path.write_bytes(data[:length])
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert caught.value.may_recover, (length, caught.value.reason)


@pytest.mark.parametrize("make", [jpeg, png, jp2])
def test_damaged_files_raise_nothing_but_image_errors(
    tmp_path: Path,
    make: Callable[[], bytes],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asi_watch.images.reading.MOST_PIXELS", 1_000_000)
    rng = np.random.default_rng(11)
    data = np.frombuffer(make(), np.uint8)
    path = tmp_path / "a.jpg"
    for _ in range(20 if make is jp2 else 200):
        hurt = data.copy()
        at = rng.integers(0, len(hurt) if rng.random() < 0.5 else 200, 3)
        hurt[at] = rng.integers(0, 256, 3, dtype=np.uint8)
        path.write_bytes(hurt.tobytes())
        try:
            frame = read_image(path)
        except ImageError:
            continue
        assert frame.pixels.dtype == np.uint8
    assert capfd.readouterr().err == ""


def test_looks_complete_is_cheap_and_never_wrong_about_half_files(tmp_path: Path) -> None:
    assert looks_complete(put(tmp_path, jpeg()))
    assert looks_complete(put(tmp_path, jpeg() + bytes(500)))
    assert looks_complete(put(tmp_path, png(), "a.png"))
    assert looks_complete(put(tmp_path, jp2(), "a.jp2"))
    for data in (b"", bytes(100), jpeg()[:-1], png()[: len(png()) // 2]):
        assert not looks_complete(put(tmp_path, data))
    assert not looks_complete(tmp_path / "none.jpg")
