"""Scans of a watch folder: the directory is the truth, events only make it fast.

A folder's modification time moves whenever a name is added to it, so one `lstat` tells whether it
must be listed. Two ways of looking at the tree share what they remember:

- `FolderScanner.scan` looks at the folders that changed last and at those above them, where new
  ones appear: its cost does not grow with the archive. At the start it walks everything.
- `FolderScanner.begin_pass` and `go_on` look at every known folder, a slice at a time.

For every folder that was read, the scanner says up to which modification time: its watermark. A
folder at its watermark is not reported again, whatever became of the tree or of the process in
between; any other folder is, whatever the age of its files.
"""

from __future__ import annotations

import heapq
import logging
import os
import stat
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from asi_watch.config.model import CameraConfig
from asi_watch.live.messages import FoundFile, Signature
from asi_watch.live.watching.observer import Observer
from asi_watch.logs import event

log = logging.getLogger(__name__)
_T = TypeVar("_T")

HOT = 24
"""Folders looked into because they changed last, those above them not counted."""
MOST_WATCHES = 200
"""Folders watched at once."""
# Seconds for which a file is followed after its last change, and files followed in a folder.
_FOLLOWED_FOR, _FOLLOWED = 900.0, 500
_MAX_DEPTH = 32
_CHUNK = 500
_UNREADABLE_RETRIED = 64
# A name may be added in the same tick of the file system's clock as the listing before it.
_SAME_TICK = 3.0
# 2001-01-01: earlier times come from a machine that did not know the time when it wrote.
_NO_CLOCK_BEFORE_NS = 978_307_200 * 10**9
# In the year 2262.
_LATEST_NS = 2**63
# So far a clock is set back without anybody noticing.
_SLACK_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Moment:
    """The time of a scan by both clocks: `wall_ns` since 1970, `monotonic` in seconds."""

    wall_ns: int
    monotonic: float


@dataclass(frozen=True, slots=True)
class Portion:
    """Files found in one folder, at most 500; or, after the last of them, its watermark.

    `skipped`: what lay there before the watermark was not reported, and is not to be.
    """

    folder: str
    files: tuple[FoundFile, ...] = ()
    watermark_ns: int | None = None
    skipped: bool = False


@dataclass(slots=True)
class _Folder:
    """What is remembered of a folder: a hash for every name, and the files that may change.

    `seen_at` is when its modification time was first seen, by the monotonic clock.
    """

    mtime_ns: int
    seen_at: float
    listed_at: float
    subfolders: tuple[str, ...] = ()
    names: array[int] = field(default_factory=lambda: array("q"))
    followed: dict[str, tuple[Signature, float]] = field(default_factory=dict)

    def follow(self, name: str, signature: Signature, now: float) -> None:
        """Follow a file from now on; of too many the one unchanged for longest is let go."""
        _move_to_end(self.followed, name, (signature, now), _FOLLOWED)


class FolderScanner:
    """Scans one tree again and again, reporting what is new or changed since the last scan.

    Symbolic links are not followed; folders that begin with a dot are not entered.

    Parameters
    ----------
    camera : CameraConfig
        Names the folder and the files of interest; `stable_for` is only a hint.
    watermarks : mapping of str to int
        By folder, relative to the root: the modification time (ns) up to which all is done.
    """

    def __init__(self, camera: CameraConfig, watermarks: Mapping[str, int]) -> None:
        self._root = str(camera.watch)
        self._camera = camera
        self._others: dict[str, tuple[int, str]] = {}
        self._stable_ns = int(camera.stable_for.total_seconds() * 1e9)
        self._watermarks = dict(watermarks)
        self._folders: dict[str, _Folder] = {}
        self._hot: dict[str, None] = {}
        # Listed so soon after a change that a name may have come since: listed again.
        self._unsettled: dict[str, None] = {}
        self._unreadable: dict[str, str] = {}
        self._queue: deque[str] = deque()
        self._list_all = False
        self._starting = True
        self._skip_before_ns: int | None = None
        self.observer: Observer | None = None
        """Watches every folder before it is listed: that leaves no gap between the two."""
        self.remote = False
        """True where modification times may come late and inode numbers change."""
        self.keeps_change_times = True
        """False where a new name may have old times throughout: see `_since`."""

    def scan(self, now: Moment, skip_before_ns: int | None = None) -> Iterator[Portion]:
        """Look where something changed lately; at a start, at everything, newest names first.

        A folder's watermark comes after its files; with `skip_before_ns` all watermarks come at
        the end, so that a scan that was broken off leaves none.

        Parameters
        ----------
        now : Moment
        skip_before_ns : int, optional
            At the very first start: what is older is not reported, but counted as done.
        """
        self._starting, self._skip_before_ns = not self.rooted, skip_before_ns
        chain = {"", *self.hot(), *islice(self._unreadable, _UNREADABLE_RETRIED)}
        held: list[Portion] = []
        for folder in sorted(chain, key=lambda f: (f.count("/"), f)):
            for portion in self._walk(folder, now):
                if skip_before_ns is None or portion.watermark_ns is None:
                    yield portion
                else:
                    held.append(portion)
        yield from held
        if self._starting:
            newest = heapq.nlargest(HOT, self._folders, lambda f: self._folders[f].mtime_ns)
            self._hot = dict.fromkeys(reversed(newest))
        self._starting, self._skip_before_ns = False, None

    def begin_pass(self, list_all: bool) -> None:
        """Begin to look at every known folder, with `go_on`.

        Parameters
        ----------
        list_all : bool
            Whatever modification times say: list every folder.
        """
        self._queue = deque({**self._folders, **self._unreadable})
        self._list_all = list_all

    @property
    def passing(self) -> bool:
        """True while folders are left for `go_on`."""
        return bool(self._queue)

    def go_on(self, now: Moment, enough: Callable[[], bool]) -> Iterator[Portion]:
        """Go on with a pass; yields as `scan` does.

        Parameters
        ----------
        now : Moment
        enough : callable
            Asked after each folder whether to stop there.
        """
        while self._queue:
            yield from self._walk(self._queue.popleft(), now, self._list_all)
            if enough():
                return

    def forget_tree(self) -> None:
        """Look at everything again; folders at their watermark are not reported again."""
        for known in (self._folders, self._hot, self._unsettled, self._queue, self._others):
            known.clear()

    @property
    def rooted(self) -> bool:
        """True when the root itself has been read."""
        return "" in self._folders

    @property
    def first_start(self) -> bool:
        """True when nothing of this camera has ever been done."""
        return not self._watermarks

    @property
    def nothing_below_done(self) -> bool:
        """True when no folder below the root has ever been done."""
        return not any(self._watermarks)

    def not_taken(self) -> tuple[int, str]:
        """Count the files of other kinds, with an example, where nothing else was found."""
        if not self._others or any(known.names for known in self._folders.values()):
            return 0, ""
        return sum(count for count, _ in self._others.values()), max(self._others.values())[1]

    @property
    def unreadable(self) -> int:
        """Folders that could not be read when they were last tried."""
        return len(self._unreadable)

    def hot(self) -> list[str]:
        """Name the folders that changed last, the latest first, each after those above it."""
        ordered: dict[str, None] = {"": None}
        for folder in (*reversed(self._hot), *self._unsettled):
            parts = folder.split("/") if folder else []
            ordered.update(dict.fromkeys("/".join(parts[: n + 1]) for n in range(len(parts))))
        return list(ordered)

    def _walk(self, start: str, now: Moment, list_all: bool = False) -> Iterator[Portion]:
        pending = [start]
        while pending:
            folder = pending.pop()
            if folder.count("/") >= _MAX_DEPTH:
                self._not_read(folder, f"nested deeper than {_MAX_DEPTH} folders")
                continue
            try:
                portions, fresh = self._visit(folder, now, list_all)
            except (FileNotFoundError, NotADirectoryError):
                # Gone between two looks. The root's absence is for the caller to judge.
                if folder:
                    self._forget(folder)
                    self._unreadable.pop(folder, None)
                continue
            except OSError as error:
                self._not_read(folder, error.strerror or str(error))
                continue
            if self._unreadable.pop(folder, None) is not None:
                event(log, logging.INFO, "folder readable again", folder=self._path(folder))
            for portion in portions:
                yield portion
                # Only now has it been handed over.
                if portion.watermark_ns is not None:
                    self._watermarks[folder] = portion.watermark_ns
            pending += fresh

    def _visit(
        self, folder: str, now: Moment, list_all: bool
    ) -> tuple[list[Portion], tuple[str, ...] | list[str]]:
        """Look at one folder; return what to report, and its subfolders not visited yet."""
        where = self._path(folder)
        status = os.lstat(where) if folder else os.stat(where)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(where)
        known, mtime_ns = self._folders.get(folder), status.st_mtime_ns
        changed = known is None or known.mtime_ns != mtime_ns
        if known is not None and not (changed or list_all or self._must_list(known, now)):
            self._watch(folder, status, begin=False)
            return self._portions(folder, self._rewritten(folder, known, now)), ()
        skipped = known is None and _before(mtime_ns, self._skip_before_ns)
        done = skipped or self._watermarks.get(folder) == mtime_ns
        fresh_names = known is not None or not done
        self._watch(folder, status, begin=fresh_names and (changed or not list_all))
        keys, subfolders = self._list(where, folder)
        since_ns = None if known is not None else self._since(folder, status, now)
        if known is None:
            seen_at = now.monotonic if self._came_lately(mtime_ns, now) else float("-inf")
            known = self._folders[folder] = _Folder(mtime_ns, seen_at, now.monotonic)
        elif changed:
            known.mtime_ns, known.seen_at = mtime_ns, now.monotonic
        files = self._rewritten(folder, known, now)
        if fresh_names:
            files += self._new(folder, known, keys, now, since_ns)
        if not self._starting and (changed or files):
            # Files without a new modification time: it comes late, or never.
            known.seen_at = now.monotonic
            _move_to_end(self._hot, folder, None, HOT)
        known.listed_at, known.names = now.monotonic, array("q", keys.values())
        if now.monotonic - known.seen_at > _SAME_TICK:
            self._unsettled.pop(folder, None)
        else:
            self._unsettled[folder] = None
        gone, known.subfolders = set(known.subfolders).difference(subfolders), subfolders
        for path in gone:
            self._forget(path)
        portions = self._portions(folder, files)
        portions += self._watermark(folder, known, skipped)
        return portions, [path for path in subfolders if path not in self._folders]

    def _list(self, where: str, folder: str) -> tuple[dict[str, int], tuple[str, ...]]:
        """List the wanted names, each with a key that tells it from its successors."""
        keys: dict[str, int] = {}
        subfolders: list[str] = []
        others, example = 0, ""
        with os.scandir(where) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not name.startswith("."):
                        subfolders.append(f"{folder}/{name}" if folder else name)
                elif self._camera.wants(name):
                    keys[name] = hash(name) if self.remote else hash((name, entry.inode()))
                elif not self._camera.is_known(name):
                    others, example = others + 1, name
        self._others[folder] = others, f"{folder}/{example}" if folder else example
        if not others:
            del self._others[folder]
        # The newest folders last, so that a stack takes them first.
        return keys, tuple(sorted(subfolders))

    def _since(self, folder: str, status: os.stat_result, now: Moment) -> int | None:
        """Tell from when on files of an unknown folder are to be reported; None: all.

        A name that was added after the watermark belongs to a file whose change time is later:
        creating, copying and renaming set it by the same clock as the folder's own time. A
        folder that was itself renamed, or has its times from elsewhere, is no such witness.
        """
        watermark = self._watermarks.get(folder)
        if watermark is None or not self.keeps_change_times:
            return self._skip_before_ns
        in_order = _NO_CLOCK_BEFORE_NS <= watermark <= min(status.st_mtime_ns, now.wall_ns)
        if not in_order or status.st_ctime_ns != status.st_mtime_ns:
            return None
        return watermark - _SLACK_NS

    def _watermark(self, folder: str, known: _Folder, skipped: bool) -> list[Portion]:
        """Say up to when the folder is read, once no name can hide in its modification time."""
        marks, done = [], self._watermarks.get(folder)
        if self._skip_before_ns is not None and done is None and not skipped:
            # What is older than the look-back is done; what is younger, not yet.
            marks.append(Portion(folder, (), self._skip_before_ns, skipped=True))
        at_rest = known.listed_at - known.seen_at > _SAME_TICK
        # An empty root may be the place where a share is to be mounted.
        if at_rest and done != known.mtime_ns and (folder or known.names or known.subfolders):
            marks.append(Portion(folder, (), known.mtime_ns, skipped))
        # Other times the ledger cannot hold: such a folder is read at every start.
        return [mark for mark in marks if 0 <= (mark.watermark_ns or 0) < _LATEST_NS]

    def _came_lately(self, mtime_ns: int, now: Moment) -> bool:
        """Tell whether a folder may be changing now; one found while running always may."""
        if not self._starting or mtime_ns < _NO_CLOCK_BEFORE_NS:
            return True
        return mtime_ns > now.wall_ns - int(_FOLLOWED_FOR * 1e9)

    def _must_list(self, known: _Folder, now: Moment) -> bool:
        """Tell whether names may have come without a new modification time."""
        may_hide = self.remote and now.monotonic - known.seen_at < _FOLLOWED_FOR
        return may_hide or known.listed_at - known.seen_at <= _SAME_TICK

    def _new(
        self, folder: str, known: _Folder, keys: dict[str, int], now: Moment, since_ns: int | None
    ) -> list[FoundFile]:
        """Report names not known; in their order, so that portions of 500 cut one bracket."""
        found = []
        before = set(known.names)
        lately_ns = now.wall_ns - int(_FOLLOWED_FOR * 1e9)
        for name in sorted(name for name, key in keys.items() if key not in before):
            status = _lstat(f"{self._path(folder)}/{name}")
            if status is None:
                continue
            signature = (status.st_size, status.st_mtime_ns)
            if name in known.followed and known.followed[name][0] == signature:
                continue
            came_ns = max(status.st_mtime_ns, status.st_ctime_ns)
            if _before(came_ns, since_ns):
                continue
            if not self._starting or came_ns >= lately_ns:
                known.follow(name, signature, now.monotonic)
            found.append(self._report(folder, name, signature, now))
        return found

    def _rewritten(self, folder: str, known: _Folder, now: Moment) -> list[FoundFile]:
        """Report followed files that changed; let go of those that have lain still."""
        found = []
        for name, (signature, seen_at) in list(known.followed.items()):
            status = _lstat(f"{self._path(folder)}/{name}")
            if status is None:
                del known.followed[name]
            elif (changed := (status.st_size, status.st_mtime_ns)) != signature:
                known.follow(name, changed, now.monotonic)
                found.append(self._report(folder, name, changed, now))
            elif now.monotonic - seen_at > _FOLLOWED_FOR:
                del known.followed[name]
        return found

    def _report(self, folder: str, name: str, signature: Signature, now: Moment) -> FoundFile:
        # A FIFO or a link called x.jpg is reported too: reading refuses it, and says so.
        settled = signature[1] < now.wall_ns - self._stable_ns
        return FoundFile(f"{folder}/{name}" if folder else name, signature, settled)

    @staticmethod
    def _portions(folder: str, files: list[FoundFile]) -> list[Portion]:
        starts = range(0, len(files), _CHUNK)
        return [Portion(folder, tuple(files[start : start + _CHUNK])) for start in starts]

    def _watch(self, folder: str, status: os.stat_result, begin: bool) -> None:
        if (observer := self.observer) is None:
            return
        if observer.watches(folder) or (begin and observer.count < MOST_WATCHES):
            observer.watch(folder, status)

    def _forget(self, folder: str) -> None:
        pending = [folder]
        while pending:
            gone = pending.pop()
            known = self._folders.pop(gone, None)
            self._others.pop(gone, None)
            self._hot.pop(gone, None)
            self._unsettled.pop(gone, None)
            pending += known.subfolders if known else ()

    def _not_read(self, folder: str, reason: str) -> None:
        if self._unreadable.get(folder) != reason:
            self._unreadable[folder] = reason
            where = self._path(folder)
            event(log, logging.WARNING, "folder not scanned", folder=where, reason=reason)

    def _path(self, folder: str) -> str:
        return f"{self._root}/{folder}" if folder else self._root


def _move_to_end(of: dict[str, _T], name: str, value: _T, most: int) -> None:
    """Put an entry last; of more than `most` the first is let go."""
    of.pop(name, None)
    of[name] = value
    if len(of) > most:
        del of[next(iter(of))]


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        # Gone, or out of reach since it was listed: the next listing shows which.
        return None


def _before(time_ns: int, since_ns: int | None) -> bool:
    """Tell whether a time is known to lie before another; one without a clock is not."""
    return since_ns is not None and _NO_CLOCK_BEFORE_NS <= time_ns < since_ns
