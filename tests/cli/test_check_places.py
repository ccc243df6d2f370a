"""What `check` says of folders that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_watch.cli import main


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
