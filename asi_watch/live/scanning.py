"""Scans of a watch folder: the directory is the truth, events only hint at it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asi_watch.live.commands import Signature
from asi_watch.live.inbox import FoundFile
from asi_watch.logs import event

log = logging.getLogger(__name__)

_MAX_DEPTH = 32


@dataclass(slots=True)
class _Folder:
    mtime_ns: int
    subfolders: tuple[str, ...]
    files: dict[str, Signature] = field(default_factory=dict)


class TreeScanner:
    """Scans one tree again and again, reporting what is new or changed since the last scan.

    A folder's own modification time tells whether names were added to it, so that old folders
    of an archive cost one `stat` each. Symbolic links are not followed.

    Parameters
    ----------
    root : str
        The watch folder.
    wanted : callable
        Tells by its name whether a file is of interest.
    """

    def __init__(self, root: str, wanted: Callable[[str], bool]) -> None:
        self._root = root
        self._wanted = wanted
        self._folders: dict[str, _Folder] = {}
        self.unreadable = 0

    def scan(
        self, now_ns: int, window: float, stable_for: float
    ) -> Iterator[tuple[FoundFile, ...]]:
        """Walk the tree once.

        Parameters
        ----------
        now_ns : int
            Wall clock in nanoseconds, to compare with modification times.
        window : float
            Folders not modified for so many seconds are not looked into again.
        stable_for : float
            Seconds since its modification after which a file counts as settled. Only a hint: a
            wrong clock costs a second look, since files are checked by decoding them.

        Yields
        ------
        tuple of FoundFile
            New or changed files of one folder, paths relative to the root.
        """
        since_ns = now_ns - int(window * 1e9)
        settled_before = now_ns - int(stable_for * 1e9)
        self.unreadable = 0
        visited: set[str] = set()
        pending: list[tuple[str, int]] = [("", 0)]
        while pending:
            folder, depth = pending.pop()
            visited.add(folder)
            try:
                found, subfolders = self._visit(folder, since_ns, settled_before)
            except OSError as error:
                self.unreadable += 1
                where = os.path.join(self._root, folder)
                event(log, logging.WARNING, "folder not scanned", folder=where, reason=str(error))
                continue
            if found:
                yield tuple(found)
            if depth < _MAX_DEPTH:
                pending += [(sub, depth + 1) for sub in subfolders]
        for gone in self._folders.keys() - visited:
            del self._folders[gone]

    def _visit(
        self, folder: str, since_ns: int, settled_before: int
    ) -> tuple[list[FoundFile], tuple[str, ...]]:
        where = os.path.join(self._root, folder)
        mtime_ns = os.stat(where).st_mtime_ns
        known = self._folders.get(folder)
        if known is not None and known.mtime_ns == mtime_ns and mtime_ns < since_ns:
            known.files.clear()
            return [], known.subfolders
        names, subfolders = _list(where, folder, self._wanted)
        if mtime_ns < since_ns and (known is None or known.mtime_ns == mtime_ns):
            self._folders[folder] = _Folder(mtime_ns, subfolders)
            return [], subfolders
        files = dict(_signatures(where, folder, names))
        before = known.files if known else {}
        self._folders[folder] = _Folder(mtime_ns, subfolders, files)
        found = [
            FoundFile(path, signature, settled=signature[1] < settled_before)
            for path, signature in files.items()
            if before.get(path) != signature
        ]
        return found, subfolders


def _list(
    where: str, folder: str, wanted: Callable[[str], bool]
) -> tuple[list[str], tuple[str, ...]]:
    names: list[str] = []
    subfolders: list[str] = []
    with os.scandir(where) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    subfolders.append(os.path.join(folder, entry.name))
            elif wanted(entry.name):
                names.append(entry.name)
    # The newest folders last, so that a stack takes them first.
    return names, tuple(sorted(subfolders))


def _signatures(where: str, folder: str, names: list[str]) -> Iterator[tuple[str, Signature]]:
    for name in names:
        try:
            status = os.lstat(os.path.join(where, name))
        except FileNotFoundError:
            continue
        # A FIFO or a link called x.jpg is reported too: reading refuses it, and says so.
        yield os.path.join(folder, name), (status.st_size, status.st_mtime_ns)
