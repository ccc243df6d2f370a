"""Calibrates in a process of its own: a request on standard input, a verdict on standard output."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from asi_watch.calibrate_brackets import BracketFiles
from asi_watch.errors import AsiWatchError
from asi_watch.live.curves.gate import CalibrationRequest, calibrate_candidate
from asi_watch.processes import _start


def main() -> int:
    """Run the job on standard input; exit code 0 with a verdict, 1 with a reason."""
    _start()
    job = json.load(sys.stdin)
    brackets = tuple(
        BracketFiles(tuple(p for p, _ in files), tuple(float(t) for _, t in files))
        for files in job.pop("brackets")
    )
    disc = job.pop("sky_disc")
    sky_disc = tuple(disc) if isinstance(disc, list) else disc
    try:
        verdict = calibrate_candidate(
            CalibrationRequest(brackets=brackets, sky_disc=sky_disc, **job)
        )
    except (AsiWatchError, ValueError, OSError) as error:
        json.dump({"error": str(error)}, sys.stdout)
        return 1
    json.dump(asdict(verdict), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
