"""What the service manager hears, over a real socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asi_watch.live.sdnotify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A listening manager and the address it puts into NOTIFY_SOCKET."""
    name = f"@asi-watch-test-{os.getpid()}"
    address = str(tmp_path / "notify") if request.param == "path" else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address if address[0] == "/" else "\0" + address[1:])
        sock.settimeout(5)
        yield sock, address


def heard(sock: socket.socket) -> list[str]:
    return sock.recv(65536).decode().split("\n")


def test_the_whole_life(
    manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, address = manager
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    notify = Notifier.from_environment()
    assert notify.ready("2 cameras")
    assert heard(sock) == ["READY=1", "STATUS=2 cameras"]
    assert notify.status("roof: 12:00:30")
    assert heard(sock) == ["STATUS=roof: 12:00:30"]
    assert notify.watchdog()
    assert heard(sock) == ["WATCHDOG=1"]
    assert notify.reloading()
    word, stamp = heard(sock)
    assert word == "RELOADING=1"
    key, value = stamp.split("=")
    assert key == "MONOTONIC_USEC"
    assert abs(int(value) / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 60
    assert notify.extend_timeout(2.5)
    assert heard(sock) == ["EXTEND_TIMEOUT_USEC=2500000"]
    assert notify.stopping("SIGTERM")
    assert heard(sock) == ["STOPPING=1", "STATUS=SIGTERM"]
    monkeypatch.delenv("WATCHDOG_USEC")
    assert not Notifier.from_environment().watchdog()


def test_a_status_is_sent_once_and_is_one_line(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    notify = Notifier(address)
    assert notify.status("bad name: a\nREADY=1\udcff")
    assert heard(sock) == ["STATUS=bad name: a READY=1\\udcff"]
    assert not notify.status("bad name: a\nREADY=1\udcff")
    assert notify.status("x" * 10_000)
    assert len(heard(sock)[0]) <= 520


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative/path"])
def test_without_a_manager_nothing_happens(address: str | None) -> None:
    notify = Notifier(address, watched=True)
    assert not any((notify.ready("a"), notify.status("a"), notify.watchdog(), notify.stopping("b")))


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    notify = Notifier(str(tmp_path / "nobody"))
    assert not notify.ready("up")
    assert not notify.status("up")


def test_a_manager_that_does_not_read_does_not_block(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        notify = Notifier(address)
        sent = [notify.status(f"line {n}") for n in range(2000)]
    assert sent[0]
    assert not sent[-1]
