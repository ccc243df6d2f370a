"""Files as cameras write them, read with the configurations that the manual proposes."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from asi_watch.simulator.sensor import BLACK, WHITE, Camera
from asi_watch.simulator.styles import STYLES


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
