from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_watch.cli.simulate_command import command


def invoke(*words: str) -> Result:
    return CliRunner().invoke(command, words)


def test_it_writes_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "roof"
    result = invoke(
        "--out", str(out), "--brackets", "1", "--size", "64", "--speed", "inf", "--truth"
    )
    assert result.exit_code == 0, result.output
    assert len(list(out.rglob("*.jpg"))) == 5
    assert "5 files of 1 bracket in" in result.stderr
    assert result.stdout == ""
    assert (tmp_path / "roof-truth" / "response.npz").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--exposures", "80,fast"], "'fast' is no whole number"),
        (["--interval", "30"], "no unit"),
        (["--writer", "pencil"], "pencil"),
        (["--size", "10"], "size of a sky is 32"),
        (["--pattern", "{timestamp:%Y}_{exposure}"], "timestamp"),
        (["--pattern", "{time}"], "{time} in it is unknown"),
        (["--start", "tomorrow"], "tomorrow"),
        (["--interval", "3s"], "do not fit"),
    ],
)
def test_wrong_words_are_refused_with_the_reason(
    tmp_path: Path, words: list[str], text: str
) -> None:
    result = invoke("--out", str(tmp_path / "roof"), *words)
    assert result.exit_code == 2
    assert text in result.output
    assert not (tmp_path / "roof").exists()


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = invoke("--out", str(tmp_path / "file" / "roof"), "--brackets", "1", "--size", "32")
    assert result.exit_code == 1
    assert "cannot write or read" in result.output


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    out = tmp_path / "roof"
    before = signal.getsignal(signal.SIGINT)

    def press_when_running() -> None:
        while not list(out.rglob("*.jpg")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press_when_running)
    presser.start()
    result = invoke("--out", str(out), "--brackets", "0", "--size", "32")
    presser.join()
    assert result.exit_code == 0
    assert "stopped after" in result.stderr
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(out.rglob("*.part"))


def test_help_has_examples() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert "asi-watch simulate --out" in result.output
