"""Which response curve a camera uses: the operator's, one it has adopted, or none yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asi_watch.config.model import CameraConfig
from asi_watch.errors import ResponseFileError
from asi_watch.files import answered
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.logs import event
from asi_watch.response_files import load_curve

log = logging.getLogger(__name__)

_PATIENCE = 3.0
_MISSING = ""


@dataclass(frozen=True)
class CurveInUse:
    """A curve, the file it lies in, and the operator's curve it replaces (None: none)."""

    curve: ResponseCurve
    path: Path
    base_id: str | None


@dataclass(frozen=True)
class CurveChoice:
    """The curve to use, None for none.

    `missing` says that the operator's file is not there yet, `fault` why it cannot be used.
    """

    in_use: CurveInUse | None
    missing: bool = False
    fault: str | None = None


def choose_curve(camera: str, rules: CameraConfig, ledger: Ledger) -> CurveChoice:
    """Choose the curve to start with.

    The curve adopted last stays in use over restarts, until the operator puts another file in
    the place of the one it was derived beside; then the operator's counts. While the operator's
    file cannot be used, the curve adopted last takes its place.

    Returns
    -------
    CurveChoice
        Whatever the files are like; what is wrong with one is logged.
    """
    operators, missing, fault = _operators_curve(camera, rules.response)
    base_id = operators.curve_id if operators else None
    chosen = None
    if operators is not None and rules.response is not None:
        chosen = CurveInUse(operators, rules.response, base_id)
    adopted = ledger.adopted_curve(camera)
    if adopted is not None and (adopted.base_id == base_id or missing or fault):
        curve = _adopted_curve(camera, Path(adopted.path))
        if curve is not None:
            chosen = CurveInUse(curve, Path(adopted.path), adopted.base_id)
    return CurveChoice(chosen, missing, fault)


def look_of(path: Path) -> tuple[int, ...] | None:
    """Say what can be seen of a file without opening it; differs when it is worth another try.

    None where its file system does not answer.
    """
    return answered(_PATIENCE, partial(_look, path))[0]


def _look(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _operators_curve(
    camera: str, path: Path | None
) -> tuple[ResponseCurve | None, bool, str | None]:
    if path is None:
        return None, False, None
    # On a share that is dead this camera does without, and holds up no other.
    (found,) = answered(_PATIENCE, partial(_read, path))
    if isinstance(found, ResponseCurve):
        return found, False, None
    if found == _MISSING:
        event(log, logging.INFO, "response file not there yet", camera=camera, file=path)
        return None, True, None
    fault = found or f"{path}: its file system does not answer"
    event(log, logging.ERROR, "response file not used", camera=camera, reason=fault)
    return None, False, fault


def _read(path: Path) -> ResponseCurve | str:
    """Return the curve, or what is wrong with the file."""
    try:
        return load_curve(path)
    except ResponseFileError as error:
        return _MISSING if _is_missing(path) else str(error)


def _adopted_curve(camera: str, path: Path) -> ResponseCurve | None:
    try:
        return load_curve(path)
    except ResponseFileError as error:
        event(log, logging.ERROR, "adopted curve not used", camera=camera, reason=str(error))
        return None


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        # A folder that may not be entered, a share that does not answer: not simply missing.
        return False
    return False
