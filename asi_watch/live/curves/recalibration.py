"""When a camera's curve is calibrated, from which brackets, and the process that does it."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asi_watch.calibrate_brackets import BracketFiles
from asi_watch.config.model import CameraConfig
from asi_watch.errors import AsiWatchError
from asi_watch.live.curves.gate import (
    FEWEST_BRACKETS,
    CalibrationRequest,
    CalibrationVerdict,
    calibrate_candidate,
)
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.live.messages import CalibrationDone, Inbox
from asi_watch.logs import event
from asi_watch.processes import spawn_pool

log = logging.getLogger(__name__)

_TIME_LIMIT = 900.0
# Without any curve a few brackets give a usable first one; it is judged again later.
_BRACKETS_FOR_FIRST = 3
_RETRY_AFTER = 60.0
# A curve is made from brackets spread over the last days: so many times as many as are used are
# to choose from, as the dark, the damaged and those whose files are gone are passed over.
_SPREAD, _TO_CHOOSE_FROM = timedelta(days=2), 4
_WHILE_PROVISIONAL = 900.0

Present = Mapping[int, tuple[str, bool]]


class Recalibration:
    """Starts calibrations of one camera; each reports to the inbox. Owner thread only.

    Parameters
    ----------
    camera : CameraConfig
    ledger : Ledger
    folder : Path
        Where curves of this camera are kept.
    inbox : Inbox
        Where the outcome goes.
    now : float
        Monotonic time.
    """

    def __init__(
        self, camera: CameraConfig, ledger: Ledger, folder: Path, inbox: Inbox, now: float
    ) -> None:
        self._camera, self._ledger, self._folder, self._inbox = camera, ledger, folder, inbox
        self._pool: ProcessPoolExecutor | None = None
        self._deadline = float("inf")
        every = camera.recalibrate.every
        self._every = float("inf") if every is None else every.total_seconds()
        # Restarts must not postpone the next calibration for ever; and the wall clock may have
        # jumped: what makes no sense counts as nothing.
        self._due = now + self._every - min(max(_since_last(ledger, camera), 0.0), self._every)
        # With `never` an operator's curve is the only one; without one there must be a first.
        only_operators = every is None and camera.response is not None
        self._first_due = float("inf") if only_operators else now
        self._may_be_first = True
        self._asked = False
        self._started, self._turn = now, 0

    @property
    def running(self) -> bool:
        """True while a calibration is under way."""
        return self._pool is not None

    def bracket_over(self, record: BracketRecord) -> None:
        """Take note of a bracket's row: whether there may be a first curve to calibrate."""
        self._may_be_first |= record.complete and record.lacks_curve

    def ask(self) -> int:
        """Have the next tick calibrate whatever is due; return from how many brackets.

        AsiWatchError if there are none, or a calibration is under way.
        """
        if self.running:
            raise AsiWatchError("a calibration is under way; ask again when it is done")
        brackets = self._recent()
        if not brackets:
            raise AsiWatchError("there are no complete brackets yet to calibrate from")
        self._asked = True
        return len(brackets)

    def _recent(self) -> list[BracketRecord]:
        """Return the brackets to calibrate from when an operator asks: published, or without."""
        name, wanted = self._camera.name, self._camera.recalibrate.brackets
        return self._published() or self._ledger.recent_complete(name, wanted, without_curve=True)

    def _published(self) -> list[BracketRecord]:
        """Return published brackets to choose from, spread over the last days."""
        most = _TO_CHOOSE_FROM * max(self._camera.recalibrate.brackets, FEWEST_BRACKETS)
        return self._ledger.recent_complete(self._camera.name, most, spread=_SPREAD)

    def tick(self, present: Present, now: float, *, may_start: bool) -> None:
        """Start a calibration that is due; end one that takes too long.

        Parameters
        ----------
        present : mapping of int to (str, bool)
            For each number of channels the file of the curve in use, and whether it is provisional.
        now : float
            Monotonic time.
        may_start : bool
        """
        if self.running:
            if now > self._deadline:
                self._deadline = float("inf")
                text = "calibration takes too long, ended"
                event(log, logging.WARNING, text, camera=self._camera.name, seconds=_TIME_LIMIT)
                self._kill()
            return
        # A provisional curve is replaced as soon as better brackets are there.
        if any(provisional for _, provisional in present.values()):
            self._due = min(self._due, self._started + _WHILE_PROVISIONAL)
        if may_start and (brackets := self._brackets_due(now)):
            self._started, self._due = now, now + self._every
            self._first_due = now + _RETRY_AFTER
            self._deadline = now + _TIME_LIMIT
            manual, self._asked = self._asked, False
            self._start(brackets, present, manual)

    def _brackets_due(self, now: float) -> list[BracketRecord]:
        """Return the brackets to calibrate from now; none while no calibration is due.

        Those that no curve fits come first.
        """
        if self._asked:
            return self._recent()
        name, wanted = self._camera.name, self._camera.recalibrate.brackets
        if self._may_be_first and now >= self._first_due:
            brackets = self._ledger.recent_complete(name, wanted, without_curve=True)
            self._may_be_first = len(brackets) >= min(wanted, _BRACKETS_FOR_FIRST)
            if self._may_be_first:
                return brackets
        if now < self._due:
            return []
        self._due = now + _RETRY_AFTER
        return self._published()

    def _whose_turn(self, present: Present, brackets: list[BracketRecord]) -> int | None:
        """Choose the number of channels to calibrate for; None: what most brackets have."""
        if len(present) < 2 or any(bracket.lacks_curve for bracket in brackets):
            return None
        self._turn += 1
        hasty = [channels for channels, (_, provisional) in present.items() if provisional]
        turns = sorted(hasty or present)
        return turns[self._turn % len(turns)]

    def _start(self, brackets: list[BracketRecord], present: Present, manual: bool) -> None:
        camera, root = self._camera, self._camera.watch
        request = CalibrationRequest(
            camera=camera.name,
            brackets=tuple(
                BracketFiles(
                    tuple(str(root / e.path) for e in bracket.inputs),
                    tuple(e.exposure_us for e in bracket.inputs),
                    bracket.slot.isoformat(),
                )
                for bracket in brackets
            ),
            folder=str(self._folder),
            present=tuple(path for path, _ in present.values()),
            channels=self._whose_turn(present, brackets),
            most_brackets=camera.recalibrate.brackets,
            low_clip=camera.merge.low_clip,
            high_clip=camera.merge.high_clip,
            sky_disc=camera.calibration_disc,
            manual=manual,
        )
        event(log, logging.INFO, "calibration started", camera=camera.name, brackets=len(brackets))
        self._pool = spawn_pool()
        try:
            future = self._pool.submit(calibrate_candidate, request)
        except OSError as error:  # too many processes, no memory
            reason = f"no process can be started ({error.strerror or error})"
            self._inbox.put(CalibrationDone(camera.name, None, reason))
            return
        future.add_done_callback(self._report)

    def _report(self, future: Future[CalibrationVerdict]) -> None:
        """Pass on an outcome; called in a thread of the pool."""
        if future.cancelled():
            return
        error = future.exception()
        verdict = future.result() if error is None else None
        reason = f"{type(error).__name__}: {error}"
        if verdict is not None:
            reason = verdict.reason
        elif isinstance(error, BrokenProcessPool):
            reason = "the calibration process was ended"
        elif isinstance(error, AsiWatchError):
            reason = str(error)
        self._inbox.put(CalibrationDone(self._camera.name, verdict, reason))

    def finished(self) -> None:
        """Note that the outcome has reached the owner."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        """End a calibration under way."""
        self._kill()
        self.finished()

    def _kill(self) -> None:
        # What decodes pictures of strangers may never return by itself.
        processes = getattr(self._pool, "_processes", None) or {}
        for process in list(processes.values()):
            process.kill()


def _since_last(ledger: Ledger, camera: CameraConfig) -> float:
    decisions = ledger.curves(camera.name)
    if not decisions:
        return 0.0
    return (datetime.now(UTC) - datetime.fromisoformat(decisions[-1].decided_utc)).total_seconds()
