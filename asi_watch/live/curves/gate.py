"""Whether a new curve may replace the present one: the job of a calibration's own process.

A process, so that calibrating takes no memory from the daemon for good, runs at low priority,
and cannot take the daemon down. Request and verdict are plain values.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from asi_watch.calibrate_brackets import (
    BracketFiles,
    CalibratedCurve,
    CalibrationChoices,
    calibrate_brackets,
)
from asi_watch.files import shown
from asi_watch.hdr.calibration import CalibrationReport, response_residual
from asi_watch.hdr.response import ResponseCurve, curve_drift, on_scale_of
from asi_watch.hdr.tone import ToneScale
from asi_watch.plots import save_calibration_report_plot
from asi_watch.products import OutputFolder
from asi_watch.response_files import load_curve, response_bytes

_SAMPLES_PER_BRACKET = 5000
# A curve that leaves more than this unexplained describes no camera: good sets leave
# 0.05 … 0.25 stops, sets with false exposure times 1.0 … 1.2.
_WORST_RESIDUAL = 0.5
# So many codes the samples must cover in every channel for a curve to be replaced.
_FEWEST_CODES = 128
_FIRST_CODE, _LAST_CODE, _SAMPLES_OF_A_CODE = 5, 250, 3
# "Not worse" leaves room for what another draw of samples changes.
_TOLERANCE = 1.02


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """What a camera's curve is to be calibrated from."""

    camera: str
    brackets: tuple[BracketFiles, ...]  # all are used, as far as they can be read
    folder: str  # where the candidate's file goes
    # Files of the curves in use; the one of the candidate's channels is compared with it.
    present: tuple[str, ...] = ()
    channels: int | None = None  # of the brackets to use; None: of most of them
    low_clip: int = 5
    high_clip: int = 250
    sky_disc: Literal["auto"] | tuple[float, float, float] | None = "auto"
    manual: bool = False  # asked for by an operator: the report is drawn whatever the verdict


@dataclass(frozen=True, slots=True)
class CalibrationVerdict:
    """What became of a request."""

    accepted: bool
    reason: str  # one clause for the log and the ledger
    curve_id: str  # the candidate, and its file if it was accepted
    path: str
    channels: int
    # In stops, of the candidate and of the present curve on the same samples; None without one.
    residual: float
    present_residual: float | None
    brackets: int  # how many were used
    passed_over: tuple[str, ...] = ()  # brackets and exposures that could not be used, and why
    coverage: int | None = None  # codes that samples told of, in the worst channel
    drift: float | None = None  # stops from the present curve
    provisional: bool = False  # better than none, to be replaced as soon as may be
    unchanged: bool = False  # not accepted, since it is the present curve within the noise
    plot: str | None = None  # file of the report's drawing


def _tone_scale(
    done: CalibratedCurve, curve: ResponseCurve, present: ResponseCurve
) -> tuple[float, float] | None:
    """Keep the brightness of pictures over a swap, unless the present curve is provisional."""
    now = done.tone_scale(curve.log_response)
    before = done.tone_scale(present.log_response)
    if now is None or before is None or present.tone_scale is None or present.provisional:
        return now
    return ToneScale(*present.tone_scale).carried(ToneScale(*before), ToneScale(*now))


def calibrate_candidate(request: CalibrationRequest) -> CalibrationVerdict:
    """Calibrate from the request's brackets and judge the candidate against the present curve.

    Parameters
    ----------
    request : CalibrationRequest

    Raises
    ------
    AsiWatchError
        If no candidate could be computed, or its file not be written.
    """
    choices = CalibrationChoices(
        samples_per_image=_SAMPLES_PER_BRACKET,
        sample_technique="flat",
        max_processed_groups=len(request.brackets),
        low_clip=request.low_clip,
        high_clip=request.high_clip,
        seed=0,
        sky_disc=request.sky_disc,
    )
    done = calibrate_brackets(
        request.brackets, choices, where=shown(request.camera), channels=request.channels
    )
    curve = done.curve(shown(str(Path(done.used[0].paths[0]).parent)))
    residual = response_residual(curve.log_response, done.samples)
    present_curve, present = _present(request.present, curve.channels), None
    if present_curve is not None:
        present = response_residual(present_curve.log_response, done.samples)
        curve = on_scale_of(curve, present_curve)
        if (scale := _tone_scale(done, curve, present_curve)) is not None:
            curve = ResponseCurve(curve.log_response, {**curve.metadata, "tone_scale": [*scale]})
    coverage = _covered_codes(done.calibration.report)
    accepted, reason = _judged(residual, present, coverage)
    if accepted and done.calibration.report.time_doubts:  # such a curve may be stops off
        accepted, reason = False, done.calibration.report.warnings[0]
    path = Path(request.folder) / f"{curve.curve_id}.npz"
    if accepted:
        data = response_bytes(curve.log_response, curve.metadata)
        OutputFolder(path.parent).publish(data, path.name)
    plot = None
    if accepted or request.manual:
        plot = path.with_suffix(".png")
        plot.parent.mkdir(parents=True, exist_ok=True)
        title = f"{shown(request.camera)} · {datetime.now(UTC):%Y-%m-%d}"
        save_calibration_report_plot(done.calibration, plot, title=title)
    return CalibrationVerdict(
        accepted=accepted,
        reason=reason,
        curve_id=curve.curve_id,
        path=str(path),
        channels=curve.channels,
        residual=round(residual, 5),
        present_residual=None if present is None else round(present, 5),
        brackets=len(done.used),
        passed_over=done.rejected + done.left_out,
        coverage=coverage,
        drift=None if present_curve is None else round(curve_drift(curve, present_curve), 5),
        plot=None if plot is None else str(plot),
    )


def _present(paths: tuple[str, ...], channels: int) -> ResponseCurve | None:
    """Return the present curve; None without one of these channels."""
    curves = (load_curve(path) for path in paths)
    return next((curve for curve in curves if curve.channels == channels), None)


def _covered_codes(report: CalibrationReport) -> int:
    """Count the codes that samples tell something of, in the channel that has fewest."""
    return min(
        sum(count >= _SAMPLES_OF_A_CODE for count in counts[_FIRST_CODE : _LAST_CODE + 1])
        for counts in report.samples_per_code
    )


def _judged(residual: float, present: float | None, covered: int) -> tuple[bool, str]:
    """Decide by residuals in stops on the same samples, and by how many codes they cover."""
    if not np.isfinite(residual) or residual > _WORST_RESIDUAL:
        return False, (
            f"the candidate leaves {residual:.3f} stops unexplained (limit {_WORST_RESIDUAL}):"
            " are the exposure times right?"
        )
    if present is None:
        return True, f"first curve, residual {residual:.4f} stops"
    if covered < _FEWEST_CODES:
        # Brackets taken in the dark say nothing of bright codes, where the present curve may be
        # good: there the candidate is a guess.
        return False, (
            f"the brackets cover {covered} of {_LAST_CODE - _FIRST_CODE + 1} codes, too few to"
            f" replace a curve (at least {_FEWEST_CODES}): were they taken in the dark?"
        )
    if residual > present * _TOLERANCE:
        return False, (
            f"the candidate's residual of {residual:.4f} stops is worse than the present"
            f" curve's {present:.4f}"
        )
    return True, f"residual {residual:.4f} stops, the present curve's {present:.4f}"
