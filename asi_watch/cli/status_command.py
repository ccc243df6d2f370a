"""``asi-watch status``: what the running daemon is doing."""

import json
from collections.abc import Iterator
from typing import Any

import click

from asi_watch.cli import config_option
from asi_watch.cli._options import span_text, state_folder
from asi_watch.files import counted, shown
from asi_watch.live.state_folder import NotRunningError, is_stale, read_status

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
_WAITING = {"waiting_in_ledger": "waiting in the ledger", "backlog": "files of a backlog to come"}


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
    troubles, notes = troubles_of(snapshot), notes_of(snapshot)
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


def troubles_of(snapshot: dict[str, Any]) -> list[str]:
    """List what keeps cameras from publishing.

    Parameters
    ----------
    snapshot : dict
        As `read_status` returns it.
    """
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
        if camera.get("late_since"):
            ago = span_text(camera["seen_age"], 0)
            found.append(f"{name}: silent, late since {camera['late_since']}, last seen {ago} ago")
        if camera.get("failing") is not None:
            found.append(f"{name}: its brackets fail: {camera['failing']}")
        if camera.get("watching", "").startswith("watch folder"):
            found.append(f"{name}: {camera['watching']}")
    return found


def notes_of(snapshot: dict[str, Any]) -> list[str]:
    """List what needs a look, but keeps no camera from publishing.

    Parameters
    ----------
    snapshot : dict
        As `read_status` returns it.
    """
    error = snapshot.get("reload_error")
    found = [f"the configuration was not reloaded: {error}"] if error else []
    for name, camera in snapshot.get("cameras", {}).items():
        if others := camera.get("not_taken"):
            count = counted(others["files"], "file")
            found.append(f"{name}: nothing takes {count}, such as {others['example']}: see check")
        if error := camera.get("clock_error"):
            side = "ahead of" if error > 0 else "behind"
            text = f"the names are {span_text(abs(error), 0)} {side} this machine's clock"
            found.append(f"{name}: {text}; is the camera's clock right, and `timezone`?")
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
        click.secho(f"\n{shown(name)}", bold=True)
        for title, text in (*_progress(camera), *_state(camera)):
            colour = "yellow" if title == "last error" else None
            click.secho(f"  {title:<13} {shown(text)}", fg=colour)


def _progress(camera: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Say what came in and what became of it."""
    yield "watching", f"{camera['watch']} ({camera['watching']})"
    exposure, bracket, latency = (
        camera[key] for key in ("last_exposure", "last_bracket", "latency")
    )
    text = "none since the start"
    if exposure:
        ago = span_text(camera["last_exposure_age"], 0)
        text = f"{exposure['timestamp'].replace('T', ' ')}, {ago} ago"
        text += _by_name(camera["last_exposure_age_by_name"])
    if camera["late_since"]:
        text += f"; late since {camera['late_since']}"
    yield "last exposure", text
    if camera["last_product"]:
        ago = span_text(camera["last_product_age"], 0)
        text = f"{camera['last_product'].replace('T', ' ')}, {ago} ago"
        yield "last product", text + _by_name(camera["last_product_age_by_name"])
    text = "none yet"
    if bracket:
        text = f"{bracket['slot'].replace('T', ' ')} {bracket['state']}"
        text += f", {bracket['exposures']} exposures"
        text += "" if bracket["complete"] else ", incomplete"
    yield "last bracket", text
    text = "no live bracket published yet"
    if latency:
        text = ", ".join(f"{key} {latency[key]:.3f} s" for key in ("p50", "p95", "max"))
        text += " (last exposure → durable product)"
    yield "latency", text
    counts = camera["counts"]
    parts = [f"{counts['published']} published ({counts['incomplete']} incomplete)"]
    parts += [f"{counts[k]} {w}" for k, w in _COUNTS.items() if counts.get(k) or k == "skipped"]
    yield "since start", ", ".join(parts)


def _by_name(age: float) -> str:
    """Say how old a file is by the time in its name, which is the camera's clock."""
    return f" (by its name {span_text(age, 0)})" if age >= 0 else " (its name lies in the future)"


def _state(camera: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Say what is open, in use, deleted and at fault."""
    waiting = [f"{camera[key]} {what}" for key, what in _WAITING.items() if camera[key]]
    yield "open", ", ".join([f"{camera['open_count']} brackets", *waiting])
    curves = [
        f"{c['id']}{', provisional' if c['provisional'] else ''} ({c['channels']} channels;"
        f" {c['why']}) {c['file']}"
        for c in camera["curves"]
    ]
    text = ", ".join(curves) or "none yet"
    text += " (calibrating)" if camera["calibrating"] else ""
    yield "curve", f"{text}; not used: {camera['curve_fault']}" if camera["curve_fault"] else text
    if camera["deleted_files"]:
        size = camera["deleted_bytes"] / 1e9
        yield "retention", f"{camera['deleted_files']} files deleted, {size:.1f} GB"
    products, error = camera["products"], camera["last_error"]
    if products and products["missing"]:
        text = f"{products['missing']} of the newest {products['checked']} are missing"
        yield "products", text
    if error:
        yield "last error", f"{error['at']} {error['what']}"
