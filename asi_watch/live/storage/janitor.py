"""The daemon's thread for retention: hourly, sooner when a disk is full, in bounded steps."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from asi_watch.config.model import CameraConfig
from asi_watch.live.ledger.ledger import Ledger, LedgerError
from asi_watch.live.storage.retention import KINDS, Memory, Outcome, retain
from asi_watch.logs import event, failure

log = logging.getLogger(__name__)

_FIRST_AFTER = 600.0
_EVERY = 3600.0
_MORE_AFTER = 60.0
_LOOK_EVERY = 5.0
_THOROUGH_EVERY = 86_400.0
_SEARCH_EVERY = 600.0
_MOST_FILES = 5000
# A lower priority would not do: who waits for a processor while it holds the interpreter's lock
# makes all others wait, a quarter of a second at times.
_BREATH = 0.1
_JUMP = 3600.0
_TRUST_AFTER = 86_400.0
# Whoever was off for longer, or whose clock says so, is not believed at once.
_OFF_FOR = 86_400.0


class ClockTrust:
    """Tells whether the computer's clock has run evenly of late.

    Parameters
    ----------
    wall, monotonic : callable
        The two clocks, in seconds.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._difference: float | None = None
        self._doubted_at = float("-inf")

    def look(self, last_change: float | None) -> tuple[float, bool]:
        """Read the clock.

        Parameters
        ----------
        last_change : float or None
            Unix time at which the ledger was last written. The first look compares with it: a
            machine may have started with a clock that is years ahead.

        Returns
        -------
        now : float
            Unix time.
        trusted : bool
            False for a day after the clock jumped by more than an hour.
        """
        now, monotonic = self._wall(), self._monotonic()
        difference = now - monotonic
        if self._difference is None:
            jumped = last_change is not None and not -_JUMP <= now - last_change <= _OFF_FOR
        else:
            jumped = abs(difference - self._difference) > _JUMP
        if jumped:
            self._doubted_at = monotonic
        self._difference = difference
        return now, monotonic - self._doubted_at >= _TRUST_AFTER


@dataclass(frozen=True, slots=True)
class Deleted:
    """What retention has deleted since the daemon started."""

    files: int = 0
    size: int = 0


@dataclass(slots=True)
class JanitorMemory:
    """What a janitor hands on to its successor when the configuration is read again."""

    deleted: dict[str, Deleted] = field(default_factory=dict)
    """Counts by camera."""
    clock: ClockTrust = field(default_factory=ClockTrust)


class Janitor:
    """Runs the retention of all cameras that have limits.

    Parameters
    ----------
    state_dir : Path
        Where the ledger is, which is only read.
    cameras : iterable of CameraConfig
    memory : JanitorMemory, optional
        To go on from.
    pressed : callable
        Tells that a disk is so full that writing pauses: then nothing waits for the hour.
    """

    def __init__(
        self,
        state_dir: Path,
        cameras: Iterable[CameraConfig],
        memory: JanitorMemory | None = None,
        pressed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._state_dir = state_dir
        self._cameras = tuple(cameras)
        self._has_work = any(getattr(c.retention, k).any for c in self._cameras for k in KINDS)
        self._memory = memory or JanitorMemory()
        self._rows = Memory()
        self._pressed = pressed
        self._thorough_at = float("-inf")
        self._searched_at, self._in_vain = float("-inf"), False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Start the thread, if there is anything for it to do."""
        if self._has_work:
            self._thread.start()

    def stop(self) -> None:
        """Stop after the file at hand."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def deleted(self, camera: str) -> Deleted:
        """Return what has been deleted of a camera's files."""
        return self._memory.deleted.get(camera, Deleted())

    def _run(self) -> None:
        began = time.monotonic()
        due, due_if_pressed = began + _FIRST_AFTER, began + _MORE_AFTER
        while not self._stopping.wait(_LOOK_EVERY):
            now = time.monotonic()
            if now < due and not (now >= due_if_pressed and self._pressed()):
                continue
            due = now + _EVERY
            try:
                if self.run_once():
                    due = now + _MORE_AFTER
            except LedgerError as error:
                event(log, logging.WARNING, "retention put off", reason=str(error))
            # The one boundary of this thread: retention is not worth more than the daemon.
            except Exception as error:  # noqa: BLE001
                failure(log, "retention crashed", error)
            due_if_pressed = time.monotonic() + _MORE_AFTER

    def run_once(self) -> bool:
        """Go through all cameras once; at times also through all that nothing was expected of.

        That is once a day, and where the disk stays full though nothing is found to delete.

        Returns
        -------
        bool
            True if there is more to delete.

        Raises
        ------
        LedgerError
            If the ledger cannot be read.
        """
        began = time.monotonic()
        daily = began - self._thorough_at >= _THOROUGH_EVERY
        # A backlog is published in no order: what came behind an earlier run makes room as well.
        thorough = daily or (self._in_vain and began - self._searched_at >= _SEARCH_EVERY)
        with Ledger(self._state_dir, read_only=True) as ledger:
            now, trusted = self._memory.clock.look(self._last_change(ledger))
            outcomes = self._retain(ledger, now, trusted, thorough=thorough, dry=False)
            if daily:
                # What would be deleted is told once a day.
                self._retain(ledger, now, trusted, thorough=True, dry=True)
        if thorough and not daily:
            self._searched_at = time.monotonic()
        if daily and not any(outcome.more for outcome in outcomes):
            self._thorough_at = time.monotonic()
        self._in_vain = self._pressed() and not any(outcome.files for outcome in outcomes)
        return any(outcome.more for outcome in outcomes)

    def _retain(
        self, ledger: Ledger, now: float, trusted: bool, *, thorough: bool, dry: bool
    ) -> list[Outcome]:
        outcomes = retain(
            self._cameras,
            ledger,
            now,
            apply=not dry,
            chosen=lambda camera: camera.retention.dry_run == dry,
            memory=self._rows,
            trust_clock=trusted,
            thorough=thorough,
            most=None if dry else _MOST_FILES,
            pause=lambda: self._stopping.wait(_BREATH),
        )
        for outcome in outcomes:
            self._note(outcome, dry)
        return outcomes

    def _last_change(self, ledger: Ledger) -> float | None:
        changes = [ledger.last_change(camera.name) for camera in self._cameras]
        return max((change.timestamp() for change in changes if change), default=None)

    def _note(self, outcome: Outcome, dry_run: bool) -> None:
        if not (outcome.files or outcome.failed or outcome.kept):
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
            kept_without_product=outcome.kept or None,
            failed=outcome.failed or None,
            reason=outcome.reason,
        )
        if not dry_run:
            before = self.deleted(outcome.camera)
            self._memory.deleted[outcome.camera] = Deleted(
                before.files + outcome.files, before.size + outcome.size
            )
