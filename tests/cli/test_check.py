from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.config import load_config

HOME = Path(__file__).parent.parent.parent
FILES = [HOME / "config/asi-watch.yaml", *sorted((HOME / "config/examples").glob("*.yaml"))]


def check(path: Path) -> Result:
    return CliRunner().invoke(main, ["check", "-c", str(path)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_we_ship_pass(path: Path, tmp_path: Path) -> None:
    result = check(path)
    assert result.exit_code == 0
    effective = tmp_path / "effective.yaml"
    effective.write_text(result.stdout)
    assert load_config(effective) == load_config(path)


def test_the_effective_configuration_has_every_default(tmp_path: Path) -> None:
    path = tmp_path / "asi.yaml"
    path.write_text("cameras: {roof: {watch: /in, output: /out}}")
    result = check(path)
    assert result.exit_code == 0
    roof = yaml.safe_load(result.stdout)["cameras"]["roof"]
    assert roof["bracket"]["grace"] == "10s"
    assert roof["products"] == [{"format": "jpg", "quality": 95, "subsampling": "420"}]
    warnings = result.stderr.splitlines()
    assert all(line.startswith(f"warning: {path}:1: cameras.roof.") for line in warnings)
    assert "no response curve is given" in result.stderr


def test_problems_go_to_standard_error_with_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "asi.yaml"
    path.write_text("cameras:\n  roof:\n    watch: /in\n    outptu: /out\n    timezone: GMT+1\n")
    result = check(path)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:2", "cameras.roof.output"],
        [f"{path}:4", "cameras.roof.outptu"],
        [f"{path}:5", "cameras.roof.timezone"],
    ]
    assert lines[1].endswith("did you mean output?")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = check(tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}/none.yaml: cannot be read: No such file or directory\n"


def test_the_file_must_be_named() -> None:
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 2
    assert "--config" in result.stderr


def test_checking_imports_nothing_heavy() -> None:
    """A check before every start of the daemon must cost little."""
    code = """
import sys
from asi_watch.cli import main
main(["check", "-c", sys.argv[1]], standalone_mode=False)
heavy = {"numpy", "cv2", "pandas", "matplotlib", "PIL", "rich", "watchdog"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", code, str(FILES[0])], check=True, cwd=HOME, capture_output=True
    )
