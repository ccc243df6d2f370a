"""``asi-watch response``: look at response curves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from asi_watch.cli._options import names_row, read_plot_name, reads, row
from asi_watch.errors import ResponseFileError
from asi_watch.files import shown

if TYPE_CHECKING:
    from asi_watch.hdr.response import ResponseCurve

_CODES = (1, 16, 64, 128, 192, 240, 254)
_KEYS = {
    "timestamp_utc": "made",
    "software": "by",
    "input_directory": "from",
    "num_groups_used": "brackets",
    "samples_per_image": "samples per bracket",
    "sample_technique": "technique",
    "smoothness": "smoothness",
    "weight_type": "weights",
    "low_clip": "low clip",
    "high_clip": "high clip",
    "seed": "seed",
    "lnE_range": "lnE_range",
    "sky_disc": "sky disc (x, y, radius)",
}
_EXAMPLES = """\b
Examples:
  asi-watch response show roof.npz
  asi-watch response show roof.npz --plot roof.png
"""


@click.group()
def command() -> None:
    """Show response curves."""


@command.command(epilog=_EXAMPLES)
@click.argument("file", metavar="FILE")
@click.option(
    "--plot",
    metavar="PLOT",
    callback=reads(read_plot_name),
    help="Draw it; the suffix chooses the format (png, jpg, svg, pdf).",
)
def show(file: str, plot: str | None) -> None:
    """Show what a response file holds and how it came about."""
    from asi_watch.response_files import examine_curve, refusal, warning_of

    curve, problems = examine_curve(file)
    for line in _lines(file, curve):
        click.echo(line)
    impossible = refusal(problems, shown(file))
    for problem in problems if impossible is None else ():
        click.echo(f"warning: {warning_of(problem)}", err=True)
    if plot is not None:
        from asi_watch.plots import save_curve_plot

        save_curve_plot(curve, file, plot)
        click.echo(f"plot in {shown(plot)}")
    if impossible is not None:
        raise ResponseFileError(impossible)


def _lines(file: str, curve: ResponseCurve) -> Iterator[str]:

    meta = curve.metadata
    yield f"{shown(file)}: curve {curve.curve_id}, stored as {meta['channel_order']}"
    for key, title in _KEYS.items():
        if meta.get(key) is not None:
            yield f"{title:<24}{_plain(meta[key])}"
    yield names_row(curve.channels)
    for code in _CODES:
        yield row(f"g({code})", (f"{v:.4f}" for v in curve.log_response[code]))
    span = (curve.log_response[254] - curve.log_response[1]) / 0.6931472
    yield row("range 1 … 254 (stops)", (f"{v:.2f}" for v in span))
    if isinstance(meta.get("report"), dict):
        yield from _report(meta["report"])


def _plain(value: Any) -> str:
    """Write a value of metadata, whatever it is."""
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return shown(f"{value:.6g}" if isinstance(value, float) else str(value))


def _report(report: dict[str, Any]) -> Iterator[str]:
    """Show what a calibration said of itself, as far as it is what it should be."""
    settings, residuals = report.get("settings"), report.get("residual_stops")
    if isinstance(settings, dict) and isinstance(settings.get("method"), str):
        yield f"{'method':<24}{shown(settings['method'])}"
    if isinstance(residuals, list):
        cells = (f"{v:.4f}" if isinstance(v, int | float) else "unknown" for v in residuals)
        yield row("residual (stops)", cells)
    if isinstance(report.get("warnings"), list):
        yield from (f"warning: {shown(str(text))}" for text in report["warnings"])
