"""Which response curve a camera uses: the operator's, one it has adopted, or none yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from asi_watch.errors import ResponseFileError
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.ledger import Ledger
from asi_watch.live.settings import CurveRules
from asi_watch.logs import event
from asi_watch.responses import load_curve

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CurveInUse:
    """A curve, the file it lies in, and the operator's curve it replaces (None: none)."""

    curve: ResponseCurve
    path: Path
    base_id: str | None


def choose_curve(camera: str, rules: CurveRules, ledger: Ledger) -> CurveInUse | None:
    """Choose the curve to start with.

    The curve adopted last stays in use over restarts, until the operator puts another file in
    the place of the one it was derived beside; then the operator's counts.

    Returns
    -------
    CurveInUse or None
        None when there is no curve, or none that can be read (which is logged).
    """
    operators = _load(camera, rules.response) if rules.response else None
    base_id = operators.curve_id if operators else None
    adopted = ledger.adopted_curve(camera)
    if adopted is not None and adopted.base_id == base_id:
        curve = _load(camera, Path(adopted.path))
        if curve is not None:
            return CurveInUse(curve, Path(adopted.path), base_id)
    if operators is None or rules.response is None:
        return None
    return CurveInUse(operators, rules.response, base_id)


def _load(camera: str, path: Path) -> ResponseCurve | None:
    if not path.exists():
        event(log, logging.INFO, "response file not there yet", camera=camera, file=path)
        return None
    try:
        return load_curve(path)
    except ResponseFileError as error:
        event(log, logging.ERROR, "response file not used", camera=camera, reason=str(error))
        return None
