"""One camera in the running daemon: everything of it that the owner thread steers."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asi_watch.buffers import BufferPool
from asi_watch.config.model import CameraConfig, Order
from asi_watch.live import messages as msg
from asi_watch.live.collecting.collector import Collector
from asi_watch.live.curves.in_use import CurvesInUse
from asi_watch.live.disk import DiskGuard
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import MAX_ATTEMPTS, WAITS, WAITS_FOR_CURVE, Request, Retry
from asi_watch.live.reporting import Reporting
from asi_watch.live.silence import Silence
from asi_watch.live.watching.intake import Intake
from asi_watch.live.workers.merger import MemoryBudget, Merger
from asi_watch.live.workers.pool import JobPool
from asi_watch.live.workers.quarantine import Quarantine
from asi_watch.live.workers.scheduler import Scheduler, WaitingFile
from asi_watch.logs import event
from asi_watch.merge_bracket import Failed

log = logging.getLogger(__name__)

# So many brackets are taken up from the ledger at a time.
_ROWS_AT_ONCE = 50
# The owner ticks five times a second; when it has not for so long, it was kept from running.
_STOOD_STILL = 0.5
_WATERMARKS_EVERY = 2.0
_LEARN_FROM = 5
# After so many merges in a row whose products found no place, one is tried every so many seconds.
_MOST_IN_VAIN = 5
_TRY_EVERY = 5.0


@dataclass(frozen=True)
class Shared:
    """What the cameras of a daemon use together."""

    state_dir: Path
    order: Order
    ledger: Ledger
    inbox: msg.Inbox
    pool: JobPool
    budget: MemoryBudget
    buffers: BufferPool
    quarantine: Quarantine
    disk: DiskGuard


class Camera:
    """Carries out what the collector decides, and writes the ledger's rows. Owner thread only.

    Parameters
    ----------
    config : CameraConfig
    shared : Shared
    now : float
        Monotonic time.
    """

    def __init__(self, config: CameraConfig, shared: Shared, now: float) -> None:
        self.name = config.name
        self._config, self._shared = config, shared
        self._ledger = ledger = shared.ledger
        self._reporting = Reporting(self.name, config.pattern.template, config.exposure_times)
        self._merger = Merger(config, shared.budget, shared.buffers)
        self._collector = Collector(config, ledger)
        self._quarantine = shared.quarantine
        self._scheduler = Scheduler(
            config, shared.order, self._merger, shared.pool, shared.quarantine, shared.inbox
        )
        self._intake = Intake(*_watched(config, ledger), shared.inbox)
        curves_dir = shared.state_dir / "curves" / self.name
        self._curves = CurvesInUse(config, ledger, curves_dir, shared.inbox, now)
        self._merger.use_curves(self._curves.curves)
        self._silence = Silence(config, ledger, now, datetime.now(UTC))
        self._ticked_at = float("inf")
        self._folders_read: dict[str, int] = {}
        self._folders_skipped: dict[str, int] = {}
        self._next_watermarks = now + _WATERMARKS_EVERY
        # Rows to be retried are taken up from the first one on.
        self._rows_left = True
        self._last_row: datetime | None = None
        # The last merge if its product found no place, and why; how many in a row, and when one
        # is tried again; whether brackets wait in the ledger for that, or for a pause to end.
        self._no_place: tuple[datetime, str] | None = None
        self._in_vain = 0
        self._try_at = float("-inf")
        self._deferred = False

    def start(self, now: float) -> None:
        """Clean up after an earlier process, take up what it left, begin to watch.

        Parameters
        ----------
        now : float
            Monotonic time.
        """
        if swept := self._merger.clean_up():
            event(log, logging.INFO, "temporary files removed", camera=self.name, files=swept)
        for record in reversed(self._ledger.recent_complete(self.name, _LEARN_FROM)):
            self._collector.expected.observe(e.nominal_us for e in record.inputs)
        self._intake.start()

    def stop_intake(self) -> None:
        """Take in nothing more."""
        self._intake.stop()
        self._curves.stop()

    def handle(self, message: msg.Message, now: float) -> None:
        """Take a message of this camera.

        Parameters
        ----------
        message : Message
        now : float
            Monotonic time.
        """
        match message:
            case msg.Found():
                self._found(message)
            case msg.FolderRead():
                read = self._folders_skipped if message.skipped else self._folders_read
                read[message.folder] = message.mtime_ns
            case msg.ReadDone():
                self._read_done(message, now)
            case msg.MergeDone():
                self._merge_done(message, now)
            case msg.ScanDone():
                self._reporting.scan_done(message)
                if self._folders_skipped:
                    # At once: until then every start is a first one, which looks back only so far.
                    self.write_watermarks()
            case msg.CalibrationDone():
                self._use_curves(self._curves.calibration_done(message))

    def _found(self, message: msg.Found) -> None:
        self._admit(self._scheduler.arrived(message, self._collector))
        for file in message.files:
            if self._collector.slot_of_name(file.path) is None:
                self._reporting.name_ignored(file.path, message.at)

    def _admit(self, files: Iterator[WaitingFile]) -> None:
        for file in files:
            self._execute(self._collector.found(file.path, file.signature, file.settled, file.at))

    def _read_done(self, message: msg.ReadDone, now: float) -> None:
        self._scheduler.read_ended()
        self._reporting.read_done(message)
        if isinstance(message.outcome, msg.ReadOk):
            self._silence.exposure_seen(message.outcome.exposure, now, datetime.now(UTC))
        self._execute(self._collector.read_done(message.slot, message.path, message.outcome, now))
        self._admit(self._scheduler.next_files())

    def _merge_done(self, message: msg.MergeDone, now: float) -> None:
        outcome = message.outcome
        if isinstance(outcome, Failed) and outcome.kind == "output":
            self._no_place = message.slot, outcome.reason
            self._in_vain += 1
            self._try_at, self._deferred = now + _TRY_EVERY, True
        else:
            self._no_place, self._in_vain = None, 0
        self._reporting.merge_done(message.slot, outcome)
        self._execute(self._collector.merge_done(message.slot, outcome, now))

    def events_dropped(self, count: int) -> None:
        """Events were dropped because the inbox was full: read the folder itself."""
        self._reporting.events_dropped(count)
        self._intake.request_scan()

    def decide_curve(self, request: Request) -> str | None:
        """Carry out what an operator wants of this camera's curves, see `CurvesInUse.carry_out`.

        Parameters
        ----------
        request : Request
        """
        before = self._curves.curves
        answer = self._curves.carry_out(request)
        self._use_curves(self._curves.curves is not before)
        return answer

    def retry(self, which: Retry) -> list[datetime]:
        """Merge brackets again; return their slots. LedgerError if that cannot be written.

        Parameters
        ----------
        which : Retry
        """
        asked = self._ledger.ask_again(self.name, which)
        self._look_for_rows()
        return asked

    def tick(self, now: float) -> None:
        """Time has passed.

        Parameters
        ----------
        now : float
            Monotonic time.
        """
        away, self._ticked_at = now - self._ticked_at, now
        # The host took the cores away, or a disk hung: what the camera wrote meanwhile lies in
        # queues, and its brackets have not waited in vain.
        stood_still = away if away > _STOOD_STILL else 0.0
        self._execute(self._collector.due(now, stood_still))
        self._admit(self._scheduler.next_files())
        self._intake.tick(now)
        paused = self._paused() is not None
        if self._ledger.blocked:
            # Nothing can be merged nor even be written down: inputs wait in their folders.
            self._intake.pause()
        else:
            self._intake.resume()
        if not paused:
            self._go_on(now)
        self._use_curves(self._curves.tick(now, may_calibrate=not paused))
        self._reporting.fault(self._curves.take_fault())
        self._reporting.hanging(self._shared.pool.hanging(self.name, now))
        held = paused or self._intake.state.startswith("watch folder")
        self._silence.tick(now, datetime.now(UTC), held=held)
        if now >= self._next_watermarks:
            self._next_watermarks = now + _WATERMARKS_EVERY
            self.write_watermarks()

    def _paused(self) -> str | None:
        """Why nothing may be published or calibrated now; None if it may."""
        shared = self._shared
        return shared.disk.low(*self._config.outputs, shared.state_dir) or self._ledger.blocked

    def _go_on(self, now: float) -> None:
        """Take up brackets of the ledger that are to be tried again, a part at a time."""
        if self._no_place is not None:
            if now >= self._try_at:
                self._try_at = now + _TRY_EVERY
                record = self._ledger.get(self.name, self._no_place[0])
                if record is not None and record.state == "failed":
                    self._reporting.taken_up(record)
                    self._execute(self._collector.resume(record, now))
                else:
                    self._no_place = None
            return
        if self._deferred:
            self._deferred = False
            self._look_for_rows()
        if not self._rows_left or not self._scheduler.may_read or self._collector.is_full:
            return
        records = self._ledger.to_retry(
            self.name, MAX_ATTEMPTS, after=self._last_row, limit=_ROWS_AT_ONCE
        )
        for record in records:
            self._reporting.taken_up(record)
            self._execute(self._collector.resume(record, now))
            self._last_row = record.slot
        self._rows_left = len(records) == _ROWS_AT_ONCE

    def write_watermarks(self) -> None:
        """Note the folders all of whose files have rows: no later start need read them."""
        if not (self._folders_read or self._folders_skipped):
            return
        if self._ledger.blocked or self._ledger.pending:
            return
        pending = self._collector.unrecorded_folders() | self._scheduler.backlog_folders
        done = {f: mtime for f, mtime in self._folders_read.items() if f not in pending}
        marks = self._folders_skipped | done
        if marks and self._ledger.set_folder_watermarks(self.name, marks):
            self._folders_skipped = {}
            for folder in done:
                del self._folders_read[folder]

    def _execute(self, commands: list[msg.Command]) -> None:
        for command in commands:
            match command:
                case msg.ReadFile():
                    self._scheduler.read(command)
                case msg.MergeBracket():
                    self._merge(command)
                case msg.WriteRecord():
                    self._write(command)
                case msg.DropWork(slot):
                    self._merger.drop(slot)

    def _write(self, command: msg.WriteRecord) -> None:
        record = command.record
        with self._quarantine.other_work():
            self._ledger.record(record)
        if command.amended:
            self._reporting.row_amended(record)
            return
        self._curves.bracket_over(record)
        self._silence.bracket_over(record, time.monotonic(), datetime.now(UTC))
        self._reporting.bracket_over(record, command.next_try)

    def _merge(self, command: msg.MergeBracket) -> None:
        """Have a bracket merged; it waits in the ledger while that may not be."""
        why = self._paused()
        if why is None and self._no_place is not None and self._in_vain >= _MOST_IN_VAIN:
            slot, reason = self._no_place
            why = None if command.slot == slot else reason
        if why is not None:
            self._deferred = True
            self._execute(self._collector.defer(command.slot, f"{WAITS}{why}"))
        elif self._curves.must_wait:
            self._execute(self._collector.defer(command.slot, WAITS_FOR_CURVE))
        else:
            self._scheduler.merge(command)

    def _use_curves(self, changed: bool) -> None:
        """Merge with the curves in use from now on; what waited for one is taken up."""
        if changed:
            self._merger.use_curves(self._curves.curves)
            self._look_for_rows()

    def _look_for_rows(self) -> None:
        """Take up the rows that are to be retried, from the first one on."""
        self._rows_left, self._last_row = True, None

    def snapshot(self) -> dict[str, Any]:
        """Give the camera's state for `status`."""
        return {
            "watch": str(self._config.watch),
            "output": str(self._config.output),
            "watching": self._intake.state,
            "intake": self._intake.facts(),
            "open_brackets": [s.isoformat() for s in self._collector.open_slots()[-5:]],
            "open_count": len(self._collector.open_slots()),
            "paused": self._paused(),
            "no_place": self._no_place and self._no_place[1],
            "backlog": self._scheduler.backlog,
            **self._curves.snapshot(),
            **self._silence.snapshot(time.monotonic(), datetime.now(UTC)),
            "counts": dict(self._collector.counters),
            **self._reporting.snapshot(),
        }


def _watched(config: CameraConfig, ledger: Ledger) -> tuple[CameraConfig, dict[str, int]]:
    """Say up to where the camera's folders are done, or how far back a first start must look."""
    watermarks = ledger.folder_watermarks(config.name)
    if watermarks:
        return config, watermarks
    lookback = ledger.first_lookback(config.name, config.scan.lookback)
    scan = config.scan.model_copy(update={"lookback": lookback})
    return config.model_copy(update={"scan": scan}), watermarks
