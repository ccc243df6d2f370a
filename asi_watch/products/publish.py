"""Putting a product in its place: whole and durable, or not at all.

The bytes go to a temporary file, are forced to the disk, and are then renamed over the target; at
last the target's folder is forced. A reader sees the old product or the new one, never a part; so
does whoever comes back after a power cut. Temporary files lie in one hidden folder where there is
one (`staging`): who watches the target's folder sees nothing but final names appear. All steps
work through open folders, none of which may be a symbolic link below the root: a name cannot lead
out of it.
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
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from asi_watch.errors import PublishError
from asi_watch.files import FolderChangedError, HeldFolder, fsync_folder, shown

logger = logging.getLogger(__name__)

_TEMPORARY_NAME = re.compile(r"\.asi-watch-[0-9a-f]{16}\.tmp")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# The umask decides who may read them.
_FOLDER_MODE = 0o777
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.ELOOP: "a folder on the way is a symbolic link",
    errno.ENOTDIR: "something on the way is a symbolic link or a file, not a folder",
    errno.EISDIR: "there is a folder of that name",
    errno.EIO: "the disk reports an input/output error",
    errno.EXDEV: "the staging folder is on another file system",
}

STAGING_NAME = ".asi-watch"
"""Hidden folder at the root of an output folder, for files that are being written."""

Buffer = bytes | bytearray | memoryview


class OutputFolder:
    """A folder that products go below, refused if another one lies at its path later.

    Several threads may use it at once. It is opened for each step and not held, so that its file
    system can be unmounted.

    Parameters
    ----------
    path : path-like
        Made when it is first published to, if missing.
    staging : path-like, optional
        Where temporary files lie: relative to `path`, or a folder of the same file system.
        Default: beside their target.
    others : sequence of path-like
        More such folders: absolute targets below them go there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        staging: str | os.PathLike[str] | None = None,
        others: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self.path = Path(path)
        self._others = tuple(OutputFolder(other, staging=staging) for other in others)
        self._staging = None if staging is None else self.path / staging
        self._identity: tuple[int, int] | None = None

    def publish(self, data: Buffer, target: str | os.PathLike[str]) -> None:
        """Put `data` at `target` atomically and durably, replacing what is there.

        PublishError, with the system's `errno`, if a step failed. No temporary file is left, and
        the target is as before, unless only the last step failed: forcing the folder after the
        rename.

        Parameters
        ----------
        data : bytes-like
        target : path-like
            Relative to this folder, or below one of the others; missing folders are made.
        """
        output, where = self._place(target)
        output._publish(data, where)

    def _place(self, target: str | os.PathLike[str]) -> tuple[OutputFolder, PurePath]:
        where = PurePath(target)
        for other in self._others:
            if where.is_relative_to(other.path):
                return other, where.relative_to(other.path)
        return self, where

    def _publish(self, data: Buffer, where: PurePath) -> None:
        if where.is_absolute() or not where.parts or ".." in where.parts or "\0" in str(where):
            raise _refusal(self.path / where, f"is not a path below {shown(self.path)}")
        try:
            with (
                self._opened(_FOLDER_MODE) as held,
                held.folder(where.parent, create_mode=_FOLDER_MODE) as folder,
                self._staged(held, folder) as staging,
            ):
                _put(staging, folder, where.name, data)
        except OSError as error:
            raise _refusal(self.path / where, _reason(error), error.errno) from error

    def open_file(self, target: str | os.PathLike[str]) -> int:
        """Open what stands at `target` for reading; the caller closes the descriptor.

        An OSError if nothing is there, or something that must not be followed or read.

        Parameters
        ----------
        target : path-like
            As for `publish`.
        """
        output, where = self._place(target)
        with output._opened(None) as held:
            return held.open_file(where)[0]

    def sweep(self) -> int:
        """Remove temporary files that a killed process left behind; return how many.

        A file still being written is locked by its writer and stays. No link is followed.
        """
        removed = sum(other.sweep() for other in self._others)
        for place in {self.path, self._staging or self.path}:
            try:
                with (
                    self._opened(None) if place == self.path else HeldFolder(place) as held,
                    held.folder() as folder,
                ):
                    for _, _, names, descriptor in os.fwalk(".", dir_fd=folder):
                        ours = filter(is_temporary, names)
                        removed += sum(_sweep_one(descriptor, name) for name in ours)
            except FileNotFoundError:
                continue
            except OSError as error:
                text = "%s cannot be searched for temporary files: %s"
                logger.warning(text, shown(place), error)
        return removed

    @contextlib.contextmanager
    def _opened(self, create_mode: int | None) -> Iterator[HeldFolder]:
        with HeldFolder(self.path, create_mode=create_mode) as held:
            # A file system mounted anew is the same folder to everybody; only root mounts.
            if self._identity not in (None, held.identity) and not os.path.ismount(self.path):
                text = "the folder was replaced by another one; restart if that is meant"
                raise FolderChangedError(errno.ESTALE, text, str(self.path))
            self._identity = held.identity
            yield held

    @contextlib.contextmanager
    def _staged(self, held: HeldFolder, beside: int) -> Iterator[int]:
        """Open the folder for temporary files."""
        if self._staging is None:
            yield beside
        elif self._staging.is_relative_to(self.path):
            below = self._staging.relative_to(self.path)
            with held.folder(below, create_mode=0o700) as folder:
                # Folders of other file systems may be mounted below the output.
                same = os.fstat(folder).st_dev == os.fstat(beside).st_dev
                yield folder if same else beside
        else:
            with HeldFolder(self._staging, create_mode=0o700) as other, other.folder() as folder:
                yield folder


def is_temporary(name: str) -> bool:
    """Tell whether a file name is one of our temporary files.

    Parameters
    ----------
    name : str
    """
    return _TEMPORARY_NAME.fullmatch(name) is not None


def _refusal(target: Path, reason: str, number: int | None = None) -> PublishError:
    error = PublishError(f"{shown(target)}: {reason}")
    error.errno = number
    return error


def _reason(error: OSError) -> str:
    if isinstance(error, FolderChangedError):
        return str(error.strerror)
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def _put(staging: int, folder: int, name: str, data: Buffer) -> None:
    """Write a file into an open folder: create, write, force, rename, force the folder."""
    temporary = f".asi-watch-{secrets.token_hex(8)}.tmp"
    try:
        # Closed before it is renamed: else watchers would see a write to the final name.
        _write(os.open(temporary, _CREATE, 0o666, dir_fd=staging), data)
        os.replace(temporary, name, src_dir_fd=staging, dst_dir_fd=folder)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=staging)
        except OSError as error:
            if error.errno != errno.ENOENT:
                logger.warning("temporary file %s could not be removed: %s", temporary, error)
        raise
    fsync_folder(folder)


def _write(descriptor: int, data: Buffer) -> None:
    try:
        # Locked until it is closed, see `sweep`; some file systems have no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep_one(folder: int, name: str) -> bool:
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
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
