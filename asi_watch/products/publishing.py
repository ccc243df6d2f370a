"""Putting a product in its place: whole and durable, or not at all.

The bytes go to a temporary file in the target's own folder, are forced to the disk, and are then
renamed over the target; at last the folder itself is forced. A reader sees the old product or the
new one, never a part; so does whoever comes back after a power cut. All steps work through open
folders, none of which may be a symbolic link below the root: a name cannot lead out of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from asi_watch.errors import PublishError
from asi_watch.files import fsync_folder, shown

__all__ = ["TEMPORARY_NAME", "ensure_inside", "is_temporary", "publish", "sweep_temporaries"]

logger = logging.getLogger(__name__)

TEMPORARY_NAME = re.compile(r"\.asi-watch-[0-9a-f]{16}\.tmp")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Buffer = bytes | bytearray | memoryview
Checkpoint = Callable[[str], None]


def is_temporary(name: str) -> bool:
    """Tell whether a file name is one of our temporary files."""
    return TEMPORARY_NAME.fullmatch(name) is not None


def ensure_inside(root: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Return `target` relative to `root`, after making sure that it lies below it.

    Parameters
    ----------
    root, target : path-like
        A folder, and a path that must stay inside it. Purely by name; `publish` also refuses
        symbolic links on the way.

    Returns
    -------
    Path
        Relative, without ``..``.

    Raises
    ------
    PublishError
        If it does not.
    """
    try:
        relative = Path(target).relative_to(root)
    except ValueError:
        raise _refusal(target, f"is not below {shown(root)}") from None
    if not relative.parts or ".." in relative.parts or "\0" in str(relative):
        raise _refusal(target, f"is not a path below {shown(root)}")
    return relative


def publish(
    data: Buffer,
    target: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    mode: int = 0o640,
    folder_mode: int = 0o750,
    durable: bool = True,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Put `data` at `target` atomically, replacing what is there.

    Parameters
    ----------
    data : bytes-like
        The whole content.
    target : path-like
        Final path; missing folders are made.
    root : path-like, optional
        Folder that the target may not leave, by ``..`` or by symbolic link. The root itself may
        be one. Default: the target's folder, unguarded.
    mode, folder_mode : int
        Permissions of the file and of new folders, whatever the umask.
    durable : bool
        Force file and folders to the disk before returning.
    checkpoint : callable, optional
        Called with the name of each step just done (created, written, synced, replaced,
        published); for tests that die there.

    Raises
    ------
    PublishError
        With the system's `errno` if a step failed. No temporary file is left, and the target is
        as before, unless only the last step failed: forcing the folder after the rename.
    """
    step = checkpoint or _no_checkpoint
    base = Path(target).parent if root is None else Path(root)
    relative = ensure_inside(base, target)
    try:
        with _opened_folder(base, relative.parent, folder_mode, durable=durable) as folder:
            name = f".asi-watch-{secrets.token_hex(8)}.tmp"
            descriptor = os.open(name, _CREATE, mode, dir_fd=folder)
            try:
                # Open, and so locked, until it has its name: see sweep_temporaries.
                _write(descriptor, data, mode, durable=durable, step=step)
                os.replace(name, relative.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                _discard(folder, name)
                raise
            finally:
                os.close(descriptor)
            step("replaced")
            if durable:
                fsync_folder(folder)
            step("published")
    except PublishError:
        raise
    except OSError as error:
        raise _refusal(target, _reason(error), error.errno) from error


def sweep_temporaries(folder: str | os.PathLike[str], *, recursive: bool = False) -> int:
    """Remove temporary files that a killed process left behind.

    A file still being written is locked by its writer and stays.

    Parameters
    ----------
    folder : path-like
        Where to look; nothing happens if it is not there. It may be a symbolic link.
    recursive : bool
        Also below it, not following symbolic links.

    Returns
    -------
    int
        Number of files removed.
    """
    removed = 0
    try:
        # realpath: the folder itself may be a link, those below it are not followed.
        for _, _, names, descriptor in os.fwalk(os.path.realpath(folder)):
            removed += sum(_sweep_one(descriptor, name) for name in names if is_temporary(name))
            if not recursive:
                break
    except FileNotFoundError:
        return removed
    except OSError as error:
        logger.warning("%s cannot be searched for temporary files: %s", shown(folder), error)
    return removed


def _no_checkpoint(_step: str) -> None:
    return


def _refusal(
    target: str | os.PathLike[str], reason: str, number: int | None = None
) -> PublishError:
    error = PublishError(f"{shown(target)}: {reason}")
    error.errno = number
    return error


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.ELOOP: "a folder on the way is a symbolic link",
    errno.ENOTDIR: "something on the way is a symbolic link or a file, not a folder",
    errno.EISDIR: "there is a folder of that name",
    errno.EIO: "the disk reports an input/output error",
}


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


@contextlib.contextmanager
def _opened_folder(base: Path, below: Path, mode: int, *, durable: bool) -> Iterator[int]:
    """Open `base`/`below` step by step, making what is missing, durably and without links."""
    descriptor = _open_base(base, mode, durable=durable)
    try:
        for part in below.parts:
            inner = _open_or_make(descriptor, part, mode, durable=durable)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _open_base(base: Path, mode: int, *, durable: bool) -> int:
    flags = _FOLDER & ~os.O_NOFOLLOW
    try:
        return os.open(base, flags)
    except FileNotFoundError:
        if base.parent == base:
            raise
    parent = _open_base(base.parent, mode, durable=durable)
    try:
        return _open_or_make(parent, base.name, mode, durable=durable)
    finally:
        os.close(parent)


def _open_or_make(parent: int, name: str, mode: int, *, durable: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        pass
    made = True
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:  # somebody was quicker
        made = False
    descriptor = os.open(name, _FOLDER, dir_fd=parent)
    try:
        if made:
            with contextlib.suppress(PermissionError):
                os.fchmod(descriptor, mode)
        if durable:
            fsync_folder(parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _write(descriptor: int, data: Buffer, mode: int, *, durable: bool, step: Checkpoint) -> None:
    # A file system without locks, or with permissions of its own, is no reason not to publish.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, mode)
    step("created")
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    step("written")
    if durable:
        os.fsync(descriptor)
    step("synced")


def _discard(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("temporary file %s could not be removed: %s", name, error)


def _sweep_one(folder: int, name: str) -> bool:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder)
    except OSError as error:
        logger.debug("temporary file %s stays: %s", name, error)
        return False
    finally:
        os.close(descriptor)
    return True
