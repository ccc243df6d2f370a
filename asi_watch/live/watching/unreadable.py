"""Folders that could not be read: told once each, counted, and tried again."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from asi_watch.logs import event

log = logging.getLogger(__name__)


class UnreadableFolders:
    """Remembers which folders below a root could not be read when they were last tried.

    Parameters
    ----------
    root : str
        The watch folder; all other paths are relative to it.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._reasons))

    def failed(self, folder: str, reason: str) -> None:
        """Note that a folder could not be read; a new reason is told."""
        if self._reasons.get(folder) != reason:
            self._reasons[folder] = reason
            where = f"{self._root}/{folder}"
            event(log, logging.WARNING, "folder not scanned", folder=where, reason=reason)

    def read(self, folder: str) -> None:
        """Note that a folder has been read."""
        if self._reasons.pop(folder, None) is not None:
            where = f"{self._root}/{folder}"
            event(log, logging.INFO, "folder readable again", folder=where)

    def gone(self, folder: str) -> None:
        """Note that there is no such folder any more."""
        self._reasons.pop(folder, None)
