"""All that one life of the daemon works with: opened together, ended together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from asi_watch.buffers import BufferPool
from asi_watch.config.model import CameraConfig, Config
from asi_watch.live.camera import Camera
from asi_watch.live.disk import DiskGuard
from asi_watch.live.ledger.ledger import LedgerError
from asi_watch.live.ledger.rebuild import Backups, open_ledger
from asi_watch.live.messages import (
    CalibrationDone,
    Found,
    Inbox,
    MergeDone,
    Message,
    ReadDone,
    ScanDone,
)
from asi_watch.live.retention import RetentionThread
from asi_watch.live.workers.at_work import AtWork
from asi_watch.live.workers.budget import MemoryBudget
from asi_watch.live.workers.pool import MERGE, JobPool
from asi_watch.live.workers.workplace import Workplace

log = logging.getLogger(__name__)

_IDLE_BUFFERS = 256 << 20


class Station:
    """Ledger, disks, workers and cameras under one configuration. Owner thread only.

    Parameters
    ----------
    settings : Config
    alive : callable
        Called while opening takes its time.

    Raises
    ------
    LedgerError
        If the ledger cannot be opened.
    """

    def __init__(
        self,
        settings: Config,
        *,
        alive: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.inbox = Inbox()
        self.ledger = open_ledger(settings.state_dir, tuple(settings.cameras.values()), alive=alive)
        self.ledger_rebuilt = self.ledger.rebuilt
        self._backups = Backups(settings.state_dir)
        self._disk = DiskGuard(
            settings.disk.keep_free,
            [settings.state_dir, *(c.output for c in settings.cameras.values())],
        )
        self._disk.start()
        self._janitor = RetentionThread(
            settings.state_dir, settings.cameras.values(), self._disk.any_low
        )
        self._janitor.start()
        self._budget = MemoryBudget(settings.memory_budget)
        self._pool = JobPool(settings.worker_count)
        self._at_work = AtWork(settings.state_dir, self._pool.most_jobs(len(settings.cameras)))
        self._place = Workplace(
            self.ledger,
            self.inbox,
            self._pool,
            self._budget,
            BufferPool(min(_IDLE_BUFFERS, settings.memory_budget)),
            self._at_work,
            settings.order,
            settings.state_dir / "curves",
        )
        now = time.monotonic()
        self.cameras = {c.name: self._camera(c, now) for c in settings.cameras.values()}

    def _camera(self, settings: CameraConfig, now: float) -> Camera:
        lookback = self.ledger.first_lookback(settings.name, settings.scan.lookback)
        scan = settings.scan.model_copy(update={"lookback": lookback})
        return Camera(
            settings.model_copy(update={"scan": scan}),
            self._place,
            lambda: self._disk.low(settings.output, self.settings.state_dir) or self.ledger.blocked,
            now,
        )

    def start(self) -> None:
        """Start workers and cameras."""
        self._pool.start()
        now = time.monotonic()
        for camera in self.cameras.values():
            camera.start(now)

    def handle(self, message: Message, now: float) -> None:
        """Give a message to its camera; others are for the daemon."""
        match message:
            case Found():
                self.cameras[message.camera].found(message)
            case ReadDone():
                self.cameras[message.camera].read_done(message, now)
            case MergeDone():
                self.cameras[message.camera].merge_done(message, now)
            case ScanDone():
                self.cameras[message.camera].scan_done(message)
            case CalibrationDone():
                self.cameras[message.camera].calibration_done(message)

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._pool.look_after(now)
        for camera in self.cameras.values():
            camera.tick(now)
        self.ledger.settle(now)
        self._backups.tick(now)
        for name, count in self.inbox.take_dropped().items():
            self.cameras[name].events_dropped(count)

    def finish_work(self, alive: Callable[[], object]) -> tuple[bool, list[Message]]:
        """Take in nothing more, finish the merges in flight, record them.

        Parameters
        ----------
        alive : callable
            Called every second while that takes its time.

        Returns
        -------
        finished : bool
            False when merges had to be left unfinished.
        unheard : list
            Messages that are not for cameras.
        """
        for camera in self.cameras.values():
            camera.stop_intake()
        self._pool.close(lambda urgency: urgency[1] == MERGE)
        finished = self._wait_for_workers(alive)
        unheard: list[Message] = []
        while (message := self.inbox.get(timeout=0)) is not None:
            if isinstance(message, MergeDone):
                # Without its row a product is adopted at the next start.
                with suppress(LedgerError):
                    self.handle(message, time.monotonic())
            else:
                unheard.append(message)
        with suppress(LedgerError):
            self.ledger.settle(float("inf"))
        return finished, unheard

    def _wait_for_workers(self, alive: Callable[[], object]) -> bool:
        deadline = time.monotonic() + self.settings.shutdown_timeout.total_seconds()
        while not self._pool.join(min(1.0, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return False
            # What hangs must not keep the merges of other cameras from being finished.
            self._pool.look_after(time.monotonic())
            alive()
        return True

    def close(self) -> None:
        """Close what was opened; the work must have been finished."""
        self._disk.stop()
        self._janitor.stop()
        self._at_work.close()
        self._backups.stop()
        self.ledger.close()

    def snapshot(self) -> dict[str, Any]:
        """Give the state of workers, ledger and cameras for `status`."""
        running, queued = self._pool.busy()
        return {
            "jobs_running": running,
            "jobs_queued": queued,
            "inbox": len(self.inbox),
            "merge_memory": self._budget.held,
            "crashes": self._pool.crashes,
            "rows_owed": self.ledger.owed,
            "blocked": self.ledger.blocked,
            "cameras": {name: self._camera_snapshot(name) for name in self.cameras},
        }

    def _camera_snapshot(self, name: str) -> dict[str, Any]:
        return {**self.cameras[name].snapshot(), **self._janitor.snapshot(name)}
