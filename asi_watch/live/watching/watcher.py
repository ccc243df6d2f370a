"""Events of a watch folder, through watchdog. Callbacks only enqueue; see docs/watching.md."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyObserver

from asi_watch.errors import AsiWatchError
from asi_watch.logs import failure

log = logging.getLogger(__name__)

MAX_WATCHES = 32
"""Folders watched at once: each costs a thread, and a lost queue is rebuilt from few watches."""

# What a camera's file can show itself by: closed after writing, renamed, or only created (linked,
# or born in a folder too new to be watched yet).
_EVENTS: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileMovedEvent,
    FileCreatedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
_LIMITS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)

Seen = Callable[[str, bool], None]


class WatchError(AsiWatchError):
    """The folder cannot be watched by events."""


@dataclass(frozen=True, slots=True)
class _Watched:
    handle: ObservedWatch
    identity: tuple[int, int]


class Watcher:
    """Reports files as they appear in the root and in the folders it is told to `add`.

    Folders are watched one by one, never as a tree: after an overflow of the kernel's queue a
    recursive watch is built anew folder by folder, and above some 16,000 folders that overflows
    the queue again, for ever.

    Parameters
    ----------
    root : Path
        The watch folder; resolved first, since a symbolic link would leave watchdog deaf.
    seen : callable
        Told the path relative to `root`, and whether the file's writer is done with it.
    folder_appeared : callable
        Told of every new folder, because files written into it at once may give no event.
    """

    def __init__(self, root: Path, seen: Seen, folder_appeared: Callable[[str], None]) -> None:
        self._root = root
        self._resolved = root
        self._observer: BaseObserver | None = None
        self._handler = _Handler(seen, folder_appeared)
        self._watched: dict[str, _Watched] = {}
        self._ear = _OverflowEar()
        self.limit: str | None = None
        """Why folders had to be left unwatched, None while all could be watched."""

    def start(self) -> None:
        """Begin watching the root.

        Raises
        ------
        WatchError
            If the folder is missing or unreadable, or a limit of the system is reached.
        """
        try:
            self._resolved = self._root.resolve(strict=True)
            # A watch on an unreadable folder is refused without a word by watchdog.
            os.scandir(self._resolved).close()
            self._handler.prefix = os.path.join(self._resolved, "")
            # Unmatched moves are told as moves: what is renamed into the tree is whole.
            self._observer = observer = InotifyObserver(generate_full_events=True)
            observer.name = "observer"
            logging.getLogger("watchdog").addHandler(self._ear)
            observer.start()
            self._schedule("")
        # RuntimeError: no further thread, or a loop of symbolic links.
        except (OSError, RuntimeError) as error:
            self.stop()
            raise WatchError(f"{self._root}: {_reason(error)}") from error

    def add(self, folder: str) -> bool:
        """Watch one more folder, given relative to the root.

        Returns
        -------
        bool
            False when it could not be watched: it is gone, or `limit` says why.
        """
        if folder in self._watched:
            return True
        if self._observer is None:
            return False
        if len(self._watched) >= MAX_WATCHES:
            return False
        try:
            self._schedule(folder)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) or error.errno in _LIMITS:
                self.limit = _reason(error)
            return False
        return True

    def keep(self, folders: Iterable[str]) -> list[str]:
        """Watch these folders and no others, the first ones where not all can be watched.

        Watches on folders that were removed, renamed or mounted over are made anew.

        Returns
        -------
        list of str
            Those that are not watched.
        """
        wanted = list(dict.fromkeys(["", *folders]))
        for folder in set(self._watched).difference(wanted[:MAX_WATCHES]):
            self._unschedule(folder)
        for folder, watched in list(self._watched.items()):
            if folder and _identity(self._path(folder)) != watched.identity:
                self._unschedule(folder)
        self.limit = None
        return [folder for folder in wanted if not self.add(folder)]

    def folders(self) -> set[str]:
        """Name the folders whose events are expected."""
        return set(self._watched)

    @property
    def count(self) -> int:
        """Folders watched."""
        return len(self._watched)

    def take_overflow(self) -> bool:
        """Tell whether events were lost since the last call."""
        return self._ear.take()

    def fault(self) -> str | None:
        """Say what is wrong with the watch, None while nothing is known to be."""
        observer = self._observer
        if observer is None:
            return "not started"
        if self._handler.crashed:
            return "the handler of events has crashed"
        if not observer.is_alive():
            return "the observer's thread has ended"
        identity = _identity(os.fspath(self._root))
        if identity is None:
            return "the folder cannot be reached"
        if identity != self._watched[""].identity:
            return "another folder has taken the place of the watched one"
        for emitter in observer.emitters.copy():
            # A folder's own emitter ends with the folder.
            if not emitter.is_alive() and os.path.isdir(emitter.watch.path):
                folder = os.path.relpath(emitter.watch.path, self._resolved)
                known = self._watched.get("" if folder == "." else folder)
                if known and known.identity == _identity(emitter.watch.path):
                    return "an emitter's thread has ended"
        return None

    def stop(self) -> None:
        """End watching; returns when no callback runs any more."""
        logging.getLogger("watchdog").removeHandler(self._ear)
        observer, self._observer = self._observer, None
        self._watched.clear()
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(5)

    def _schedule(self, folder: str) -> None:
        assert self._observer is not None
        path = self._path(folder)
        if not os.access(path, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        status = os.lstat(path)
        handle = self._observer.schedule(self._handler, path, recursive=False, event_filter=_EVENTS)
        self._watched[folder] = _Watched(handle, (status.st_dev, status.st_ino))

    def _unschedule(self, folder: str) -> None:
        watched = self._watched.pop(folder)
        if self._observer is not None:
            self._observer.unschedule(watched.handle)

    def _path(self, folder: str) -> str:
        return os.path.join(self._resolved, folder) if folder else os.fspath(self._resolved)


class _Handler(FileSystemEventHandler):
    """Enqueues and nothing else."""

    def __init__(self, seen: Seen, folder_appeared: Callable[[str], None]) -> None:
        self.prefix = os.sep
        self.crashed = False
        self._seen = seen
        self._folder_appeared = folder_appeared

    def dispatch(self, event: FileSystemEvent) -> None:
        """Take an event; what nobody foresaw must not end watchdog's thread unseen."""
        try:
            super().dispatch(event)
        # The one boundary of this thread.
        except Exception as error:  # noqa: BLE001
            if not self.crashed:
                failure(log, "handler of events crashed", error)
            self.crashed = True

    def on_closed(self, event: FileSystemEvent) -> None:
        self._report(event.src_path, True)

    def on_moved(self, event: FileSystemEvent) -> None:
        if event.is_directory:
            # Either end tells that a watch may lie on another folder than its path says.
            self._folder(event.dest_path or event.src_path)
        elif event.dest_path:
            self._report(event.dest_path, True)

    def on_created(self, event: FileSystemEvent) -> None:
        if event.is_directory:
            self._folder(event.src_path)
        else:
            self._report(event.src_path, False)

    def _report(self, path: bytes | str, settled: bool) -> None:
        name = os.fsdecode(path)
        if name.startswith(self.prefix):
            self._seen(name[len(self.prefix) :], settled)

    def _folder(self, path: bytes | str) -> None:
        name = os.fsdecode(path)
        if name.startswith(self.prefix):
            self._folder_appeared(name[len(self.prefix) :])


class _OverflowEar(logging.Handler):
    """Hears watchdog log that events were lost: it tells no handler of it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in str(record.msg):
            self._heard.set()

    def take(self) -> bool:
        heard = self._heard.is_set()
        self._heard.clear()
        return heard


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _reason(error: OSError | RuntimeError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
