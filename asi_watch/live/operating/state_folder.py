"""The daemon's own folder: made, locked, answering, and looked after while it is in use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asi_watch.live.disk import wait_for_room
from asi_watch.live.lock import StateFolderError, StateLock
from asi_watch.live.operating.control import Answer, ControlServer, Request
from asi_watch.products import sweep_temporaries

# An empty ledger with its journal.
_ROOM_TO_START = 512 << 10


class StateFolder:
    """Holds the folder for this process alone, from its making to `release`.

    Parameters
    ----------
    path : Path

    Raises
    ------
    AlreadyRunningError
        If another process holds it.
    StateFolderError
        If it cannot be made or locked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._control: ControlServer | None = None
        self._lock = self._take()
        # Left behind by a process that was killed; the folder is ours alone now.
        sweep_temporaries(path, recursive=True)

    def wait_for_room(self, stopping: Callable[[], bool], alive: Callable[[], object]) -> bool:
        """Wait until there is room for a ledger; False if nobody wants to wait any more."""
        return wait_for_room(self._path, _ROOM_TO_START, stopping, alive)

    def serve(self, answer: Callable[[Request], Answer]) -> None:
        """Answer commands on a socket in the folder (see `ControlServer`)."""
        self._control = ControlServer(self._path, answer)
        self._control.start()

    @property
    def is_ours(self) -> bool:
        """False once the folder, or the lock in it, has been taken away or put another in place."""
        return self._lock.is_in_place

    def make_anew(self) -> None:
        """Make and lock the folder again where it was; it no longer answers commands.

        Raises
        ------
        AlreadyRunningError, StateFolderError
            As for a new one.
        """
        if self._control is not None:
            self._control.stop()
            self._control = None
        if not self.is_ours:
            before, self._lock = self._lock, self._take()
            before.release()

    def release(self) -> None:
        """Answer no more and let go of the folder."""
        if self._control is not None:
            self._control.stop()
        self._lock.release()

    def _take(self) -> StateLock:
        try:
            self._path.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            raise StateFolderError(f"{self._path}: {error.strerror or error}") from error
        return StateLock(self._path)
