"""Calibrates in a process of its own, from a job on standard input.

A process, so that calibrating takes no memory from the daemon for good, runs at low priority,
and cannot take the daemon down. It writes the candidate's file and prints a JSON verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from asi_watch.calibrating import (
    FilesOfBracket,
    curve_metadata,
    disc_numbers,
    sample_files,
)
from asi_watch.errors import AsiWatchError
from asi_watch.hdr.calibration import (
    SampleTechnique,
    calibrate_response,
    is_monotone,
    response_residual,
)
from asi_watch.hdr.disc import as_sky_disc
from asi_watch.hdr.response import ResponseCurve
from asi_watch.plots import save_calibration_report_plot
from asi_watch.products import publish
from asi_watch.response_files import load_curve, response_bytes

SAMPLES_PER_BRACKET = 5000
_TECHNIQUE: SampleTechnique = "flat"
# A curve that leaves more than this unexplained describes no camera: good sets leave
# 0.05 … 0.25 stops, sets with false exposure times 1.0 … 1.2.
WORST_RESIDUAL = 0.5
# "Not worse" leaves room for what another draw of samples changes.
_TOLERANCE = 1.02


def judge(job: dict[str, Any]) -> dict[str, Any]:
    """Calibrate from the job's brackets and judge the candidate against the present curve.

    Parameters
    ----------
    job : dict
        `brackets`: lists of [path, exposure_us]; `present`: path of the present curve or None;
        `folder`: where the candidate's file goes; `low_clip`, `high_clip`; `sky_disc`: "auto",
        [x, y, radius] or None.

    Returns
    -------
    dict
        `accepted`, `reason`, `curve_id`, `path`, `residual`, `present_residual`, `brackets`.

    Raises
    ------
    AsiWatchError, ValueError
        If no candidate could be computed.
    """
    brackets = [
        FilesOfBracket(tuple(p for p, _ in files), tuple(float(t) for _, t in files))
        for files in job["brackets"]
    ]
    samples = sample_files(
        brackets,
        technique=_TECHNIQUE,
        samples_per_bracket=SAMPLES_PER_BRACKET,
        rng=np.random.default_rng(0),
        sky_disc="auto" if job["sky_disc"] == "auto" else as_sky_disc(job["sky_disc"]),
    )
    low_clip, high_clip = int(job["low_clip"]), int(job["high_clip"])
    calibration = calibrate_response(samples, low_clip=low_clip, high_clip=high_clip)
    times = [t for b in brackets for t in b.exposure_us]
    metadata = curve_metadata(
        calibration,
        times,
        input_directory=str(Path(brackets[0].paths[0]).parent),
        samples_per_image=SAMPLES_PER_BRACKET,
        sample_technique=_TECHNIQUE,
        max_processed_groups=len(brackets),
        smoothness=50.0,
        weight_type="triangle",
        low_clip=low_clip,
        high_clip=high_clip,
        seed=0,
        sky_disc=disc_numbers(samples[0].disc),
    )
    curve = ResponseCurve(calibration.log_response, metadata)
    residual = float(response_residual(curve.log_response, samples))
    present = None
    if job["present"] is not None:
        present = float(response_residual(load_curve(job["present"]).log_response, samples))
    accepted, reason = verdict(is_monotone(curve.log_response), residual, present)
    if accepted and calibration.report.time_doubts:  # such a curve may be stops off
        accepted, reason = False, calibration.report.warnings[0]
    path = Path(job["folder"]) / f"{curve.curve_id}.npz"
    if accepted:
        publish(response_bytes(curve.log_response, metadata), path)
        title = f"{path.parent.name} · {datetime.now(UTC):%Y-%m-%d}"
        save_calibration_report_plot(calibration, path.with_suffix(".png"), title=title)
    return {
        "accepted": accepted,
        "reason": reason,
        "curve_id": curve.curve_id,
        "path": str(path),
        "residual": round(residual, 5),
        "present_residual": None if present is None else round(present, 5),
        "brackets": len(brackets),
    }


def verdict(monotone: bool, residual: float, present: float | None) -> tuple[bool, str]:
    """Decide whether a candidate may replace the present curve.

    Parameters
    ----------
    monotone : bool
        Whether the candidate never falls.
    residual, present : float
        Residuals in stops of the candidate and of the present curve (None without one) on the
        same samples.

    Returns
    -------
    accepted : bool
    reason : str
        One clause for the log and the ledger.
    """
    if not monotone:
        return False, "the candidate is not monotone"
    if not np.isfinite(residual) or residual > WORST_RESIDUAL:
        return False, (
            f"the candidate leaves {residual:.3f} stops unexplained (limit {WORST_RESIDUAL}):"
            " are the exposure times right?"
        )
    if present is None:
        return True, f"first curve, residual {residual:.4f} stops"
    if residual > present * _TOLERANCE:
        return False, (
            f"the candidate's residual of {residual:.4f} stops is worse than the present"
            f" curve's {present:.4f}"
        )
    return True, f"residual {residual:.4f} stops, the present curve's {present:.4f}"


def _end_with_parent() -> None:
    """End this process when the daemon that asked for it is gone, killed for example."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main() -> int:
    """Run the job on standard input; exit code 0 with a verdict, 1 with a reason."""
    _end_with_parent()
    with contextlib.suppress(OSError):  # a unit may forbid it; then it runs at normal priority
        os.nice(10)
    try:
        answer: dict[str, Any] = judge(json.load(sys.stdin))
    except (AsiWatchError, ValueError, OSError) as error:
        json.dump({"error": str(error)}, sys.stdout)
        return 1
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
