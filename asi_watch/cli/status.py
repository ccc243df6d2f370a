"""``asi-watch status``: what the running daemon is doing."""

from __future__ import annotations

import json
from typing import Any

import click

from asi_watch.cli import config_option

__all__ = ["command"]


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(config_path: str, as_json: bool) -> None:
    """Show what the running daemon is doing.

    Per camera: how its folder is watched, the last bracket, latency from the last exposure to
    the durable product, counts since the daemon started, and the latest error. Exit code 1 when
    no daemon answers.

    \b
    Examples:
      asi-watch status -c /etc/asi-watch/asi-watch.yaml
      asi-watch status -c asi-watch.yaml --json | jq .cameras.roof.counts
    """
    from asi_watch.config.loading import load_config
    from asi_watch.live.control import ask

    snapshot = ask(load_config(config_path).state_dir)
    if as_json:
        click.echo(json.dumps(snapshot, indent=2))
        return
    _show(snapshot)


def _show(snapshot: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(
        f"asi-watch {snapshot['version']}, process {snapshot['pid']},"
        f" running since {snapshot['started_utc']}; {snapshot['jobs_running']} jobs running,"
        f" {snapshot['jobs_queued']} waiting"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, right in (
        ("camera", False),
        ("watching", False),
        ("last bracket", False),
        ("latency p50", True),
        ("max", True),
        ("published", True),
        ("short", True),
        ("skipped", True),
        ("failed", True),
        ("unusable", True),
        ("late", True),
        ("curve", False),
    ):
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for name, camera in snapshot["cameras"].items():
        table.add_row(*(Text(cell) for cell in _row(name, camera)))
    console.print(table)
    for name, camera in snapshot["cameras"].items():
        error = camera["last_error"]
        if error:
            console.print(Text(f"{name}: last error at {error['at']}: {error['what']}", "yellow"))


def _row(name: str, camera: dict[str, Any]) -> tuple[str, ...]:
    counts, last, latency = camera["counts"], camera["last_bracket"], camera["latency"]
    curve = camera["curve"] or ("calibrating" if camera["calibrating"] else "none yet")
    return (
        name,
        camera["watching"],
        f"{last['slot']} {last['state']}" if last else "none yet",
        f"{latency['p50']:.2f} s" if latency else "",
        f"{latency['max']:.2f} s" if latency else "",
        str(counts["published"]),
        str(counts["incomplete"]),
        str(counts["skipped"]),
        str(counts["parked"]),
        str(counts["files_unusable"]),
        str(counts["late"]),
        curve,
    )
