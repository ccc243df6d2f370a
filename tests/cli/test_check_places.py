"""What `check` says of folders that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_watch.cli import main


def check(
    folder: Path, state: str = "state", output: str = "out", watch: str = "in", more: str = ""
) -> Result:
    path = folder / "asi.yaml"
    path.write_text(
        f"state_dir: {state}\ncameras:\n  roof: {{watch: {watch}, output: {output}}}\n{more}"
    )
    return CliRunner().invoke(main, ["check", "-c", str(path)])


@pytest.mark.parametrize("place", ["asi.yaml", "asi.yaml/deeper"])
def test_a_folder_that_is_a_file_is_a_problem(tmp_path: Path, place: str) -> None:
    for given, key in (
        ({"state": place}, "state_dir"),
        ({"output": place}, "cameras.roof.output"),
        ({"watch": place}, "cameras.roof.watch"),
    ):
        result = check(tmp_path, **given)
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = [line for line in result.stderr.splitlines() if "file" in line and key in line]
        assert "warning" not in line
        assert "by this user" not in result.stderr


def test_a_disk_with_less_room_than_is_to_stay_free_is_a_warning(tmp_path: Path) -> None:
    result = check(tmp_path, more="disk: {keep_free: 900TB}\n")
    assert result.exit_code == 0
    assert "disk.keep_free: " in result.stderr
    assert "nothing is published" in result.stderr
    assert "disk.keep_free" not in check(tmp_path, more="disk: {keep_free: 2MiB}\n").stderr


def test_a_decoder_that_is_not_installed_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "asi.yaml"
    path.write_text("cameras: {roof: {watch: in, output: out, extensions: [fits, dng]}}\n")
    monkeypatch.setattr("asi_watch.cli.check_command.find_spec", lambda package: None)
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert result.exit_code == 2
    assert "roof.extensions: dng is read with rawpy: pip install 'asi-watch[raw]'" in result.stderr
    assert "fits is read with astropy: pip install 'asi-watch[fits]'" in result.stderr
