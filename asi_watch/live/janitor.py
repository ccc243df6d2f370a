"""The daemon's thread for retention: hourly, at low priority, in bounded steps."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from asi_watch.live.ledger import Ledger, LedgerError
from asi_watch.live.retention import KINDS, Outcome, Retention
from asi_watch.live.settings import CameraSettings
from asi_watch.logs import event, failure

log = logging.getLogger(__name__)

_FIRST_AFTER = 600.0
_EVERY = 3600.0
_MORE_AFTER = 60.0
_MOST_FILES = 5000
_BREATH = 0.02
_JUMP = 3600.0
_TRUST_AFTER = 86_400.0


class ClockTrust:
    """Tells whether the computer's clock has run evenly of late.

    Parameters
    ----------
    wall, monotonic : callable
        The two clocks, in seconds.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._difference = wall() - monotonic()
        self._jumped_at = float("-inf")

    def trusted(self) -> bool:
        """Return False for a day after the wall clock jumped by more than an hour."""
        now = self._monotonic()
        difference = self._wall() - now
        if abs(difference - self._difference) > _JUMP:
            self._jumped_at = now
        self._difference = difference
        return now - self._jumped_at >= _TRUST_AFTER


@dataclass(frozen=True, slots=True)
class Deleted:
    """What retention has deleted since the daemon started."""

    files: int = 0
    size: int = 0


class Janitor:
    """Runs the retention of all cameras that have limits.

    Parameters
    ----------
    state_dir : Path
        Where the ledger is, which is only read.
    cameras : iterable of CameraSettings
    deleted : dict, optional
        Counts by camera to go on from.
    """

    def __init__(
        self,
        state_dir: Path,
        cameras: Iterable[CameraSettings],
        deleted: dict[str, Deleted] | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._todo = [
            (camera, Retention(camera, kind))
            for camera in cameras
            for kind in KINDS
            if getattr(camera.retention, kind).any
        ]
        self._clock = ClockTrust(time.time, time.monotonic)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._deleted = {} if deleted is None else deleted

    def start(self) -> None:
        """Start the thread, if there is anything for it to do."""
        if self._todo:
            self._thread.start()

    def stop(self) -> None:
        """Stop after the file at hand."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def deleted(self, camera: str) -> Deleted:
        """Return what has been deleted of a camera's files."""
        return self._deleted.get(camera, Deleted())

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # a unit may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        pause = _FIRST_AFTER
        while not self._stopping.wait(pause):
            pause = _EVERY
            try:
                if self.run_once():
                    pause = _MORE_AFTER
            except LedgerError as error:
                event(log, logging.WARNING, "retention put off", reason=str(error))
            # The one boundary of this thread: retention is not worth more than the daemon.
            except Exception as error:  # noqa: BLE001
                failure(log, "retention crashed", error)

    def run_once(self) -> bool:
        """Go through all cameras once.

        Returns
        -------
        bool
            True if there is more to delete.

        Raises
        ------
        LedgerError
            If the ledger cannot be read.
        """
        trusted = self._clock.trusted()
        more = False
        with Ledger(self._state_dir, read_only=True) as ledger:
            for camera, retention in self._todo:
                outcome = retention.run(
                    ledger,
                    time.time(),
                    apply=not camera.retention.dry_run,
                    trust_clock=trusted,
                    most=_MOST_FILES,
                    pause=lambda: self._stopping.wait(_BREATH),
                )
                self._note(outcome, camera.retention.dry_run)
                more = more or (outcome.more and not camera.retention.dry_run)
        return more

    def _note(self, outcome: Outcome, dry_run: bool) -> None:
        if not outcome.files and not outcome.failed:
            return
        event(
            log,
            logging.WARNING if outcome.failed else logging.INFO,
            "retention would delete" if dry_run else "retention deleted",
            camera=outcome.camera,
            kind=outcome.kind,
            files=outcome.files,
            megabytes=outcome.size // 1_000_000,
            oldest=outcome.oldest,
            newest=outcome.newest,
            failed=outcome.failed or None,
        )
        if not dry_run:
            before = self.deleted(outcome.camera)
            self._deleted[outcome.camera] = Deleted(
                before.files + outcome.files, before.size + outcome.size
            )
