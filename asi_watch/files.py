"""Files and folders that strangers write: opened without blocking or following their links."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FileSignature:
    """What distinguishes one content of a file from the next, without reading it."""

    size: int  # bytes
    mtime_ns: int  # time of last modification, nanoseconds since the epoch
    inode: int  # identity on the file system: a file replaced by a rename has another inode
    device: int


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can always be printed: one line, which moves no cursor.

    Parameters
    ----------
    path : path-like
        Undecodable bytes, control characters and what turns the direction of text are escaped.
    """
    text = os.fspath(path)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def counted(number: int, what: str) -> str:
    """Write a number with its noun: 1 bracket, 2 brackets.

    Parameters
    ----------
    number : int
    what : str
        In the singular.
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def signature(file: str | os.PathLike[str] | int) -> FileSignature:
    """Return the signature of a regular file; OSError if it is none, or a symbolic link.

    Parameters
    ----------
    file : path-like or int
        Its path, or its open descriptor.
    """
    status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    _require_regular(status)
    return FileSignature(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def open_regular(
    path: str | os.PathLike[str], *, dir_fd: int | None = None
) -> tuple[int, os.stat_result]:
    """Open a regular file for reading so that nothing at that path can block the caller.

    Gives a descriptor, which the caller closes, and its status. The kind is judged twice: by
    `lstat`, so that devices are never opened (opening some has effects), and by `fstat`, because
    another file may have taken the name in between.

    Parameters
    ----------
    path : path-like
        A symbolic link as its last component is refused.
    dir_fd : int, optional
        Descriptor of an open folder that a relative path starts from.
    """
    _require_regular(os.lstat(path, dir_fd=dir_fd))
    # O_NONBLOCK: a FIFO that took the file's place must not stop us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    try:
        status = os.fstat(descriptor)
        _require_regular(status)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, status


def fsync_folder(descriptor: int) -> None:
    """Make the entries of an open folder durable, where its file system knows how to.

    Parameters
    ----------
    descriptor : int
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot; EBADF: opened only to pass through.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise


class NotRegularFileError(OSError):
    """What lies at the path is not a regular file."""


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something unknown")
        raise NotRegularFileError(f"is {kind}, not a regular file")


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40


class FolderChangedError(OSError):
    """Another folder lies at the path of a folder that is held."""


class HeldFolder:
    """A folder opened once, under which everything is reached through open descriptors.

    Whoever can write to the folders above may replace it by a link at any time: then everything
    is refused. On the way to the folder only links of root and of this process's user are
    followed; below it, none.

    Parameters
    ----------
    path : path-like
        The folder.
    create_mode : int, optional
        Permissions of folders that are made if the path does not exist yet. Default: none are.
    """

    def __init__(self, path: str | os.PathLike[str], *, create_mode: int | None = None) -> None:
        self.path = Path(path).absolute()
        self._descriptor = _open_root(self.path, create_mode)
        self.identity = _identity(os.fstat(self._descriptor))

    def check(self) -> None:
        """Raise `FolderChangedError` (ESTALE) if the path leads to another folder by now."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if _identity(self.path.stat()) == self.identity:
                return
        raise FolderChangedError(
            errno.ESTALE, "the folder was replaced by another one", str(self.path)
        )

    @contextlib.contextmanager
    def folder(
        self, below: str | os.PathLike[str] = ".", *, create_mode: int | None = None
    ) -> Iterator[int]:
        """Give an open descriptor of a folder below, for the ``dir_fd`` of functions of `os`.

        FolderChangedError if the held folder is not what lies at its path any more.

        Parameters
        ----------
        below : path-like
            Relative to this folder, without ``..``; no part of it may be a link.
        create_mode : int, optional
            Permissions, less the umask, of folders that are made, durably, if missing. Default:
            none are.
        """
        path = PurePath(below)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{shown(path)} is not a path below the folder")
        self.check()
        descriptor = os.dup(self._descriptor)
        try:
            for part in path.parts:
                inner = _open_or_make(descriptor, part, create_mode)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def open_file(self, below: str | os.PathLike[str]) -> tuple[int, os.stat_result]:
        """Open a regular file below for reading, as `open_regular` does.

        Parameters
        ----------
        below : path-like
        """
        where = PurePath(below)
        with self.folder(where.parent) as folder:
            return open_regular(where.name, dir_fd=folder)

    def close(self) -> None:
        """Let go of the folder; the object must not be used any more."""
        os.close(self._descriptor)

    def __enter__(self) -> HeldFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open_root(path: Path, create_mode: int | None) -> int:
    """Open a folder step by step, so that every link on the way is judged before it is followed."""
    descriptor, links = os.open("/", _FOLDER), 0
    pending = [*reversed(path.parts[1:])]
    try:
        while pending:
            part = pending.pop()
            target = _trusted_link(descriptor, part, path)
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
                pending.extend(reversed(PurePath(target).parts))
                continue
            # An absolute link begins with the part "/", which opens the root again.
            inner = _open_or_make(descriptor, part, create_mode)
            os.close(descriptor)
            descriptor = inner
        return os.open(".", _FOLDER, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _trusted_link(folder: int, name: str, path: Path) -> str | None:
    """Return where a link leads to, None if it is none (or nothing is there)."""
    try:
        link = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(link)
        if not stat.S_ISLNK(status.st_mode):
            return None
        if status.st_uid not in (0, os.geteuid()):
            reason = f"{shown(name)} on the way is a symbolic link that belongs to another user"
            raise OSError(errno.ELOOP, reason, str(path))
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _open_or_make(parent: int, name: str, mode: int | None) -> int:
    try:
        return _open_folder(parent, name)
    except FileNotFoundError:
        if mode is None:
            raise
    with contextlib.suppress(FileExistsError):  # somebody was quicker
        os.mkdir(name, mode, dir_fd=parent)
    descriptor = _open_folder(parent, name)
    try:
        fsync_folder(parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open_folder(parent: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        # It may not be read, but perhaps passed through.
        return os.open(name, _FOLDER | os.O_PATH, dir_fd=parent)


def folder_fault(folder: Path) -> str:
    """Say why something can never be a folder, since a file is in the way; "" if none is.

    Parameters
    ----------
    folder : Path
        It need not exist.
    """
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if os.path.isdir(there) or os.path.islink(there):  # noqa: PTH112, PTH114 - these never raise
        return ""
    return "is a file, not a folder" if there == folder else f"lies below {there}, a file"


def answered(seconds: float, *calls: Callable[[], _T]) -> list[_T | None]:
    """Make calls that a dead network share may hold up for ever, and wait only so long.

    Gives what each returned, None where it did not answer in time or raised OSError. On a share
    mounted "hard" a call returns when the server does: its thread stays behind until then.

    Parameters
    ----------
    seconds : float
        How long all of them may take together; they are made side by side.
    *calls : callable
        Without arguments; must not raise anything but OSError.
    """
    answers: list[_T | None] = [None] * len(calls)

    def ask(number: int, call: Callable[[], _T]) -> None:
        with contextlib.suppress(OSError):
            answers[number] = call()

    threads = [
        threading.Thread(target=ask, args=one, name="question", daemon=True)
        for one in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return answers.copy()  # a late answer must not change what the caller holds
