"""Deleting one file of a folder and no other; no link is followed."""

from __future__ import annotations

import os
import re
import stat
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from asi_watch.live.messages import Signature

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DATE_FOLDER = re.compile(r"\d[\d_.\-]*")
_DATE_FORMS = ("%Y", "%Y%m", "%Y%m%d", "%Y%m%d%H", "%Y%j", "%Y%j%H", "%y%m%d", "%y%m%d%H")


class Tree:
    """The files below a folder, reached through open folders. One thread only.

    Parameters
    ----------
    root : Path
        May itself be a symbolic link: it is what the operator wrote.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: int | None = None
        self._where: PurePosixPath | None = None

    def close(self) -> None:
        """Let go of the folder that was looked into last."""
        if self._opened is not None:
            os.close(self._opened)
        self._opened = self._where = None

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self, path: str) -> os.stat_result | None:
        """Look at a regular file; None if there is none, or not below the root.

        Parameters
        ----------
        path : str
            Relative to the root.
        """
        try:
            parts = _parts(path)
            folder = PurePosixPath(*parts[:-1])
            # An archive is looked at folder by folder: each is opened once.
            if folder != self._where or self._opened is None:
                self.close()
                self._opened = _open(self._root, parts[:-1])
                self._where = folder
            found = os.stat(parts[-1], dir_fd=self._opened, follow_symlinks=False)
        except OSError:
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def remove(self, path: str, wanted: Signature) -> bool:
        """Delete a file, if it is still the one that is meant.

        Parameters
        ----------
        path : str
            Relative to the root.
        wanted : tuple of int
            Its size and modification time.

        Returns
        -------
        bool
            False if it is gone already, or another by now.

        Raises
        ------
        OSError
            If it cannot be deleted.
        """
        # Opened anew: a folder that was moved away meanwhile is not ours any more.
        parts = _parts(path)
        try:
            folder = _open(self._root, parts[:-1])
        except FileNotFoundError:
            return False
        try:
            found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) or (found.st_size, found.st_mtime_ns) != wanted:
                return False
            os.unlink(parts[-1], dir_fd=folder)
        except FileNotFoundError:
            return False
        finally:
            os.close(folder)
        return True

    def remove_empty_date_folders(self, folder: PurePosixPath, slot: datetime) -> None:
        """Remove folders that are empty and named by the date of a slot, from below.

        A folder that a camera does not make anew every day stays: its next upload would fail.
        """
        self.close()
        while _DATE_FOLDER.fullmatch(folder.name) and _names_the_day(folder, slot):
            parts = folder.parts
            try:
                parent = _open(self._root, parts[:-1])
            except OSError:
                return
            try:
                os.rmdir(parts[-1], dir_fd=parent)
            except OSError:  # not empty, mostly
                return
            finally:
                os.close(parent)
            folder = folder.parent


def _names_the_day(folder: PurePosixPath, slot: datetime) -> bool:
    digits = re.sub(r"\D", "", str(folder))
    # Folders may be named in another time zone than files, or by the evening before.
    moments = (slot + timedelta(hours=hours) for hours in sorted(range(-36, 37), key=abs))
    return any(digits.endswith(f"{m:{form}}") for m in moments for form in _DATE_FORMS)


def _parts(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or parts[0] == "/" or "\0" in path:
        raise OSError(f"{path!r} leads out of its folder")
    return parts


def _open(root: Path, parts: tuple[str, ...]) -> int:
    folder = os.open(root, _FOLDER & ~os.O_NOFOLLOW)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
    except OSError:
        os.close(folder)
        raise
    return folder
