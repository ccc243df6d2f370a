"""Scans of a watch folder: the directory is the truth, events only hint at it.

Three ways of looking at one tree, which share what they remember:

- `TreeScanner.first` walks everything and reports the files of the look-back;
- `TreeScanner.recent` looks only where something has changed lately, and at the folders above,
  where new ones appear: its cost does not grow with the archive;
- `TreeScanner.sweep` compares the names in every folder with those known, a slice at a time.

Only the first scan compares modification times with the wall clock. From then on what counts is
that something *changed* and when that was seen on the monotonic clock, so that a clock set
forward or back by years makes nothing invisible.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from asi_watch.live.messages import FoundFile, Signature
from asi_watch.live.watching.tree_memory import TRACKED_FOR, Folder, Moment, TreeMemory
from asi_watch.live.watching.unreadable import UnreadableFolders

_MAX_DEPTH = 32
_CHUNK = 500
_UNREADABLE_RETRIED = 64
# 2001-01-01: earlier times come from a machine that did not know the time when it wrote.
_NO_CLOCK_BEFORE_NS = 978_307_200 * 10**9

Entering = Callable[[str], None]


class TreeScanner:
    """Scans one tree again and again, reporting what is new or changed since the last scan.

    Symbolic links are not followed; folders that begin with a dot are not entered.

    Parameters
    ----------
    root : str
        The watch folder.
    wanted : callable
        Tells by its name whether a file is of interest.
    stable_for : float
        Seconds since its modification after which a file counts as settled. Only a hint: a
        wrong clock costs a second look, since files are checked by decoding them.
    entering : callable
        Told the path of a folder that is about to be listed and may be written to: watching it
        before it is listed leaves no gap between the two.
    """

    def __init__(
        self,
        root: str,
        wanted: Callable[[str], bool],
        stable_for: float = 1.0,
        entering: Entering = lambda folder: None,
    ) -> None:
        self._root = root
        self._wanted = wanted
        self._stable_ns = int(stable_for * 1e9)
        self._entering = entering
        self._memory = TreeMemory()
        self._unreadable = UnreadableFolders(root)
        self._sweep: deque[str] = deque()
        self.trust_mtime = True
        """False where a folder's modification time may come late: network shares."""
        self.trust_inodes = True
        """False where inode numbers change without reason: file systems in user space."""

    # -- the three ways ---------------------------------------------------------------------

    def first(self, now: Moment, lookback: float) -> Iterator[tuple[FoundFile, ...]]:
        """Walk the whole tree, newest names first, and report the files of the look-back.

        Parameters
        ----------
        now : Moment
        lookback : float
            Seconds: files and folders older than this are only remembered by name.

        Yields
        ------
        tuple of FoundFile
            Files of one folder, at most 500; paths relative to the root.
        """
        self._memory.clear()
        self._sweep.clear()
        yield from self._walk([""], now, since_ns=now.wall_ns - int(lookback * 1e9))
        self._memory.warm_up()

    def recent(self, now: Moment) -> Iterator[tuple[FoundFile, ...]]:
        """Look where something changed lately; yields as `first` does."""
        chain = self._memory.chain().union(islice(self._unreadable, _UNREADABLE_RETRIED))
        for folder in sorted(chain, key=lambda f: (f.count("/"), f)):
            yield from self._walk([folder], now)

    def begin_sweep(self) -> None:
        """Put every folder in the queue of `sweep`."""
        self._sweep = deque(self._memory.folders)
        self._sweep.extend(f for f in self._unreadable if f not in self._memory.folders)

    @property
    def sweeping(self) -> bool:
        """True while folders are left in the queue of `sweep`."""
        return bool(self._sweep)

    def sweep(
        self, now: Moment, enough: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[FoundFile, ...]]:
        """List folders of the queue whatever their modification time; yields as `first` does.

        Parameters
        ----------
        now : Moment
        enough : callable
            Asked after every folder; true ends this slice.
        """
        while self._sweep:
            yield from self._walk([self._sweep.popleft()], now, forced=True)
            if enough():
                return

    # -- what can be asked ------------------------------------------------------------------

    @property
    def rooted(self) -> bool:
        """True when the root itself has been read."""
        return "" in self._memory.folders

    @property
    def unreadable(self) -> int:
        """Folders that could not be read when they were last tried."""
        return len(self._unreadable)

    def counts(self) -> dict[str, int]:
        """Give the sizes of what is remembered."""
        return self._memory.counts() | {"unreadable": len(self._unreadable)}

    def hot(self) -> list[str]:
        """Name the folders that files may come into, those most lately changed first.

        The folders above each are named before it.
        """
        return self._memory.hot()

    # -- walking ----------------------------------------------------------------------------

    def _walk(
        self, pending: list[str], now: Moment, since_ns: int | None = None, forced: bool = False
    ) -> Iterator[tuple[FoundFile, ...]]:
        while pending:
            folder = pending.pop()
            if folder.count("/") >= _MAX_DEPTH:
                self._unreadable.failed(folder, f"nested deeper than {_MAX_DEPTH} folders")
                continue
            try:
                found, fresh = self._visit(folder, now, since_ns, forced)
            except (FileNotFoundError, NotADirectoryError):
                # Gone between two looks. The root's absence is for the caller to judge.
                if folder:
                    self._memory.forget(folder)
                    self._unreadable.gone(folder)
                continue
            except OSError as error:
                self._unreadable.failed(folder, error.strerror or str(error))
                continue
            self._unreadable.read(folder)
            for start in range(0, len(found), _CHUNK):
                yield tuple(found[start : start + _CHUNK])
            pending += fresh

    def _visit(
        self, folder: str, now: Moment, since_ns: int | None, forced: bool
    ) -> tuple[list[FoundFile], Iterable[str]]:
        where = self._path(folder)
        status = os.lstat(where) if folder else os.stat(where)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(where)
        known, mtime_ns = self._memory.folders.get(folder), status.st_mtime_ns
        unchanged = known is not None and known.mtime_ns == mtime_ns
        if (
            known is not None
            and unchanged
            and not forced
            and not known.must_be_listed(now.monotonic, self.trust_mtime)
        ):
            return self._changed(folder, known, now), ()
        outdated = since_ns is not None and _before(mtime_ns, since_ns)
        if not outdated and not (forced and unchanged):
            self._entering(folder)
        keys, subfolders = self._list(where, folder)
        if known is None:
            lately = since_ns is None or now.wall_ns - mtime_ns < TRACKED_FOR * 1e9
            seen_at = now.monotonic if lately else float("-inf")
            known = self._memory.folders[folder] = Folder(mtime_ns, seen_at, now.monotonic)
        elif not unchanged:
            known.mtime_ns, known.seen_at = mtime_ns, now.monotonic
        if since_ns is None and not unchanged:
            self._memory.changed(folder)
        found = [] if outdated else self._found(folder, known, keys, now, since_ns)
        if forced and unchanged and found:
            # Its modification time lies: look here more often for a while.
            known.seen_at = now.monotonic
            self._memory.changed(folder)
        known.listed_at, known.names = now.monotonic, array("q", keys.values())
        return found, self._memory.replace_subfolders(known, subfolders)

    def _list(self, where: str, folder: str) -> tuple[dict[str, int], tuple[str, ...]]:
        """List the wanted names, each with a key that tells it from its successors."""
        keys: dict[str, int] = {}
        subfolders: list[str] = []
        with os.scandir(where) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not name.startswith("."):
                        subfolders.append(os.path.join(folder, name))
                elif self._wanted(name):
                    keys[name] = hash((name, entry.inode())) if self.trust_inodes else hash(name)
        # The newest folders last, so that a stack takes them first.
        return keys, tuple(sorted(subfolders))

    def _found(
        self,
        folder: str,
        known: Folder,
        keys: dict[str, int],
        now: Moment,
        since_ns: int | None,
    ) -> list[FoundFile]:
        """Report names not known and tracked files that changed."""
        found = self._changed(folder, known, now)
        before = set(known.names)
        # In the order of names: portions of 500 then cut one bracket, not all of them.
        for name in sorted(name for name, key in keys.items() if key not in before):
            status = _lstat(self._path(folder, name))
            if status is None:
                continue
            if name in known.tracked and known.tracked[name][0] == _signature(status):
                continue
            came_ns = max(status.st_mtime_ns, status.st_ctime_ns)
            if since_ns is not None and _before(came_ns, since_ns):
                continue
            if since_ns is None or came_ns >= now.wall_ns - int(TRACKED_FOR * 1e9):
                known.track(name, _signature(status), now.monotonic)
            found.append(self._report(folder, name, _signature(status), now, True))
        return found

    def _changed(self, folder: str, known: Folder, now: Moment) -> list[FoundFile]:
        """Report tracked files that changed; let go of those that have lain still."""
        found = []
        for name, (signature, seen_at) in list(known.tracked.items()):
            status = _lstat(self._path(folder, name))
            if status is None:
                del known.tracked[name]
            elif _signature(status) != signature:
                known.track(name, _signature(status), now.monotonic)
                found.append(self._report(folder, name, _signature(status), now, False))
            elif now.monotonic - seen_at > TRACKED_FOR:
                del known.tracked[name]
        return found

    def _report(
        self, folder: str, name: str, signature: Signature, now: Moment, new: bool
    ) -> FoundFile:
        # A FIFO or a link called x.jpg is reported too: reading refuses it, and says so.
        settled = signature[1] < now.wall_ns - self._stable_ns
        return FoundFile(os.path.join(folder, name), signature, settled, new)

    def _path(self, *parts: str) -> str:
        return os.path.join(self._root, *parts)


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        # Gone, or out of reach since it was listed: the next listing shows which.
        return None


def _signature(status: os.stat_result) -> Signature:
    return status.st_size, status.st_mtime_ns


def _before(time_ns: int, since_ns: int) -> bool:
    """Tell whether a time is known to lie before the look-back; without a clock it is not."""
    return _NO_CLOCK_BEFORE_NS <= time_ns < since_ns
