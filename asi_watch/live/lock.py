"""One daemon per state folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from asi_watch.errors import AsiWatchError

LOCK_NAME = "lock"


class AlreadyRunningError(AsiWatchError):
    """Another daemon holds the state folder."""

    exit_code = 3


class StateLock:
    """Holds a state folder until released; the kernel releases it when the process dies.

    Raises
    ------
    AlreadyRunningError
        If another process holds it; its number is in the text.
    """

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / LOCK_NAME
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise AlreadyRunningError(
                f"{state_dir} is in use by another asi-watch (process {holder or 'unknown'});"
                " stop it first, or give this one a state_dir of its own"
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let go of the folder."""
        os.close(self._file)
