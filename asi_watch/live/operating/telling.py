"""What an operator hears of one camera: in the log, and in what `status` shows of late."""

from __future__ import annotations

import logging
import time
from typing import Any

from asi_watch.live.collecting.oddities import Oddities
from asi_watch.live.messages import MergeFailed, MergeOutcome, ReadDone, ScanDone, Unusable
from asi_watch.live.operating.health import CameraHealth
from asi_watch.live.records import PUT_OFF, TAKEN, BracketRecord
from asi_watch.live.workers.pool import Hanging
from asi_watch.logs import event

log = logging.getLogger(__name__)

# Until then it may be another's turn that a worker waits for (see `turns`).
_SURELY_HANGING = 75.0
_REMEDY = (
    "is a disk or a network share away? Mounted softerr, or soft with a timeo, it would give"
    " errors, which are tried again"
)


class Telling:
    """One event, one line; the latest of what went wrong is kept. Owner thread only.

    Parameters
    ----------
    camera : str
    template : str
        The pattern of the camera's names.
    """

    def __init__(self, camera: str, template: str) -> None:
        self._camera = camera
        self._health = CameraHealth()
        self._oddities = Oddities(camera, template)
        self.put_off = 0
        """How many brackets were put off until there is room, or a curve."""
        self._hanging: str | None = None
        self._hanging_told = False

    def inherit(self, earlier: Telling) -> None:
        """Go on where the camera of the same name stopped, over a reload."""
        self._health = earlier._health
        if earlier._oddities.template == self._oddities.template:
            self._oddities = earlier._oddities
        else:
            self._oddities.names_told = earlier._oddities.names_told

    # -- files ------------------------------------------------------------------------------

    def name_ignored(self, path: str, count: int, now: float) -> None:
        """A file's name is no exposure's; `count` of them have been so far."""
        self._oddities.name_ignored(path, count, now)

    def read_done(self, message: ReadDone) -> None:
        """A file was read."""
        outcome = message.outcome
        if isinstance(outcome, Unusable):
            event(
                log,
                logging.INFO if outcome.may_recover else logging.WARNING,
                "exposure not usable" + (" yet" if outcome.may_recover else ""),
                camera=self._camera,
                file=message.path,
                reason=outcome.reason,
            )

    def scan_done(self, message: ScanDone) -> None:
        """A scan ended."""
        if message.first or message.files:
            event(
                log,
                logging.INFO if message.first else logging.DEBUG,
                "scan done",
                camera=self._camera,
                files=message.files,
                seconds=round(message.seconds, 3),
            )

    def events_dropped(self, count: int) -> None:
        """Events were lost for want of room."""
        event(log, logging.WARNING, "events dropped, scanning", camera=self._camera, events=count)

    # -- brackets ---------------------------------------------------------------------------

    def merge_done(self, slot: object, outcome: MergeOutcome) -> None:
        """A merge ended. What fails is told with its row; this is for what gives none."""
        if isinstance(outcome, MergeFailed) and outcome.stale:
            event(
                log,
                logging.INFO,
                "exposures are read again",
                camera=self._camera,
                slot=slot,
                reason=outcome.reason,
            )

    def bracket_over(self, record: BracketRecord, next_try: float | None) -> None:
        """A bracket's row was written; what failed is tried again in `next_try` seconds, if ever.

        One line says all of it: also why a product lacks an exposure.
        """
        if _is_put_off(record):
            self._bracket_put_off(record)
            return
        now = time.monotonic()
        self._health.bracket_over(record, now)
        if (record.reason or "").startswith(TAKEN):
            self._oddities.place_taken(record, now)
            return
        self._oddities.bracket_over(record, now)
        failed = record.state == "failed"
        given_up = failed and next_try is None
        event(
            log,
            _level(record, given_up),
            f"bracket {record.state}",
            camera=self._camera,
            slot=record.slot,
            exposures=len(record.inputs),
            expected=record.expected,
            revision=record.revision if record.revision > 1 else None,
            product=record.products[0] if record.products else None,
            curve=record.curve_id,
            latency=record.latency,
            attempts=record.attempts if next_try is not None else None,
            next_try=None if next_try is None else f"{next_try:.0f}s",
            given_up="until asked for with: asi-watch retry" if given_up else None,
            left_out=_left_out(record),
            reason=record.reason,
        )

    def row_amended(self, record: BracketRecord) -> None:
        """A bracket that is over stays as it is, but another file of it was seen."""
        event(
            log,
            logging.INFO,
            "row amended",
            camera=self._camera,
            slot=record.slot,
            left_out=_left_out(record),
        )

    def taken_up(self, record: BracketRecord) -> None:
        """A bracket of the ledger is tried again."""
        self.put_off = max(0, self.put_off - _is_put_off(record))

    def _bracket_put_off(self, record: BracketRecord) -> None:
        event(
            log,
            logging.DEBUG if self.put_off else logging.WARNING,
            "brackets wait in the ledger",
            camera=self._camera,
            slot=record.slot,
            reason=record.reason,
        )
        self.put_off += 1

    # -- what goes wrong --------------------------------------------------------------------

    def fault(self, text: str | None) -> None:
        """Something went wrong that the log has been told of already."""
        if text is not None:
            self._health.error(text)

    def silence(self, text: str | None) -> None:
        """The watch folder gives no answer."""
        if text is not None:
            self._health.error(text)
            event(log, logging.ERROR, "watch folder does not answer", camera=self._camera)

    def hanging(self, found: Hanging | None) -> None:
        """Tell once that workers wait for this camera's files, and that they do no longer."""
        if found is None:
            if self._hanging_told:
                event(log, logging.WARNING, "workers wait no longer", camera=self._camera)
            self._hanging, self._hanging_told = None, False
            return
        self._hanging = f"{found.jobs} workers have waited for {found.seconds:.0f} s"
        if not self._hanging_told and found.seconds > _SURELY_HANGING:
            self._hanging_told = True
            self._health.error(self._hanging)
            event(
                log,
                logging.ERROR,
                "workers wait for folders that do not answer, others work in their place",
                camera=self._camera,
                workers=found.jobs,
                seconds=round(found.seconds),
                remedy=_REMEDY,
            )

    # -- what is shown ----------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Give this part of the camera's state."""
        return {
            "last_bracket": self._health.last,
            "latency": self._health.latency(),
            "hanging": self._hanging,
            "last_error": self._health.last_error,
        }


def _is_put_off(record: BracketRecord) -> bool:
    return record.state == "failed" and (record.reason or "").startswith(PUT_OFF)


def _left_out(record: BracketRecord) -> str | None:
    """Name a file that a bracket lacks, and why."""
    if record.state == "failed" or record.complete:
        return None
    unusable = (r for r in record.rejected if not r.is_superseded)
    return next((f"{r.path}: {r.reason}" for r in unusable), None)


def _level(record: BracketRecord, given_up: bool) -> int:
    if record.state == "published":
        # What came and cannot be used needs a look; what never came is the camera's habit.
        return logging.INFO if _left_out(record) is None else logging.WARNING
    return logging.ERROR if given_up else logging.WARNING
