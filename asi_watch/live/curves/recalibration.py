"""When a camera's curve is calibrated, from which brackets, and the process that does it."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from asi_watch.calibrate_brackets import BracketFiles
from asi_watch.config.model import CameraConfig
from asi_watch.errors import AsiWatchError
from asi_watch.live.curves.gate import CalibrationRequest, CalibrationVerdict, calibrate_candidate
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.live.messages import CalibrationDone, Inbox
from asi_watch.logs import event
from asi_watch.processes import spawn_pool

log = logging.getLogger(__name__)

_TIME_LIMIT = 900.0
# Without any curve a few brackets give a usable first one; it is judged again later.
_BRACKETS_FOR_FIRST = 3
_RETRY_AFTER_FAILURE = 60.0


class Recalibration:
    """Starts calibrations of one camera; each reports to the inbox. Owner thread only.

    Parameters
    ----------
    camera : CameraConfig
    folder : Path
        Where curves of this camera are kept.
    inbox : Inbox
        Where the outcome goes.
    now : float
        Monotonic time.
    since_last : float
        Seconds since the last calibration, so that restarts do not postpone the next one for ever.
    """

    def __init__(
        self, camera: CameraConfig, folder: Path, inbox: Inbox, now: float, since_last: float = 0.0
    ) -> None:
        self._camera, self._folder, self._inbox = camera, folder, inbox
        every = camera.recalibrate.every
        self._every = None if every is None else every.total_seconds()
        self._pool: ProcessPoolExecutor | None = None
        self._deadline = float("inf")
        # The wall clock may have jumped: what makes no sense counts as nothing.
        passed = min(max(since_last, 0.0), self._every or 0.0)
        self._due = float("inf") if self._every is None else now + self._every - passed
        # With `never` an operator's curve is the only one; without one there must be a first.
        pinned = every is None and camera.response is not None
        self._first_due = float("inf") if pinned else now

    @property
    def running(self) -> bool:
        """True while a calibration is under way."""
        return self._pool is not None

    def is_due(
        self, published: int, without_curve: int, now: float
    ) -> Literal["first", "next"] | None:
        """Tell whether a first curve, or the next one, should be calibrated now.

        Parameters
        ----------
        published, without_curve : int
            Complete brackets that are published, and those that no curve fits.
        now : float
            Monotonic time.
        """
        if self.running:
            return None
        enough = min(self._camera.recalibrate.brackets, _BRACKETS_FOR_FIRST)
        if without_curve >= enough and now >= self._first_due:
            return "first"
        return "next" if published and now >= self._due else None

    def start(
        self, brackets: Sequence[BracketRecord], present: tuple[str, ...], now: float
    ) -> None:
        """Start a calibration in a process of its own.

        Parameters
        ----------
        brackets : sequence of BracketRecord
        present : tuple of str
            Files of the curves in use.
        now : float
            Monotonic time.
        """
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
            present=present,
            low_clip=camera.merge.low_clip,
            high_clip=camera.merge.high_clip,
            sky_disc=camera.calibration_disc,
        )
        if self._every is not None:
            self._due = now + self._every
        self._first_due = now + _RETRY_AFTER_FAILURE
        self._deadline = now + _TIME_LIMIT
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
        name, error = self._camera.name, future.exception()
        if error is None:
            verdict = future.result()
            self._inbox.put(CalibrationDone(name, asdict(verdict), verdict.reason))
            return
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, BrokenProcessPool):
            reason = "the calibration process was ended"
        elif isinstance(error, AsiWatchError):
            reason = str(error)
        self._inbox.put(CalibrationDone(name, None, reason))

    def tick(self, now: float) -> None:
        """End a calibration that takes too long; its process then reports that it was ended.

        Parameters
        ----------
        now : float
            Monotonic time.
        """
        if self.running and now > self._deadline:
            self._deadline = float("inf")
            text = "calibration takes too long, ended"
            event(log, logging.WARNING, text, camera=self._camera.name, seconds=_TIME_LIMIT)
            self._kill()

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
