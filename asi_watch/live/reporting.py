"""What an operator learns of one camera: lines in the log, and recent health for `status`."""

import logging
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

import numpy as np

from asi_watch.brackets import Exposure, ExposureRule, is_listed
from asi_watch.live.ledger.records import TAKEN, WAITS, WITHOUT_CURVE, BracketRecord
from asi_watch.live.messages import (
    MergeFailed,
    MergeOutcome,
    ProductKept,
    ReadDone,
    ReadOk,
    ScanDone,
    Unusable,
)
from asi_watch.live.workers.pool import Hanging
from asi_watch.logs import event

log = logging.getLogger(__name__)

# Until then a worker may only be waiting for its turn.
_SURELY_HANGING = 75.0
_REMEDY = (
    "is a disk or a network share away? Mounted softerr, or soft with a timeo, it would give"
    " errors, which are tried again"
)
_RECENT = 200
# A slot that no later one exceeds for so long was that of a wrong clock.
_NEWEST_FOR = 3600.0
_HOUR = 3600.0
_MANY = 1 << 30


class Reporting:
    """One event, one line; the latest of what went wrong is kept. Owner thread only.

    Parameters
    ----------
    camera : str
    template : str
        The pattern of the camera's names.
    rule : ExposureRule
        Its `bracket.exposures`.
    """

    def __init__(self, camera: str, template: str, rule: ExposureRule = "auto") -> None:
        self._camera, self._template, self._rule = camera, template, rule
        self.waiting = 0
        """How many brackets wait in the ledger for space or a curve."""
        self._started = time.monotonic()
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._last_error: dict[str, str] | None = None
        self._last_bracket, self._last_exposure = _Newest(), _Newest()
        self._hanging: str | None = None
        self._hanging_logged = False
        self._names, self._duplicates = _Hourly(), _Hourly()
        self._taken, self._unexpected, self._unlisted = _Hourly(), _Hourly(), _Hourly()

    def _event(self, level: int, message: str, **facts: object) -> None:
        event(log, level, message, camera=self._camera, **facts)

    # -- files --------------------------------------------------------------------------------

    def name_ignored(self, path: str, now: float) -> None:
        """A file's name is no exposure's; logged once an hour, with the number of them.

        Parameters
        ----------
        path : str
        now : float
            Monotonic seconds.
        """
        if count := self._names.add(1, now):
            text = "file names do not fit the pattern, such files are ignored"
            facts = {"example": path, "filename": self._template, "names": count}
            self._event(logging.WARNING, text, **facts)

    def read_done(self, message: ReadDone) -> None:
        """A file was read.

        Parameters
        ----------
        message : ReadDone
        """
        outcome = message.outcome
        if isinstance(outcome, ReadOk):
            now = time.monotonic()
            self._exposure(outcome.exposure.timestamp, now)
            self._listed(outcome.exposure, now)
        elif isinstance(outcome, Unusable):
            level, yet = (logging.INFO, " yet") if outcome.may_recover else (logging.WARNING, "")
            text = f"exposure not usable{yet}"
            self._event(level, text, file=message.path, reason=outcome.reason)

    def _exposure(self, timestamp: datetime, now: float) -> None:
        shown = {"timestamp": timestamp.isoformat(), "seen_utc": _utc_now()}
        self._last_exposure.offer(timestamp, shown, now)

    def _listed(self, exposure: Exposure, now: float) -> None:
        unlisted = not is_listed(exposure.exposure_us, self._rule)
        if files := self._unlisted.add(unlisted, now):
            text = "exposure times are not in bracket.exposures; are these and exposure_unit right?"
            facts = {"file": exposure.path, "exposure_us": f"{exposure.exposure_us:.12g}"}
            self._event(logging.WARNING, text, **facts, files=files)

    def scan_done(self, message: ScanDone) -> None:
        """A scan ended.

        Parameters
        ----------
        message : ScanDone
        """
        if message.first or message.files:
            level, seconds = logging.INFO if message.first else logging.DEBUG, message.seconds
            self._event(level, "scan done", files=message.files, seconds=round(seconds, 3))

    def events_dropped(self, count: int) -> None:
        """Events were dropped because the inbox was full.

        Parameters
        ----------
        count : int
        """
        self._event(logging.WARNING, "events dropped, scanning", events=count)

    # -- brackets -----------------------------------------------------------------------------

    def merge_done(self, slot: object, outcome: MergeOutcome) -> None:
        """A merge ended without a row; failures are logged with their row.

        Parameters
        ----------
        slot : datetime
        outcome : MergeOutcome
        """
        if isinstance(outcome, MergeFailed) and outcome.stale:
            self._event(logging.INFO, "exposures are read again", slot=slot, reason=outcome.reason)
        if isinstance(outcome, ProductKept):
            text = "bracket not merged again, its product stands"
            self._event(logging.WARNING, text, slot=slot, reason=outcome.why)

    def bracket_over(self, record: BracketRecord, next_try: float | None) -> None:
        """A bracket's row was written.

        Parameters
        ----------
        record : BracketRecord
        next_try : float or None
            Seconds until it is retried; None: never.
        """
        if _waits(record):
            self._bracket_waits(record)
            return
        now = time.monotonic()
        self._remember(record, now)
        reason = record.reason or ""
        if reason.startswith(TAKEN):
            if brackets := self._taken.add(1, now):
                text = "another camera's products lie in the output folder, they are left alone"
                facts = {"slot": record.slot, "reason": reason, "brackets": brackets}
                self._event(logging.WARNING, text, **facts)
            return
        older = [r for r in record.rejected if r.is_superseded]
        if files := self._duplicates.add(len(older), now):
            text = "two files have one exposure time in one bracket, the newer is merged"
            facts = {"slot": record.slot, "file": older[0].path, "reason": older[0].reason}
            self._event(logging.WARNING, text, **facts, files=files)
        more = record.state == "published" and len(record.inputs) > (record.expected or _MANY)
        if brackets := self._unexpected.add(more and record.revision > 1, now):
            text = "brackets are merged again for exposures that bracket.exposures does not expect"
            exposures = " ".join(f"{e.exposure_us:.12g}" for e in record.inputs)
            facts = {"slot": record.slot, "exposures": exposures, "expected": record.expected}
            self._event(logging.WARNING, text, **facts, brackets=brackets)
        self._log_bracket(record, next_try)

    def _log_bracket(self, record: BracketRecord, next_try: float | None) -> None:
        final = record.state == "failed" and next_try is None
        # Only what was merged just now took its time.
        adopted = record.state == "published" and not record.timings
        self._event(
            _level(record, final),
            f"bracket {record.state}",
            slot=record.slot,
            exposures=len(record.inputs),
            expected=record.expected,
            revision=record.revision if record.revision > 1 else None,
            product=record.products[0] if record.products else None,
            curve=record.curve_id,
            adopted="made before" if adopted else None,
            latency=None if adopted else record.latency,
            attempts=record.attempts if next_try is not None else None,
            next_try=None if next_try is None else f"{next_try:.0f}s",
            not_retried="unless asked for with: asi-watch retry" if final else None,
            left_out=_left_out(record),
            reason=record.reason,
        )

    def _bracket_waits(self, record: BracketRecord) -> None:
        level = logging.DEBUG if self.waiting else logging.WARNING
        self._event(level, "brackets wait in the ledger", slot=record.slot, reason=record.reason)
        self.waiting += 1

    def row_amended(self, record: BracketRecord) -> None:
        """A bracket that is over stays as it is, but another file of it was seen.

        Parameters
        ----------
        record : BracketRecord
        """
        count = len(record.rejected) + record.unlisted
        facts = {"slot": record.slot, "left_out": _left_out(record), "rejected": count}
        self._event(logging.INFO, "row amended", **facts)

    def taken_up(self, record: BracketRecord) -> None:
        """A bracket of the ledger is tried again.

        Parameters
        ----------
        record : BracketRecord
        """
        self.waiting = max(0, self.waiting - _waits(record))

    def _remember(self, record: BracketRecord, now: float) -> None:
        shown = {
            "slot": record.slot.isoformat(),
            "state": record.state,
            "complete": record.complete,
            "exposures": len(record.inputs),
            "latency": record.latency,
            "products": list(record.products),
            "recorded_utc": _utc_now(),
        }
        self._last_bracket.offer(record.slot, shown, now)
        # Live: it became complete while the daemon ran, and was published at once.
        live = record.state == "published" and record.revision == 1
        if live and record.latency is not None and record.latency < now - self._started:
            self._latencies.append(record.latency)
        if record.state != "published":
            self.fault(f"bracket {record.slot:%Y-%m-%d %H:%M:%S} {record.state}: {record.reason}")

    # -- what goes wrong ----------------------------------------------------------------------

    def fault(self, text: str | None) -> None:
        """Something went wrong that is in the log already; shown as the last error.

        Parameters
        ----------
        text : str or None
            None changes nothing.
        """
        if text is not None:
            self._last_error = {"at": _utc_now(), "what": text}

    def hanging(self, found: Hanging | None) -> None:
        """Workers wait for this camera's files; logged once.

        Parameters
        ----------
        found : Hanging or None
            None: they wait no longer.
        """
        if found is None:
            if self._hanging_logged:
                self._event(logging.WARNING, "workers wait no longer")
            self._hanging, self._hanging_logged = None, False
            return
        self._hanging = f"{found.jobs} workers have waited for {found.seconds:.0f} s"
        if not self._hanging_logged and found.seconds > _SURELY_HANGING:
            self._hanging_logged = True
            self.fault(self._hanging)
            text = "workers wait for folders that do not answer, others work instead of them"
            facts = {"workers": found.jobs, "seconds": round(found.seconds), "remedy": _REMEDY}
            self._event(logging.ERROR, text, **facts)

    # -- what is shown ------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return this part of the camera's state."""
        last, now = self._last_exposure, time.monotonic()
        return {
            "last_exposure": last.shown,
            "last_exposure_age": None if last.shown is None else round(now - last.seen_at, 1),
            "last_bracket": self._last_bracket.shown,
            "latency": self._percentiles(),
            "waiting_in_ledger": self.waiting,
            "hanging": self._hanging,
            "last_error": self._last_error,
        }

    def _percentiles(self) -> dict[str, float] | None:
        if not self._latencies:
            return None
        p50, p95, worst = np.percentile(self._latencies, [50, 95, 100])
        return {"p50": round(p50, 3), "p95": round(p95, 3), "max": round(worst, 3)}


class _Newest:
    """What is shown of the newest bracket or exposure: not of the one that was read last."""

    def __init__(self) -> None:
        self.shown: dict[str, Any] | None = None
        self.seen_at = float("-inf")
        self._time: datetime | None = None

    def offer(self, at: datetime, shown: dict[str, Any], now: float) -> None:
        if self._time is None or at >= self._time or now > self.seen_at + _NEWEST_FOR:
            self._time, self.shown, self.seen_at = at, shown, now


class _Hourly:
    """A count that is given out at most once an hour."""

    def __init__(self) -> None:
        self._next, self._count = float("-inf"), 0

    def add(self, count: int, now: float) -> int:
        """Return what has come together since it was given out last; 0: nothing to log now."""
        self._count += count
        if not count or now < self._next:
            return 0
        given, self._count = self._count, 0
        self._next = now + _HOUR
        return given


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _waits(record: BracketRecord) -> bool:
    return record.state == "failed" and (record.reason or "").startswith(WAITS)


def _left_out(record: BracketRecord) -> str | None:
    """Name a file that a bracket lacks, and why."""
    if record.state == "failed" or record.complete:
        return None
    unusable = (r for r in record.rejected if not r.is_superseded)
    return next((f"{r.path}: {r.reason}" for r in unusable), None)


def _level(record: BracketRecord, final: bool) -> int:
    if record.state == "published":
        # A file that cannot be used needs a look; one that never came is the camera's habit. The
        # reason of a published bracket says what makes its product doubtful.
        reason = record.reason or ""
        doubtful = "; " in reason if reason.startswith(WITHOUT_CURVE) else bool(reason)
        sound = _left_out(record) is None and not doubtful
        return logging.INFO if sound else logging.WARNING
    return logging.ERROR if final else logging.WARNING
