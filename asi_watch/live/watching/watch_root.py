"""Whether the watch folder is there, and still the same: it may be unmounted, replaced, locked."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

from asi_watch.logs import event

log = logging.getLogger(__name__)

Sight = Literal["here", "back", "another", "lost"]


class WatchRoot:
    """Looks after the watch folder itself; each change is told once. Intake thread only.

    Parameters
    ----------
    camera : str
    path : Path
    """

    def __init__(self, camera: str, path: Path) -> None:
        self._camera = camera
        self._path = path
        self._identity: tuple[int, int] | None = None
        self.lost: str | None = None
        """What is wrong with the folder, None while nothing is."""

    def look(self) -> Sight:
        """Look for the folder.

        Returns
        -------
        {"here", "back", "another", "lost"}
            `back`: it was lost when last looked for. `another`: mounted, unmounted or made anew,
            so that nothing remembered of the tree holds.
        """
        try:
            status = self._path.stat()
            os.scandir(self._path).close()
        except FileNotFoundError:
            return self._is_lost("watch folder is missing")
        # RuntimeError: a loop of symbolic links.
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return self._is_lost(f"watch folder is unreadable: {reason}")
        sight: Sight = "here"
        if self.lost is not None:
            event(log, logging.INFO, "watch folder is back", camera=self._camera)
            self.lost, sight = None, "back"
        before, self._identity = self._identity, (status.st_dev, status.st_ino)
        if before not in (None, self._identity):
            event(
                log,
                logging.WARNING,
                "another folder in place of the watch folder, reading it whole",
                camera=self._camera,
                folder=self._path,
            )
            return "another"
        return sight

    def _is_lost(self, state: str) -> Sight:
        if self.lost != state:
            self.lost = state
            event(
                log,
                logging.ERROR,
                state,
                camera=self._camera,
                folder=self._path,
                hint="create, mount or open it, or correct cameras.<name>.watch; "
                "looking again every 2 s",
            )
        return "lost"
