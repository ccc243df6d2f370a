"""Free space on the file systems that are written to: below the floor, writing pauses."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from asi_watch.files import answered
from asi_watch.logs import event

log = logging.getLogger(__name__)

_EVERY = 2.0
_LOOK_AGAIN = 1.0
_PATIENCE = 5.0
# Writing goes on only when this much more than the floor is free, so that it does not flutter.
_RESUME_AT = 1.05


def free_bytes(path: Path) -> int:
    """Return the bytes an ordinary user may still write where `path` is, or will be.

    Raises
    ------
    OSError
        If the file system does not answer.
    """
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def wait_for_room(
    folder: Path,
    needed: int,
    stopping: Callable[[], bool],
    alive: Callable[[], object] = lambda: None,
    free: Callable[[Path], int] = free_bytes,
) -> bool:
    """Wait until a folder has so much room that the daemon can start at all.

    Parameters
    ----------
    folder : Path
    needed : int
        Bytes.
    stopping : callable
        Tells that waiting is to end, as for a stop.
    alive : callable
        Called every second meanwhile.
    free : callable
        Folder → free bytes.

    Returns
    -------
    bool
        True when there is room, or it cannot be known.
    """
    logged = False
    while True:
        try:
            found = free(folder)
        except OSError:
            return True
        if found >= needed:
            if logged:
                event(log, logging.WARNING, "disk has room again", folder=folder)
            return True
        if not logged:
            logged = True
            event(log, logging.ERROR, "disk full: waiting to start", folder=folder, free=found)
        alive()
        if stopping():
            return False
        time.sleep(_LOOK_AGAIN)


class DiskGuard:
    """Looks at the free space of all folders every two seconds, in one thread.

    A share that hangs keeps its thread; another one takes over without that folder.

    Parameters
    ----------
    floor : int or None
        Bytes; None: nothing is guarded.
    folders : iterable of Path
        Where is written to.
    free : callable
        Folder → free bytes.
    """

    def __init__(
        self,
        floor: int | None,
        folders: Iterable[Path],
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._floor = floor
        self._folders = tuple(dict.fromkeys(folders))
        self._free = free
        self._low: dict[Path, str] = {}
        self._hanging: set[Path] = set()
        self._asked: tuple[Path, float] | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Look once, if the file systems answer, then keep looking."""
        if self._floor is None:
            return
        answered(_PATIENCE, *(partial(self._look_at, folder) for folder in self._folders))
        self._start_thread()

    def _start_thread(self) -> None:
        self._asked = None
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def low(self, *folders: Path) -> str | None:
        """Say why nothing may be written to these folders now, None if it may."""
        asked = self._asked
        if asked is not None and time.monotonic() - asked[1] > _PATIENCE:
            self._hanging.add(asked[0])
            self._start_thread()
        return next((self._low[f] for f in folders if f in self._low), None)

    def any_low(self) -> bool:
        """Tell whether any of the folders is short of room."""
        return bool(self._low)

    def look(self) -> None:
        """Compare the free space of every folder with the floor."""
        for folder in self._folders:
            self._look_at(folder)

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            for folder in self._folders:
                if folder in self._hanging:
                    continue
                self._asked = folder, time.monotonic()
                self._look_at(folder)
                if threading.current_thread() is not self._thread:
                    # It answers again, and another thread has taken over meanwhile.
                    self._hanging.discard(folder)
                    return
                self._asked = None

    def _look_at(self, folder: Path) -> None:
        if self._floor is None:
            return
        try:
            free = self._free(folder)
        except OSError as error:
            # Not answering is another fault than being full: writing will show it.
            event(log, logging.DEBUG, "free space unknown", folder=folder, reason=str(error))
            return
        self._judge(folder, free, self._floor)

    def _judge(self, folder: Path, free: int, floor: int) -> None:
        text = f"{_megabytes(free)} free for {folder}, disk.keep_free is {_megabytes(floor)}"
        if folder not in self._low:
            if free < floor:
                self._low[folder] = text
                event(
                    log,
                    logging.ERROR,
                    "disk nearly full: publishing and calibrating pause",
                    folder=folder,
                    free=_megabytes(free),
                    keep_free=_megabytes(floor),
                )
        elif free >= floor * _RESUME_AT:
            del self._low[folder]
            event(log, logging.WARNING, "disk has room again", folder=folder, free=_megabytes(free))
        else:
            self._low[folder] = text


def _megabytes(size: int) -> str:
    return f"{size // 1_000_000}MB"
