"""`preview`: one bracket merged in several ways, on one sheet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.config.loading import load_config
from asi_watch.response_files import response_bytes

TRUE = 2.2 * np.log(np.maximum(np.arange(256), 0.5) / 128)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    rows, columns = np.mgrid[:96, :128]
    light = 3e-4 + 2e-3 * (0.5 + 0.5 * np.sin(rows / 25) * np.cos(columns / 31))
    for slot in (0, 30):
        for n, time in enumerate((80, 160, 320, 640)[: 4 if slot == 0 else 3]):
            codes = np.rint(np.clip(255 * (light * time) ** (1 / 2.2), 0, 255)).astype(np.uint8)
            path = tmp_path / f"in/202606211200{slot + n:02d}_{time}.png"
            path.write_bytes(cv2.imencode(".png", np.dstack([codes] * 3))[1].tobytes())
    (tmp_path / "g.npz").write_bytes(response_bytes(np.stack([TRUE] * 3, 1).astype(np.float32)))
    (tmp_path / "asi.yaml").write_text(
        "state_dir: state\ncameras: {roof: {watch: in, output: out, response: g.npz}}\n"
    )
    return tmp_path


def preview(folder: Path, *arguments: object, path: str = "in") -> Result:
    given = ("preview", folder / path, "-c", folder / "asi.yaml", *arguments)
    return CliRunner().invoke(main, list(map(str, given)))


def test_a_sheet_has_the_present_settings_and_every_variation(folder: Path) -> None:
    sheet, page = folder / "sheet.png", folder / "sheet.html"
    result = preview(
        folder, "--vary", "tone.key=0.1,0.3", "--vary", "merge.algorithm=debevec_exact,mertens",
        "-o", sheet, "--html", page,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert cv2.imread(str(sheet)).shape[0] > 600
    text = page.read_text()
    assert text.count("<img") == text.count("<pre>") == text.count("<svg") == 5
    assert "roof, 2026-06-21 12:00:00, 4 exposures" in text
    assert 'src="http' not in text
    assert "<h2>key 0.1, algorithm mertens</h2>" in text
    lines = text.split("<pre>")[2].split("</pre>")[0]
    assert yaml.safe_load(lines) == {"tone": {"key": 0.1}, "merge": {"algorithm": "debevec_exact"}}
    pictures = {part.split('"')[0] for part in text.split("base64,")[1:]}
    assert len(pictures) >= 4  # mertens knows no tone


def test_an_exposure_names_its_bracket(folder: Path) -> None:
    page = folder / "one.html"
    result = preview(folder, "--html", page, path="in/20260621120031_160.png")
    assert result.exit_code == 0, result.output
    assert "12:00:30, 3 exposures" in page.read_text()
    assert not (folder / "preview.png").exists()


def test_the_lines_to_copy_are_those_of_the_configuration(folder: Path) -> None:
    page = folder / "s.html"
    assert preview(folder, "--vary", "tone.scale=[-6, 2]", "--html", page).exit_code == 0
    lines = page.read_text().split("<pre>")[2].split("</pre>")[0]
    config = folder / "copied.yaml"
    camera = {"watch": "in", "output": "out", **yaml.safe_load(lines)}
    config.write_text(yaml.safe_dump({"cameras": {"roof": camera}}))
    assert load_config(config).cameras["roof"].tone.scale == (-6, 2)


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ("tone.gama=2", "did you mean gamma?"),
        ("tone.gamma=0", "it must be 0.1 or more"),
        ("tone.gamma", "is not KEY=A,B"),
        ("merge.high_clip=" + ",".join(map(str, range(200, 240))), "pictures are more than"),
    ],
)
def test_what_cannot_be_varied_is_refused(folder: Path, vary: str, says: str) -> None:
    result = preview(folder, "--vary", vary)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_folder_without_brackets_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    result = preview(folder, path="empty")
    assert result.exit_code == 1
