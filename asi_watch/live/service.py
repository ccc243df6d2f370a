"""The daemon: start → main loop → stop. One owner thread; everything else talks to its inbox."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from asi_watch import __version__
from asi_watch.buffers import BufferPool
from asi_watch.errors import AsiWatchError
from asi_watch.live.budget import MemoryBudget
from asi_watch.live.camera import MERGE, Camera, lookback_since
from asi_watch.live.control import ControlServer
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
from asi_watch.live.ledger import Ledger
from asi_watch.live.lock import StateLock
from asi_watch.live.pool import JobPool
from asi_watch.live.sdnotify import Notifier
from asi_watch.live.settings import CameraSettings, DaemonSettings
from asi_watch.logs import event

log = logging.getLogger(__name__)

_TICK = 0.2
_SNAPSHOT_EVERY = 1.0
_IDLE_BUFFERS = 256 << 20


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

    # -- start → run → stop -----------------------------------------------------------------

    def run(self) -> int:
        """Run until a signal says stop.

        Returns
        -------
        int
            Exit code: 0 after an orderly stop, 1 when merges had to be left unfinished.

        Raises
        ------
        AlreadyRunningError, LedgerError
            If the state folder cannot be used.
        """
        self._settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        with ExitStack() as stack:
            lock = StateLock(self._settings.state_dir)
            stack.callback(lock.release)
            self._take_signals()
            self._open()
            stack.callback(lambda: self._ledger.close())
            control = ControlServer(self._settings.state_dir, lambda: self._snapshot)
            stack.callback(control.stop)
            control.start()
            self._begin()
            self._main_loop()
            return self._end()

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGHUP, lambda *_: self._inbox.put(Reload()))

    def _on_stop_signal(self, number: int, _frame: object) -> None:
        name = signal.Signals(number).name
        if self._stop is not None:
            # Asked twice: whoever asks does not want to wait. The state on disk is whole anyway.
            os._exit(1)
        self._inbox.put(Stop(name))

    def _open(self) -> None:
        settings = self._settings
        self._ledger = Ledger(settings.state_dir)
        self._budget = MemoryBudget(settings.memory_budget)
        self._buffers = BufferPool(min(_IDLE_BUFFERS, settings.memory_budget))
        self._pool = JobPool(settings.workers)
        now = time.monotonic()
        self._cameras = {c.name: self._camera(c, now) for c in settings.cameras}

    def _camera(self, settings: CameraSettings, now: float) -> Camera:
        lookback = lookback_since(self._ledger.last_change(settings.name), settings.intake.lookback)
        return Camera(
            replace(settings, intake=replace(settings.intake, lookback=lookback)),
            self._ledger,
            self._inbox,
            self._pool,
            self._budget,
            self._buffers,
            self._settings.state_dir / "curves",
            now,
        )

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
            if message is not None:
                self._handle(message, now)
            if now >= self._next_tick:
                self._next_tick = now + _TICK
                self._tick(now)

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
        finished = self._pool.stop(
            lambda urgency: urgency[2] == MERGE, self._settings.shutdown_timeout
        )
        while (message := self._inbox.get(timeout=0)) is not None:
            if isinstance(message, MergeDone):
                self._handle(message, time.monotonic())
        return finished

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
        self._finish_work()
        self._ledger.close()
        self._settings = settings
        self._inbox = Inbox()
        self._open()
        self._pool.start()
        self._start_cameras()
        event(log, logging.INFO, "configuration reloaded", cameras=len(self._cameras))
        self._notifier.ready(self._status_line())

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
            "cameras": {name: camera.snapshot() for name, camera in self._cameras.items()},
        }

    def _status_line(self) -> str:
        cameras = self._snapshot.get("cameras", {})
        published = sum(c["counts"]["published"] for c in cameras.values())
        troubled = [n for n, c in cameras.items() if c["watching"].startswith("watch folder")]
        text = f"{len(self._cameras)} cameras, {published} brackets published"
        return text + (f"; watch folder missing: {', '.join(troubled)}" if troubled else "")
