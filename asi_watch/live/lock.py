"""One daemon per state folder."""

import contextlib
import fcntl
import os
from pathlib import Path

from asi_watch.errors import AsiWatchError

LOCK_NAME = "lock"


class AlreadyRunningError(AsiWatchError):
    """Another daemon holds the state folder."""

    exit_code = 3


class StateFolderError(AsiWatchError):
    """The state folder cannot be used, or was taken away while in use."""

    exit_code = 6


class StateLock:
    """Holds a state folder until released; the kernel releases it when the process dies."""

    def __init__(self, state_dir: Path) -> None:
        path = self._path = state_dir / LOCK_NAME
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # For this user alone: whoever can open it can hold it.
            self._file = os.open(path, flags, 0o600)
            with contextlib.suppress(PermissionError):
                os.fchmod(self._file, 0o600)
        except OSError as error:
            raise StateFolderError(f"{path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise AlreadyRunningError(
                f"{state_dir} is in use by another asi-watch (process {holder or 'unknown'});"
                " stop it first, or give this one a state_dir of its own"
            ) from None
        # The number is for people; on a full disk the lock alone has to do.
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()}\n".encode())

    @property
    def is_in_place(self) -> bool:
        """True while the lock lies where others look for it."""
        try:
            there = os.lstat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # it cannot be known
        return os.path.samestat(there, os.fstat(self._file))

    def release(self) -> None:
        """Let go of the folder."""
        os.close(self._file)
