"""Events of a watch folder: inotify, through watchdog's reader of one descriptor.

Events only make things fast: whatever they miss, a scan finds a few seconds later. What can be
seen to be wrong (a thread that ended, a full queue) is reported; the intake starts a new observer.

watchdog's own observers give every watched folder a thread, and an overflow of the kernel's queue
makes them add every folder again, which never ends on an archive of some 16,000 folders.
`InotifyFD` below them has one thread for all folders of all cameras.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from asi_watch.errors import AsiWatchError
from asi_watch.logs import failure

log = logging.getLogger(__name__)

# Closed after writing, renamed into place, or only created: a link, a new folder.
_MASK = Mask(
    InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_DONT_FOLLOW
    | InotifyConstants.IN_EXCL_UNLINK
)
_LIMITS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# inotify sees only what this machine's kernel writes; behind these another machine, a host or a
# file system in user space may be the writer. Inode numbers are not always steady there either.
_REMOTE = (
    *("nfs", "cifs", "smb", "fuse.", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs"),
    *("gpfs", "gfs2", "ocfs2", "orangefs", "virtiofs", "vboxsf", "davfs"),
)
_MOUNTS = Path("/proc/self/mountinfo")

_PATIENCE = 1.0
_SHARED: list[InotifyFD] = []
_SHARED_LOCK = threading.Lock()


class WatchError(AsiWatchError):
    """The folder cannot be watched by events."""


def _reader(shared: bool) -> InotifyFD:
    """Return the descriptor that all cameras on local file systems share, or one of its own."""
    with _SHARED_LOCK:
        if shared and _SHARED and _SHARED[0].is_alive():
            return _SHARED[0]
        reader = InotifyFD()
        reader.name = "inotify"
        reader.start()
        if shared:
            _SHARED[:] = [reader]
        return reader


class Observer:
    """Reports files as they appear in the folders given to `watch`.

    Parameters
    ----------
    root : Path
        The watch folder; resolved first, since a symbolic link itself gives no events.
    seen : callable
        Called with the path relative to `root`, and whether the file's writer is done with it;
        from watchdog's thread.
    appeared : callable
        Called for every new folder: files written into it at once may give no event.
    shared : bool
        False where adding a watch may hang (network shares): that would hold up the events of
        all who share the descriptor.
    """

    def __init__(
        self,
        root: Path,
        seen: Callable[[str, bool], None],
        appeared: Callable[[], None],
        *,
        shared: bool = True,
    ) -> None:
        self._root, self._shared, self._base = root, shared, ""
        self._seen, self._appeared = seen, appeared
        self._reader: InotifyFD | None = None
        self._id = CallbackId(id(self))
        # Held while a watch is added: an event must find its folder.
        self._lock = threading.Lock()
        self._folders: dict[WatchDescriptor, str] = {}
        # By folder, also its device and inode.
        self._watched: dict[str, tuple[WatchDescriptor, tuple[int, int]]] = {}
        self._crashed = self._overflowed = False
        self.limit: str | None = None
        """Why folders had to be left unwatched, None while all could be watched."""

    def start(self) -> None:
        """Watch the root; `WatchError` if it cannot be read or a limit of the system is reached."""
        try:
            self._base = os.fspath(self._root.resolve(strict=True))
            self._reader = _reader(self._shared)
            self._add("", os.stat(self._base))
        # RuntimeError: no further thread, or a loop of symbolic links.
        except (OSError, RuntimeError) as error:
            self.stop()
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise WatchError(f"{self._root}: {reason}") from error

    def watch(self, folder: str, status: os.stat_result | None = None) -> bool:
        """Watch one more folder; return False if it is gone, or where `limit` says why.

        Parameters
        ----------
        folder : str
            Relative to the root.
        status : os.stat_result, optional
            Of the folder, if known.
        """
        try:
            status = status or os.lstat(self._path(folder))
            identity = (status.st_dev, status.st_ino)
            if folder in self._watched and self._watched[folder][1] == identity:
                return True
            self._add(folder, status)
        except OSError as error:
            if error.errno in _LIMITS:
                self.limit = error.strerror or str(error)
            return False
        return True

    def keep(self, folders: Iterable[str]) -> list[str]:
        """Watch these folders and the root, and no others; return what could not be watched.

        Parameters
        ----------
        folders : iterable of str
            Relative to the root.
        """
        wanted = dict.fromkeys(["", *folders])
        for folder in set(self._watched).difference(wanted):
            self._remove(folder)
        self.limit = None
        return [folder for folder in wanted if not self.watch(folder)]

    def watches(self, folder: str) -> bool:
        """Tell whether a folder is watched."""
        return folder in self._watched

    @property
    def count(self) -> int:
        """Folders watched."""
        return len(self._watched)

    @property
    def fault(self) -> str | None:
        """What is wrong with the observer, None while nothing is known to be."""
        if self._reader is None:
            return "not started"
        if self._crashed:
            return "the handler of events has crashed"
        return None if self._reader.is_alive() else "the thread that reads events has ended"

    def take_overflow(self) -> bool:
        """Tell whether events were lost since the last call."""
        overflowed, self._overflowed = self._overflowed, False
        return overflowed

    def stop(self) -> None:
        """End watching; no callback begins after this."""
        reader, self._reader = self._reader, None
        if not self._lock.acquire(timeout=_PATIENCE):
            # A watch is being added on a share that does not answer.
            return
        watched, self._watched, self._folders = self._watched, {}, {}
        self._lock.release()
        if reader is not None and reader.is_alive():
            reader.remove_callbacks([(wd, self._id) for wd, _ in watched.values()])
            if not self._shared:
                reader.stop()

    def on_event(self, event: InotifyEvent) -> None:
        """Report a file or a folder; what nobody foresaw must not end watchdog's thread."""
        try:
            with self._lock:
                folder = self._folders.get(event.wd)
            if folder is None or not event.name:
                return
            if event.mask & InotifyConstants.IN_ISDIR:
                self._appeared()
            else:
                path = os.path.join(folder, os.fsdecode(event.name))
                self._seen(path, not event.mask & InotifyConstants.IN_CREATE)
        # The boundary of this thread.
        except Exception as error:  # noqa: BLE001
            if not self._crashed:
                failure(log, "handler of events crashed", error)
            self._crashed = True

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Forget a folder that was removed or unmounted."""
        with self._lock:
            folder = self._folders.pop(wd, None)
            if folder is not None and self._watched.get(folder, (None,))[0] == wd:
                del self._watched[folder]

    def on_queue_overflow(self) -> None:
        """Note that the kernel has lost events."""
        self._overflowed = True
        self._appeared()

    def _add(self, folder: str, status: os.stat_result) -> None:
        if self._reader is None:
            raise OSError(errno.EBADF, "not started")
        identity = (status.st_dev, status.st_ino)
        # Another folder in its place; or the same folder under its earlier name.
        for known, (_, other) in list(self._watched.items()):
            if known == folder or other == identity:
                self._remove(known)
        with self._lock:
            path = os.fsencode(self._path(folder))
            wd = self._reader.add_callback(path, _MASK, self, self._id)
            self._folders[wd] = folder
            self._watched[folder] = (wd, identity)

    def _remove(self, folder: str) -> None:
        with self._lock:
            wd, _ = self._watched.pop(folder, (None, None))
            known = wd is not None and self._folders.pop(wd, None) is not None
        if known and wd is not None and self._reader is not None:
            self._reader.remove_callbacks([(wd, self._id)])

    def _path(self, folder: str) -> str:
        return f"{self._base}/{folder}" if folder else self._base


def is_remote(kind: str) -> bool:
    """Tell whether files may appear without an event on this kind of file system.

    Parameters
    ----------
    kind : str
        As `file_system_of` names it.
    """
    return kind.startswith(_REMOTE)


def file_system_of(path: Path, mounts: Path = _MOUNTS) -> str:
    """Name the type of the file system a path lies on, "" where it cannot be known.

    Parameters
    ----------
    path : Path
    mounts : Path
        The kernel's table of mounts.
    """
    try:
        device = path.stat().st_dev
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except (OSError, RuntimeError):
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.partition(" - ")[2] for line in lines if line.split(" ")[2:3] == [number]]
    return kinds[-1].split(" ")[0] if kinds else ""
