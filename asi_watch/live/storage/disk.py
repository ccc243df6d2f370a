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
_FIRST_LOOK = 5.0
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
    sign_of_life: Callable[[], object] = lambda: None,
    free: Callable[[Path], int] = free_bytes,
) -> bool:
    """Wait until a folder has so much room that the daemon can start at all.

    Parameters
    ----------
    folder : Path
    needed : int
        Bytes.
    stopping : callable
        Tells that nobody wants to wait any more.
    sign_of_life : callable
        Called every second meanwhile.
    free : callable
        Folder → free bytes.

    Returns
    -------
    bool
        True when there is room, or nobody knows.
    """
    told = False
    while True:
        try:
            found = free(folder)
        except OSError:
            return True
        if found >= needed:
            if told:
                event(log, logging.WARNING, "disk has room again", folder=folder)
            return True
        if not told:
            told = True
            event(log, logging.ERROR, "disk full: waiting to start", folder=folder, free=found)
        sign_of_life()
        if stopping():
            return False
        time.sleep(_LOOK_AGAIN)


class DiskGuard:
    """Looks at the free space every two seconds, in a thread for each folder.

    A share that hangs then stops its own thread alone: not the daemon, nor the look at others.

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
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(folder,), name="disk", daemon=True)
            for folder in self._folders
        ]

    def start(self) -> None:
        """Look once, if the file systems answer, then keep looking."""
        if self._floor is None:
            return
        answered(_FIRST_LOOK, *(partial(self._look_at, folder) for folder in self._folders))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def low(self, *folders: Path) -> str | None:
        """Say why nothing may be written to these folders now, None if it may."""
        return next((self._low[f] for f in folders if f in self._low), None)

    def any_low(self) -> bool:
        """Tell whether any of the folders is short of room."""
        return bool(self._low)

    def look(self) -> None:
        """Compare the free space of every folder with the floor."""
        for folder in self._folders:
            self._look_at(folder)

    def _look_at(self, folder: Path) -> None:
        if self._floor is None:
            return
        try:
            free = self._free(folder)
        except OSError as error:
            # Not answering is another fault than being full: writing will tell.
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

    def _run(self, folder: Path) -> None:
        while not self._stop.wait(_EVERY):
            self._look_at(folder)


def _megabytes(size: int) -> str:
    return f"{size // 1_000_000}MB"
