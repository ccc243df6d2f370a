"""One camera's response curve: which is in use, what waits for one, when the next is derived."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asi_watch.brackets import Exposure
from asi_watch.config.model import CameraConfig
from asi_watch.errors import PublishError
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.curves.choosing import CurveChooser
from asi_watch.live.curves.curves import CurveInUse
from asi_watch.live.curves.recalibrator import Recalibrator
from asi_watch.live.ledger.ledger import CurveDecision, Ledger, LedgerFullError
from asi_watch.live.messages import CalibrationDone, Inbox, MergeBracket
from asi_watch.live.records import WITHOUT_CURVE, BracketRecord
from asi_watch.logs import event
from asi_watch.products import publish
from asi_watch.response_files import load_curve, response_bytes

log = logging.getLogger(__name__)

# Brackets published longer ago without a curve keep the picture they have.
_MERGED_AGAIN = timedelta(days=2)
# So many wait for a curve in memory; it is calibrated from them.
_MOST_WAITING = 200


class CurveKeeper:
    """Holds the curve that a camera's brackets are merged with. Owner thread only.

    Parameters
    ----------
    settings : CameraConfig
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
        settings: CameraConfig,
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
        self._chooser = CurveChooser(self._camera, settings, ledger, now)
        self._waiting: dict[datetime, MergeBracket] = {}
        self._most_waiting = max(_MOST_WAITING, settings.recalibrate.brackets)
        self._told_no_curve = False
        self._last_failure: str | None = None
        self._complete = len(ledger.recent_complete(self._camera, settings.recalibrate.brackets))
        every = settings.recalibrate.every
        self._recalibrator = Recalibrator(
            self._camera,
            settings.watch,
            folder,
            None if every is None else every.total_seconds(),
            settings.recalibrate.brackets,
            settings.merge.settings,
            inbox,
            now,
            _since_last(ledger, self._camera),
            settings.calibration_disc,
        )

    def start(self) -> None:
        """Choose the curve to start with."""
        self._use(self._chooser.choose())

    def inherit(self, earlier: CurveKeeper) -> None:
        """Keep the curve of before a reload where the file named now cannot take its place."""
        kept = earlier._curve
        if kept is None or not self._needs_curve or self._settings.response is None:
            return
        newest = self._ledger.recent_complete(self._camera, 1)
        if newest and newest[0].curve_id == kept.curve.curve_id:
            # It fits this camera's images: it has merged them.
            self._chooser.expect_channels(kept.curve.channels)
        if self._chooser.why_not is None:
            return
        event(
            log,
            logging.WARNING,
            "the earlier curve stays in use",
            camera=self._camera,
            curve=kept.curve.curve_id,
            reason=self._chooser.why_not,
        )
        self._use(kept)

    def save(self) -> None:
        """Write the curve in use again, if it is one of the daemon's own and was deleted."""
        used = self._curve
        if used is None or used.path == self._settings.response or used.path.exists():
            return
        metadata = {**used.curve.metadata, "channel_order": "BGR"}
        with suppress(PublishError):  # it will be missed, and told, at the next start
            publish(response_bytes(used.curve.log_response, metadata), used.path)

    def stop(self) -> None:
        """End a calibration under way."""
        self._recalibrator.stop()

    # -- merges -----------------------------------------------------------------------------

    def hold(self, command: MergeBracket) -> bool:
        """Keep a merge until there is a curve, if it needs one; tell whether it is kept."""
        if self._curve is not None or not self._needs_curve:
            return False
        only_radiance = all(spec.kind == "radiance" for spec in self._settings.products)
        if self._settings.without_response == "wait" or only_radiance:
            self._tell_no_curve("brackets wait until one is calibrated")
            self._waiting[command.slot] = command
            return True
        self._tell_no_curve("merging by mertens meanwhile")
        return False

    @property
    def has_room(self) -> bool:
        """True while more merges may come to wait in memory."""
        return len(self._waiting) < self._most_waiting

    def spare(self) -> MergeBracket | None:
        """Give back the oldest merge that waits, if they are too many; the ledger takes it."""
        spare = len(self._waiting) > self._most_waiting
        return self._waiting.pop(min(self._waiting)) if spare else None

    def bracket_over(self, record: BracketRecord) -> None:
        """Take note of a bracket's row."""
        self._complete += record.state == "published" and record.complete
        if self._curve is not None and record.reason == WITHOUT_CURVE and self._radiance_wanted:
            # It was being merged when the curve came.
            self._merge_again_with_radiance()
            self._use_curve(self._curve.curve, [])

    # -- time and calibrations --------------------------------------------------------------

    def tick(self, now: float, *, may_calibrate: bool) -> None:
        """Look for a response file that was missing; calibrate if that is due and allowed."""
        better = self._chooser.look_again(now)
        if better is not None and (
            self._curve is None or self._curve.curve.curve_id != better.curve.curve_id
        ):
            self._use(better)
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
            # In the dark it fails every minute, all night, for the one reason.
            again = message.reason == self._last_failure
            self._last_failure = message.reason
            event(
                log,
                logging.DEBUG if again else logging.ERROR,
                "calibration failed",
                camera=self._camera,
                reason=message.reason,
            )
            return f"calibration failed: {message.reason}"
        self._last_failure = None
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
            "curve_fault": self._chooser.fault,
            "calibrating": self._recalibrator.running,
        }

    def take_fault(self) -> str | None:
        """Return what is wrong with the operator's file, once; None if nothing new is."""
        return self._chooser.take_fault()

    # -- within -----------------------------------------------------------------------------

    @property
    def _needs_curve(self) -> bool:
        return self._settings.merge.algorithm != "mertens"

    @property
    def _radiance_wanted(self) -> bool:
        return any(spec.kind == "radiance" for spec in self._settings.products)

    def _tell_no_curve(self, consequence: str) -> None:
        if self._told_no_curve:
            return
        self._told_no_curve = True
        event(
            log,
            logging.WARNING,
            f"no response curve yet: {consequence}",
            camera=self._camera,
            response=self._settings.response,
            reason=self._chooser.fault,
        )

    def _use(self, curve: CurveInUse | None) -> None:
        self._curve = curve
        if curve is None:
            return
        self._told_no_curve = False
        self._merge_again_with_radiance()
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

    def _merge_again_with_radiance(self) -> None:
        """Have brackets merged again that were published as pictures for want of a curve."""
        if not self._needs_curve or not self._radiance_wanted:
            return
        # On a full disk they keep their pictures; an operator can ask for them.
        with suppress(LedgerFullError):
            asked = self._ledger.ask_makeshifts(self._camera, datetime.now(UTC) - _MERGED_AGAIN)
            if asked:
                event(
                    log,
                    logging.INFO,
                    "brackets published without a curve are merged again",
                    camera=self._camera,
                    brackets=asked,
                )

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
