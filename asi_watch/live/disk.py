"""Free space on the file systems that are written to: below the floor, writing pauses."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from asi_watch.logs import event

log = logging.getLogger(__name__)

_EVERY = 2.0
_LOOK_AGAIN = 1.0
_PATIENCE = 5.0
# Writing goes on only when this much more than the floor is free, so that it does not flutter.
_RESUME_AT = 1.05
_PAUSES = "publishing and calibrating pause"


def free_bytes(path: Path) -> int:
    """Return the bytes an ordinary user may still write where `path` is, or will be; else OSError.

    Parameters
    ----------
    path : Path
    """
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


class DiskGuard:
    """Looks at the free space of all folders every two seconds.

    Each look is made in a thread of its own: a share that hangs holds up no other folder, is not
    asked again before it answers, and counts as not known.

    Parameters
    ----------
    floor : int or None
        Bytes; None: nothing is guarded.
    folders : iterable of Path
        Where is written to.
    free : callable
        Folder → free bytes.
    effect : str
        What a lack of room means, for the log.
    """

    def __init__(
        self,
        floor: int | None,
        folders: Iterable[Path],
        free: Callable[[Path], int] = free_bytes,
        effect: str = _PAUSES,
    ) -> None:
        self._floor, self._free, self._effect = floor, free, effect
        self._folders = tuple(dict.fromkeys(folders))
        self._low: dict[Path, str] = {}
        self._looks: dict[Path, threading.Thread] = {}
        self._stop = threading.Event()

    def start(self) -> None:
        """Look once, if the file systems answer, then keep looking."""
        if self._floor is not None:
            self.look()
            threading.Thread(target=self._run, name="disk", daemon=True).start()

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
        """Compare the free space of every folder with the floor, where it is known in time."""
        asked = [f for f in self._folders if f not in self._looks or not self._looks[f].is_alive()]
        for folder in asked:
            look = threading.Thread(target=self._look_at, args=(folder,), name="disk", daemon=True)
            self._looks[folder] = look
            look.start()
        deadline = time.monotonic() + _PATIENCE
        for folder in asked:
            self._looks[folder].join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            self.look()

    def _look_at(self, folder: Path) -> None:
        try:
            free, floor = self._free(folder), self._floor or 0
        except OSError as error:
            # Not answering is another fault than being full: writing will show it.
            event(log, logging.DEBUG, "free space unknown", folder=folder, reason=str(error))
            return
        room = f"{free // 1_000_000}MB"
        if folder in self._low and free >= floor * _RESUME_AT:
            del self._low[folder]
            event(log, logging.WARNING, "disk has room again", folder=folder, free=room)
        elif folder in self._low or free < floor:
            if folder not in self._low:
                text = f"disk nearly full: {self._effect}"
                keep = f"{floor // 1_000_000}MB"
                event(log, logging.ERROR, text, folder=folder, free=room, keep_free=keep)
            self._low[folder] = (
                f"{room} free for {folder}, disk.keep_free is {floor // 1_000_000}MB"
            )


def wait_for_room(
    folder: Path,
    needed: int,
    stopping: Callable[[], bool],
    alive: Callable[[], object] = lambda: None,
    free: Callable[[Path], int] = free_bytes,
) -> bool:
    """Wait until the daemon has room to start; False if waiting was to end before.

    Parameters
    ----------
    folder : Path
    needed : int
        Bytes; where the free space cannot be known there is room.
    stopping : callable
        Tells that waiting is to end, as for a stop.
    alive : callable
        Called every second meanwhile.
    free : callable
        Folder → free bytes.
    """
    guard = DiskGuard(needed, [folder], free, "waiting to start")
    guard.look()
    while guard.any_low():
        alive()
        if stopping():
            return False
        time.sleep(_LOOK_AGAIN)
        guard.look()
    return True
