"""The daemon's socket: what others do to it keeps nobody from being answered."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from asi_watch.live.operating.control import (
    SOCKET_NAME,
    Answer,
    ControlServer,
    NotRunningError,
    Request,
    RequestRefusedError,
    ask,
)


def answer(request: Request) -> Answer:
    if request["do"] == "crash":
        raise ZeroDivisionError
    if request["do"] == "refuse":
        raise RequestRefusedError("no\ud800")
    return {"did": request["do"]}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    server = ControlServer(tmp_path, answer)
    server.start()
    yield tmp_path
    server.stop()


def connected(state: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.relpath(state / SOCKET_NAME))
    return connection


def test_who_sends_byte_by_byte_keeps_nobody_waiting(state: Path) -> None:
    over = threading.Event()

    def drip() -> None:
        with connected(state) as connection, suppress(OSError):
            while not over.wait(0.1):
                connection.sendall(b"x")

    threads = [threading.Thread(target=drip) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert ask(state) == {"did": "status"}
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_who_is_late_with_a_request_is_not_answered_another(state: Path) -> None:
    with connected(state) as connection:
        heard = b"".join(iter(lambda: connection.recv(4096), b""))
    assert set(json.loads(heard)) == {"error"}


def test_a_request_that_nobody_foresaw_costs_one_answer(state: Path) -> None:
    with pytest.raises(NotRunningError, match="broke off"):
        ask(state, "crash")
    assert ask(state, "dance") == {"did": "dance"}


def test_a_refusal_can_name_anything(state: Path) -> None:
    with pytest.raises(RequestRefusedError, match="no"):
        ask(state, "refuse")


def test_who_hangs_up_harms_nobody(state: Path) -> None:
    for _ in range(20):
        connected(state).close()
    assert ask(state)["did"] == "status"


def test_who_finds_a_line_waits_in_it(state: Path) -> None:
    waiting: list[socket.socket] = []
    full = 0
    while full < 2:
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].setblocking(False)
        try:
            waiting[-1].connect(os.path.relpath(state / SOCKET_NAME))
        except BlockingIOError:
            full += 1
            # The first of them is heard meanwhile, which leaves a place.
            time.sleep(0.1)
    leaving = threading.Timer(0.2, lambda: [one.close() for one in waiting])
    leaving.start()
    assert ask(state)["did"] == "status"
    leaving.join()


def test_the_socket_is_for_owner_and_group(state: Path) -> None:
    assert (state / SOCKET_NAME).stat().st_mode & 0o777 == 0o660
