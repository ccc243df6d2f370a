"""``asi-watch curve``: what was decided on a camera's curves, and what an operator decides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from asi_watch.cli import _options as options
from asi_watch.cli import config_option
from asi_watch.errors import ResponseFileError
from asi_watch.files import shown

if TYPE_CHECKING:
    from asi_watch.live.ledger.records import CurveDecision

_TITLES = ("when (UTC)", "verdict", "curve", "channels", "residual", "codes", "drift", "why")
_STYLES = {"adopted": "green", "pinned": "cyan", "rejected": "yellow", "withdrawn": "yellow"}
_MOST = 100

_camera_option = click.option(
    "--camera", metavar="NAME", help="Which camera; needed where the file has several."
)
_plot_option = click.option(
    "--plot",
    metavar="PLOT",
    callback=options.reads(options.read_plot_name),
    help="Draw residuals and the drift from the first curve: a png, jpg, svg or pdf.",
)


@click.group()
def command() -> None:
    """List, pin, roll back or calibrate the curves of a running camera.

    For each number of channels the first of these that exists is used: a pinned curve; the
    `response` file, if it is newer than what was adopted or `recalibrate.every` is `never`; the
    curve adopted last; the `response` file. `status` and `check` say which one, and why.
    """


@command.command("list")
@config_option
@click.argument("camera", metavar="[CAMERA]", required=False)
@_plot_option
def list_(config_path: str, camera: str | None, plot: str | None) -> None:
    """List what was decided on a camera's curves, newest last.

    Residual: stops that the curve leaves unexplained, and the curve in use left on the same
    brackets. Codes: those that the brackets told of, in the worst channel. Drift: stops from the
    curve that was in use.
    """
    from asi_watch.live.ledger.ledger import Ledger

    found, config = options.camera_of_config(config_path, camera)
    with Ledger(config.state_dir, read_only=True) as ledger:
        decisions = ledger.curves(found.name)
    rows = []
    for d in decisions[-_MOST:]:
        provisional = " (provisional)" if d.provisional else ""
        present = "" if d.present_residual is None else f" ({d.present_residual:.4f})"
        cells = (
            f"{d.decided_utc:.16}".replace("T", " "),
            f"{d.verdict}{provisional}",
            d.curve_id,
            str(d.channels or ""),
            "" if d.residual is None else f"{d.residual:.4f}{present}",
            str(d.coverage or ""),
            "" if d.drift is None else f"{d.drift:.4f}",
            shown(d.reason),
        )
        rows.append([Text(cell, _STYLES.get(d.verdict, "")) for cell in cells])
    if rows:
        options.print_table(_TITLES, rows)
    else:
        click.echo("nothing was decided on a curve yet")
    for file in options.curves_in_use(found, config).files.values():
        click.echo(f"in use: {file.curve.curve_id} {shown(file.path)} ({file.why})")
    if plot is not None:
        from asi_watch.plots import save_drift_plot

        save_drift_plot(_points(decisions), found.name, plot)
        click.echo(f"plot in {shown(plot)}")


def _points(
    decisions: list[CurveDecision],
) -> Iterator[tuple[str, str, float | None, float | None]]:
    """Give time, verdict, residual, and the drift from the first curve whose file is there."""
    from asi_watch.hdr.response import ResponseCurve, curve_drift
    from asi_watch.response_files import load_curve

    first: dict[int, ResponseCurve] = {}
    for decision in decisions:
        drift = None
        with suppress(ResponseFileError):
            if decision.verdict == "adopted":
                curve = load_curve(decision.path)
                drift = curve_drift(curve, first.setdefault(curve.channels, curve))
        if drift is not None or decision.residual is not None:
            yield decision.decided_utc, decision.verdict, decision.residual, drift


@command.command()
@config_option
@click.argument("curve", metavar="FILE|ID")
@_camera_option
def pin(config_path: str, curve: str, camera: str | None) -> None:
    """Use a curve whatever is adopted: a response file, or the id (its beginning) of a listed one.

    The daemon reads the file and keeps a copy. The free constant of each channel is left as it is
    in the file: radiance before and after differs by it.
    """
    is_file = Path(curve).is_file()
    if not is_file and not re.fullmatch(r"[0-9a-f]{4,16}", curve):
        raise click.BadParameter("is no file, and no id that `curve list` shows", param_hint="FILE")
    _ask(config_path, "pin", camera, curve=str(Path(curve).resolve()) if is_file else curve)


@command.command("unpin")
@config_option
@_camera_option
def _unpin(config_path: str, camera: str | None) -> None:
    """Let a pinned curve go: then the `response` file or the curve adopted last is used."""
    _ask(config_path, "unpin", camera)


@command.command("rollback")
@config_option
@_camera_option
def _rollback(config_path: str, camera: str | None) -> None:
    """Withdraw the adopted curve in use: the one before it is used, or the `response` file.

    The next calibration may adopt another. Pin a curve where none shall be.
    """
    _ask(config_path, "rollback", camera)


@command.command()
@config_option
@click.argument("camera", metavar="[CAMERA]", required=False)
@click.option("--dry-run", is_flag=True, help="Say what would be adopted, and change nothing.")
def calibrate(config_path: str, camera: str | None, dry_run: bool) -> None:
    """Calibrate now, from the running daemon's recent brackets, and wait for the verdict."""
    _ask(config_path, "calibrate", camera, dry_run=dry_run)


def _ask(config_path: str, kind: str, camera: str | None, **arguments: object) -> None:
    found, config = options.camera_of_config(config_path, camera)
    later = "it is done when it starts"
    if not options.ask_daemon(config.state_dir, kind, found.name, arguments, later):
        raise SystemExit(1)
