"""The daemon: start → main loop → stop. One owner thread; everything else talks to its inbox."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from asi_watch import __version__
from asi_watch.buffers import BufferPool
from asi_watch.errors import AsiWatchError
from asi_watch.live.at_work import AtWork
from asi_watch.live.budget import MemoryBudget
from asi_watch.live.camera import Camera
from asi_watch.live.catching_up import lookback_at_start
from asi_watch.live.control import Answer, ControlServer, Request, RequestRefusedError
from asi_watch.live.disk import DiskGuard, wait_for_room
from asi_watch.live.inbox import (
    CalibrationDone,
    Found,
    Inbox,
    MergeDone,
    Message,
    ReadDone,
    Reload,
    ScanDone,
    Stop,
)
from asi_watch.live.janitor import Janitor, JanitorMemory
from asi_watch.live.jobs import MERGE
from asi_watch.live.ledger import LedgerDamagedError, LedgerError
from asi_watch.live.lock import StateFolderError, StateLock
from asi_watch.live.pool import JobPool
from asi_watch.live.rebuilding import open_ledger
from asi_watch.live.requests import RequestDesk, RetryRequest
from asi_watch.live.sdnotify import Notifier
from asi_watch.live.settings import CameraSettings, DaemonSettings
from asi_watch.logs import event
from asi_watch.products import sweep_temporaries

log = logging.getLogger(__name__)

_TICK = 0.2
_SNAPSHOT_EVERY = 1.0
# What stopping may take beside the workers: ending threads, settling the ledger.
_AFTER_WORKERS = 20.0
_IDLE_BUFFERS = 256 << 20
# An empty ledger with its journal.
_ROOM_TO_START = 512 << 10
# A ledger that fails twice within so many seconds is not helped by opening it anew.
_REOPEN_AGAIN = 60.0


class Daemon:
    """The daemon in the foreground.

    Parameters
    ----------
    settings : DaemonSettings
    notifier : Notifier
        Line to the service manager.
    reload_settings : callable
        Reads the configuration again; raises `AsiWatchError` when it is wrong.
    """

    def __init__(
        self,
        settings: DaemonSettings,
        notifier: Notifier,
        reload_settings: Callable[[], DaemonSettings],
    ) -> None:
        self._settings = settings
        self._notifier = notifier
        self._reload_settings = reload_settings
        self._inbox = Inbox()
        self._started = datetime.now(UTC)
        self._snapshot: dict[str, Any] = {}
        self._snapshot_at = float("-inf")
        self._next_tick = 0.0
        self._next_sign = 0.0
        self._stop: str | None = None
        self._asked_to_stop = False
        self._desk = RequestDesk()
        self._ledgers_rebuilt = 0
        self._janitor_memory = JanitorMemory()
        self._reopened_at = float("-inf")

    # -- start → run → stop -----------------------------------------------------------------

    def run(self) -> int:
        """Run until a signal says stop.

        Returns
        -------
        int
            Exit code: 0 after an orderly stop, 1 when merges had to be left unfinished.

        Raises
        ------
        AlreadyRunningError, StateFolderError, LedgerError
            If the state folder cannot be used.
        """
        try:
            self._settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            reason = error.strerror or error
            raise StateFolderError(f"{self._settings.state_dir}: {reason}") from error
        with ExitStack() as stack:
            lock = StateLock(self._settings.state_dir)
            stack.callback(lock.release)
            # Left behind by a process that was killed; the folder is ours alone now.
            sweep_temporaries(self._settings.state_dir, recursive=True)
            self._take_signals()
            if not self._wait_for_room():
                return 0
            self._open()
            stack.callback(self._close)
            control = ControlServer(self._settings.state_dir, self._answer)
            stack.callback(control.stop)
            control.start()
            self._begin()
            self._main_loop()
            return self._end()

    def _wait_for_room(self) -> bool:
        """Without room for a ledger there is no daemon; it starts when there is some."""
        return wait_for_room(
            self._settings.state_dir,
            _ROOM_TO_START,
            lambda: self._asked_to_stop,
            lambda: self._notifier.extend_timeout(_AFTER_WORKERS),
        )

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGHUP, lambda *_: self._inbox.put(Reload()))

    def _on_stop_signal(self, number: int, _frame: object) -> None:
        if self._asked_to_stop:
            # Asked twice: whoever asks does not want to wait. The state on disk is whole anyway.
            os._exit(1)
        self._asked_to_stop = True
        self._inbox.put(Stop(signal.Signals(number).name))

    def _open(self, *, distrusted: bool = False) -> None:
        settings = self._settings
        opened = open_ledger(
            settings.state_dir,
            settings.cameras,
            stopping=lambda: self._asked_to_stop,
            alive=self._still_opening,
            distrusted=distrusted,
        )
        self._ledger = opened.ledger
        self._ledgers_rebuilt += opened.rebuilt is not None and bool(
            opened.rebuilt or opened.moved_to
        )
        self._disk = DiskGuard(
            settings.keep_free, [settings.state_dir, *(c.output for c in settings.cameras)]
        )
        self._disk.start()
        self._janitor = Janitor(
            settings.state_dir, settings.cameras, self._janitor_memory, self._disk.any_low
        )
        self._janitor.start()
        self._budget = MemoryBudget(settings.memory_budget)
        self._buffers = BufferPool(min(_IDLE_BUFFERS, settings.memory_budget))
        self._pool = JobPool(settings.workers)
        self._at_work = AtWork(settings.state_dir, settings.workers)
        now = time.monotonic()
        self._cameras = {c.name: self._camera(c, now) for c in settings.cameras}

    def _still_opening(self) -> None:
        """Making a ledger anew takes its time: nobody may think that nothing goes on."""
        self._notifier.extend_timeout(_AFTER_WORKERS)
        self._notifier.watchdog()

    def _camera(self, settings: CameraSettings, now: float) -> Camera:
        lookback = lookback_at_start(self._ledger, settings.name, settings.intake.lookback)
        return Camera(
            replace(settings, intake=replace(settings.intake, lookback=lookback)),
            self._settings.order,
            self._ledger,
            self._inbox,
            self._pool,
            self._budget,
            self._buffers,
            self._settings.state_dir / "curves",
            self._at_work,
            lambda: (
                self._disk.low(settings.output, self._settings.state_dir) or self._ledger.why_not()
            ),
            now,
        )

    def _close(self) -> None:
        self._disk.stop()
        self._janitor.stop()
        self._at_work.close()
        self._ledger.close()

    def _begin(self) -> None:
        self._pool.start()
        self._start_cameras()
        self._take_snapshot(time.monotonic())
        event(
            log,
            logging.INFO,
            "ready",
            version=__version__,
            cameras=len(self._cameras),
            workers=self._settings.workers,
            state_dir=self._settings.state_dir,
        )
        self._notifier.ready(self._status_line())

    def _start_cameras(self) -> None:
        now = time.monotonic()
        for camera in self._cameras.values():
            camera.start(now)

    def _main_loop(self) -> None:
        while self._stop is None:
            message = self._inbox.get(timeout=_TICK)
            now = time.monotonic()
            try:
                if message is not None:
                    self._handle(message, now)
                if now >= self._next_tick:
                    self._next_tick = now + _TICK
                    self._tick(now)
            except LedgerError as error:
                self._open_anew(error, now)

    def _open_anew(self, error: LedgerError, now: float) -> None:
        """The ledger cannot be read: start again from what is on the disk, in this process.

        Raises
        ------
        LedgerError
            If that has happened just before, or does not help.
        """
        event(log, logging.ERROR, "ledger fails, opening it anew", reason=str(error))
        if now - self._reopened_at < _REOPEN_AGAIN:
            raise error
        self._reopened_at = now
        self._start_again(self._settings, distrusted=isinstance(error, LedgerDamagedError))

    def _start_again(self, settings: DaemonSettings, *, distrusted: bool = False) -> None:
        """Finish what is in flight, and begin with these settings; counts go on."""
        self._finish_work()
        earlier = self._cameras
        self._close()
        self._settings = settings
        self._inbox = Inbox()
        if self._asked_to_stop:
            self._inbox.put(Stop("SIGTERM"))
        self._open(distrusted=distrusted)
        for name, camera in self._cameras.items():
            if name in earlier:
                camera.inherit(earlier[name])
        self._pool.start()
        self._start_cameras()

    def _end(self) -> int:
        event(log, logging.INFO, "stopping", reason=self._stop)
        self._notifier.stopping("finishing merges in flight")
        finished = self._finish_work()
        event(log, logging.INFO, "stopped", unfinished=None if finished else "merges left undone")
        return 0 if finished else 1

    def _finish_work(self) -> bool:
        """Take in nothing more, finish the merges in flight, record them."""
        for camera in self._cameras.values():
            camera.stop_intake()
        self._pool.close(lambda urgency: urgency[2] == MERGE)
        finished = self._wait_for_workers(self._settings.shutdown_timeout)
        while (message := self._inbox.get(timeout=0)) is not None:
            if isinstance(message, MergeDone):
                # Without its row a product is adopted at the next start.
                with suppress(LedgerError):
                    self._handle(message, time.monotonic())
            elif isinstance(message, Stop):
                self._stop = message.signal
        with suppress(LedgerError):
            self._ledger.settle(float("inf"))
        return finished

    def _wait_for_workers(self, limit: float) -> bool:
        """Wait for the jobs in flight; the service manager hears that this is going on."""
        self._notifier.extend_timeout(limit + _AFTER_WORKERS)
        deadline = time.monotonic() + limit
        while not self._pool.join(min(1.0, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return False
            self._notifier.watchdog()
        return True

    # -- messages ---------------------------------------------------------------------------

    def _handle(self, message: Message, now: float) -> None:
        match message:
            case Stop(name):
                self._stop = name
            case Reload():
                self._reload()
            case Found():
                self._cameras[message.camera].found(message)
            case ReadDone():
                self._cameras[message.camera].read_done(message, now)
            case MergeDone():
                self._cameras[message.camera].merge_done(message, now)
            case ScanDone():
                self._cameras[message.camera].scan_done(message)
            case CalibrationDone():
                self._cameras[message.camera].calibration_done(message)

    def _tick(self, now: float) -> None:
        for camera in self._cameras.values():
            camera.tick(now)
        self._ledger.settle(now)
        self._desk.serve(self._retry)
        for name, count in self._inbox.take_dropped().items():
            self._cameras[name].events_dropped(count)
        if now - self._snapshot_at >= _SNAPSHOT_EVERY:
            self._take_snapshot(now)
        interval = self._notifier.watchdog_interval
        if interval is not None and now >= self._next_sign:
            # From here, not from a timer: only an owner that makes progress is alive.
            self._next_sign = now + interval / 2
            self._notifier.watchdog()
        self._notifier.status(self._status_line())

    def _reload(self) -> None:
        """Read the configuration again; a wrong one changes nothing."""
        self._notifier.reloading()
        try:
            settings = self._reload_settings()
            if settings.state_dir != self._settings.state_dir:
                raise AsiWatchError("state_dir cannot change while the daemon runs; restart it")
        except AsiWatchError as error:
            event(log, logging.ERROR, "configuration not reloaded", reason=str(error))
            self._notifier.ready(self._status_line())
            return
        self._start_again(settings)
        event(log, logging.INFO, "configuration reloaded", cameras=len(self._cameras))
        self._notifier.ready(self._status_line())

    # -- requests ---------------------------------------------------------------------------

    def _answer(self, request: Request) -> Answer:
        """Answer a command; called from the control thread."""
        if request["do"] == "status":
            return self._snapshot
        if request["do"] == "retry":
            return self._desk.retry(request)
        raise RequestRefusedError(f"the daemon cannot {request['do'][:40]!r}")

    def _retry(self, request: RetryRequest) -> Answer:
        asked = {}
        for name in request.asked_of(list(self._cameras)):
            slots = self._cameras[name].retry(
                request.slots, failed=request.failed, skipped=request.skipped
            )
            asked[name] = [slot.isoformat() for slot in slots]
        event(log, logging.INFO, "asked to try again", brackets=sum(map(len, asked.values())))
        return {"asked": asked}

    # -- what is shown ----------------------------------------------------------------------

    def _take_snapshot(self, now: float) -> None:
        running, queued = self._pool.busy()
        self._snapshot_at = now
        self._snapshot = {
            "version": __version__,
            "pid": os.getpid(),
            "started_utc": self._started.isoformat(timespec="seconds"),
            "at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "jobs_running": running,
            "jobs_queued": queued,
            "inbox": len(self._inbox),
            "merge_memory": self._budget.held,
            "crashes": self._pool.crashes,
            "rows_owed": self._ledger.owed,
            "ledgers_rebuilt": self._ledgers_rebuilt,
            "cameras": {name: self._camera_snapshot(name) for name in self._cameras},
        }

    def _camera_snapshot(self, name: str) -> dict[str, Any]:
        deleted = self._janitor.deleted(name)
        return {
            **self._cameras[name].snapshot(),
            "deleted_files": deleted.files,
            "deleted_bytes": deleted.size,
        }

    def _status_line(self) -> str:
        cameras = self._snapshot.get("cameras", {})
        published = sum(c["counts"]["published"] for c in cameras.values())
        troubled = [n for n, c in cameras.items() if c["watching"].startswith("watch folder")]
        text = f"{len(self._cameras)} cameras, {published} brackets published"
        paused = next((c["paused"] for c in cameras.values() if c["paused"]), None)
        text += f"; paused: {paused}" if paused else ""
        return text + (f"; watch folder missing: {', '.join(troubled)}" if troubled else "")
