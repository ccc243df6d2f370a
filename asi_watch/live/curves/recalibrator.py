"""Periodic recalibration of one camera: when, from what, and the process that does it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from asi_watch.brackets import Exposure
from asi_watch.hdr.merging import MergeSettings
from asi_watch.live.messages import CalibrationDone, Inbox
from asi_watch.logs import event

log = logging.getLogger(__name__)

_WORKER = [sys.executable, "-P", "-m", "asi_watch.live.curves.calibration_worker"]
_TIME_LIMIT = 900.0
# Without any curve, a few brackets give a usable first one; it is judged anew later.
_BRACKETS_FOR_FIRST = 3
_RETRY_AFTER_FAILURE = 60.0


class Recalibrator:
    """Starts calibrations of one camera and passes on their outcome.

    All methods but the waiting thread's belong to the daemon's owner thread.

    Parameters
    ----------
    camera : str
    root : Path
        The camera's watch folder, which paths of exposures are relative to.
    folder : Path
        Where curves of this camera are kept.
    every : float or None
        Seconds between calibrations; None: never, once there is a curve.
    brackets : int
        How many of the most recent complete brackets take part.
    merge : MergeSettings
        Clips of the codes.
    inbox : Inbox
        Where the outcome goes.
    now : float
        Monotonic time.
    since_last : float
        Seconds since the last calibration, so that restarts do not put the next one off for ever.
    sky_disc : "auto", (x, y, radius) or None
        Where samples are taken from.
    """

    def __init__(
        self,
        camera: str,
        root: Path,
        folder: Path,
        every: float | None,
        brackets: int,
        merge: MergeSettings,
        inbox: Inbox,
        now: float,
        since_last: float = 0.0,
        sky_disc: Literal["auto"] | tuple[float, float, float] | None = "auto",
    ) -> None:
        self._camera = camera
        self._root = root
        self._folder = folder
        self._every = every
        self._brackets = brackets
        self._merge = merge
        self._sky_disc = sky_disc
        self._inbox = inbox
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        # The wall clock may have jumped: what makes no sense counts as nothing.
        passed = min(max(since_last, 0.0), every or 0.0)
        self._due = float("inf") if every is None else now + every - passed
        self._first_due = now

    @property
    def running(self) -> bool:
        """True while a calibration is under way."""
        return self._thread is not None

    def wants(self, has_curve: bool, complete_brackets: int, now: float) -> bool:
        """Tell whether a calibration should start now.

        Parameters
        ----------
        has_curve : bool
        complete_brackets : int
            How many complete brackets there are to take samples from.
        now : float
            Monotonic time.
        """
        if self.running:
            return False
        if not has_curve:
            enough = complete_brackets >= min(self._brackets, _BRACKETS_FOR_FIRST)
            return enough and now >= self._first_due
        return complete_brackets >= 1 and now >= self._due

    @property
    def brackets_wanted(self) -> int:
        """How many brackets a calibration asks for."""
        return self._brackets

    def start(
        self, brackets: Sequence[Sequence[Exposure]], present: Path | None, now: float
    ) -> None:
        """Start a calibration in a process of its own."""
        job = {
            "camera": self._camera,
            "brackets": [[[str(self._root / e.path), e.exposure_us] for e in b] for b in brackets],
            "present": None if present is None else str(present),
            "folder": str(self._folder),
            "low_clip": self._merge.low_clip,
            "high_clip": self._merge.high_clip,
            "sky_disc": self._sky_disc,
        }
        if self._every is not None:
            self._due = now + self._every
        self._first_due = now + _RETRY_AFTER_FAILURE
        event(log, logging.INFO, "calibration started", camera=self._camera, brackets=len(brackets))
        try:
            self._process = subprocess.Popen(
                _WORKER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd="/",
            )
        except OSError as error:  # too many processes, no memory
            reason = f"no process can be started ({error.strerror or error})"
            self._inbox.put(CalibrationDone(self._camera, None, reason))
            return
        self._thread = threading.Thread(
            target=self._wait,
            args=(self._process, json.dumps(job)),
            name=f"calibration-{self._camera}",
            daemon=True,
        )
        self._thread.start()

    def finished(self) -> None:
        """Note that the outcome has reached the owner."""
        self._thread = self._process = None

    def stop(self) -> None:
        """End a calibration under way; its outcome is dropped."""
        process, thread = self._process, self._thread
        if process is not None and thread is not None:
            process.kill()
            thread.join(5)

    def _wait(self, process: subprocess.Popen[str], job: str) -> None:
        try:
            output, errors = process.communicate(job, timeout=_TIME_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self._inbox.put(CalibrationDone(self._camera, None, f"took over {_TIME_LIMIT:.0f} s"))
            return
        self._inbox.put(_outcome(self._camera, process.returncode, output, errors))


def _outcome(camera: str, code: int, output: str, errors: str) -> CalibrationDone:
    try:
        answer: Any = json.loads(output)
    except ValueError:
        ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        last = errors.strip().splitlines()[-1:] or [ended]
        return CalibrationDone(camera, None, f"the calibration process died: {last[0]}")
    if code != 0:
        return CalibrationDone(camera, None, str(answer.get("error", f"exit code {code}")))
    return CalibrationDone(camera, answer, str(answer["reason"]))
