"""Events of a watch folder, through watchdog. Callbacks only enqueue; see docs/watching.md."""

from __future__ import annotations

import os
from collections.abc import Callable
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
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from asi_watch.errors import AsiWatchError

# What a camera's file can show itself by: closed after writing, renamed inside the tree, or only
# created (renamed from outside, linked, or born in a folder too new to be watched yet). Without
# a filter watchdog 7.1 is overrun by the events of its own walks through large trees.
_EVENTS: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileMovedEvent,
    FileCreatedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]

Seen = Callable[[str, bool], None]


class WatchError(AsiWatchError):
    """The folder cannot be watched by events."""


class Watcher:
    """Reports files of a folder tree as they appear.

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
        self._seen = seen
        self._folder_appeared = folder_appeared
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None

    def start(self) -> None:
        """Begin watching.

        Raises
        ------
        WatchError
            If the folder is missing or unreadable, or a limit of the system is reached.
        """
        try:
            resolved = self._root.resolve(strict=True)
            status = resolved.stat()
            os.scandir(resolved).close()
        except OSError as error:
            raise WatchError(f"{self._root}: {error.strerror or error}") from error
        handler = _Handler(resolved, self._seen, self._folder_appeared)
        observer = Observer()
        observer.daemon = True
        observer.name = "observer"
        try:
            observer.schedule(handler, str(resolved), recursive=True, event_filter=_EVENTS)
            observer.start()
        except OSError as error:
            raise WatchError(f"{self._root}: {error.strerror or error}") from error
        self._observer = observer
        self._identity = (status.st_dev, status.st_ino)

    def fault(self) -> str | None:
        """Say what is wrong with the watch, None while it can be trusted."""
        observer = self._observer
        if observer is None:
            return "not started"
        if not observer.is_alive() or not all(e.is_alive() for e in observer.emitters):
            return "the observer's thread has ended"
        try:
            status = self._root.stat()
        except OSError as error:
            return f"the folder cannot be reached: {error.strerror or error}"
        if (status.st_dev, status.st_ino) != self._identity:
            return "another folder has taken the place of the watched one"
        return None

    def stop(self) -> None:
        """End watching; returns when no callback runs any more."""
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(5)


class _Handler(FileSystemEventHandler):
    """Enqueues and nothing else: an exception here would end watchdog's thread unseen."""

    def __init__(self, root: Path, seen: Seen, folder_appeared: Callable[[str], None]) -> None:
        self._prefix = os.path.join(root, "")
        self._seen = seen
        self._folder_appeared = folder_appeared

    def on_closed(self, event: FileSystemEvent) -> None:
        self._report(event.src_path, True)

    def on_moved(self, event: FileSystemEvent) -> None:
        if event.is_directory:
            self._folder(event.dest_path)
        else:
            self._report(event.dest_path, True)

    def on_created(self, event: FileSystemEvent) -> None:
        if event.is_directory:
            self._folder(event.src_path)
        else:
            self._report(event.src_path, False)

    def _report(self, path: bytes | str, settled: bool) -> None:
        name = os.fsdecode(path)
        if name.startswith(self._prefix):
            self._seen(name[len(self._prefix) :], settled)

    def _folder(self, path: bytes | str) -> None:
        name = os.fsdecode(path)
        if name.startswith(self._prefix):
            self._folder_appeared(name[len(self._prefix) :])
