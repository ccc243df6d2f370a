from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from asi_watch import __version__, cli
from asi_watch.cli import main
from asi_watch.errors import AsiWatchError

HOME = Path(__file__).parent.parent.parent


def test_help_lists_what_is_there_in_order() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    modules = {path.stem.removesuffix("_command") for path in (HOME / "asi_watch/cli").glob("*.py")}
    listed = [line.split()[0] for line in result.stdout.split("Commands:")[1].splitlines() if line]
    assert listed == [name for name in cli._COMMANDS if name in modules]
    assert "check" in listed


def test_help_imports_no_command() -> None:
    code = """
import sys
from asi_watch.cli import main
main(["--help"], standalone_mode=False)
assert not {m for m in sys.modules if m.startswith("asi_watch.")} - {
    "asi_watch.cli", "asi_watch.errors", "asi_watch.files"
}, sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HOME, capture_output=True)


def test_every_command_listed_can_be_called() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, result.output


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"asi-watch {__version__}\n"


def test_unknown_command() -> None:
    result = CliRunner().invoke(main, ["chekc"])
    assert result.exit_code == 2
    assert "No such command 'chekc'" in result.stderr


@pytest.mark.parametrize(("exit_code", "expected"), [(None, 1), (2, 2), (5, 1)])
def test_an_error_for_the_operator_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, exit_code: int | None, expected: int
) -> None:
    error = AsiWatchError("the disk caf\udce9 is full")
    if exit_code is not None:
        error.exit_code = exit_code  # type: ignore[attr-defined]

    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(cli, "import_module", lambda _: SimpleNamespace(command=command))
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == expected
    assert result.stderr == "the disk caf\\udce9 is full\n"


def test_numpy_is_loaded_without_threads_of_its_own_unless_they_are_asked_for() -> None:
    code = """
import os, sys
from asi_watch.cli import main
main(["merge", "--help"], standalone_mode=False)
assert os.environ["OPENBLAS_NUM_THREADS"] == sys.argv[1]
"""
    for given, then in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2")):
        others = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
        command = [sys.executable, "-c", code, then]
        subprocess.run(command, check=True, cwd=HOME, capture_output=True, env=others | given)
