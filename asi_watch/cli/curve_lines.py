"""Curves and calibrations as lines to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING

from asi_watch.config.model import RADIANCE_FORMATS
from asi_watch.files import counted, shown

if TYPE_CHECKING:
    from asi_watch.calibrate_brackets import CalibratedCurve
    from asi_watch.hdr.calibration import CalibrationReport, ExposureCheck

_SUSPECTS_SHOWN = 20


def row(title: str, cells: Iterable[str]) -> str:
    """Align one row of a table of channels."""
    return f"{title:<24}" + "".join(f"{cell:>16}" for cell in cells)


def names_row(channels: int) -> str:
    """Give the head of a table of channels, in BGR order."""
    return row("", ("blue", "green", "red") if channels == 3 else ("grey",) * channels)


def report_lines(done: CalibratedCurve, curve_id: str) -> Iterator[str]:
    """Write the report on a calibration.

    Parameters
    ----------
    done : CalibratedCurve
    curve_id : str
    """
    report = done.calibration.report
    text = f"curve {curve_id} from {counted(report.brackets, 'bracket')}, {report.samples} samples"
    if done.rejected:
        text += f"; {counted(len(done.rejected), 'bracket')} could not be used"
    yield text + (f"; {counted(len(done.left_out), 'exposure')} left out" if done.left_out else "")
    if (disc := done.disc) is not None:
        yield f"inside the sky disc {disc.x:g},{disc.y:g},{disc.radius:g} (x, y, radius)"
    yield f"method: {report.settings['method']}"
    yield names_row(report.channels)
    yield row("residual (stops)", map(_number, report.residual_stops))
    counts = report.samples_per_code
    yield row("codes with samples", (f"{sum(n > 0 for n in c)} of 256" for c in counts))
    yield f"more than half a stop off: {100 * report.outlier_share:.1f} % of the observations"
    yield from _exposure_lines(report)
    yield "(residual: 1.4826 × the median distance from the curve, all observations alike)"


def _exposure_lines(report: CalibrationReport) -> Iterator[str]:
    times = sorted({check.exposure_time for check in report.exposures})
    yield f"{'exposure (µs)':>14}{'brackets':>10}{'residual (stops)':>18}{'fits × stated':>15}"
    for time in times:
        checks = [c for c in report.exposures if c.exposure_time == time]
        residuals = [v for c in checks for v in c.residual_stops if isfinite(v)]
        factors = [c.time_factor for c in checks if isfinite(c.time_factor)]
        factor = f"{median(factors):.3f}" if factors else "unknown"
        residual = _number(median(residuals)) if residuals else "no samples"
        yield f"{time:>14g}{len(checks):>10}{residual:>18}{factor:>15}"


def report_warnings(done: CalibratedCurve) -> Iterator[str]:
    """Give the warnings of a calibration; false times are named with their files.

    Parameters
    ----------
    done : CalibratedCurve
    """
    report = done.calibration.report
    suspects = report.suspected_times
    for check in suspects[:_SUSPECTS_SHOWN]:
        yield f"{_file(done, check)}: the stated exposure time of " + (
            f"{check.exposure_time:.12g} µs cannot be true; the image fits"
            f" {check.time_factor:.2f} times that"
        )
    if len(suspects) > _SUSPECTS_SHOWN:
        yield f"and {len(suspects) - _SUSPECTS_SHOWN} more exposures like these"
    for warning in report.warnings:
        if not (suspects and warning.startswith("exposure time")):
            yield warning


def _file(done: CalibratedCurve, check: ExposureCheck) -> str:
    files = done.used[check.bracket]
    pairs = zip(files.paths, files.exposure_us, strict=True)
    return shown(next((p for p, t in pairs if t == check.exposure_time), files.paths[0]))


def _number(value: float) -> str:
    return f"{value:.4f}" if isfinite(value) else "unknown"


def radiance_hint(algorithm: str, formats: Iterable[str]) -> str | None:
    """Say which algorithm would keep radiance linear; None where it is, or none is made.

    Parameters
    ----------
    algorithm : str
        Of the merge.
    formats : iterable of str
        Of the products.
    """
    radiance = [name for name in formats if name in RADIANCE_FORMATS]
    if algorithm != "debevec_custom" or not radiance:
        return None
    return (
        f"radiance ({', '.join(radiance)}) by debevec_custom: codes are stretched between the clips"
        " as in asi_core, which bends it by up to a tenth of a stop; debevec_exact keeps it linear"
    )
