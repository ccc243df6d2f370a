"""The daemon's socket in its state folder: proof of life, and the answer to `status`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from asi_watch.errors import AsiWatchError

SOCKET_NAME = "control.sock"
_MAX_ANSWER = 16 * 1024 * 1024
_TIMEOUT = 5.0


class NotRunningError(AsiWatchError):
    """No daemon answers on this state folder."""


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
    """Answers every connection with the current snapshot as one JSON document.

    Parameters
    ----------
    state_dir : Path
    snapshot : callable
        Gives the latest snapshot; called from the server's thread.
    """

    def __init__(self, state_dir: Path, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._path = state_dir / SOCKET_NAME
        self._snapshot = snapshot
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
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_TIMEOUT)
                connection.sendall(json.dumps(self._snapshot()).encode())


def ask(state_dir: Path) -> dict[str, Any]:
    """Ask the running daemon for its snapshot.

    Raises
    ------
    NotRunningError
        If none answers on this state folder.
    """
    chunks = bytearray()
    try:
        with _address(state_dir) as address, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(address)
            while chunk := connection.recv(65536):
                chunks += chunk
                if len(chunks) > _MAX_ANSWER:
                    raise NotRunningError(f"{state_dir}: what answers is no asi-watch daemon")
    except OSError as error:
        raise NotRunningError(
            f"no daemon answers on {state_dir} ({error.strerror or error});"
            " start it with `asi-watch run`"
        ) from error
    return cast("dict[str, Any]", json.loads(chunks))
