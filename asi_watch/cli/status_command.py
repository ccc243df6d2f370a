"""``asi-watch status``: what the running daemon is doing."""

import json
from typing import Any

import click

from asi_watch.cli import config_option
from asi_watch.cli.options import span_text, state_folder
from asi_watch.files import shown
from asi_watch.live.status import NotRunningError, is_stale, read_status

_EPILOG = """\b
Examples:
  asi-watch status -c /etc/asi-watch/asi-watch.yaml
  asi-watch status -c asi-watch.yaml --json | jq .cameras.roof.counts
"""
_NEEDS_A_LOOK = 4
_COUNTS = {
    "revisions": "revised",
    "skipped": "skipped",
    "parked": "failed, not retried",
    "late": "late exposures",
    "duplicates": "duplicates",
    "files_unusable": "unusable files",
    "names_ignored": "names ignored",
}
_WAITING = {
    "waiting_for_room": "waiting for room on the disk",
    "waiting_in_ledger": "waiting in the ledger",
    "backlog": "files of a backlog to come",
}


@click.command(epilog=_EPILOG)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(config_path: str, as_json: bool) -> None:
    """Show what the running daemon is doing.

    Per camera: how its folder is watched, the last exposure and bracket, latency from the last
    exposure to the durable product, counts since the daemon started, the curve, and the latest
    error. Exit codes: 0 it works, 1 no daemon runs, 2 the configuration names no state folder,
    4 it runs but something keeps a camera from publishing. What needs a look but keeps none from
    publishing, such as a reload that was refused, is shown and changes no exit code.
    """
    snapshot, age = read_status(state_folder(config_path)[0])
    troubles, notes = _troubles(snapshot), _notes(snapshot)
    if is_stale(age):
        troubles.append(f"no progress for {age:.0f} s: its disks or the host may hang")
    if as_json:
        snapshot |= {"age": round(age, 1), "troubles": troubles, "notes": notes}
        click.echo(json.dumps(snapshot, indent=2))
    else:
        try:
            _show(snapshot, [*troubles, *notes])
        except (KeyError, TypeError, AttributeError) as error:
            raise NotRunningError(
                f"the daemon is of another version ({shown(str(snapshot.get('version')))});"
                " restart it after an upgrade, or ask with --json"
            ) from error
    if troubles:
        raise SystemExit(_NEEDS_A_LOOK)


def _troubles(snapshot: dict[str, Any]) -> list[str]:
    """List what keeps cameras from publishing."""
    found = []
    if blocked := snapshot.get("blocked"):
        found.append(f"nothing is published, the ledger cannot be written: {blocked}")
    for name, camera in snapshot.get("cameras", {}).items():
        if camera.get("paused") and not blocked:
            found.append(f"{name}: paused: {camera['paused']}")
        if camera.get("no_place"):
            found.append(f"{name}: products find no place: {camera['no_place']}")
        if camera.get("hanging"):
            found.append(f"{name}: {camera['hanging']}")
        if camera.get("watching", "").startswith("watch folder"):
            found.append(f"{name}: {camera['watching']}")
    return found


def _notes(snapshot: dict[str, Any]) -> list[str]:
    """List what needs a look, but keeps no camera from publishing."""
    found = []
    if reload_error := snapshot.get("reload_error"):
        found.append(f"the configuration was not reloaded: {reload_error}")
    for name, camera in snapshot.get("cameras", {}).items():
        products = camera.get("products")
        if products and products["damaged"]:
            found.append(f"{name}: damaged products, such as {products['example']}")
    return found


def _show(snapshot: dict[str, Any], remarks: list[str]) -> None:
    running, queued = snapshot["jobs_running"], snapshot["jobs_queued"]
    click.echo(
        f"asi-watch {shown(str(snapshot['version']))}, process {snapshot['pid']}, running since"
        f" {snapshot['started_utc']}\njobs: {running} running, {queued} waiting"
    )
    for text in remarks:
        click.secho(shown(text), fg="yellow")
    for name, camera in snapshot["cameras"].items():
        click.echo()
        click.secho(shown(name), bold=True)
        for title, text in _lines(camera):
            colour = "yellow" if title == "last error" else None
            click.secho(f"  {title:<13} {shown(text)}", fg=colour)


def _lines(camera: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("watching", f"{camera['watch']} ({camera['watching']})"),
        ("last exposure", _exposure(camera)),
        ("last bracket", _last(camera["last_bracket"])),
        ("latency", _latency(camera["latency"])),
        ("since start", _counts(camera["counts"])),
        ("open", _open(camera)),
        ("curve", _curve(camera)),
    ]
    if camera["deleted_files"]:
        size = camera["deleted_bytes"] / 1e9
        lines.append(("retention", f"{camera['deleted_files']} files deleted, {size:.1f} GB"))
    products = camera["products"]
    if products and products["missing"]:
        text = f"{products['missing']} of the newest {products['checked']} are missing"
        lines.append(("products", text))
    error = camera["last_error"]
    if error:
        lines.append(("last error", f"{error['at']} {error['what']}"))
    return lines


def _exposure(camera: dict[str, Any]) -> str:
    last = camera["last_exposure"]
    if last is None:
        return "none since the start"
    return f"{last['timestamp'].replace('T', ' ')}, {span_text(camera['last_exposure_age'], 0)} ago"


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
        for key, title in _COUNTS.items()
        if counts.get(key) or key == "skipped"
    ]
    return ", ".join(parts)


def _open(camera: dict[str, Any]) -> str:
    waiting = [f"{camera[key]} {what}" for key, what in _WAITING.items() if camera[key]]
    return ", ".join([f"{camera['open_count']} brackets", *waiting])


def _curve(camera: dict[str, Any]) -> str:
    calibrating = " (calibrating)" if camera["calibrating"] else ""
    fault = f"; not used: {camera['curve_fault']}" if camera["curve_fault"] else ""
    curves = [f"{c['id']} ({c['channels']} channels) {c['file']}" for c in camera["curves"]]
    return f"{', '.join(curves) or 'none yet'}{calibrating}{fault}"
