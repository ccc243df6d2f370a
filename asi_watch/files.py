"""Opening and identifying files that strangers write, without ever blocking or being led astray."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

__all__ = ["FileSignature", "fsync_folder", "open_regular", "shown", "signature", "signature_of"]


@dataclass(frozen=True, slots=True)
class FileSignature:
    """What tells one content of a file from the next, without reading it.

    Parameters
    ----------
    size : int
        Bytes.
    mtime_ns : int
        Time of last modification, nanoseconds since the epoch.
    inode, device : int
        Identity on the file system: a file replaced by a rename has another inode.
    """

    size: int
    mtime_ns: int
    inode: int
    device: int


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can always be printed: one line, which moves no cursor.

    Undecodable bytes, control characters and what turns the direction of text are escaped.
    """
    text = os.fspath(path)
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def signature_of(status: os.stat_result) -> FileSignature:
    """Return the signature held in a stat result."""
    return FileSignature(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def signature(path: str | os.PathLike[str]) -> FileSignature:
    """Return the signature of a regular file, not following a symbolic link.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    FileSignature

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    OSError
        If it is not a regular file, or cannot be looked at.
    """
    status = os.lstat(path)
    _require_regular(status)
    return signature_of(status)


def open_regular(path: str | os.PathLike[str]) -> tuple[int, os.stat_result]:
    """Open a regular file for reading so that nothing at that path can block the caller.

    The kind is judged twice: by `lstat`, so that devices are never opened (opening some has
    effects), and by `fstat`, because the name may have changed hands in between.

    Parameters
    ----------
    path : path-like
        The file; a symbolic link as its last component is refused.

    Returns
    -------
    tuple of int and os.stat_result
        An open descriptor, which the caller closes, and what it stands for.

    Raises
    ------
    OSError
        If it is not there, not a regular file, or not readable.
    """
    _require_regular(os.lstat(path))
    # O_NONBLOCK: a FIFO that took the file's place must not stop us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        _require_regular(status)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, status


def fsync_folder(descriptor: int) -> None:
    """Make the entries of an open folder durable, where its file system knows how to.

    Raises
    ------
    OSError
        If the device reports an error.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such thing for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


class NotRegularFileError(OSError):
    """What lies at the path is not a regular file."""


_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = next((name for test, name in _KINDS if test(status.st_mode)), "something unknown")
    raise NotRegularFileError(f"is {kind}, not a regular file")
