"""The response curves that a camera's brackets are merged with, one for each number of channels.

A camera may be grey by night and in colour by day: neither curve blocks the brackets of the other.
Brackets that no curve fits fall back as `without_response` says, and the next calibration uses
them; nothing fails for good for want of a curve.
"""

import errno
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

from asi_watch.config.model import CameraConfig
from asi_watch.errors import AsiWatchError, ResponseFileError
from asi_watch.files import answered, counted
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.curves.gate import CalibrationVerdict
from asi_watch.live.curves.recalibration import Recalibration
from asi_watch.live.ledger.ledger import Ledger, LedgerFullError
from asi_watch.live.ledger.records import CurveDecision, Request
from asi_watch.live.messages import CalibrationDone, Inbox
from asi_watch.logs import event
from asi_watch.products import OutputFolder
from asi_watch.response_files import load_curve, response_bytes

log = logging.getLogger(__name__)

# Brackets published longer ago without a curve keep the picture they have.
_MERGED_AGAIN = timedelta(days=2)
_PATIENCE = 3.0
_LOOK_EVERY = 2.0
_LOOK_AT_SOUND_EVERY = 20.0
_LOOK_AT_DEAD_EVERY = 600.0
_OF_VERDICT = (
    *("curve_id", "path", "channels", "reason", "residual", "present_residual", "brackets"),
    *("coverage", "drift", "provisional"),
)


@dataclass(frozen=True, slots=True)
class CurveFile:
    """A curve in use, its file, and why it is the one in use."""

    curve: ResponseCurve
    path: Path
    why: str = ""


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

    For each number of channels the first of these that exists: a pinned curve; the operator's
    file, if it is newer than what was adopted, or ``recalibrate.every`` is ``never``; the curve
    adopted last and not withdrawn; the operator's file.

    Parameters
    ----------
    camera : CameraConfig
    ledger : Ledger or None
        Only read; None: nothing is adopted.
    """
    operators, written, missing, fault = _operators_file(camera)
    pinned, adopted = _decided(camera.name, ledger.curves(camera.name) if ledger else [])
    files = {
        channels: CurveFile(curve, Path(decision.path), f"adopted {decision.decided_utc:.10}")
        for channels, (decision, curve) in adopted.items()
    }
    if operators is not None and camera.response is not None:
        decision, _ = adopted.get(operators.channels, (None, None))
        if why := _why_operators(camera, operators, written, decision):
            files[operators.channels] = CurveFile(operators, camera.response, why)
    for channels, (decision, curve) in pinned.items():
        files[channels] = CurveFile(curve, Path(decision.path), "pinned")
    return Choice(files, operators.curve_id if operators else None, missing, fault)


def _why_operators(
    camera: CameraConfig, curve: ResponseCurve, written: float, rival: CurveDecision | None
) -> str | None:
    """Say why the operator's file is used rather than the adopted curve; None if it is not."""
    if rival is None:
        return "the response file: nothing was adopted"
    if camera.recalibrate.every is None:
        return "the response file: recalibrate.every is never"
    adopted_at = datetime.fromisoformat(rival.decided_utc).timestamp()
    # A time in the future says nothing: no adoption would ever be newer.
    if rival.base_id != curve.curve_id or adopted_at < written <= time.time():
        return "the response file: it is newer than the curve adopted last"
    return None


_Decided = dict[int, tuple[CurveDecision, ResponseCurve]]


def _decided(camera: str, decisions: list[CurveDecision]) -> tuple[_Decided, _Decided]:
    """Return the pinned and the adopted curves that hold, by number of channels."""
    pinned: _Decided = {}
    adopted: _Decided = {}
    unpinned, withdrawn = False, set()
    seen: set[tuple[str, int | None]] = set()
    for decision in reversed(decisions):
        verdict, known = decision.verdict, (decision.verdict, decision.channels)
        unpinned |= verdict == "unpinned"
        if verdict == "withdrawn":
            withdrawn.add(decision.curve_id)
        is_pin = verdict == "pinned" and not unpinned
        # Rows of 0.1 do not name the channels: their newest is read to know.
        if known in seen or not (
            is_pin or (verdict == "adopted" and decision.curve_id not in withdrawn)
        ):
            continue
        seen.add(known)
        try:
            curve = load_curve(Path(decision.path))
        except ResponseFileError as error:
            event(log, logging.ERROR, f"{verdict} curve not used", camera=camera, reason=str(error))
            continue
        seen.add((verdict, curve.channels))
        (pinned if is_pin else adopted).setdefault(curve.channels, (decision, curve))
    return pinned, adopted


def response_fault(camera: CameraConfig) -> str | None:
    """Say why the operator's file cannot be used, None if it can, is missing, or is not needed."""
    return _operators_file(camera)[3] if camera.merge.needs_curve else None


@dataclass(frozen=True, slots=True)
class _Asked:
    """The calibration that an operator has asked for: the request's number, and what it changes."""

    number: int
    dry_run: bool


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
        self._camera, self._ledger, self._folder = camera, ledger, folder
        self._asked: _Asked | None = None
        self._needs_curve = camera.merge.needs_curve
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
        present = {
            channels: (str(file.path), file.curve.provisional)
            for channels, file in self._files.items()
        }
        self._recalibration.tick(present, now, may_start=may_calibrate and self._needs_curve)
        return self._look_at_operators_file(now)

    def calibration_done(self, message: CalibrationDone) -> bool:
        """Swap the curve, or say why not; True as for `tick`.

        Parameters
        ----------
        message : CalibrationDone
        """
        self._recalibration.finished()
        asked, self._asked = self._asked, None
        verdict, before = message.verdict, self.curves
        if verdict is None:
            self._calibration_failed(message.reason)
        elif asked is None or not asked.dry_run:
            self._take_verdict(verdict)
        if asked is not None:
            text = f"calibration failed: {message.reason}"
            self._ledger.answer_request(
                asked.number,
                self._said(verdict, asked) if verdict else text,
                ok=verdict is not None,
            )
        return self.curves is not before

    def _take_verdict(self, verdict: CalibrationVerdict) -> None:
        decided: Literal["adopted", "rejected", "unchanged"] = "rejected"
        if verdict.accepted or verdict.unchanged:
            decided = "adopted" if verdict.accepted else "unchanged"
        decision = CurveDecision(
            camera=self._camera.name,
            base_id=self._choice.base_id,
            verdict=decided,
            **{name: getattr(verdict, name) for name in _OF_VERDICT},
        )
        try:
            self._ledger.record_curve(decision)
        except LedgerFullError as error:
            self._calibration_failed(str(error))
            return
        self._last_failure = None
        self._log(
            logging.WARNING if decided == "rejected" else logging.INFO,
            f"curve {decided}",
            curve=decision.curve_id,
            channels=decision.channels,
            reason=decision.reason,
            brackets=decision.brackets,
        )
        if verdict.accepted:
            self._choose()

    def _said(self, verdict: CalibrationVerdict, asked: "_Asked") -> str:
        """Say to whoever asked for it what became of a calibration."""
        used = self._files.get(verdict.channels)
        if not verdict.accepted:
            text = "the present curve stays: " if used else "no curve: "
        elif asked.dry_run:
            text = f"would be adopted ({verdict.curve_id}); nothing is changed: "
        elif used and used.curve.curve_id == verdict.curve_id:
            text = f"adopted, in use from now on ({verdict.curve_id}): "
        else:
            why = used.why if used else "see the log"
            text = f"adopted ({verdict.curve_id}), but another is used ({why}): "
        coverage = f", {verdict.coverage} codes" if verdict.coverage is not None else ""
        figures = f" [{counted(verdict.brackets, 'bracket')}{coverage}]"
        return f"{text}{verdict.reason}{figures}" + (f"; plot: {verdict.plot}" * bool(verdict.plot))

    def _calibration_failed(self, reason: str) -> None:
        # In the dark it fails every minute, all night, for the one reason.
        again, self._last_failure = reason == self._last_failure, reason
        self._log(logging.DEBUG if again else logging.ERROR, "calibration failed", reason=reason)
        self._unreported = f"calibration failed: {reason}"

    # -- what an operator asks for, see `asi-watch curve` --

    def carry_out(self, request: Request) -> str | None:
        """Carry out a request; return the answer, None where it is given later.

        Parameters
        ----------
        request : Request
            Of the kinds pin, unpin, rollback and calibrate; AsiWatchError where it is refused.
        """
        match request.kind:
            case "pin":
                return self._pin(str(request.arguments.get("curve", "")))
            case "unpin":
                return self._unpin()
            case "rollback":
                return self._rollback()
            case "calibrate":
                self._calibrate(request)
                return None
        raise AsiWatchError(f"this daemon cannot {request.kind[:40]!r}")

    def _pin(self, which: str) -> str:
        path = Path(which)
        if not path.is_absolute():
            rows = self._ledger.curves(self._camera.name)
            known = {row.curve_id: row.path for row in rows if row.curve_id.startswith(which)}
            if len(known) != 1 or not which:
                raise AsiWatchError(f"{which!r} names {len(known)} curves of {self._camera.name}")
            path = Path(*known.values())
        (found,) = answered(_PATIENCE, partial(_read, path))
        if not isinstance(found, tuple):
            raise AsiWatchError(found or f"{path}: not there, or its file system does not answer")
        curve, _ = found
        # A copy: the file that was named may be changed or deleted.
        data = response_bytes(curve.log_response, {**curve.metadata, "channel_order": "BGR"})
        OutputFolder(self._folder).publish(data, f"{curve.curve_id}.npz")
        copy = self._folder / f"{curve.curve_id}.npz"
        self._decide("pinned", curve.curve_id, str(copy), curve.channels, f"pinned: {path}")
        return f"curve {curve.curve_id} is pinned; `asi-watch curve unpin` lets it go"

    def _unpin(self) -> str:
        pinned = [file for file in self._files.values() if file.why == "pinned"]
        if not pinned:
            raise AsiWatchError(f"no curve of {self._camera.name} is pinned")
        self._decide("unpinned", "", "", None, "by the operator")
        return f"unpinned; {self._in_use_now()}"

    def _rollback(self) -> str:
        rows = {row.curve_id: row for row in self._ledger.curves(self._camera.name)}
        used = [f for f in self._files.values() if f.why.startswith("adopted")]
        if not used:
            raise AsiWatchError(f"no adopted curve is in use: {self._in_use_now()}")
        last = max(used, key=lambda file: rows[file.curve.curve_id].decided_utc)
        curve = last.curve
        self._decide("withdrawn", curve.curve_id, str(last.path), curve.channels, "rolled back")
        return f"curve {curve.curve_id} is withdrawn; {self._in_use_now()}"

    def _decide(
        self,
        verdict: Literal["pinned", "unpinned", "withdrawn"],
        curve_id: str,
        path: str,
        channels: int | None,
        reason: str,
    ) -> None:
        name, base_id = self._camera.name, self._choice.base_id
        decision = CurveDecision(name, curve_id, path, base_id, verdict, reason, channels=channels)
        self._ledger.record_curve(decision)
        self._log(logging.INFO, f"curve {verdict}", curve=curve_id or None, reason=reason)
        self._choose()

    def _calibrate(self, request: Request) -> None:
        if self._asked is not None:
            if self._asked.number != request.id:
                raise AsiWatchError("a calibration that was asked for is under way")
            return
        brackets = self._recalibration.ask()
        self._asked = _Asked(request.id, request.arguments.get("dry_run") is True)
        text = f"calibrating from {counted(brackets, 'bracket')}"
        self._ledger.note_progress(request.id, text)

    def _in_use_now(self) -> str:
        files = [f"{f.curve.curve_id} ({f.why})" for f in self._files.values()]
        return f"in use now: {', '.join(files) or 'no curve'}"

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
        files = choice.files
        if choice.fault or choice.missing:
            # What is used goes on being used while the operator mends the file.
            files = {**self._files, **files}
        if self._needs_curve and files != self._files:
            self._use(files)

    def _look_at_operators_file(self, now: float) -> bool:
        """Read the file again once it looks different."""
        response, unusable = self._camera.response, self._choice.fault or self._choice.missing
        if now < self._next_look or response is None:
            return False
        seen = _look_of(response)
        # Each look costs a thread, for the time that a dead share does not answer.
        pause = _LOOK_EVERY if unusable else _LOOK_AT_SOUND_EVERY
        self._next_look = now + (_LOOK_AT_DEAD_EVERY if seen is None else pause)
        if seen is None or seen == self._seen:
            return False
        before = self.curves
        self._choose()
        return self.curves is not before

    def _use(self, files: Mapping[int, CurveFile]) -> None:
        before, self._files = self._files, files
        # The reference is swapped whole: brackets already begun keep the curve they began with.
        if _ids(before) != _ids(files):
            self.curves = tuple(files[channels].curve for channels in sorted(files, reverse=True))
        self._logged_none = False
        for channels, file in files.items():
            if _ids(before).get(channels) != file.curve.curve_id:
                facts = {"curve": file.curve.curve_id, "channels": channels, "file": file.path}
                self._log(logging.INFO, "curve in use", **facts, why=file.why)
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
                {
                    "id": f.curve.curve_id,
                    "file": str(f.path),
                    "channels": f.curve.channels,
                    "why": f.why,
                    "provisional": bool(f.curve.metadata.get("provisional")),
                }
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


def _operators_file(camera: CameraConfig) -> tuple[ResponseCurve | None, float, bool, str | None]:
    """Return the operator's curve, when it was written, whether it is missing, what is wrong."""
    path = camera.response
    if path is None:
        return None, 0.0, False, None
    # On a share that is dead this camera does without, and holds up no other.
    (found,) = answered(_PATIENCE, partial(_read, path))
    if isinstance(found, tuple):
        return *found, False, None
    if found == "":
        text = "response file not there yet, merged is without it; is its name right?"
        event(log, logging.WARNING, text, camera=camera.name, file=path)
        return None, 0.0, True, None
    fault = found or f"{path}: its file system does not answer"
    event(log, logging.ERROR, "response file not used", camera=camera.name, reason=fault)
    return None, 0.0, False, fault


def _read(path: Path) -> tuple[ResponseCurve, float] | str:
    """Return the curve and its file's time, or what is wrong: nothing where it is missing."""
    try:
        return load_curve(path), path.stat().st_mtime
    except (ResponseFileError, OSError) as error:
        # A folder that may not be entered, a share that does not answer: not simply missing.
        missing = _look(path) in ((errno.ENOENT,), (errno.ENOTDIR,))
        return "" if missing else str(error)
