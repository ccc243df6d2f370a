"""A linear camera from files to products: in one run, in the daemon, and against the truth."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from asi_watch.buffers import BufferPool
from asi_watch.cli import main
from asi_watch.config import parse_config
from asi_watch.live.messages import MergeBracket, ReadFile, ReadOk, Unusable
from asi_watch.live.workers.merger import MemoryBudget, Merger
from asi_watch.merge_bracket import Published
from asi_watch.products import read_provenance
from asi_watch.products.radiance import RADIANCE_SCALE
from tests.images.pictures import png
from tests.images.test_linear_formats import dng, fits
from tests.skies import jpeg_bracket

NOON = datetime(2026, 6, 21, 12)
TIMES = (80, 320, 1280)
BLACK, WHITE = 256.0, 4095.0
SIZE = 64
CONFIG = """
cameras: {{roof: {{
  watch: {root}/in, output: {root}/out, extensions: [{kind}], response: linear,
  bracket: {{exposures: [80, 320, 1280]}}, products: [{{format: jpg}}, {{format: exr}}],
  merge: {{sensor: {{black: 256, white: 4095, gain: 4, read_noise: 6}}}}}}}}
"""


def light() -> NDArray[np.float64]:
    """E of a sky in codes per µs, with a sun that saturates all exposures."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    sky = 0.5 + 2.0 * columns / SIZE + rows / SIZE
    sun = (rows - 20) ** 2 + (columns - 40) ** 2 < 9
    return np.where(sun, 1000.0, sky)[:, :, np.newaxis]


def codes(time: float) -> NDArray[np.uint16]:
    random = np.random.default_rng(int(time))
    electrons = random.poisson(np.minimum(light() * time, 1e5) * 4.0) + random.normal(
        0.0, 6.0, (SIZE, SIZE, 1)
    )
    return np.clip(np.round(BLACK + electrons / 4.0), 0, WHITE).astype(np.uint16)


def encoded(kind: str, pixels: NDArray[np.uint16]) -> bytes:
    if kind == "png":
        return png(pixels)
    if kind == "fits":
        pytest.importorskip("astropy")
        return fits(pixels[:, :, 0])
    if kind == "dng":
        pytest.importorskip("rawpy")
        return dng(pixels[:, :, 0])
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels[:, :, 0], metadata=None)
    return stream.getvalue()


def write(folder: Path, kind: str, number: int = 0) -> list[tuple[str, float]]:
    folder.mkdir(exist_ok=True)
    found = []
    for index, time in enumerate(TIMES):
        taken = NOON + timedelta(seconds=30 * number + index)
        name = f"{taken:%Y%m%d%H%M%S}_{time}.{kind}"
        (folder / name).write_bytes(encoded(kind, codes(time)))
        found.append((name, float(time)))
    return found


def merged_live(root: Path, text: str, files: list[tuple[str, float]]) -> Any:
    settings = parse_config(text.encode(), "x", root).config.cameras["roof"]
    merger = Merger(settings, MemoryBudget(1 << 28), BufferPool(1 << 28))
    read = []
    for name, time in files:
        taken = datetime.strptime(name[:14], "%Y%m%d%H%M%S")
        outcome = merger.read(ReadFile(NOON, name, taken, time, None, True))
        assert isinstance(outcome, ReadOk), outcome
        read.append(outcome.exposure)
    command = MergeBracket(NOON, tuple(read), expected=3, complete=True)
    return merger.merge(command, 0.0)


def radiance(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    import OpenEXR

    channels = OpenEXR.File(str(path), separate_channels=True).channels()
    value = next(channels[name].pixels for name in ("Y", "G") if name in channels)
    return value / RADIANCE_SCALE, next(
        channels[name].pixels for name in channels if "alid" in name
    )


@pytest.mark.parametrize("kind", ["png", "tif", "fits", "dng"])
def test_live_and_one_run_give_the_same_bytes_and_the_truth(tmp_path: Path, kind: str) -> None:
    text = CONFIG.format(root=tmp_path, kind=kind)
    made = merged_live(tmp_path, text, write(tmp_path / "in", kind))
    assert isinstance(made, Published), made
    assert made.algorithm == "linear"
    (tmp_path / "c.yaml").write_text(text)
    command = ["merge", f"{tmp_path}/in", f"{tmp_path}/once", "-c", f"{tmp_path}/c.yaml"]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 0, answer.output
    for name in made.products:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()
    note = read_provenance(tmp_path / "out" / made.products[0])
    assert note.algorithm == "linear"
    assert note.parameters["sensor_white"] == WHITE
    assert "weight_type" not in note.parameters
    exr = next(name for name in made.products if name.endswith(".exr"))
    value, _ = radiance(tmp_path / "out" / exr)
    truth = light()[:, :, 0]
    sky = truth < 10
    if kind == "dng":  # the colours of the filter are interpolated
        sky[[0, -1]] = sky[:, [0, -1]] = sky[16:25, 36:45] = False
    assert np.sqrt(np.square(np.log(value[sky] / truth[sky])).mean()) < 0.02
    # Done again, what stands is found and left.
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output
    assert "already" in again.output or "stand" in again.output, again.output


def test_without_response_linear_a_deep_exposure_says_what_to_write(tmp_path: Path) -> None:
    ((name, _), *_) = write(tmp_path / "in", "png")
    text = CONFIG.format(root=tmp_path, kind="png").replace("response: linear,", "")
    settings = parse_config(text.encode(), "x", tmp_path).config.cameras["roof"]
    merger = Merger(settings, MemoryBudget(1 << 28), BufferPool(0))
    outcome = merger.read(ReadFile(NOON, name, NOON, 80.0, None, True))
    assert isinstance(outcome, Unusable)
    assert "response: linear" in outcome.reason


def test_the_command_line_merges_linear_pictures_without_a_configuration(tmp_path: Path) -> None:
    write(tmp_path / "in", "tif")
    command = ["merge", f"{tmp_path}/in", f"{tmp_path}/out", "--response", "linear"]
    answer = CliRunner().invoke(main, [*command, "--format", "png"])
    assert answer.exit_code in (0, 1), answer.output
    (product,) = (tmp_path / "out").rglob("*_hdr.png")
    assert read_provenance(product).parameters["sensor_white"] == 65535.0


def test_frames_of_two_depths_are_refused_with_the_reason(tmp_path: Path) -> None:
    files = write(tmp_path / "in", "png")
    (tmp_path / "in" / files[1][0]).write_bytes(png((codes(320) >> 4).astype(np.uint8)))
    text = CONFIG.format(root=tmp_path, kind="png")
    failed = merged_live(tmp_path, text, files)
    assert failed.kind == "permanent"
    assert "samples of two kinds" in failed.reason


def test_a_linear_bracket_that_does_not_fit_is_refused_with_the_figure(tmp_path: Path) -> None:
    text = CONFIG.format(root=tmp_path, kind="png")
    files = write(tmp_path / "in", "png")
    settings = parse_config(text.encode(), "x", tmp_path).config.cameras["roof"]
    merger = Merger(settings, MemoryBudget(20_000), BufferPool(0))
    read = [merger.read(ReadFile(NOON, n, NOON, t, None, True)) for n, t in files]
    exposures = tuple(r.exposure for r in read if isinstance(r, ReadOk))
    failed: Any = merger.merge(MergeBracket(NOON, exposures, expected=3), 0.0)
    assert failed.kind == "permanent"
    assert "memory_budget" in failed.reason


def test_raw_files_beside_pictures_are_left_to_a_camera_that_asks_for_them(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "fits")
    for time, data in jpeg_bracket(SIZE).items():
        (folder / f"20260621120000_{time}.jpg").write_bytes(data)
    command = ["merge", str(folder), str(tmp_path / "out"), "--algorithm", "mertens"]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 0, answer.output
    (product,) = (tmp_path / "out").rglob("*_hdr.jpg")
    assert {Path(s.path).suffix for s in read_provenance(product).sources} == {".jpg"}
    target = tmp_path / "c.yaml"
    made = CliRunner().invoke(main, ["init", str(folder), "-o", str(target), "--yes"])
    assert made.exit_code == 0, made.output
    assert "extensions" not in target.read_text()
    for picture in folder.glob("*.jpg"):
        picture.unlink()
    linear = tmp_path / "linear.yaml"
    made = CliRunner().invoke(main, ["init", str(folder), "-o", str(linear), "--yes"])
    assert made.exit_code == 0, made.output
    assert "response: linear" in linear.read_text()
    assert "extensions: [fits]" in linear.read_text()


def test_levels_of_the_file_are_noted_and_what_stands_is_known_by_them(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    write(tmp_path / "in", "dng")
    text = CONFIG.format(root=tmp_path, kind="dng").replace("black: 256, white: 4095, ", "")
    (tmp_path / "c.yaml").write_text(text)
    command = ["merge", f"{tmp_path}/in", f"{tmp_path}/once", "-c", f"{tmp_path}/c.yaml"]
    for expected in ("merged", "already"):
        answer = CliRunner().invoke(main, command)
        assert answer.exit_code == 0, answer.output
        assert expected in answer.output, answer.output
    (product,) = (tmp_path / "once").rglob("*_hdr.jpg")
    parameters = read_provenance(product).parameters
    assert (parameters["sensor_black"], parameters["sensor_white"]) == (BLACK, WHITE)
    stamp = product.stat().st_mtime_ns
    (tmp_path / "c.yaml").write_text(text.replace("gain: 4", "gain: 5"))
    assert CliRunner().invoke(main, command).exit_code == 0
    (product,) = (tmp_path / "once").rglob("*_hdr.jpg")
    assert product.stat().st_mtime_ns > stamp
