"""The response curves that a camera's brackets are merged with, one for each number of channels.

A camera may be grey by night and in colour by day: neither curve blocks the brackets of the other.
Brackets that no curve fits fall back as `without_response` says, and the next calibration uses
them; nothing fails for good for want of a curve.
"""

import errno
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from asi_watch.config.model import CameraConfig
from asi_watch.errors import ResponseFileError
from asi_watch.files import answered
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.curves.recalibration import Recalibration
from asi_watch.live.ledger.ledger import Ledger, LedgerFullError
from asi_watch.live.ledger.records import CurveDecision
from asi_watch.live.messages import CalibrationDone, Inbox
from asi_watch.logs import event
from asi_watch.response_files import load_curve

log = logging.getLogger(__name__)

# Brackets published longer ago without a curve keep the picture they have.
_MERGED_AGAIN = timedelta(days=2)
_PATIENCE = 3.0
_LOOK_EVERY = 2.0
_LOOK_AT_DEAD_EVERY = 600.0


@dataclass(frozen=True, slots=True)
class CurveFile:
    """A curve and its file."""

    curve: ResponseCurve
    path: Path


@dataclass(frozen=True, slots=True)
class Choice:
    """The curves to use by number of channels, and what is wrong with the operator's file."""

    files: Mapping[int, CurveFile] = field(default_factory=dict)
    base_id: str | None = None
    """Of the operator's curve."""
    missing: bool = False
    """The operator's file is not there."""
    fault: str | None = None
    """Why the operator's file cannot be used."""


def choose_curves(camera: CameraConfig, ledger: Ledger | None) -> Choice:
    """Choose the curves of a camera, whatever their files are like.

    Of each number of channels the curve adopted last is used, until the operator puts another
    file in the place of the one it was derived beside; with ``recalibrate.every: never`` the
    operator's file is used whatever was adopted. While that file cannot be used, the curve
    adopted last takes its place.

    Parameters
    ----------
    camera : CameraConfig
    ledger : Ledger or None
        Only read; None: no curve was adopted.
    """
    operators, missing, fault = _operators_curve(camera)
    base_id = None if operators is None else operators.curve_id
    files: dict[int, CurveFile] = {}
    if operators is not None and camera.response is not None:
        files[operators.channels] = CurveFile(operators, camera.response)
    seen: set[int | None] = set()
    for decision in reversed(ledger.curves(camera.name) if ledger else ()):
        # Rows of 0.1 do not name the channels: their newest is read to know.
        if decision.verdict != "adopted" or decision.channels in seen:
            continue
        seen.add(decision.channels)
        try:
            adopted = load_curve(Path(decision.path))
        except ResponseFileError as error:
            text = "adopted curve not used"
            event(log, logging.ERROR, text, camera=camera.name, reason=str(error))
            continue
        if decision.channels is None and adopted.channels in seen:
            continue
        seen.add(adopted.channels)
        derived = decision.base_id == base_id and camera.recalibrate.every is not None
        if derived or adopted.channels not in files:
            files[adopted.channels] = CurveFile(adopted, Path(decision.path))
    return Choice(files, base_id, missing, fault)


def response_fault(camera: CameraConfig) -> str | None:
    """Say why the operator's file cannot be used, None if it can, is missing, or is not needed."""
    return None if camera.merge.algorithm == "mertens" else _operators_curve(camera)[2]


class CurvesInUse:
    """Holds a camera's curves, swaps them between two brackets, and has them calibrated.

    Owner thread only, but for `curves`, which any thread may read.

    Parameters
    ----------
    camera : CameraConfig
    ledger : Ledger
    folder : Path
        Where this camera's adopted curves are kept.
    inbox : Inbox
        Where calibrations report to.
    now : float
        Monotonic time.
    """

    def __init__(
        self, camera: CameraConfig, ledger: Ledger, folder: Path, inbox: Inbox, now: float
    ) -> None:
        self._camera, self._ledger = camera, ledger
        self._needs_curve = camera.merge.algorithm != "mertens"
        self._files: Mapping[int, CurveFile] = {}
        self.curves: tuple[ResponseCurve, ...] = ()
        """Those in use, most channels first; replaced whole."""
        self._recalibration = Recalibration(camera, ledger, folder, inbox, now)
        self.bracket_over = self._recalibration.bracket_over
        self.stop = self._recalibration.stop
        self._logged_none = False
        self._last_failure: str | None = None
        self._unreported: str | None = None
        self._seen: object = None
        self._next_look = now + _LOOK_EVERY
        self._choose()

    @property
    def must_wait(self) -> bool:
        """True while no bracket can be merged, since there is no curve at all to merge it with."""
        if self.curves or not self._needs_curve:
            return False
        only_radiance = all(product.spec.kind == "radiance" for product in self._camera.products)
        waits = self._camera.without_response == "wait" or only_radiance
        if not self._logged_none:
            self._logged_none = True
            consequence = "brackets wait in the ledger" if waits else "merging by mertens meanwhile"
            text = f"no response curve yet: {consequence}"
            facts = {"response": self._camera.response, "reason": self._choice.fault}
            self._log(logging.WARNING, text, **facts)
        return waits

    def tick(self, now: float, *, may_calibrate: bool) -> bool:
        """Look for a response file that was missing; calibrate if that is due and allowed.

        True if other curves are in use now: rows that waited for one are marked to be merged.

        Parameters
        ----------
        now : float
            Monotonic time.
        may_calibrate : bool
        """
        present = tuple(str(file.path) for file in self._files.values())
        self._recalibration.tick(present, now, may_start=may_calibrate and self._needs_curve)
        return self._look_at_operators_file(now)

    def calibration_done(self, message: CalibrationDone) -> bool:
        """Swap the curve, or say why not; True as for `tick`.

        Parameters
        ----------
        message : CalibrationDone
        """
        self._recalibration.finished()
        verdict = message.verdict
        if verdict is None:
            return self._calibration_failed(message.reason)
        path = Path(verdict.path)
        decision = CurveDecision(
            camera=self._camera.name,
            curve_id=verdict.curve_id,
            path=verdict.path,
            base_id=self._choice.base_id,
            verdict="adopted" if verdict.accepted else "rejected",
            reason=verdict.reason,
            residual=verdict.residual,
            present_residual=verdict.present_residual,
            brackets=verdict.brackets,
            channels=verdict.channels,
        )
        try:
            self._ledger.record_curve(decision)
        except LedgerFullError as error:
            return self._calibration_failed(str(error))
        self._last_failure = None
        self._log(
            logging.INFO if verdict.accepted else logging.WARNING,
            f"curve {decision.verdict}",
            curve=decision.curve_id,
            channels=decision.channels,
            reason=decision.reason,
            brackets=decision.brackets,
        )
        if verdict.accepted:
            self._use({**self._files, verdict.channels: CurveFile(load_curve(path), path)})
        return verdict.accepted

    def _calibration_failed(self, reason: str) -> bool:
        # In the dark it fails every minute, all night, for the one reason.
        again, self._last_failure = reason == self._last_failure, reason
        self._log(logging.DEBUG if again else logging.ERROR, "calibration failed", reason=reason)
        self._unreported = f"calibration failed: {reason}"
        return False

    def take_fault(self) -> str | None:
        """Return what went wrong with a curve, once; None if nothing new did."""
        fault, self._unreported = self._unreported, None
        return fault

    def _choose(self) -> None:
        response = self._camera.response
        # Before it is read: what is put there meanwhile is seen the next time.
        self._seen = None if response is None else _look_of(response)
        choice = self._choice = choose_curves(self._camera, self._ledger)
        if choice.fault:
            self._unreported = f"response file not used: {choice.fault}"
        if self._needs_curve and _ids(choice.files) != _ids(self._files):
            self._use(choice.files)

    def _look_at_operators_file(self, now: float) -> bool:
        """Try a file again that was missing or at fault, once it looks different."""
        response, unusable = self._camera.response, self._choice.fault or self._choice.missing
        if now < self._next_look or response is None or not unusable:
            return False
        seen = _look_of(response)
        # Each look at a dead share costs a thread.
        self._next_look = now + (_LOOK_AT_DEAD_EVERY if seen is None else _LOOK_EVERY)
        if seen is None or seen == self._seen:
            return False
        before = self.curves
        self._choose()
        return self.curves is not before

    def _use(self, files: Mapping[int, CurveFile]) -> None:
        before, self._files = self._files, files
        # The reference is swapped whole: brackets already begun keep the curve they began with.
        self.curves = tuple(files[channels].curve for channels in sorted(files, reverse=True))
        self._logged_none = False
        for channels, file in files.items():
            if _ids(before).get(channels) != file.curve.curve_id:
                facts = {"curve": file.curve.curve_id, "channels": channels, "file": file.path}
                self._log(logging.INFO, "curve in use", **facts)
        if new := set(files) - set(before):
            self._merge_what_waited(new)

    def _merge_what_waited(self, new: set[int]) -> None:
        """Have brackets merged that waited for a curve, or were published as pictures without.

        Only those that may have one of the `new` numbers of channels.
        """
        radiance = any(product.spec.kind == "radiance" for product in self._camera.products)
        since = datetime.now(UTC) - _MERGED_AGAIN if radiance else None
        # On a full disk they stay as they are; an operator can ask for them.
        with suppress(LedgerFullError):
            if asked := self._ledger.ask_without_curve(self._camera.name, since, new):
                text = "brackets that had no curve are merged again"
                self._log(logging.INFO, text, brackets=asked)

    def _log(self, level: int, text: str, **values: object) -> None:
        event(log, level, text, camera=self._camera.name, **values)

    def snapshot(self) -> dict[str, Any]:
        """Return this part of the camera's state."""
        files = [self._files[channels] for channels in sorted(self._files, reverse=True)]
        return {
            "curves": [
                {"id": f.curve.curve_id, "file": str(f.path), "channels": f.curve.channels}
                for f in files
            ],
            "curve_fault": self._choice.fault,
            "calibrating": self._recalibration.running,
        }


def _ids(files: Mapping[int, CurveFile]) -> dict[int, str]:
    return {channels: file.curve.curve_id for channels, file in files.items()}


def _look_of(path: Path) -> tuple[int, ...] | None:
    """Say what can be seen of a file without opening it; None where its share does not answer."""
    return answered(_PATIENCE, partial(_look, path))[0]


def _look(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _operators_curve(camera: CameraConfig) -> tuple[ResponseCurve | None, bool, str | None]:
    """Return the operator's curve, whether its file is missing, and what is wrong with it."""
    path = camera.response
    if path is None:
        return None, False, None
    # On a share that is dead this camera does without, and holds up no other.
    (found,) = answered(_PATIENCE, partial(_read, path))
    if isinstance(found, ResponseCurve):
        return found, False, None
    if found == "":
        text = "response file not there yet, merged is without it; is its name right?"
        event(log, logging.WARNING, text, camera=camera.name, file=path)
        return None, True, None
    fault = found or f"{path}: its file system does not answer"
    event(log, logging.ERROR, "response file not used", camera=camera.name, reason=fault)
    return None, False, fault


def _read(path: Path) -> ResponseCurve | str:
    """Return the curve, or what is wrong with the file: nothing where it is simply missing."""
    try:
        return load_curve(path)
    except ResponseFileError as error:
        # A folder that may not be entered, a share that does not answer: not simply missing.
        missing = _look(path) in ((errno.ENOENT,), (errno.ENOTDIR,))
        return "" if missing else str(error)
