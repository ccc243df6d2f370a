"""Files as cameras write them, read with the configurations that the manual proposes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from asi_watch.cli import main
from asi_watch.products import read_provenance
from asi_watch.products.read_back import read_product
from asi_watch.simulator.sensor import BLACK, WHITE, Camera
from asi_watch.simulator.simulation import SimulatorSettings, simulate
from asi_watch.simulator.styles import STYLES

_NEEDED = {"rpicam-raw": "rawpy", "indi-allsky-fits": "astropy"}
MANUAL = Path(__file__).parents[2] / "docs" / "cameras.md"


def examples() -> Iterator[tuple[str, str]]:
    text = MANUAL.read_text("utf-8")
    yield from re.findall(r"<!-- simulate: (\S+) -->\n```yaml\n(.*?)```", text, re.DOTALL)


def test_each_camera_of_the_manual_has_an_example() -> None:
    listed = re.findall(r"^\| \[.*?\| `(\S+)` \|", MANUAL.read_text("utf-8"), re.MULTILINE)
    assert [style for style, _ in examples()] == listed
    assert set(listed) | {"plain"} <= set(STYLES)


@pytest.mark.parametrize(("style", "example"), list(examples()))
def test_the_manuals_configuration_reads_what_the_camera_writes(
    tmp_path: Path, style: str, example: str
) -> None:
    watch, out = tmp_path / "roof", tmp_path / "out"
    if style in _NEEDED:
        pytest.importorskip(_NEEDED[style])
    settings = SimulatorSettings(
        watch, brackets=2, size=96, speed=float("inf"), style=style, truth=True
    )
    simulate(settings)
    config = tmp_path / "asi-watch.yaml"
    config.write_text(example.replace("/srv/asi", str(tmp_path)))
    checked = CliRunner().invoke(main, ["check", "-c", str(config)])
    assert checked.exit_code == 0, checked.output
    assert "do not fit" not in checked.output
    words = ["merge", str(watch), str(out), "-c", str(config)]
    if "response: linear" not in example:
        words += ["--response", str(settings.truth_folder / "response.npz")]
    result = CliRunner().invoke(main, [*words, "--workers", "0"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("2 of 2 brackets merged")
    real = [us * STYLES[style].real for us in settings.exposures_us]
    for product in out.rglob("*_hdr.jpg"):
        made = read_provenance(product)
        assert [s.exposure_us for s in made.sources] == pytest.approx(sorted(real), abs=1)
        assert made.complete
    for radiance in out.rglob("*_hdr.exr"):
        # What the filters of a mosaic hide is interpolated.
        limit = 0.03 if style == "linear-png" else 0.15
        assert spread(radiance, settings.truth_folder) < limit


def spread(product: Path, truth: Path) -> float:
    """How far radiance is from a multiple of the true one, of half of the valid samples."""
    made = read_product(product)
    with np.load(truth / f"{product.name.removesuffix('_hdr.exr')}_truth.npz") as file:
        ratio = np.log(made.radiance / file["radiance"])[made.validity == 0]
    assert ratio.size > 5000
    return float(np.median(np.abs(ratio - np.median(ratio))))


def written(style: str, exposure_us: float) -> bytes:
    radiance = np.full((64, 64, 3), 2.0, np.float32)
    camera = Camera(noise=False)
    return STYLES[style].encode(camera, radiance, exposure_us, datetime(2026, 6, 21, 9))


@pytest.mark.parametrize("exposure_us", [80.0, 320.0])
def test_raw_frames_say_what_others_read(tmp_path: Path, exposure_us: float) -> None:
    expected = None
    for style, read in (("rpicam-raw", read_dng), ("indi-allsky-fits", read_fits)):
        pixels, seconds = read(written(style, exposure_us))
        assert seconds == pytest.approx(exposure_us / 1e6)
        # Radiance is relative to the exposure that fills a pixel.
        expected = pixels[0, 0] if expected is None else expected
        assert pixels.shape == (64, 64)
        assert (pixels == expected).all()
        assert BLACK < expected < WHITE
    png = cv2.imdecode(np.frombuffer(written("linear-png", exposure_us), np.uint8), -1)
    assert (png.dtype, png[0, 0, 0]) == (np.uint16, expected)


def read_dng(data: bytes) -> tuple[np.ndarray, float]:
    rawpy = pytest.importorskip("rawpy")
    with rawpy.imread(io.BytesIO(data)) as raw:
        assert (raw.black_level_per_channel, raw.white_level) == ([BLACK] * 4, WHITE)
        assert raw.color_desc == b"RGBG"
        assert raw.raw_pattern.tolist() == [[0, 1], [3, 2]]
        pixels = raw.raw_image.copy()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        parts = file.pages[0].tags[33434].value
    return pixels, parts[0] / parts[1]


def read_fits(data: bytes) -> tuple[np.ndarray, float]:
    fits = pytest.importorskip("astropy.io.fits")
    with fits.open(io.BytesIO(data)) as file:
        header = file[0].header
        assert header["DATE-OBS"] == "2026-06-21T09:00:00"
        return np.array(file[0].data), header["EXPTIME"]
