"""``asi-watch history``: what became of past brackets."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.text import Text

from asi_watch.cli import config_option
from asi_watch.cli._options import print_table, read_span, reads, span_text, state_folder
from asi_watch.config.loading import load_config
from asi_watch.config.model import Config
from asi_watch.files import shown
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import BracketRecord, tries

_EPILOG = """\b
Examples:
  asi-watch history -c asi-watch.yaml --since 2h
  asi-watch history -c asi-watch.yaml --verify --since 30d
  asi-watch history -c asi-watch.yaml --json --limit 1000 | jq 'select(.state != "published")'
"""
_ROWS = 50
_TITLES = ("slot", "camera", "state", "frames", "latency", "curve", "product, or why not")


def _read_since(text: str) -> datetime | timedelta:
    """Read a time in the clock of the file names, or how long ago."""
    try:
        if re.match(r"\d{4}-", text):
            return datetime.fromisoformat(text).replace(tzinfo=None)
        return read_span(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time such as 2026-06-21T09:00 or 2h") from None


@click.command(epilog=_EPILOG)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
@click.option(
    "--since",
    callback=reads(_read_since),
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
    since: datetime | timedelta | None,
    camera: str | None,
    limit: int | None,
    verify: bool,
) -> None:
    """Show what became of past brackets, from the ledger; no daemon need be running.

    A span such as 2h counts back from now in the clock of each camera's file names (its
    `timezone`). While the configuration is wrong, the state folder it names is shown all the same.
    """
    state_dir, config = state_folder(config_path)
    limit = limit or (None if verify else _ROWS)
    with Ledger(state_dir, read_only=True) as ledger:
        # One that was renamed has rows under its earlier name.
        known = dict.fromkeys([*(config.cameras if config else ()), *ledger.cameras()])
        if config and camera is not None and camera not in known:
            text = f"no camera {camera!r}; there is {', '.join(known)}"
            raise click.BadParameter(text, param_hint="--camera")
        records = [
            record
            for name in ([camera] if camera else known)
            for record in ledger.history(
                camera=name, since=_start(config, name, since), limit=limit
            )
        ]
        latest = [] if records else ledger.history(camera=camera, limit=1)
        if ledger.unreadable:
            text = f"{ledger.unreadable} rows of the ledger cannot be read and are left out"
            click.echo(text, err=True)
    records.sort(key=lambda record: (record.slot, record.camera))
    records = records[-limit:] if limit else records
    if verify:
        _verify(config_path, records, as_json=as_json)
    elif as_json:
        for record in records:
            click.echo(_as_json(record))
    elif records:
        _show(records)
    else:
        then = f"; the latest slot is {latest[0].slot:%Y-%m-%d %H:%M:%S}" if latest else ""
        click.echo(f"no brackets of this time in the ledger{then}")


def _start(
    config: Config | None, camera: str, since: datetime | timedelta | None
) -> datetime | None:
    """Give the time from which a camera's slots are shown; UTC for a camera not known."""
    if not isinstance(since, timedelta):
        return since
    found = config.cameras.get(camera) if config else None
    zone = found.pattern.timezone if found else UTC
    return datetime.now(zone).replace(tzinfo=None) - since


def _verify(config_path: str, records: list[BracketRecord], *, as_json: bool) -> None:
    """Name the published rows whose products are not there as they were made."""
    from asi_watch.live.retention import product_fault

    cameras = load_config(config_path).cameras
    published = [r for r in records if r.state == "published" and r.camera in cameras]
    found = [(r, product_fault(cameras[r.camera], r)) for r in published]
    faults = [(record, fault) for record, fault in found if fault is not None]
    for record, fault in faults:
        if as_json:
            slot = record.slot.isoformat()
            click.echo(json.dumps({"camera": record.camera, "slot": slot, "fault": fault}))
        else:
            click.echo(f"{record.slot:%Y-%m-%d %H:%M:%S} {record.camera}: {shown(fault)}")
    if not as_json:
        text = f"{len(faults)} of {len(published)} published brackets lack a product as it was made"
        click.echo(text)
    if faults:
        raise SystemExit(1)


def _remark(record: BracketRecord) -> str:
    """Say what became of a bracket: its product, and what it lacks; or why there is none."""
    product = Path(record.products[0]).name if record.products else ""
    if record.state != "published":
        # Of a revision that failed: the picture that was published before is there.
        stands = f"{product} stands, made before" if product else ""
        return "; ".join(filter(None, (record.reason, stands)))
    product += f" (revision {record.revision})" if record.revision > 1 else ""
    lacking = [record.reason] if record.reason else []
    if record.rejected and not record.complete:
        first = record.rejected[0]
        lacking.append(f"without {Path(first.path).name}: {first.reason}")
        if len(record.rejected) > 1:
            lacking.append(f"and {len(record.rejected) - 1} more")
    elif record.expected and len(record.inputs) < record.expected:
        lacking.append(f"{record.expected - len(record.inputs)} never came")
    return f"{product}; {'; '.join(lacking)}" if lacking else product


def _as_json(record: BracketRecord) -> str:
    row = {**asdict(record), "attempts": tries(record.attempts)}
    return json.dumps(row, default=datetime.isoformat)


def _show(records: list[BracketRecord]) -> None:
    rows = []
    for r in records:
        frames = f"{len(r.inputs)}/{r.expected or '?'}"
        latency = "" if r.latency is None else span_text(r.latency, 2)
        curve = (r.curve_id or r.algorithm or "")[:8]
        slot = f"{r.slot:%Y-%m-%d %H:%M:%S}"
        cells = (slot, r.camera, r.state, frames, latency, curve, shown(_remark(r)))
        style = {"published": "", "skipped": "yellow", "failed": "red"}[r.state]
        rows.append([Text(cell, style) for cell in cells])
    print_table(_TITLES, rows)
