"""What an operator learns of one camera: lines in the log, and recent health for `status`."""

import logging
import re
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

import numpy as np

from asi_watch.brackets import BY_NAME, ExposureTimes, is_listed
from asi_watch.live import messages as msg
from asi_watch.live.ledger.records import TAKEN, WAITS, WITHOUT_CURVE, BracketRecord
from asi_watch.live.workers.pool import Hanging
from asi_watch.logs import event
from asi_watch.merge_bracket import Failed

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
_MOST_REMARKS = 100


class Reporting:
    """One event, one line; the latest of what went wrong is kept. Owner thread only.

    Parameters
    ----------
    camera : str
    template : str
        The pattern of the camera's names.
    times : ExposureTimes
        Its `bracket.exposures`.
    """

    def __init__(self, camera: str, template: str, times: ExposureTimes = BY_NAME) -> None:
        self._camera, self._template, self._times = camera, template, times
        self.waiting = 0
        """How many brackets wait in the ledger for space or a curve."""
        self._waits_for: str | None = None
        self._started = time.monotonic()
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._last_error: dict[str, str] | None = None
        self._last_bracket, self._last_exposure = _Newest(), _Newest()
        self._hanging: str | None = None
        self._hanging_logged = False
        self._counts: dict[str, tuple[float, int]] = {}
        self._remarks: dict[str, float] = {}
        self._not_taken: dict[str, Any] | None = None
        self._misfits: dict[str, Any] | None = None

    def _event(self, level: int, message: str, **facts: object) -> None:
        event(log, level, message, camera=self._camera, **facts)

    def _hourly(self, now: float, count: int, text: str, unit: str, **facts: object) -> None:
        """Warn of what is met again and again at most once an hour, with the number met."""
        due, met = self._counts.get(text, (now, 0))
        if count and now >= due:
            self._event(logging.WARNING, text, **facts, **{unit: met + count})
            self._counts[text] = now + _HOUR, 0
        elif count:
            self._counts[text] = due, met + count

    def name_ignored(self, path: str, now: float) -> None:
        """A file's name is no exposure's.

        Parameters
        ----------
        path : str
        now : float
            Monotonic seconds.
        """
        text = (
            "file names do not fit the pattern, such files are ignored; `asi-watch check` says what"
            " would take them"
        )
        self._misfits = {"files": (self._misfits or {"files": 0})["files"] + 1, "example": path}
        self._hourly(now, 1, text, "names", example=path, filename=self._template)

    def read_done(self, message: msg.ReadDone) -> None:
        """A file was read.

        Parameters
        ----------
        message : ReadDone
        """
        outcome = message.outcome
        if isinstance(outcome, msg.ReadOk):
            self._exposure(outcome.exposure.timestamp, time.monotonic())
            time_us, times = outcome.exposure.nominal_us, self._times
            text = "exposure times are not in bracket.exposures; are these and exposure_unit right?"
            # Said once: the camera may use other times by night, on purpose.
            if text not in self._counts and not is_listed(time_us, times.rule, times.tolerance):
                self._counts[text] = float("inf"), 0
                facts = {"file": message.path, "exposure_us": f"{time_us:.12g}"}
                self._event(logging.WARNING, text, **facts)
        elif isinstance(outcome, msg.Unusable):
            level, yet = (logging.INFO, " yet") if outcome.may_recover else (logging.WARNING, "")
            text = f"exposure not usable{yet}"
            self._event(level, text, file=message.path, reason=outcome.reason)

    def _exposure(self, timestamp: datetime, now: float) -> None:
        shown = {"timestamp": timestamp.isoformat(), "seen_utc": _utc_now()}
        self._last_exposure.offer(timestamp, shown, now)

    def scan_done(self, message: msg.ScanDone) -> None:
        """A scan ended.

        Parameters
        ----------
        message : ScanDone
        """
        if message.first or message.files:
            level, seconds = logging.INFO if message.first else logging.DEBUG, message.seconds
            self._event(level, "scan done", files=message.files, seconds=round(seconds, 3))
        text = (
            "no file has an extension that is in extensions; `asi-watch check` says what to write"
        )
        if message.not_taken and text not in self._counts:
            self._counts[text] = float("inf"), 0
            self._event(logging.WARNING, text, files=message.not_taken, example=message.example)
        self._not_taken = None
        if message.not_taken:
            self._not_taken = {"files": message.not_taken, "example": message.example}

    def events_dropped(self, count: int) -> None:
        """So many events were dropped because the inbox was full."""
        self._event(logging.WARNING, "events dropped, scanning", events=count)

    def merge_done(self, slot: datetime, outcome: msg.MergeOutcome) -> None:
        """A merge ended without a row; failures are logged with their row.

        Parameters
        ----------
        slot : datetime
        outcome : MergeOutcome
        """
        if isinstance(outcome, Failed) and outcome.files:
            self._event(logging.INFO, "exposures are read again", slot=slot, reason=outcome.reason)
        if isinstance(outcome, msg.ProductKept):
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
            # One of them is tried again every few seconds.
            known = self.waiting or record.reason == self._waits_for
            level, self._waits_for = logging.DEBUG if known else logging.WARNING, record.reason
            text = "brackets wait in the ledger"
            self._event(level, text, slot=record.slot, reason=record.reason)
            self.waiting += 1
            return
        now = time.monotonic()
        self._remember(record, now)
        if (record.reason or "").startswith(TAKEN):
            text = "another camera's products lie in the output folder, they are left alone"
            facts = {"slot": record.slot, "reason": record.reason}
            self._hourly(now, 1, text, "brackets", **facts)
            return
        self._log_hourly(record, now)
        self._log_bracket(record, next_try, now)

    def _log_hourly(self, record: BracketRecord, now: float) -> None:
        if older := [r for r in record.rejected if r.is_superseded]:
            text = "two files have one exposure time in one bracket, the newer is merged"
            facts = {"slot": record.slot, "file": older[0].path, "reason": older[0].reason}
            self._hourly(now, len(older), text, "files", **facts)
        more = record.expected is not None and len(record.inputs) > record.expected
        if more and record.state == "published" and record.revision > 1:
            text = "brackets are merged again for exposures that bracket.exposures does not expect"
            exposures = " ".join(f"{e.exposure_us:.12g}" for e in record.inputs)
            facts = {"slot": record.slot, "exposures": exposures, "expected": record.expected}
            self._hourly(now, 1, text, "brackets", **facts)

    def _log_bracket(self, record: BracketRecord, next_try: float | None, now: float) -> None:
        final = record.state == "failed" and next_try is None
        # Only what was merged just now took its time.
        adopted = record.state == "published" and not record.timings
        self._event(
            self._level(record, final, now),
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

    def _level(self, record: BracketRecord, final: bool, now: float) -> int:
        if record.state != "published":
            return logging.ERROR if final else logging.WARNING
        # A file that cannot be used needs a look; one that never came is the camera's habit.
        if _left_out(record) is not None:
            return logging.WARNING
        # The reason of a published bracket says what makes its product doubtful. What holds for
        # every bracket of a camera, but for the figures, needs a look once an hour.
        remark = re.sub(r"[\d.]+", "", (record.reason or "").removeprefix(WITHOUT_CURVE))
        if not remark or (record.lacks_curve and ";" not in remark):
            return logging.INFO
        if now < self._remarks.get(remark, now):
            return logging.INFO
        if len(self._remarks) >= _MOST_REMARKS:
            self._remarks.clear()
        self._remarks[remark] = now + _HOUR
        return logging.WARNING

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

    def fault(self, text: str | None) -> None:
        """Show as the last error what is in the log already; None changes nothing.

        Parameters
        ----------
        text : str or None
        """
        if text is not None:
            self._last_error = {"at": _utc_now(), "what": text}

    def hanging(self, found: Hanging | None) -> None:
        """Workers wait for this camera's files, or (None) wait no longer; logged once.

        Parameters
        ----------
        found : Hanging or None
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

    def snapshot(self) -> dict[str, Any]:
        """Return this part of the camera's state."""
        last, latencies = self._last_exposure, None
        if self._latencies:
            found = np.percentile(self._latencies, [50, 95, 100]).round(3).tolist()
            latencies = dict(zip(("p50", "p95", "max"), found, strict=True))
        age = None if last.shown is None else round(time.monotonic() - last.seen_at, 1)
        return {
            "not_taken": self._not_taken or (None if last.shown else self._misfits),
            "last_exposure": last.shown,
            "last_exposure_age": age,
            "last_bracket": self._last_bracket.shown,
            "latency": latencies,
            "waiting_in_ledger": self.waiting,
            "hanging": self._hanging,
            "last_error": self._last_error,
        }


class _Newest:
    """What is shown of the newest bracket or exposure: not of the one that was read last."""

    def __init__(self) -> None:
        self.shown: dict[str, Any] | None = None
        self.seen_at = float("-inf")
        self._time: datetime | None = None

    def offer(self, at: datetime, shown: dict[str, Any], now: float) -> None:
        if self._time is None or at >= self._time or now > self.seen_at + _NEWEST_FOR:
            self._time, self.shown, self.seen_at = at, shown, now


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
