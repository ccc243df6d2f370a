"""``asi-watch history``: what became of past brackets."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asi_watch.cli import config_option

if TYPE_CHECKING:
    from asi_watch.live.records import BracketRecord

__all__ = ["command"]

_EPILOG = """\b
Examples:
  asi-watch history -c asi-watch.yaml --since 2h
  asi-watch history -c asi-watch.yaml --json --limit 1000 | jq 'select(.state != "published")'
"""


def _since(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    from asi_watch.durations import parse_duration

    if re.match(r"\d{4}-", value):
        try:
            return datetime.fromisoformat(value).replace(tzinfo=None)
        except ValueError:
            raise click.BadParameter(f"{value!r} is no time such as 2026-06-21T09:00") from None
    try:
        ago: timedelta = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error} (or a time such as 2026-06-21T09:00)") from None
    return datetime.now() - ago


@click.command(epilog=_EPILOG)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
@click.option(
    "--since",
    callback=_since,
    metavar="TIME",
    help="Slots from this time on: 2026-06-21T09:00 in the clock of the file names, or 2h ago.",
)
@click.option("--camera", metavar="NAME", help="One camera alone.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many rows."
)
def command(
    config_path: str, as_json: bool, since: datetime | None, camera: str | None, limit: int
) -> None:
    """Show what became of past brackets, from the ledger; no daemon need be running."""
    from asi_watch.config.loading import load_config
    from asi_watch.live.bookkeeping.ledger import Ledger

    config = load_config(config_path)
    if camera is not None and camera not in config.cameras:
        known = ", ".join(config.cameras)
        raise click.BadParameter(f"no camera {camera!r}; there is {known}", param_hint="--camera")
    with Ledger(config.state_dir, read_only=True) as ledger:
        records = ledger.history(camera=camera, since=since, limit=limit)
    if as_json:
        for record in records:
            click.echo(json.dumps(_as_json(record)))
        return
    if not records:
        click.echo(_nothing(config.state_dir, camera, since))
        return
    _show(records)


def _nothing(state_dir: Path, camera: str | None, since: datetime | None) -> str:
    from asi_watch.live.bookkeeping.ledger import Ledger

    with Ledger(state_dir, read_only=True) as ledger:
        latest = ledger.history(camera=camera, limit=1)
    if not latest:
        return "no brackets in the ledger yet"
    return (
        f"no brackets since {since:%Y-%m-%d %H:%M:%S} in the clock of the file names; the latest"
        f" slot is {latest[0].slot:%Y-%m-%d %H:%M:%S}"
    )


def _remark(record: BracketRecord) -> str:
    """Say what became of a bracket: its product, and what is wanting; or why there is none."""
    if record.state != "published":
        return record.reason or ""
    product = Path(record.products[0]).name if record.products else ""
    product += f" (revision {record.revision})" if record.revision > 1 else ""
    wanting = [record.reason] if record.reason else []
    if record.rejected and not record.complete:
        first = record.rejected[0]
        wanting.append(f"without {Path(first.path).name}: {first.reason}")
        if len(record.rejected) > 1:
            wanting.append(f"and {len(record.rejected) - 1} more")
    elif record.expected and len(record.inputs) < record.expected:
        wanting.append(f"{record.expected - len(record.inputs)} never came")
    return f"{product}; {'; '.join(wanting)}" if wanting else product


def _as_json(record: BracketRecord) -> dict[str, Any]:
    from dataclasses import asdict

    from asi_watch.live.records import exposure_to_json

    return {
        **asdict(record),
        "slot": record.slot.isoformat(),
        "inputs": [exposure_to_json(e) for e in record.inputs],
    }


def _show(records: list[BracketRecord]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from asi_watch.files import shown

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("slot", "camera", "state", "frames", "latency", "curve", "product, or why not"):
        table.add_column(title, overflow="fold", no_wrap=title == "slot")
    for r in records:
        style = {"published": "", "skipped": "yellow", "failed": "red"}[r.state]
        cells = (
            f"{r.slot:%Y-%m-%d %H:%M:%S}",
            r.camera,
            r.state,
            f"{len(r.inputs)}/{r.expected or '?'}",
            "" if r.latency is None else f"{r.latency:.2f} s",
            (r.curve_id or r.algorithm or "")[:8],
            shown(_remark(r)),
        )
        table.add_row(*(Text(cell, style) for cell in cells))
    # A pipe has no width: give the rows room there.
    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else 160
    console.print(table)
