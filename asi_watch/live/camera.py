"""One camera in the running daemon: everything of it that the owner thread steers."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asi_watch.buffers import BufferPool
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.budget import MemoryBudget
from asi_watch.live.collector import MAX_ATTEMPTS, Collector
from asi_watch.live.commands import (
    Command,
    DropWork,
    MergeBracket,
    MergeFailed,
    ReadFile,
    Unusable,
    WriteRecord,
)
from asi_watch.live.curve_keeper import CurveKeeper
from asi_watch.live.health import CameraHealth
from asi_watch.live.inbox import CalibrationDone, Found, Inbox, MergeDone, ReadDone, ScanDone
from asi_watch.live.intake import Intake
from asi_watch.live.ledger import Ledger
from asi_watch.live.pool import JobPool
from asi_watch.live.publishing import Publisher
from asi_watch.live.records import BracketRecord
from asi_watch.live.settings import CameraSettings
from asi_watch.live.workshop import Workshop
from asi_watch.logs import event
from asi_watch.naming import is_product_name
from asi_watch.products import is_temporary, sweep_temporaries

log = logging.getLogger(__name__)

LIVE, BACKLOG = 0, 1
READ, MERGE = 0, 1


class Camera:
    """Carries out what the collector decides, and writes the ledger's rows.

    Owner thread only.

    Parameters
    ----------
    settings : CameraSettings
    ledger : Ledger
    inbox : Inbox
    pool : JobPool
    budget : MemoryBudget
    buffers : BufferPool
    curves_dir : Path
        Where adopted curves are kept.
    now : float
        Monotonic time.
    """

    def __init__(
        self,
        settings: CameraSettings,
        ledger: Ledger,
        inbox: Inbox,
        pool: JobPool,
        budget: MemoryBudget,
        buffers: BufferPool,
        curves_dir: Path,
        now: float,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self._ledger = ledger
        self._inbox = inbox
        self._pool = pool
        self._health = CameraHealth()
        self._newest: datetime | None = None
        self._workshop = Workshop(settings, Publisher(settings), budget, buffers)
        self._collector = Collector(
            self.name,
            settings.rules,
            settings.pattern.parse,
            lambda slot: ledger.get(self.name, slot),
            settings.intake.stable_for,
        )
        self._intake = Intake(self.name, settings.intake, self._wanted, inbox)
        self._curves = CurveKeeper(
            settings, ledger, inbox, curves_dir / self.name, self._use_curve, now
        )
        self._curves.start()

    # -- life -------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Clean up after an earlier life, take up what it left, begin to watch."""
        output = self.settings.output
        swept = sweep_temporaries(output, recursive=True) if output.is_dir() else 0
        if swept:
            event(log, logging.INFO, "temporary files removed", camera=self.name, files=swept)
        for record in reversed(self._ledger.recent_complete(self.name, 5)):
            self._collector.expected.observe(e.exposure_us for e in record.inputs)
        for record in self._ledger.to_retry(self.name, MAX_ATTEMPTS):
            self._execute(self._collector.resume(record, now))
        self._intake.start()

    def stop_intake(self) -> None:
        """Take in nothing more."""
        self._intake.stop()
        self._curves.stop()

    def _wanted(self, name: str) -> bool:
        suffix = name.rpartition(".")[2].lower()
        return (
            suffix in self.settings.extensions
            and not is_product_name(name)
            and not is_temporary(name)
        )

    # -- messages ---------------------------------------------------------------------------

    def found(self, message: Found) -> None:
        """Files were seen."""
        for file in message.files:
            self._execute(
                self._collector.found(file.path, file.signature, file.settled, message.at)
            )

    def read_done(self, message: ReadDone, now: float) -> None:
        """A file was read."""
        if isinstance(message.outcome, Unusable):
            event(
                log,
                logging.INFO if message.outcome.may_recover else logging.WARNING,
                "exposure not usable" + (" yet" if message.outcome.may_recover else ""),
                camera=self.name,
                file=message.path,
                reason=message.outcome.reason,
            )
        self._execute(self._collector.read_done(message.slot, message.path, message.outcome, now))

    def merge_done(self, message: MergeDone, now: float) -> None:
        """A merge ended."""
        if isinstance(message.outcome, MergeFailed):
            event(
                log,
                logging.ERROR,
                "merge failed",
                camera=self.name,
                slot=message.slot,
                reason=message.outcome.reason,
            )
        self._execute(self._collector.merge_done(message.slot, message.outcome, now))

    def scan_done(self, message: ScanDone) -> None:
        """A scan ended."""
        if message.first or message.files:
            event(
                log,
                logging.INFO if message.first else logging.DEBUG,
                "scan done",
                camera=self.name,
                files=message.files,
                seconds=round(message.seconds, 3),
            )

    def calibration_done(self, message: CalibrationDone) -> None:
        """A calibration ended: swap the curve, or say why not."""
        fault = self._curves.calibration_done(message)
        if fault is not None:
            self._health.error(fault)

    def events_dropped(self, count: int) -> None:
        """Events were lost for want of room: look at the folder itself."""
        event(log, logging.WARNING, "events dropped, scanning", camera=self.name, events=count)
        self._intake.request_scan()

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._execute(self._collector.due(now))
        self._curves.tick(now, may_calibrate=True)

    def next_due(self) -> float | None:
        """Monotonic time at which `tick` has something to do."""
        return self._collector.next_due()

    # -- commands ---------------------------------------------------------------------------

    def _execute(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case ReadFile():
                    self._submit_read(command)
                case MergeBracket():
                    self._submit_merge(command)
                case WriteRecord(record):
                    self._write(record)
                case DropWork(slot):
                    self._workshop.drop(slot)

    def _submit_read(self, command: ReadFile) -> None:
        def job() -> None:
            outcome = self._workshop.read(command)
            self._inbox.put(ReadDone(self.name, command.slot, command.path, outcome))

        def crashed(error: Exception) -> None:
            outcome = Unusable(f"reading it crashed: {error!r}", True, None)
            self._inbox.put(ReadDone(self.name, command.slot, command.path, outcome))

        self._pool.submit((self._class_of(command.slot), command.slot, READ), job, crashed)

    def _submit_merge(self, command: MergeBracket) -> None:
        if self._curves.hold(command):
            return

        def job() -> None:
            outcome = self._workshop.merge(command, time.monotonic())
            self._inbox.put(MergeDone(self.name, command.slot, outcome))

        def crashed(error: Exception) -> None:
            outcome = MergeFailed(f"merging crashed: {error!r}")
            self._inbox.put(MergeDone(self.name, command.slot, outcome))

        self._pool.submit((self._class_of(command.slot), command.slot, MERGE), job, crashed)

    def _class_of(self, slot: datetime) -> int:
        if self._newest is None or slot > self._newest:
            self._newest = slot
        return LIVE if slot >= self._newest - 2 * self.settings.rules.round_to else BACKLOG

    def _write(self, record: BracketRecord) -> None:
        self._ledger.record(record)
        self._health.bracket_over(record)
        self._curves.bracket_over(record)
        event(
            log,
            logging.INFO if record.state == "published" else logging.WARNING,
            f"bracket {record.state}",
            camera=self.name,
            slot=record.slot,
            exposures=len(record.inputs),
            expected=record.expected,
            revision=record.revision if record.revision > 1 else None,
            product=record.products[0] if record.products else None,
            curve=record.curve_id,
            latency=record.latency,
            reason=record.reason,
        )

    def _use_curve(self, curve: ResponseCurve, waited: list[MergeBracket]) -> None:
        self._workshop.curve = curve
        for command in waited:
            # What was begun without a curve is begun again.
            self._workshop.drop(command.slot)
            self._submit_merge(command)

    # -- what is shown ----------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Give the camera's state for `status`."""
        return {
            "watch": str(self.settings.intake.root),
            "output": str(self.settings.output),
            "watching": self._intake.state,
            "last_bracket": self._health.last,
            "latency": self._health.latency(),
            "open_brackets": [s.isoformat() for s in self._collector.open_slots()[-5:]],
            "open_count": len(self._collector.open_slots()),
            **self._curves.snapshot(),
            "counts": self._collector.counters.as_dict(),
            "totals": self._ledger.totals(self.name),
            "last_error": self._health.last_error,
        }


def lookback_since(last_change: datetime | None, lookback: float) -> float:
    """Stretch the start scan's look-back over the time the daemon was down.

    Parameters
    ----------
    last_change : datetime or None
        UTC time of the ledger's last row for the camera.
    lookback : float
        Seconds, as configured.
    """
    if last_change is None:
        return lookback
    down = datetime.now(UTC) - last_change + timedelta(hours=1)
    return max(lookback, down.total_seconds())
