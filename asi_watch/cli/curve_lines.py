"""Curves and calibrations as lines to read, and what could be set for better products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING, Any, TypeGuard

from asi_watch.config.model import RADIANCE_FORMATS
from asi_watch.files import counted, shown

if TYPE_CHECKING:
    from asi_watch.calibrate_brackets import CalibratedCurve
    from asi_watch.config.model import MergeConfig
    from asi_watch.hdr.calibration import CalibrationReport, ExposureCheck
    from asi_watch.hdr.merge_settings import MergeSettings
    from asi_watch.hdr.response import ResponseCurve

_SUSPECTS_SHOWN = 20


def channel_names(channels: int) -> tuple[str, ...]:
    """Name the channels of a curve, in BGR order.

    Parameters
    ----------
    channels : int
    """
    return ("blue", "green", "red") if channels == 3 else ("grey",) * channels


def row(title: str, cells: Iterable[str]) -> str:
    """Align one row of a table of channels.

    Parameters
    ----------
    title : str
    cells : iterable of str
    """
    return f"{title:<24}" + "".join(f"{cell:>16}" for cell in cells)


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
    if done.disc is not None:
        disc = done.disc
        yield f"inside the sky disc {disc.x:g},{disc.y:g},{disc.radius:g} (x, y, radius)"
    yield f"method: {report.settings['method']}"
    yield row("", channel_names(report.channels))
    yield row("residual (stops)", (_number(v) for v in report.residual_stops))
    used = report.samples_per_code
    yield row("codes with samples", (f"{sum(n > 0 for n in c)} of 256" for c in used))
    yield row("extrapolated codes", (_ranges(r) for r in report.extrapolated))
    yield row("steps held up", (str(n) for n in report.monotone_repairs))
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


def _ranges(ranges: Sequence[tuple[int, int]]) -> str:
    words = [f"{a}–{b}" if a != b else str(a) for a, b in ranges]
    return ", ".join(words) if len(words) <= 2 else f"{', '.join(words[:2])} …"


# --- what could be set for better products --------------------------------------------------------


def scale_line(curve: ResponseCurve) -> str | None:
    """Suggest a `lnE_range` as a line of the configuration; None where the exposures are not known.

    Parameters
    ----------
    curve : ResponseCurve
    """
    found = _picture_range(curve)
    if found is None:
        return None
    return f"for pictures as bright as the middle exposure: lnE_range: [{found[0]}, {found[1]}]"


def _picture_range(curve: ResponseCurve) -> tuple[float, float] | None:
    """Find the range that is white where the middle exposure is just saturated.

    The whole range of the exposures, which is what None means, has the sun's disc as white and
    all else dark. The curve's file knows the exposures only by the range of ln E they reach.
    """
    whole = curve.metadata.get("lnE_range")
    if not are_numbers(whole, 2) or not whole[0] < whole[1]:
        return None
    g = curve.log_response
    longest, shortest = float(g.min()) - whole[0], float(g.max()) - whole[1]
    white = float(g.max()) - (longest + shortest) / 2.0
    return round(float(whole[0]), 1), round(white, 1)


def are_numbers(value: Any, count: int) -> TypeGuard[Sequence[float]]:
    """Tell whether metadata is a list of so many numbers.

    Parameters
    ----------
    value : Any
    count : int
    """
    several = isinstance(value, list | tuple) and len(value) == count
    return several and all(isinstance(v, int | float) for v in value)


def merge_hints(
    merge: MergeConfig | MergeSettings,
    curve: ResponseCurve | None,
    formats: Sequence[str],
    range_setting: str,
) -> Iterator[str]:
    """Say which other settings would improve the products of a merge, a line each.

    Parameters
    ----------
    merge : MergeConfig or MergeSettings
    curve : ResponseCurve or None
        What is merged with, where it is known.
    formats : sequence of str
        Of the products.
    range_setting : str
        How `lnE_range` is set, with `{}` for each of its two numbers.
    """
    radiance = [name for name in formats if name in RADIANCE_FORMATS]
    if merge.algorithm == "debevec_custom" and radiance:
        yield (
            f"radiance ({', '.join(radiance)}) by debevec_custom: codes are stretched between the"
            " clips as in asi_core, which bends it by up to a tenth of a stop; debevec_exact keeps"
            " it linear"
        )
    pictures = len(radiance) < len(formats) and merge.algorithm != "mertens"
    if pictures and merge.lnE_range is None and curve and (found := _picture_range(curve)):
        yield (
            "pictures show the whole range of the exposures, up to the sun, and are therefore dark;"
            f" as bright as the middle exposure: {range_setting.format(*found)}"
        )
