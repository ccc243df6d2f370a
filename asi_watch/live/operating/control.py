"""The daemon's socket in its state folder: proof of life, the answer to `status`, and requests.

One connection carries one request, a line of JSON, and one answer, a JSON document. An empty
request asks for the status.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from asi_watch.errors import AsiWatchError
from asi_watch.logs import failure

log = logging.getLogger(__name__)

SOCKET_NAME = "control.sock"
PROTOCOL = 1
_MAX_REQUEST = 64 * 1024
_MAX_ANSWER = 16 * 1024 * 1024
_TIMEOUT = 5.0
# Whoever says nothing for so long keeps others waiting no longer.
_REQUEST_TIMEOUT = 1.0

Request = dict[str, Any]
Answer = dict[str, Any]


class NotRunningError(AsiWatchError):
    """No daemon answers on this state folder."""


class RequestRefusedError(AsiWatchError):
    """The daemon answers, but does not do what it was asked to."""


@contextlib.contextmanager
def _address(state_dir: Path) -> Iterator[str]:
    # A socket's path may have 107 bytes; a state folder may be deeper. The way over the open
    # folder is always short.
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)


class ControlServer:
    """Answers one request a connection.

    Parameters
    ----------
    state_dir : Path
    answer : callable
        Request → answer; called from the server's thread. The request is a mapping with the
        text ``do``, which is ``status`` where nothing was asked. Raises `AsiWatchError` for a
        request that is refused.
    """

    def __init__(self, state_dir: Path, answer: Callable[[Request], Answer]) -> None:
        self._path = state_dir / SOCKET_NAME
        self._answer = answer
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _address(state_dir) as address:
            self._socket.bind(address)
        self._path.chmod(0o660)
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and remove the socket."""
        # shutdown, not close, is what wakes a thread that waits in accept.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_TIMEOUT)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            try:
                with connection, contextlib.suppress(OSError):
                    answer = self._answer_to(_read_line(connection))
                    connection.settimeout(_TIMEOUT)
                    connection.sendall(json.dumps(answer).encode())
            # The one boundary of this thread: whoever asks next is answered.
            except Exception as error:  # noqa: BLE001
                failure(log, "request crashed", error)

    def _answer_to(self, line: bytes | None) -> Answer:
        try:
            return self._answer(_request(line))
        except AsiWatchError as error:
            return {"error": str(error)}


def _read_line(connection: socket.socket) -> bytes | None:
    """Read a request; None from whoever says nothing in time, and does not hang up either."""
    line = bytearray()
    # For the whole request: who sends it byte by byte keeps the others waiting no longer.
    deadline = time.monotonic() + _REQUEST_TIMEOUT

    def receive() -> bytes:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        return connection.recv(4096)

    with contextlib.suppress(TimeoutError):
        while b"\n" not in line and len(line) <= _MAX_REQUEST:
            chunk = receive()
            if not chunk:
                return bytes(line)
            line += chunk
        if b"\n" not in line:
            # Heard out, up to a point: whoever is cut off in mid-sentence hears no answer.
            for _ in range(_MAX_REQUEST // 256):
                if not receive():
                    break
    return bytes(line) or None


def _request(line: bytes | None) -> Request:
    if line is None:
        raise RequestRefusedError(f"nothing was asked within {_REQUEST_TIMEOUT:g} s; ask again")
    if not line.strip():
        return {"do": "status"}
    if len(line) > _MAX_REQUEST or not line.endswith(b"\n"):
        raise RequestRefusedError(f"a request is one line of at most {_MAX_REQUEST} bytes")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise RequestRefusedError("the request is no JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise RequestRefusedError('a request is an object with the key "do"')
    if request.get("version") != PROTOCOL:
        raise RequestRefusedError(
            f"the daemon speaks version {PROTOCOL} of this protocol, not"
            f" {str(request.get('version'))[:20]}; restart it after an upgrade"
        )
    return request


def ask(state_dir: Path, do: str = "status", **arguments: Any) -> Answer:
    """Ask the running daemon, by default for its state.

    Parameters
    ----------
    state_dir : Path
    do : str
        What: ``status`` or ``retry``.
    **arguments
        JSON-able details.

    Raises
    ------
    NotRunningError
        If none answers on this state folder.
    RequestRefusedError
        If it answers that it does not do this.
    """
    request = json.dumps({"version": PROTOCOL, "do": do, **arguments}) + "\n"
    answer = _exchange(state_dir, request.encode())
    if set(answer) == {"error"}:
        raise RequestRefusedError(str(answer["error"]))
    return answer


def _connect(connection: socket.socket, address: str) -> None:
    deadline = time.monotonic() + 2 * _TIMEOUT
    connection.settimeout(2 * _TIMEOUT)
    while True:
        try:
            connection.connect(address)
        except BlockingIOError:
            # Others stand in line before us; a socket with a time-out is not made to wait for that.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _exchange(state_dir: Path, request: bytes) -> Answer:
    chunks = bytearray()
    try:
        with _address(state_dir) as address, socket.socket(socket.AF_UNIX) as connection:
            _connect(connection, address)
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(request)
            while chunk := connection.recv(65536):
                chunks += chunk
                if len(chunks) > _MAX_ANSWER:
                    raise NotRunningError(f"{state_dir}: what answers is no asi-watch daemon")
    except OSError as error:
        raise NotRunningError(
            f"no daemon answers on {state_dir} ({error.strerror or error});"
            " start it with `asi-watch run`"
        ) from error
    try:
        return cast("Answer", json.loads(chunks))
    except ValueError:
        raise NotRunningError(f"{state_dir}: the daemon broke off its answer") from None
