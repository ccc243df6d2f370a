"""What `check` says of folders: that they are none, and whose products lie there."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_watch.cli import main
from tests.live.products import camera_at, product


def check(folder: Path, state: str = "state", output: str = "out") -> Result:
    path = folder / "asi.yaml"
    path.write_text(
        f"state_dir: {state}\ncameras:\n  roof: {{watch: {folder}/in, output: {output}}}\n"
    )
    return CliRunner().invoke(main, ["check", "-c", str(path)])


@pytest.mark.parametrize("place", ["asi.yaml", "asi.yaml/deeper"])
def test_a_folder_that_is_a_file_is_a_problem(tmp_path: Path, place: str) -> None:
    for given, key in (({"state": place}, "state_dir"), ({"output": place}, "cameras.roof.output")):
        result = check(tmp_path, **given)
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = [line for line in result.stderr.splitlines() if "file" in line and key in line]
        assert "warning" not in line
        assert "by this user" not in result.stderr


def test_a_file_system_without_files_is_a_problem(tmp_path: Path) -> None:
    result = check(tmp_path, output="/proc/pictures")
    assert result.exit_code == 2
    assert "has no room" in result.stderr


def test_products_of_another_camera_are_warned_of(tmp_path: Path) -> None:
    camera = camera_at(tmp_path)
    product(camera, 0)
    assert "of camera" not in check(tmp_path).stderr
    product(camera, 1, name="rof")
    result = check(tmp_path)
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if "of camera 'rof'" in line]
    assert "20260621120030_hdr.jpg" in line
    product(camera, 2)
    (camera.output / "2026/06/21/20260621130000_hdr.jpg").write_bytes(b"torn")
    assert "of camera 'rof'" in check(tmp_path).stderr
