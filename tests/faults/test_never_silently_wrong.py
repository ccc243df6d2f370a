"""Inputs that invite a wrong result: each is right, flagged, or refused with the reason.

Every variation goes through the command line or the functions of the library, as an operator does,
and is held against the radiance that it was rendered from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import pytest
import simplejpeg
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from asi_watch.cli import main
from asi_watch.pipeline import create_and_save_hdr, save_response_curve
from asi_watch.products import read_provenance

T = (80, 160, 320, 640, 1280)
START = datetime(2026, 6, 21, 9)
SIZE = 128
Image = NDArray[np.uint8]
Scene = NDArray[np.float64]

_Z = np.arange(256) / 255
CAMERAS: dict[str, NDArray[np.float64]] = {
    # x(z): what a camera takes in for each code, 1 at white.
    "gamma": np.maximum(_Z, 0.5 / 255) ** 2.2,
    "film": (np.exp(3.5 * np.maximum(_Z, 0.5 / 255)) - 1) / (np.exp(3.5) - 1),
    "linear": np.maximum(_Z, 0.5 / 255),
}


def scene(seed: int = 3, shift: float = 0.0, sun: float = 6.0) -> Scene:
    """Irradiance (H, W, 3) per µs: cloud waves of two magnitudes, a sun with its aureole."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    columns = columns + shift
    waves = np.zeros((SIZE, SIZE))
    for _ in range(6):
        a, b, c = rng.uniform(0.02, 0.16), rng.uniform(0.02, 0.16), rng.uniform(0, 6)
        waves += np.sin(columns * a + rows * b + c)
    apart = np.hypot(columns - 90, rows - 34)
    light = 2e-4 + 2e-3 * np.clip(0.5 + waves / 7, 0, 1) ** 2
    light += 20.0 * (apart < sun) + 0.03 * np.exp(-((apart / 9) ** 2))
    return np.asarray(light[..., None] * [1.3, 1.0, 0.8])


def photo(
    light: Scene, exposure_us: float, camera: str = "gamma", *, black: int = 0, white: int = 255
) -> Image:
    """Frame (H, W, 3) uint8 of a camera whose codes run from black to white."""
    codes = np.interp(np.minimum(light * exposure_us, 1), CAMERAS[camera], _Z) * (white - black)
    rng = np.random.default_rng(int(exposure_us) % 9973)
    noisy = np.where(codes < white - black, codes + rng.normal(0, 0.8, codes.shape), codes)
    return np.rint(np.clip(black + noisy, 0, white)).astype(np.uint8)


def encoded(frame: Image, suffix: str = "jpg", quality: int = 95) -> bytes:
    if suffix == "jpg":
        grey = frame.shape[2] == 1
        return simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame),
            quality,
            "GRAY" if grey else "BGR",
            "Gray" if grey else "444",
        )
    return cv2.imencode(f".{suffix}", frame)[1].tobytes()


def file_name(label: object, number: int, position: int, suffix: str = "jpg") -> str:
    stamp = START + timedelta(seconds=30 * number + position)
    return f"{stamp:%Y%m%d%H%M%S}_{label}.{suffix}"


def write(
    folder: Path,
    frames: Sequence[Image],
    labels: Sequence[object] = T,
    *,
    number: int = 0,
    suffix: str = "jpg",
    quality: int = 95,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for position, (label, frame) in enumerate(zip(labels, frames, strict=True)):
        path = folder / file_name(label, number, position, suffix)
        path.write_bytes(encoded(frame, suffix, quality))


def curve_of(camera: str) -> NDArray[np.float32]:
    g = np.log(CAMERAS[camera] / CAMERAS[camera][128])
    return np.repeat(g[:, None], 3, 1).astype(np.float32)


def save_curve(path: Path, curve: NDArray[Any]) -> Path:
    save_response_curve(path, np.asarray(curve, np.float32), {"channel_order": "BGR"})
    return path


def asi(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def merge(folder: Path, curve: Path | None, *options: object) -> Result:
    given = () if curve is None else ("--response", curve)
    usual = ("--algorithm", "debevec_exact", "--format", "exr", "--workers", 0)
    return asi("merge", folder / "in", folder / "out", *given, *usual, *options)


def said(result: Result) -> bool:
    return result.exit_code != 0 or "warning" in result.stderr.lower()


def product(folder: Path, number: int = 0) -> dict[str, Any]:
    slot = START + timedelta(seconds=30 * number)
    name = f"{slot:%Y%m%d%H%M%S}_hdr.exr"
    path = next((folder / "out").rglob(name))
    with OpenEXR.File(str(path)) as file:
        planes = {name: np.array(plane.pixels) for name, plane in file.channels().items()}
    provenance = read_provenance(path)
    flags = planes["validity"].astype(int)
    return {
        "radiance": planes["RGB"][..., ::-1].astype(float),
        "flags": np.stack([flags >> s & 3 for s in (0, 2, 4)], axis=-1),
        "used": len(provenance.sources),
    }


def stops_off(made: dict[str, Any], light: Scene, camera: str) -> float:
    """The 90th percentile of the error of valid pixels, in stops; g(128) = 0 sets the scale."""
    valid = made["flags"] == 0
    truth = 1000 * light / CAMERAS[camera][128]
    off = np.log2(made["radiance"][valid] / truth[valid])
    return float(np.percentile(np.abs(off), 90))


# -- a frame that contradicts its stated time ----------------------------------------------------


def _taken(*pairs: tuple[int, int], times: Sequence[int] = T) -> tuple[int, ...]:
    taken = list(times)
    for position, exposure in pairs:
        taken[position] = exposure
    return tuple(taken)


LONG = (50, 100, 200, 400, 800, 1600, 3200, 6400)
FEW = (100, 400, 1600)
CONTRADICTIONS = {
    "last taken with the first": (T, _taken((4, 80))),
    "second taken with the first": (T, _taken((1, 80))),
    "first taken with the last": (T, _taken((0, 1280))),
    "middle taken with the last": (T, _taken((2, 1280))),
    "middle at half the time": (T, _taken((2, 160))),
    "middle at a third": (T, _taken((2, 107))),
    "last at 1.7 times": (T, _taken((4, 2176))),
    "first at half": (T, _taken((0, 40))),
    "neighbours swapped": (T, _taken((1, 320), (2, 160))),
    "160 and 640 swapped": (T, _taken((1, 640), (3, 160))),
    "ends swapped": (T, _taken((0, 1280), (4, 80))),
    "all taken with one": (T, (320,) * 5),
    "in reverse": (T, T[::-1]),
    "one behind": (T, (80, 80, 160, 320, 640)),
    "eight, one wrong": (LONG, _taken((5, 100), times=LONG)),
    "eight, two wrong": (LONG, _taken((2, 1600), (5, 100), times=LONG)),
    "three, one wrong": (FEW, _taken((1, 100), times=FEW)),
    "two, one wrong": ((100, 800), (100, 100)),
}


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_frame_that_contradicts_its_time(tmp_path: Path, kind: str, camera: str) -> None:
    labels, taken = CONTRADICTIONS[kind]
    light = scene()
    write(tmp_path / "in", [photo(light, t, camera) for t in taken], labels)
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", curve_of(camera)))
    assert said(result) or stops_off(product(tmp_path), light, camera) < 0.2


OTHER_SCENES: dict[str, Callable[[Image], Image]] = {
    "upside down": lambda frame: frame[::-1],
    "channels swapped": lambda frame: frame[..., ::-1],
    "lower half grey": lambda frame: np.where(np.arange(SIZE)[:, None, None] < 64, frame, 128),
    "lower third grey": lambda frame: np.where(np.arange(SIZE)[:, None, None] < 85, frame, 128),
}


@pytest.mark.parametrize("labels", [T, FEW], ids=["five", "three"])
@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("kind", [*OTHER_SCENES, "another sky"])
def test_a_frame_that_shows_something_else(
    tmp_path: Path, kind: str, camera: str, labels: Sequence[int]
) -> None:
    """Its time may fit, on the whole: radiance was 0.2 to 0.6 stops off without a word."""
    light = scene() * [2.0, 1.0, 0.6]
    for position, _ in enumerate(labels):
        folder = tmp_path / str(position)
        frames = [photo(light, t, camera) for t in labels]
        if kind == "another sky":
            frames[position] = photo(scene(8) * [2.0, 1.0, 0.6], labels[position], camera)
        else:
            frames[position] = np.ascontiguousarray(OTHER_SCENES[kind](frames[position]), np.uint8)
        write(folder / "in", frames, labels)
        result = merge(folder, save_curve(tmp_path / "g.npz", curve_of(camera)))
        assert said(result) or stops_off(product(folder), light, camera) < 0.2


SOUND = {
    "still": ({}, {}),
    "q75": ({}, {"quality": 75}),
    "clouds that move": ({"drift": 3.0}, {}),
    "clouds that move fast": ({"drift": 8.0}, {}),
    "overcast, no sun": ({"sun": 0.0}, {}),
    "dim": ({"scale": 0.2}, {}),
    "bright": ({"scale": 4.0}, {}),
    "png": ({}, {"suffix": "png"}),
}


@pytest.mark.parametrize("labels", [T, LONG, FEW], ids=["five", "eight", "three"])
@pytest.mark.parametrize("kind", SOUND)
def test_sound_brackets_are_merged_whole_without_a_word(
    tmp_path: Path, kind: str, labels: Sequence[int]
) -> None:
    how, written = SOUND[kind]
    drift, scale = how.get("drift", 0.0), how.get("scale", 1.0)
    lights = [scale * scene(sun=how.get("sun", 6.0), shift=drift * k) for k in range(len(labels))]
    frames = [photo(light, t) for light, t in zip(lights, labels, strict=True)]
    write(tmp_path / "in", frames, labels, **written)
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", curve_of("gamma")))
    assert not said(result), result.output
    assert product(tmp_path)["used"] == len(labels)


def test_the_frame_is_named_with_the_time_that_would_fit(tmp_path: Path) -> None:
    write(tmp_path / "in", [photo(scene(), t) for t in _taken((4, 80))])
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", curve_of("gamma")))
    assert file_name(1280, 0, 4) in result.stderr
    assert any(text in result.stderr for text in ("80", "81", "79", "82", "78"))
    assert product(tmp_path)["used"] == 4


SUN_COLOURS = {
    "white": (1.0, 1.0, 1.0),
    "red": (0.05, 0.3, 1.0),
    "orange": (0.2, 0.6, 1.0),
    "blue": (1.0, 0.3, 0.05),
}


@pytest.mark.parametrize("quality", [75, 90, 95])
@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("colour", SUN_COLOURS)
def test_a_saturated_sun_of_any_colour(
    tmp_path: Path, colour: str, camera: str, quality: int
) -> None:
    """Averaged colours (4:2:0) lower one channel: it was called valid, up to ten stops too dark."""
    for number, size in enumerate((3.0, 6.0, 9.5)):
        light = scene(sun=size) * np.array(SUN_COLOURS[colour])
        folder = tmp_path / str(number)
        (folder / "in").mkdir(parents=True)
        for position, t in enumerate(T):
            frame = np.ascontiguousarray(photo(light, t, camera))
            data = simplejpeg.encode_jpeg(frame, quality, "BGR", "420")
            (folder / "in" / file_name(t, 0, position)).write_bytes(data)
        merge(folder, save_curve(tmp_path / "g.npz", curve_of(camera)))
        made = product(folder)
        truth = np.log2(light * 1000 / CAMERAS[camera][128])
        off = np.abs(np.log2(made["radiance"]) - truth)
        saturated = light * T[0] > 1.2
        silent = (off > 3) & saturated & (made["flags"] == 0)
        assert silent.sum() <= (0.02 * saturated.sum() if quality < 90 else 0)


# -- a white below the clip ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("black", "white"), [(0, 255), (0, 250), (0, 245), (0, 240), (16, 235), (0, 225), (8, 238)]
)
def test_a_saturated_sun_is_flagged_or_told_of(
    tmp_path: Path, black: int, white: int, suffix: str
) -> None:
    light = scene(sun=5.0)
    write(tmp_path / "in", [photo(light, t, black=black, white=white) for t in T], suffix=suffix)
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", curve_of("gamma")))
    saturated = (light * T[0] >= 1).all(axis=2)
    over = product(tmp_path)["flags"][saturated][:, 1] == 2
    told = any(word in result.stderr for word in ("high_clip", "white", "saturat"))
    assert over.mean() > 0.99 or told


def test_a_sky_without_a_sun_has_no_white_of_its_own(tmp_path: Path) -> None:
    # The largest code of an overcast sky is no white: nothing is piled up there.
    light = 0.3 * scene(sun=0.0)
    write(tmp_path / "in", [photo(light, t) for t in T])
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", curve_of("gamma")))
    assert not said(result), result.output
    over = (product(tmp_path)["flags"] == 2).mean()
    assert over < 0.02


# -- a dark sun in radiance ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".exr", ".tiff", ".hdr"])
@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec_exact", "debevec"])
@pytest.mark.parametrize("sun", [2.0, 6.0, 15.0])
def test_the_sun_is_the_brightest_place(
    tmp_path: Path, algorithm: str, suffix: str, sun: float
) -> None:
    frames = [photo(scene(sun=sun), t) for t in T]
    saturated = np.logical_and.reduce([(f == 255).all(2) for f in frames])
    path = tmp_path / f"a{suffix}"
    create_and_save_hdr(frames, list(T), path, algorithm=algorithm, response=curve_of("gamma"))
    if suffix == ".exr":
        with OpenEXR.File(str(path)) as file:
            made = np.array(file.channels()["RGB"].pixels, float)
    else:
        made = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(float)
    assert np.isfinite(made).all()
    assert np.log2(made[saturated].min(axis=0) / made[~saturated].max(axis=0)).min() > -0.02


@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec_exact", "debevec"])
def test_where_one_channel_is_saturated_its_value_is_no_less(
    tmp_path: Path, algorithm: str
) -> None:
    light = scene(sun=6.0) * [1.0, 1.0, 0.002]
    frames = [photo(light, t) for t in T]
    path = tmp_path / "a.exr"
    create_and_save_hdr(frames, list(T), path, algorithm=algorithm, response=curve_of("gamma"))
    with OpenEXR.File(str(path)) as file:
        made = np.array(file.channels()["RGB"].pixels, float)[..., ::-1]
    for channel in range(2):
        saturated = np.logical_and.reduce([f[..., channel] == 255 for f in frames])
        rest = made[..., channel][~saturated]
        assert made[..., channel][saturated].min() >= 0.98 * rest.max()


@pytest.mark.parametrize("quality", [50, 75, 90])
@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec_exact"])
def test_the_suns_rim_is_not_darkened_by_jpeg(tmp_path: Path, quality: int, algorithm: str) -> None:
    # At the rim JPEG lowers one exposure's code below the clip, and that one alone would count.
    light = scene()
    (tmp_path / "in").mkdir()
    for position, t in enumerate(T):
        data = simplejpeg.encode_jpeg(photo(light, t), quality, "BGR", "420")
        (tmp_path / "in" / file_name(t, 0, position)).write_bytes(data)
    merge(tmp_path, save_curve(tmp_path / "g.npz", curve_of("gamma")), "--algorithm", algorithm)
    made = product(tmp_path)
    least = 1000 / T[0] / CAMERAS["gamma"][128]
    wrong = (light * T[0] >= 1) & (made["flags"] == 0) & (made["radiance"] < least / 2)
    assert wrong.sum() <= 0.02 * (light * T[0] >= 1).sum()


# -- impossible curves ---------------------------------------------------------------------------

_TRUE = curve_of("gamma")
_STEP = np.arange(256)[:, None]
IMPOSSIBLE: dict[str, Callable[[], NDArray[Any]]] = {
    "falling": lambda: _TRUE[::-1].copy(),
    "constant": lambda: _TRUE * 0,
    "zigzag": lambda: _TRUE - (_STEP % 2),
    "one hump": lambda: _TRUE + ((_STEP > 100) & (_STEP < 120)) * 3,
    "one dent": lambda: _TRUE - ((_STEP > 150) & (_STEP < 155)) * 1.0,
    "not a number": lambda: np.where(_STEP == 77, np.nan, _TRUE),
    "infinite": lambda: np.where(_STEP == 0, -np.inf, _TRUE),
    "linear codes": lambda: np.repeat(_STEP.astype(float), 3, 1),
    "linear from 0 to 1": lambda: np.repeat(_STEP / 255, 3, 1),
    "exp of the curve": lambda: np.exp(_TRUE),
    "one channel falls": lambda: np.stack([_TRUE[:, 0], _TRUE[::-1, 1], _TRUE[:, 2]], axis=1),
    "one channel constant": lambda: _TRUE * [1, 0, 1],
    "huge": lambda: _TRUE * 1e6,
    "ten times too steep": lambda: _TRUE * 10,
    "random": lambda: np.random.default_rng(1).normal(0, 1, (256, 3)),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_an_impossible_curve_is_told_of_wherever_it_is_loaded(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "g.npz"
    curve = IMPOSSIBLE[kind]().astype(np.float32)
    np.savez(path, response_curve=curve) if not np.isfinite(curve).all() else save_curve(
        path, curve
    )
    write(tmp_path / "in", [photo(scene(), t) for t in T])
    config = tmp_path / "c.yaml"
    config.write_text(
        f"state_dir: {tmp_path}/s\ncameras:\n"
        f"  roof: {{watch: {tmp_path}/in, output: {tmp_path}/o, response: {path}}}\n"
    )
    silent = [
        name
        for name, result in {
            "merge": merge(tmp_path, path),
            "check": asi("check", "-c", config),
            "response show": asi("response", "show", path),
        }.items()
        if result.exit_code == 0 and not _says_why(result)
    ]
    assert silent == []


def _says_why(result: Result) -> bool:
    words = ("falls", "falling", "rise", "monotone", "no response", "curve cannot", "looks wrong")
    return any(word in result.stderr.lower() for word in words)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_possible_curve_is_used_without_a_word(tmp_path: Path, camera: str) -> None:
    write(tmp_path / "in", [photo(scene(), t, camera) for t in T])
    path = save_curve(tmp_path / "g.npz", curve_of(camera))
    assert not said(merge(tmp_path, path))
    assert not _says_why(asi("response", "show", path))


# -- grey and colour in one archive --------------------------------------------------------------


@pytest.mark.parametrize("first", ["grey", "colour"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_grey_by_night_and_colour_by_day(tmp_path: Path, first: str, suffix: str) -> None:
    for number in range(6):
        frames = [photo(scene(number), t) for t in T]
        if (number < 3) == (first == "grey"):
            frames = [np.ascontiguousarray(f[..., 1:2]) for f in frames]
        write(tmp_path / "in", frames, number=number, suffix=suffix)
    result = merge(tmp_path, None, "--format", "jpg")
    made = sorted(p.name for p in (tmp_path / "out").glob("*.jpg"))
    assert len(made) == 6, result.output


# -- files that hide good ones -------------------------------------------------------------------

HIDDEN = ["._{name}", ".{name}", ".{name}.swp", "{name}.part", "{name}~", "{name}.tmp"]


@pytest.mark.parametrize("pattern", HIDDEN)
def test_companions_of_exposures_are_none(tmp_path: Path, pattern: str) -> None:
    write(tmp_path / "in", [photo(scene(), t) for t in T])
    for position, exposure in enumerate(T):
        name = pattern.format(name=file_name(exposure, 0, position))
        (tmp_path / "in" / name).write_bytes(b"\0\x05\x16\x07junk")
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", _TRUE))
    assert result.exit_code == 0, result.output
    assert product(tmp_path)["used"] == 5


DUPLICATES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda whole: whole[: len(whole) // 2],
    "empty": lambda _: b"",
    "text": lambda _: b"550 quota exceeded\r\n",
    "zeroed": lambda whole: whole[:600] + bytes(len(whole) - 602) + whole[-2:],
}


@pytest.mark.parametrize("kind", DUPLICATES)
def test_a_newer_duplicate_that_is_broken_yields_to_the_older(tmp_path: Path, kind: str) -> None:
    frames = [photo(scene(), t) for t in T]
    write(tmp_path / "in", frames)
    # The same exposure once more, a second later, and broken.
    broken = DUPLICATES[kind](encoded(frames[2]))
    late = START + timedelta(seconds=9)
    (tmp_path / "in" / f"{late:%Y%m%d%H%M%S}_320.jpg").write_bytes(broken)
    merge(tmp_path, save_curve(tmp_path / "g.npz", _TRUE))
    assert product(tmp_path)["used"] == 5


@pytest.mark.parametrize(
    "copy", ["{stem}_1", "{stem}_2", "{stem} (1)", "{stem} - Copy", "{stem}-1"]
)
def test_a_copy_is_no_exposure_of_its_own(tmp_path: Path, copy: str) -> None:
    frames = [photo(scene(), t) for t in T]
    write(tmp_path / "in", frames)
    name = copy.format(stem=file_name(640, 0, 3).removesuffix(".jpg"))
    (tmp_path / "in" / f"{name}.jpg").write_bytes(encoded(frames[3]))
    merge(tmp_path, save_curve(tmp_path / "g.npz", _TRUE))
    made = product(tmp_path)
    assert made["used"] == 5
    assert stops_off(made, scene(), "gamma") < 0.2


# -- half floats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pixel_type", ["auto", "half", "float"])
@pytest.mark.parametrize("dimmer", [1.0, 1e-3, 1e-5, 1e-6, 1e-7])
def test_half_floats_clamp_nothing_silently(tmp_path: Path, pixel_type: str, dimmer: float) -> None:
    times = [round(t / dimmer) for t in T]
    light = scene(sun=0.0) * dimmer
    write(tmp_path / "in", [photo(light, t) for t in times], times)
    curve = save_curve(tmp_path / "g.npz", _TRUE)
    camera = {
        "watch": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "response": str(curve),
        "merge": {"algorithm": "debevec_exact"},
        "products": [{"format": "exr", "pixel_type": pixel_type}],
    }
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"state_dir": str(tmp_path / "s"), "cameras": {"roof": camera}}))
    result = asi("merge", tmp_path / "in", tmp_path / "out", "-c", config)
    made = product(tmp_path)
    valid = made["flags"] == 0
    truth = 1000 * light / CAMERAS["gamma"][128]
    off = np.abs(np.log2(np.maximum(made["radiance"][valid], 1e-30) / truth[valid]))
    assert not off.size or np.percentile(off, 99) < 0.5 or "half" in result.stderr


# -- exposures in an order of their own ----------------------------------------------------------

ORDERS = {
    "down": (1280, 640, 320, 160, 80),
    "up and down": (80, 320, 1280, 640, 160),
    "one repeated": (80, 160, 320, 640, 1280, 80),
    "there and back": (80, 320, 1280, 1280, 320, 80),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_an_order_of_its_own_is_no_cut_bracket(tmp_path: Path, kind: str) -> None:
    times = ORDERS[kind]
    for number in range(3):
        write(tmp_path / "in", [photo(scene(), t) for t in times], times, number=number)
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", _TRUE))
    assert "round_to" not in result.output
    assert [product(tmp_path, n)["used"] for n in range(3)] == [len(set(times))] * 3


@pytest.mark.parametrize("age_s", [-99, 99])
def test_an_exposure_sent_again_after_a_pause_is_no_second_bracket(
    tmp_path: Path, age_s: int
) -> None:
    write(tmp_path / "in", [photo(scene(), t) for t in T])
    first = tmp_path / "in" / file_name(320, 0, 2)
    again = tmp_path / "in" / file_name(320, 0, 9)
    again.write_bytes(first.read_bytes())
    os.utime(again, (first.stat().st_mtime - age_s,) * 2)
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", _TRUE))
    assert result.exit_code == 0, result.output
    assert "round_to" not in result.output
    assert product(tmp_path)["used"] == 5


def test_brackets_cut_by_the_edges_of_slots_are_told_of(tmp_path: Path) -> None:
    # Each begins two seconds before an edge, so that every slot holds parts of two.
    for number in range(4):
        (tmp_path / "in").mkdir(exist_ok=True)
        for position, exposure in enumerate(T):
            path = tmp_path / "in" / file_name(exposure, number, 28 + position)
            path.write_bytes(encoded(photo(scene(), exposure)))
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", _TRUE))
    assert result.exit_code == 1
    assert "bracket.offset" in result.stderr


def test_exposures_longer_than_their_slot_have_another_unit(tmp_path: Path) -> None:
    write(tmp_path / "in", [photo(scene(), t) for t in T])
    curve = save_curve(tmp_path / "g.npz", _TRUE)
    assert "unit" in merge(tmp_path, curve, "--exposure-unit", "s").stderr


@pytest.mark.parametrize("width", [3, 4, 5, 6])
def test_zeros_before_a_time_make_no_label_of_it(tmp_path: Path, width: int) -> None:
    labels = [f"{t:0{width}d}" for t in T]
    write(tmp_path / "in", [photo(scene(), t) for t in T], labels)
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", _TRUE))
    assert result.exit_code == 0, result.output
    assert "label" not in result.stderr


# -- what an operator gets wrong -----------------------------------------------------------------


def _config(folder: Path, **camera: object) -> Path:
    path = folder / "c.yaml"
    settings = {"watch": str(folder / "in"), "output": str(folder / "out"), **camera}
    config = {"state_dir": str(folder / "s"), "cameras": {"roof": settings}}
    path.write_text(json.dumps(config))
    return path


MISTAKES: dict[str, dict[str, object]] = {
    "a time that never occurs": {"bracket": {"exposures": [80, 160, 320, 640, 999]}},
    "one time too many": {"bracket": {"exposures": [40, 80, 160, 320, 640, 1280]}},
    "one time too few": {"bracket": {"exposures": [80, 160, 320, 640]}},
    "another unit": {"exposure_unit": "ms", "bracket": {"exposures": [0.08, 0.16, 0.32]}},
    "too many expected": {"bracket": {"exposures": 9}},
    "months and minutes swapped": {"filename": "{timestamp:%Y%M%d%H%m%S}_{exposure}"},
    "labels of other files": {"exposure_labels": {"0": 80, "1": 160}},
    "all brackets in one slot": {"bracket": {"round_to": "1h"}},
    "seconds for microseconds": {"exposure_unit": "s"},
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_check_says_what_does_not_fit_the_files(tmp_path: Path, kind: str) -> None:
    for number in range(4):
        write(tmp_path / "in", [photo(scene(), t) for t in T], number=number)
    result = asi("check", "-c", _config(tmp_path, **MISTAKES[kind]))
    assert result.exit_code != 0 or "warning" in result.stderr.lower(), result.output


def test_check_is_content_with_what_fits(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "in", [photo(scene(), t) for t in T], number=number)
    result = asi("check", "-c", _config(tmp_path, bracket={"exposures": list(T)}))
    assert result.exit_code == 0
    warnings = [s for s in result.stderr.splitlines() if "warning" in s]
    assert [s for s in warnings if "no response curve is given" not in s] == []


def test_an_incomplete_bracket_is_named(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "in", [photo(scene(), t) for t in T], number=number)
    (tmp_path / "in" / file_name(640, 1, 3)).unlink()
    result = merge(tmp_path, save_curve(tmp_path / "g.npz", _TRUE))
    assert "640" in result.output + result.stderr
    assert "20260621090030" in result.output + result.stderr or "09:00:30" in result.output


@pytest.mark.parametrize("gone", [1, 3])
def test_one_exposure_that_is_gone_costs_no_calibration(tmp_path: Path, gone: int) -> None:
    for number in range(4):
        write(tmp_path / "in", [photo(scene(number), t) for t in T], number=number)
    path = tmp_path / "in" / file_name(T[gone], 2, gone)
    path.write_bytes(path.read_bytes()[:200])
    result = asi("calibrate", tmp_path / "in", tmp_path / "x.npz")
    assert result.exit_code == 0, result.output
    assert path.name in result.stderr + result.output


# -- arrays from elsewhere -----------------------------------------------------------------------

FOREIGN: dict[str, Callable[[Image], Any]] = {
    "float": lambda f: f.astype(np.float32),
    "16 bit": lambda f: f.astype(np.uint16) * 257,
    "bool": lambda f: f > 100,
    "four channels": lambda f: np.concatenate([f, f[..., :1]], axis=2),
    "two channels": lambda f: f[..., :2],
    "empty": lambda f: f[:0],
    "signed": lambda f: f.astype(np.int8),
    "list": lambda f: None,
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec", "mertens"])
def test_foreign_arrays_are_refused_with_the_reason(
    tmp_path: Path, kind: str, algorithm: str
) -> None:
    frames = [FOREIGN[kind](photo(scene(), t)) for t in T]
    path = tmp_path / "a.jpg"
    with pytest.raises((ValueError, TypeError)) as error:
        create_and_save_hdr(frames, list(T), path, algorithm=algorithm, response=curve_of("gamma"))
    assert str(error.value)
    assert not path.exists()


@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec", "mertens"])
def test_views_of_other_arrays_are_merged_as_their_copies(tmp_path: Path, algorithm: str) -> None:
    frames = [photo(scene(), t) for t in T]
    views = [np.asfortranarray(f) for f in frames]
    flipped = [np.ascontiguousarray(f[..., ::-1])[..., ::-1] for f in frames]
    made = []
    for name, images in {"a": frames, "b": views, "c": flipped}.items():
        path = tmp_path / f"{name}.png"
        create_and_save_hdr(
            images, list(T), path, algorithm=algorithm, response=curve_of("gamma"), filetype=".png"
        )
        made.append(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()


TIMES: dict[str, list[float]] = {
    "zero": [0, 160, 320, 640, 1280],
    "negative": [-80, 160, 320, 640, 1280],
    "not a number": [float("nan"), 160, 320, 640, 1280],
    "infinite": [80, 160, 320, 640, float("inf")],
    "one too few": [80, 160, 320, 640],
    "all equal": [80] * 5,
}


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec"])
def test_times_that_are_none_are_refused(tmp_path: Path, kind: str, algorithm: str) -> None:
    frames = [photo(scene(), t) for t in T]
    with pytest.raises((ValueError, TypeError)):
        create_and_save_hdr(
            frames, TIMES[kind], tmp_path / "a.jpg", algorithm=algorithm, response=curve_of("gamma")
        )
