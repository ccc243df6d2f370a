"""``asi-watch status``: what the running daemon is doing."""

from __future__ import annotations

import json
from typing import Any

import click

from asi_watch.cli import config_option
from asi_watch.files import shown

__all__ = ["command"]

_EPILOG = """\b
Examples:
  asi-watch status -c /etc/asi-watch/asi-watch.yaml
  asi-watch status -c asi-watch.yaml --json | jq .cameras.roof.counts
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(config_path: str, as_json: bool) -> None:
    """Show what the running daemon is doing.

    Per camera: how its folder is watched, the last bracket, latency from the last exposure to
    the durable product, counts since the daemon started, the curve, and the latest error. Exit
    code 1 when no daemon answers.
    """
    from asi_watch.cli._running import running_config
    from asi_watch.live.operating.control import NotRunningError, ask

    snapshot = ask(running_config(config_path).state_dir)
    if as_json:
        click.echo(json.dumps(snapshot, indent=2))
        return
    try:
        _show(snapshot)
    except (KeyError, TypeError) as error:
        raise NotRunningError(
            f"the daemon answers as another version ({shown(str(snapshot.get('version')))}) does;"
            " restart it after an upgrade, or ask with --json"
        ) from error


def _show(snapshot: dict[str, Any]) -> None:
    running, queued = snapshot["jobs_running"], snapshot["jobs_queued"]
    click.echo(
        f"asi-watch {snapshot['version']}, process {snapshot['pid']}, running since"
        f" {snapshot['started_utc']}\njobs: {running} running, {queued} waiting"
    )
    if snapshot["rows_owed"]:
        click.secho(f"{snapshot['rows_owed']} rows wait for the ledger's disk", fg="yellow")
    if snapshot["state_made_anew"]:
        text = f"the state folder was taken away, and made anew at {snapshot['state_made_anew']}"
        click.secho(text, fg="yellow")
    for name, camera in snapshot["cameras"].items():
        click.echo()
        click.secho(name, bold=True)
        for title, text in _lines(camera):
            colour = "yellow" if title in ("last error", "paused", "hanging") else None
            click.secho(f"  {title:<13} {shown(text)}", fg=colour)


def _lines(camera: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("watching", f"{camera['watch']} ({camera['watching']})"),
        ("last bracket", _last(camera["last_bracket"])),
        ("latency", _latency(camera["latency"])),
        ("since start", _counts(camera["counts"])),
        ("open", f"{camera['open_count']} brackets{_waiting(camera)}"),
        *([("hanging", camera["hanging"])] if camera["hanging"] else []),
        *([("paused", camera["paused"])] if camera["paused"] else []),
        ("curve", _curve(camera)),
    ]
    if camera["deleted_files"]:
        size = camera["deleted_bytes"] / 1e9
        lines.append(("retention", f"{camera['deleted_files']} files deleted, {size:.1f} GB"))
    error = camera["last_error"]
    if error:
        lines.append(("last error", f"{error['at']} {error['what']}"))
    return lines


def _last(last: dict[str, Any] | None) -> str:
    if last is None:
        return "none yet"
    slot = last["slot"].replace("T", " ")
    short = "" if last["complete"] else ", incomplete"
    return f"{slot} {last['state']}, {last['exposures']} exposures{short}"


def _latency(latency: dict[str, float] | None) -> str:
    if latency is None:
        return "no live bracket published yet"
    p50, p95, worst = latency["p50"], latency["p95"], latency["max"]
    return f"p50 {p50:.3f} s, p95 {p95:.3f} s, max {worst:.3f} s (last exposure → durable product)"


def _counts(counts: dict[str, int]) -> str:
    parts = [f"{counts['published']} published ({counts['incomplete']} incomplete)"]
    parts += [
        f"{counts[key]} {title}"
        for key, title in (
            ("revisions", "revised"),
            ("skipped", "skipped"),
            ("parked", "failed for good"),
            ("late", "late exposures"),
            ("duplicates", "duplicates"),
            ("files_unusable", "unusable files"),
            ("names_ignored", "names ignored"),
        )
        if counts[key] or key == "skipped"
    ]
    return ", ".join(parts)


def _waiting(camera: dict[str, Any]) -> str:
    parts = [
        f", {camera[key]} {what}"
        for key, what in (
            ("waiting_for_curve", "waiting for a curve"),
            ("waiting_for_room", "waiting for room on the disk"),
            ("waiting_in_ledger", "waiting in the ledger"),
            ("backlog", "files of a backlog to come"),
        )
        if camera[key]
    ]
    return "".join(parts)


def _curve(camera: dict[str, Any]) -> str:
    calibrating = " (calibrating)" if camera["calibrating"] else ""
    fault = f"; not used: {camera['curve_fault']}" if camera["curve_fault"] else ""
    if camera["curve"] is None:
        return f"none yet{calibrating}{fault}"
    return f"{camera['curve']} {camera['curve_file']}{calibrating}{fault}"
