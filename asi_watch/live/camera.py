"""One camera in the running daemon: everything of it that the owner thread steers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Unpack

from asi_watch.config.model import CameraConfig
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.collecting.collector import Collector
from asi_watch.live.collecting.taking_up import TakingUp
from asi_watch.live.curves.curve_keeper import CurveKeeper
from asi_watch.live.ledger.ledger import Which
from asi_watch.live.messages import (
    CalibrationDone,
    Command,
    DropWork,
    Found,
    MergeBracket,
    MergeDone,
    ReadDone,
    ReadFile,
    ScanDone,
    WriteRecord,
)
from asi_watch.live.operating.telling import Telling
from asi_watch.live.records import PUT_OFF, BracketRecord
from asi_watch.live.watching.intake import Intake
from asi_watch.live.workers.arrivals import Arrivals
from asi_watch.live.workers.at_work import CarefulWork
from asi_watch.live.workers.backlog import WaitingFile
from asi_watch.live.workers.jobs import CameraJobs
from asi_watch.live.workers.merger import Merger
from asi_watch.live.workers.workplace import Workplace
from asi_watch.logs import event

log = logging.getLogger(__name__)

# With so many brackets open none is taken up from the ledger.
_MOST_OPEN = 1000
# The owner looks five times a second; when it has not for so long, it was kept from it.
_HELD_UP = 0.5


class Camera:
    """Carries out what the collector decides, and writes the ledger's rows.

    Owner thread only.

    Parameters
    ----------
    settings : CameraConfig
    place : Workplace
    paused : callable
        Says why nothing may be published or calibrated now; None if it may.
    now : float
        Monotonic time.
    """

    def __init__(
        self,
        settings: CameraConfig,
        place: Workplace,
        paused: Callable[[], str | None],
        now: float,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self._ledger = ledger = place.ledger
        self._at_work = place.at_work
        self._ticked_at = float("inf")
        self._paused = paused
        self._pool = place.pool
        self._telling = Telling(self.name, settings.pattern.template)
        self._arrivals = Arrivals(settings, place.order, self._admit)
        self._taking_up = TakingUp(self.name, ledger, self._resume)
        self._inbox = inbox = place.inbox
        self._merger = Merger(settings, place.budget, place.buffers)
        self._work = CarefulWork(
            self.name,
            settings.watch,
            place.at_work,
            self._merger.read,
            self._merger.merge,
        )
        self._collector = Collector(settings, ledger)
        self._intake = Intake(settings, {}, inbox)
        self._curves = CurveKeeper(
            settings, ledger, inbox, place.curves_dir / self.name, self._use_curve, now
        )
        self._jobs = CameraJobs(
            self.name,
            self._work,
            self._arrivals,
            place.pool,
            inbox,
            paused,
            self._curves.hold,
            self._curves.spare,
            self._put_off,
            self._merger.drop,
        )
        self._curves.start()

    # -- life -------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Clean up after an earlier life, take up what it left, begin to watch."""
        if swept := self._merger.clean_up():
            event(log, logging.INFO, "temporary files removed", camera=self.name, files=swept)
        for record in reversed(self._ledger.recent_complete(self.name, 5)):
            self._collector.expected.observe(e.exposure_us for e in record.inputs)
        self._taking_up.step(now)
        self._intake.start()

    def inherit(self, earlier: Camera) -> None:
        """Go on counting where the camera of the same name stopped, over a reload."""
        self._collector.counters = earlier._collector.counters
        self._telling.inherit(earlier._telling)
        self._curves.inherit(earlier._curves)

    def save_curve(self) -> None:
        """Write the curve in use again whose file was deleted."""
        self._curves.save()

    def stop_intake(self) -> None:
        """Take in nothing more."""
        self._intake.stop()
        self._curves.stop()

    # -- messages ---------------------------------------------------------------------------

    def found(self, message: Found) -> None:
        """Files were seen."""
        self._arrivals.found(message, self._collector)
        for file in message.files:
            if self._collector.slot_of_name(file.path) is None:
                ignored = self._collector.counters.names_ignored
                self._telling.name_ignored(file.path, ignored, message.at)

    def _admit(self, file: WaitingFile) -> None:
        self._execute(self._collector.found(file.path, file.signature, file.settled, file.at))

    def read_done(self, message: ReadDone, now: float) -> None:
        """A file was read."""
        self._arrivals.reading -= 1
        self._telling.read_done(message)
        self._execute(self._collector.read_done(message.slot, message.path, message.outcome, now))
        self._arrivals.feed()

    def merge_done(self, message: MergeDone, now: float) -> None:
        """A merge ended."""
        self._telling.merge_done(message.slot, message.outcome)
        self._jobs.merge_ended(message.outcome)
        self._execute(self._collector.merge_done(message.slot, message.outcome, now))

    def scan_done(self, message: ScanDone) -> None:
        """A scan ended."""
        self._telling.scan_done(message)

    def calibration_done(self, message: CalibrationDone) -> None:
        """A calibration ended: swap the curve, or say why not."""
        self._telling.fault(self._curves.calibration_done(message))

    def events_dropped(self, count: int) -> None:
        """Events were lost for want of room: look at the folder itself."""
        self._telling.events_dropped(count)
        self._intake.request_scan()

    def tick(self, now: float) -> None:
        """Time has passed."""
        away, self._ticked_at = now - self._ticked_at, now
        if away > _HELD_UP:
            # A host that took the cores away, a disk that hung: the camera may have been as still,
            # and what it wrote lies in queues. That is no waiting in vain.
            self._collector.extend_grace(away)
        self._execute(self._collector.due(now))
        self._arrivals.feed()
        waiting_room = self._jobs.has_room and self._curves.has_room
        if waiting_room and self._arrivals.has_room and len(self._collector) < _MOST_OPEN:
            self._taking_up.step(now)
        paused = self._paused() is not None
        if not paused and self._jobs.release(now):
            self._taking_up.look_again()
        self._hold_back(not waiting_room and self._ledger.owed > 0)
        self._curves.tick(now, may_calibrate=not paused)
        self._telling.fault(self._curves.take_fault())
        self._telling.hanging(self._pool.hanging(self.name, now))

    def retry(self, slots: Sequence[datetime], **which: Unpack[Which]) -> list[datetime]:
        """Try brackets again (see `Ledger.ask_again`); returns their slots.

        Raises
        ------
        LedgerError
            If the wish cannot be written down.
        """
        return self._taking_up.ask_again(slots, **which)

    def _put_off(self, command: MergeBracket, why: str) -> bool:
        """Leave a bracket that waits to its row; False if no row can be written either."""
        if self._ledger.owed:
            return False
        self._execute(self._collector.defer(command.slot, PUT_OFF + why))
        return True

    def _hold_back(self, held_back: bool) -> None:
        """Take in nothing more while nothing can be merged nor even written down."""
        if held_back:
            self._intake.pause()
        else:
            self._intake.resume()
        if missed := self._arrivals.hold_back(held_back):
            self.events_dropped(missed)

    def _resume(self, record: BracketRecord, now: float) -> None:
        if record.attempts == 0:
            # Somebody asked for it: a bracket that has never been tried waits for no retry.
            self._work.forgive(record.slot)
        self._telling.taken_up(record)
        self._execute(self._collector.resume(record, now))

    # -- commands ---------------------------------------------------------------------------

    def _execute(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case ReadFile():
                    self._jobs.read(command)
                case MergeBracket():
                    self._jobs.merge(command)
                case WriteRecord():
                    self._write(command)
                case DropWork(slot):
                    self._merger.drop(slot)

    def _write(self, command: WriteRecord) -> None:
        record = command.record
        with self._at_work.recording(self.name, record.slot):
            self._ledger.record(record)
        if command.amended:
            self._telling.row_amended(record)
            return
        self._curves.bracket_over(record)
        self._telling.bracket_over(record, command.next_try)

    def _use_curve(self, curve: ResponseCurve, waited: list[MergeBracket]) -> None:
        self._merger.use_curve(curve)
        self._taking_up.look_again()
        for command in waited:
            # What was begun without a curve is begun again.
            self._merger.drop(command.slot)
            self._jobs.merge(command)

    # -- what is shown ----------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Give the camera's state for `status`."""
        return {
            "watch": str(self.settings.watch),
            "output": str(self.settings.output),
            "watching": self._intake.state,
            "intake": self._intake.facts(),
            "open_brackets": [s.isoformat() for s in self._collector.open_slots()[-5:]],
            "open_count": len(self._collector.open_slots()),
            "paused": self._paused(),
            "waiting_for_room": self._jobs.held,
            "waiting_in_ledger": self._telling.put_off,
            "backlog": self._arrivals.waiting,
            **self._curves.snapshot(),
            "counts": self._collector.counters.as_dict(),
            "totals": self._ledger.totals(self.name),
            **self._telling.snapshot(),
        }
