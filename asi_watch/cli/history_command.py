"""``asi-watch history``: what became of past brackets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asi_watch.cli import config_option

if TYPE_CHECKING:
    from asi_watch.cli.options import RunningConfig
    from asi_watch.live.ledger.ledger import Ledger
    from asi_watch.live.ledger.records import BracketRecord

__all__ = ["command"]

_EPILOG = """\b
Examples:
  asi-watch history -c asi-watch.yaml --since 2h
  asi-watch history -c asi-watch.yaml --verify --since 30d
  asi-watch history -c asi-watch.yaml --json --limit 1000 | jq 'select(.state != "published")'
"""


_ROWS = 50
Since = datetime | timedelta
"""A time in the clock of the file names, or how long ago."""


def _since(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Since | None:
    if value is None:
        return None
    from asi_watch.config.values import parse_duration

    if re.match(r"\d{4}-", value):
        try:
            return datetime.fromisoformat(value).replace(tzinfo=None)
        except ValueError:
            raise click.BadParameter(f"{value!r} is no time such as 2026-06-21T09:00") from None
    try:
        ago: timedelta = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error} (or a time such as 2026-06-21T09:00)") from None
    if ago < timedelta(0):
        raise click.BadParameter(f"{value!r} lies in the future; write how long ago, such as 2h")
    return ago


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
    "--limit", type=click.IntRange(1), help="At most so many rows; default 50, with --verify all."
)
@click.option(
    "--verify",
    is_flag=True,
    help="List the published rows whose products are missing, cut or others; exit code 1 then.",
)
def command(
    config_path: str,
    as_json: bool,
    since: Since | None,
    camera: str | None,
    limit: int | None,
    verify: bool,
) -> None:
    """Show what became of past brackets, from the ledger; no daemon need be running.

    A span such as 2h counts back from now in the clock of each camera's file names (its
    `timezone`). While the configuration is wrong, the state folder it names is shown all the same.
    """
    from asi_watch.cli.options import running_config
    from asi_watch.live.ledger.ledger import Ledger

    config = running_config(config_path)
    with Ledger(config.state_dir, read_only=True) as ledger:
        there = ledger.cameras()
        # One that was renamed has rows under its earlier name.
        known = list(dict.fromkeys([*config.clocks, *there]))
        if camera is not None and camera not in known and config.whole:
            text = f"no camera {camera!r}; there is {', '.join(known)}"
            raise click.BadParameter(text, param_hint="--camera")
        names = there if camera is None else [camera]
        spans = {name: _from(config, name, since) for name in names}
        records = _newest(ledger, spans, limit or (None if verify else _ROWS))
        latest = ledger.history(camera=camera, limit=1) if not records else []
        unreadable = ledger.unreadable
    if unreadable:
        click.echo(f"{unreadable} rows of the ledger cannot be read and are left out", err=True)
    if verify:
        _verify(config_path, records, as_json=as_json)
        return
    if as_json:
        for record in records:
            click.echo(json.dumps(_as_json(record)))
    elif records:
        _show(records)
    elif latest:
        click.echo(_nothing(latest[0], spans[latest[0].camera]))
    else:
        click.echo("no brackets in the ledger yet")


def _from(config: RunningConfig, camera: str, since: Since | None) -> datetime | None:
    return config.ago(camera, since) if isinstance(since, timedelta) else since


def _newest(
    ledger: Ledger, spans: Mapping[str, datetime | None], limit: int | None
) -> list[BracketRecord]:
    rows = [
        record
        for name, since in spans.items()
        for record in ledger.history(camera=name, since=since, limit=limit)
    ]
    rows.sort(key=lambda record: (record.slot, record.camera))
    return rows if limit is None else rows[-limit:]


def _verify(config_path: str, records: list[BracketRecord], *, as_json: bool) -> None:
    """Name the published rows whose products do not stand."""
    from asi_watch.config.loading import load_config
    from asi_watch.files import shown
    from asi_watch.live.retention import product_fault

    cameras = load_config(config_path).cameras
    published = [r for r in records if r.state == "published" and r.camera in cameras]
    faults = 0
    for record in published:
        fault = product_fault(cameras[record.camera], record)
        if fault is None:
            continue
        faults += 1
        if as_json:
            found = {"camera": record.camera, "slot": record.slot.isoformat(), "fault": fault}
            click.echo(json.dumps(found))
        else:
            click.echo(f"{record.slot:%Y-%m-%d %H:%M:%S} {record.camera}: {shown(fault)}")
    if not as_json:
        click.echo(f"{faults} of {len(published)} published brackets lack a product as it was made")
    if faults:
        raise SystemExit(1)


def _nothing(latest: BracketRecord, since: datetime | None) -> str:
    return (
        f"no brackets since {since:%Y-%m-%d %H:%M:%S} in the clock of the file names; the latest"
        f" slot is {latest.slot:%Y-%m-%d %H:%M:%S}"
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


def _span(seconds: float) -> str:
    """Write a latency; after an outage it may be hours."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2f} s"


def _as_json(record: BracketRecord) -> dict[str, Any]:
    from dataclasses import asdict

    from asi_watch.live.ledger.records import exposure_to_json, tries

    return {
        **asdict(record),
        "attempts": tries(record.attempts),
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
            "" if r.latency is None else _span(r.latency),
            (r.curve_id or r.algorithm or "")[:8],
            shown(_remark(r)),
        )
        table.add_row(*(Text(cell, style) for cell in cells))
    # A pipe has no width: give the rows room there.
    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else 160
    console.print(table)
