"""One camera's response curve: which is in use, what waits for one, when the next is derived."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asi_watch.brackets import Exposure
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.commands import MergeBracket
from asi_watch.live.curves import CurveInUse, choose_curve
from asi_watch.live.inbox import CalibrationDone, Inbox
from asi_watch.live.ledger import CurveDecision, Ledger
from asi_watch.live.recalibrator import Recalibrator
from asi_watch.live.records import BracketRecord
from asi_watch.live.settings import CameraSettings
from asi_watch.logs import event
from asi_watch.responses import load_curve

log = logging.getLogger(__name__)

_LOOK_FOR_RESPONSE_EVERY = 2.0


class CurveKeeper:
    """Holds the curve that a camera's brackets are merged with. Owner thread only.

    Parameters
    ----------
    settings : CameraSettings
    ledger : Ledger
    inbox : Inbox
        Where calibrations report to.
    folder : Path
        Where this camera's adopted curves are kept.
    use : callable
        Told the curve that brackets begun from now on are merged with, and the merges that had
        waited for it.
    now : float
        Monotonic time.
    """

    def __init__(
        self,
        settings: CameraSettings,
        ledger: Ledger,
        inbox: Inbox,
        folder: Path,
        use: Callable[[ResponseCurve, list[MergeBracket]], None],
        now: float,
    ) -> None:
        self._settings = settings
        self._camera = settings.name
        self._ledger = ledger
        self._use_curve = use
        self._curve: CurveInUse | None = None
        self._waiting: dict[datetime, MergeBracket] = {}
        self._told_no_curve = False
        self._looked_for_response = now
        self._complete = len(ledger.recent_complete(self._camera, settings.curves.brackets))
        self._recalibrator = Recalibrator(
            self._camera,
            settings.intake.root,
            folder,
            settings.curves.every,
            settings.curves.brackets,
            settings.merge,
            inbox,
            now,
            _since_last(ledger, self._camera),
            settings.curves.sky_disc,
        )

    def start(self) -> None:
        """Choose the curve to start with."""
        self._use(choose_curve(self._camera, self._settings.curves, self._ledger))

    def stop(self) -> None:
        """End a calibration under way."""
        self._recalibrator.stop()

    # -- merges -----------------------------------------------------------------------------

    def hold(self, command: MergeBracket) -> bool:
        """Keep a merge until there is a curve, if it needs one; tell whether it is kept."""
        if self._curve is not None or not self._needs_curve:
            return False
        only_radiance = all(spec.kind == "radiance" for spec in self._settings.products)
        if self._settings.curves.without_response == "wait" or only_radiance:
            self._tell_no_curve("brackets wait until one is calibrated")
            self._waiting[command.slot] = command
            return True
        self._tell_no_curve("merging by mertens meanwhile")
        return False

    def bracket_over(self, record: BracketRecord) -> None:
        """Take note of a bracket's row."""
        self._complete += record.state == "published" and record.complete

    # -- time and calibrations --------------------------------------------------------------

    def tick(self, now: float, *, may_calibrate: bool) -> None:
        """Look for a response file that was missing; calibrate if that is due and allowed."""
        if self._curve is None and now - self._looked_for_response > _LOOK_FOR_RESPONSE_EVERY:
            self._looked_for_response = now
            response = self._settings.curves.response
            if response is not None and response.exists():
                self._use(choose_curve(self._camera, self._settings.curves, self._ledger))
        if (
            may_calibrate
            and self._needs_curve
            and self._recalibrator.wants(
                self._curve is not None, self._complete + len(self._waiting), now
            )
        ):
            self._calibrate(now)

    def calibration_done(self, message: CalibrationDone) -> str | None:
        """Swap the curve, or say why not; returns what went wrong, None if nothing did."""
        self._recalibrator.finished()
        report: dict[str, Any] | None = message.report
        if report is None:
            event(
                log,
                logging.ERROR,
                "calibration failed",
                camera=self._camera,
                reason=message.reason,
            )
            return f"calibration failed: {message.reason}"
        decision = CurveDecision(
            camera=self._camera,
            curve_id=str(report["curve_id"]),
            path=str(report["path"]),
            base_id=self._curve.base_id if self._curve else None,
            verdict="adopted" if report["accepted"] else "rejected",
            reason=message.reason,
            residual=report["residual"],
            present_residual=report["present_residual"],
            brackets=int(report["brackets"]),
        )
        self._ledger.record_curve(decision)
        event(
            log,
            logging.INFO if report["accepted"] else logging.WARNING,
            f"curve {decision.verdict}",
            camera=self._camera,
            curve=decision.curve_id,
            reason=decision.reason,
            brackets=decision.brackets,
        )
        if report["accepted"]:
            path = Path(decision.path)
            self._use(CurveInUse(load_curve(path), path, decision.base_id))
        return None

    def snapshot(self) -> dict[str, Any]:
        """Give the curve's part of the camera's state."""
        curve = self._curve
        return {
            "waiting_for_curve": len(self._waiting),
            "curve": None if curve is None else curve.curve.curve_id,
            "curve_file": None if curve is None else str(curve.path),
            "calibrating": self._recalibrator.running,
        }

    # -- within -----------------------------------------------------------------------------

    @property
    def _needs_curve(self) -> bool:
        return self._settings.merge.algorithm != "mertens"

    def _tell_no_curve(self, consequence: str) -> None:
        if self._told_no_curve:
            return
        self._told_no_curve = True
        event(
            log,
            logging.WARNING,
            f"no response curve yet: {consequence}",
            camera=self._camera,
            response=self._settings.curves.response,
        )

    def _use(self, curve: CurveInUse | None) -> None:
        self._curve = curve
        if curve is None:
            return
        self._told_no_curve = False
        event(
            log,
            logging.INFO,
            "curve in use",
            camera=self._camera,
            curve=curve.curve.curve_id,
            file=curve.path,
        )
        waiting, self._waiting = self._waiting, {}
        # The reference is swapped whole: brackets already begun keep the curve they began with.
        self._use_curve(curve.curve, [waiting[slot] for slot in sorted(waiting)])

    def _calibrate(self, now: float) -> None:
        brackets = self._brackets_to_calibrate_from()
        if brackets:
            present = self._curve.path if self._curve else None
            self._recalibrator.start(brackets, present, now)

    def _brackets_to_calibrate_from(self) -> list[tuple[Exposure, ...]]:
        wanted = self._recalibrator.brackets_wanted
        waiting = [m.exposures for _, m in sorted(self._waiting.items()) if m.complete]
        recent = [r.inputs for r in self._ledger.recent_complete(self._camera, wanted)]
        return (waiting[::-1] + recent)[:wanted]


def _since_last(ledger: Ledger, camera: str) -> float:
    decisions = ledger.curves(camera)
    if not decisions:
        return 0.0
    return (datetime.now(UTC) - datetime.fromisoformat(decisions[-1].decided_utc)).total_seconds()
