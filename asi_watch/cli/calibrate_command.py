"""``asi-watch calibrate``: a camera's response curve from its brackets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from asi_watch.cli import _options as options
from asi_watch.errors import AsiWatchError
from asi_watch.files import counted, shown

if TYPE_CHECKING:
    from asi_watch.calibrate_brackets import CalibratedCurve
    from asi_watch.hdr.calibration import CalibrationReport, ExposureCheck

_EPILOG = """\b
Examples:
  asi-watch calibrate /srv/asi/2026/06/21 roof.npz
  asi-watch calibrate /srv/asi roof.npz --brackets 40 --report roof.png
  asi-watch calibrate /srv/asi roof.npz -c /etc/asi-watch/asi-watch.yaml --camera roof
"""
_TECHNIQUES = click.Choice(("flat", "random"))
_WEIGHTS = click.Choice(("triangle", "sine"))
_SUSPECTS_SHOWN = 20
_ABOVE_ZERO = click.FloatRange(0, min_open=True)


def _option(
    flag: str, default: Any, help_text: str, kind: click.ParamType[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(flag, type=kind, default=default, help=help_text)


@click.command(epilog=_EPILOG, context_settings={"show_default": True})
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.argument("response", metavar="RESPONSE.npz", type=click.Path(dir_okay=False))
@options.names_options
@_option("--brackets", 10, "How many to use.", click.IntRange(1))
@_option("--samples", 5000, "Places sampled in each bracket.", click.IntRange(1))
@_option("--technique", "flat", "How the places are chosen; flat is most accurate.", _TECHNIQUES)
@_option("--smoothness", 50.0, "Means the same for any number of samples.", _ABOVE_ZERO)
@_option("--weight-type", "triangle", "How merges will weigh codes.", _WEIGHTS)
@_option("--low-clip", 5, "Lower codes are not used.", click.IntRange(0, 254))
@_option("--high-clip", 250, "Higher codes are not used.", click.IntRange(1, 255))
@_option("--seed", 0, "Same seed, same curve.", click.INT)
@click.option(
    "--sky-disc",
    metavar="auto|none|X,Y,RADIUS",
    callback=options.reads(lambda text: text if text == "auto" else options.read_disc(text)),
    help="Take places inside this circle only: column and row of its centre and its radius in"
    " pixels. auto: the disc a fisheye's pictures show, if any; none: anywhere  [default: auto,"
    " or the configuration's].",
)
@click.option(
    "--force", is_flag=True, help="Write the curve even where it cannot explain the images."
)
@click.option(
    "--report",
    metavar="PLOT",
    type=click.Path(dir_okay=False),
    help="Plot curve, data and residuals; the suffix chooses the format.",
)
def command(
    directory: str,
    response: str,
    config_path: str | None,
    camera: str | None,
    round_to: timedelta | None,
    exposure_unit: str | None,
    brackets: int,
    samples: int,
    technique: str,
    sky_disc: Any,
    force: bool,
    report: str | None,
    **choices: Any,
) -> None:
    """Derive a camera's response curve from brackets in DIR and write it to RESPONSE.npz.

    Brackets are drawn from all of DIR, complete ones first; damaged ones are named and replaced.
    Prints how well the curve explains the images, and names exposure times that cannot be true.
    Where no curve can explain them, none is written without --force.

    Exit codes: 0 a curve was written, 1 none could be made, 2 wrong usage.
    """
    # The channels work side by side; more threads for each would only wait for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Imported here: `--help` must not wait for OpenCV.
    from asi_watch.pipeline import CalibrationChoices, calibrate_archive, save_response_curve

    options.echo_log()
    if not response.endswith(".npz"):
        raise click.UsageError(f"{shown(response)}: a response file is named .npz")
    low, high = choices["low_clip"], choices["high_clip"]
    if low >= high:
        raise click.UsageError(f"--low-clip {low} must be below --high-clip {high}")
    found = options.camera_of(config_path, camera)
    configured = found[0] if found else None
    if sky_disc is None:
        sky_disc = configured.calibration_disc if configured else "auto"
    choices["sky_disc"] = None if sky_disc == "none" else sky_disc
    try:
        rules = options.archive_rules(configured, round_to, exposure_unit)
        choice = CalibrationChoices(
            samples_per_image=samples,
            sample_technique=technique,
            max_processed_groups=brackets,
            **choices,
        )
        done = calibrate_archive(directory, rules, choice, report_plot=report)
    except AsiWatchError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    curve = done.curve(shown(directory))
    written = done.calibration.report.fits or force
    if written:
        # Before anything is printed: whoever reads it may go away, as `head` does.
        save_response_curve(response, curve.log_response, dict(curve.metadata), save_plot=False)
    for line in _report_lines(done, curve.curve_id):
        click.echo(line)
    for warning in _report_warnings(done):
        click.echo(f"warning: {warning}", err=True)
    plot = f", plot in {shown(report)}" if report else ""
    if not written:
        click.echo(f"{shown(response)}: not written, see above; --force writes it{plot}", err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"written to {shown(response)}{plot}")


def _report_lines(done: CalibratedCurve, curve_id: str) -> Iterator[str]:
    """Write the report on a calibration."""
    report = done.calibration.report
    text = f"curve {curve_id} from {counted(report.brackets, 'bracket')}, {report.samples} samples"
    if done.rejected:
        text += f"; {counted(len(done.rejected), 'bracket')} could not be used"
    yield text + (f"; {counted(len(done.left_out), 'exposure')} left out" if done.left_out else "")
    if (disc := done.disc) is not None:
        yield f"inside the sky disc {disc.x:g},{disc.y:g},{disc.radius:g} (x, y, radius)"
    yield f"method: {report.settings['method']}"
    yield options.names_row(report.channels)
    yield options.row("residual (stops)", map(_number, report.residual_stops))
    counts = report.samples_per_code
    yield options.row("codes with samples", (f"{sum(n > 0 for n in c)} of 256" for c in counts))
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


def _report_warnings(done: CalibratedCurve) -> Iterator[str]:
    """Give the warnings of a calibration; false times are named with their files."""
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
