"""``python -m asi_watch.pipeline``: the options of asi_core's own tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from asi_watch.pipeline import load_response_curve


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    light = np.linspace(0.002, 0.9, 64 * 64).reshape(64, 64)
    light = np.stack([light, light.T, light[::-1]], axis=2)
    for slot in range(2):
        for n, time in enumerate((80, 160, 320, 640)):
            codes = np.clip(255 * (light * time / 160) ** 0.45, 0, 255).astype(np.uint8)
            name = f"202606211200{30 * slot + n:02d}_{time}.png"
            cv2.imwrite(str(folder / name), codes)
    return folder


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asi_watch.pipeline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_hdr_and_calibration_take_the_options_of_the_original(
    archive: Path, tmp_path: Path
) -> None:
    curve, log = tmp_path / "g.npz", tmp_path / "run.log"
    done = tool("calibration", "--image_dir", archive, "--response_file", curve)
    assert done.returncode == 0, done.stderr
    assert load_response_curve(curve)[0].shape == (256, 3)
    hdr = tmp_path / "hdr"
    done = tool("hdr", "--image_dir", archive, "--save_dir", hdr, "--log_file", log)
    assert done.returncode == 0, done.stderr
    names = ["20260621120000_hdr.jpg", "20260621120030_hdr.jpg"]
    assert sorted(p.name for p in hdr.iterdir()) == names
    assert "2 brackets" in log.read_text()
    fused = cv2.imread(str(hdr / names[0]))
    options = ("--response_file", curve, "--algorithm", "debevec_custom")
    again = tmp_path / "debevec"
    done = tool("hdr", "--image_dir", archive, "--save_dir", again, *options)
    assert done.returncode == 0, done.stderr
    assert np.abs(fused.astype(int) - cv2.imread(str(again / names[0]))).max() > 5


def test_what_cannot_be_done_is_one_line_and_an_exit_code(archive: Path, tmp_path: Path) -> None:
    done = tool(
        "hdr", "--image_dir", archive, "--save_dir", tmp_path, "--response_file", "none.npz"
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: none.npz: ")
    assert tool("hdr", "--image_dir", tmp_path / "none", "--save_dir", tmp_path).returncode == 2
