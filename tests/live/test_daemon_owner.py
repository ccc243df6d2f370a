"""The daemon's owner: signals, reloads, requests, and what ends it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from asi_watch.config import parse_config
from asi_watch.config.model import Config
from asi_watch.live.daemon import Daemon
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.messages import Reload, Stop
from asi_watch.live.sdnotify import Notifier
from asi_watch.live.state_folder import StateFolderError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "in").mkdir()
    text = (
        f"state_dir: {tmp_path}/state\nworkers: 1\ndisk: {{keep_free: null}}\n"
        f"cameras: {{roof: {{watch: {tmp_path}/in, output: {tmp_path}/out, watch_mode: polling}}}}"
    )
    (tmp_path / "x.yaml").write_text(text)
    return parse_config(text.encode(), "x.yaml", tmp_path).config


@pytest.fixture
def daemon(config: Config, tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "x.yaml", config, Notifier.from_environment())
    with ExitStack() as stack:
        daemon._lock_state_folder(stack)
        daemon._open(stack)
        daemon._begin()
        yield daemon
        if daemon._ending is None:
            daemon._ending = Stop("SIGTERM")
        daemon._finish_work()


def test_a_reload_checks_the_whole_new_file_first(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    good = file.read_text()
    (tmp_path / "curve.npz").write_bytes(b"half a cur")
    wrong = [
        "cameras: 5",
        good.replace("/state", "/elsewhere"),
        good + "\ncolour: blue",
        good.replace("watch_mode: polling", f"response: {tmp_path}/curve.npz"),
    ]
    for text in wrong:
        file.write_text(text)
        daemon._step(Reload(), time.monotonic())
        assert daemon._ending is None
        assert daemon._snapshot["reload_error"].startswith(f"{file}:")
        # Every reason names the line.
        assert daemon._snapshot["reload_error"].removeprefix(f"{file}:")[0].isdigit()
    file.write_text(good)
    daemon._step(Reload(), time.monotonic())
    assert daemon._ending == Reload()


def test_a_stop_that_comes_during_a_reload_is_not_lost(daemon: Daemon) -> None:
    daemon._ending = Reload()
    daemon._inbox.put(Stop("SIGTERM"))
    daemon._finish_work()
    assert daemon._ending == Stop("SIGTERM")
    assert daemon.finished


def ask(config: Config, daemon: Daemon, kind: str, camera: str | None, **details: Any) -> Any:
    """Leave a request as a command does; the daemon's answer."""
    with Ledger(config.state_dir, beside_daemon=True) as ledger:
        number = ledger.add_request(kind, camera, details)
        daemon._every_second(0.0)
        return ledger.answer_to(number)


def test_requests_are_carried_out_and_answered(config: Config, daemon: Daemon) -> None:
    which = {"failed": True, "skipped": True, "published": False, "since": None, "until": None}
    assert ask(config, daemon, "retry", None, slots=[], **which) == (
        "0 brackets are tried again",
        True,
    )
    text, ok = ask(config, daemon, "retry", "lab", slots=[], **which)
    assert "no camera 'lab'" in text
    assert not ok


@pytest.mark.parametrize(
    "details",
    [{"slots": ["noon"]}, {"slots": [None]}, {"since": "soon"}, {"colour": 1}, {"slots": 5}],
)
def test_requests_that_make_no_sense_are_refused(
    config: Config, daemon: Daemon, details: dict[str, Any]
) -> None:
    assert ask(config, daemon, "retry", None, **details)[1] is False
    assert ask(config, daemon, "dance", None, **details)[1] is False


def test_a_state_folder_that_is_removed_ends_the_daemon(config: Config, daemon: Daemon) -> None:
    (config.state_dir / "lock").unlink()
    with pytest.raises(StateFolderError, match="was removed while in use"):
        daemon._every_second(0.0)


def test_who_asks_twice_to_stop_does_not_want_to_wait(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    for expected in ([], [1]):
        daemon._on_signal(signal.SIGTERM, None)
        assert codes == expected


def test_a_reload_asked_for_by_signal_is_no_stop(daemon: Daemon) -> None:
    daemon._on_signal(signal.SIGHUP, None)
    messages = [daemon._inbox.get(timeout=0) for _ in range(3)]
    assert Reload() in messages
    assert daemon._stop_signals == 0
