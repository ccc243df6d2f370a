"""``asi-watch retry``: try brackets again that failed or were skipped."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asi_watch.cli import config_option

if TYPE_CHECKING:
    from asi_watch.live.operating.requests import RetryRequest

__all__ = ["command"]

_EPILOG = """\b
Examples:
  asi-watch retry -c asi-watch.yaml --all-failed
  asi-watch retry -c asi-watch.yaml --camera roof --slot 2026-06-21T12:00:30
  asi-watch retry -c asi-watch.yaml --camera roof --published --since 2026-06-21 --until 2026-06-22
"""


def _slots(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> tuple[datetime, ...]:
    return tuple(map(_time, values))


def _end(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    return None if value is None else _time(value)


def _time(value: str) -> datetime:
    try:
        slot = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write one such as 2026-06-21T12:00:00") from None
    if slot.tzinfo is not None:
        raise click.BadParameter(
            f"{slot.isoformat()}: a slot is a time of the camera's clock, without a zone"
        )
    return slot


@click.command(epilog=_EPILOG)
@config_option
@click.option("--camera", metavar="NAME", help="One camera alone.")
@click.option(
    "--slot",
    "slots",
    multiple=True,
    callback=_slots,
    metavar="TIME",
    help="This bracket: 2026-06-21T12:00:30, in the clock of the file names. May be repeated.",
)
@click.option("--all-failed", is_flag=True, help="All brackets that failed.")
@click.option("--skipped", is_flag=True, help="All brackets that were skipped.")
@click.option(
    "--published",
    is_flag=True,
    help="Brackets that are published: those named by --slot, or all from --since on. Each becomes"
    " a new revision, with the curve and the settings of now.",
)
@click.option("--since", callback=_end, metavar="TIME", help="Only slots from this one on.")
@click.option("--until", callback=_end, metavar="TIME", help="Only slots before this one.")
def command(
    config_path: str,
    camera: str | None,
    slots: tuple[datetime, ...],
    all_failed: bool,
    skipped: bool,
    published: bool,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Try brackets again that failed or were skipped, or merge published ones anew.

    A running daemon takes them up at once, otherwise the next start does. Every file the ledger
    knows of them is looked at anew. Published brackets are left alone, save with --published;
    where an exposure of theirs is gone, the product stays as it is. Exit code 1 when a slot that
    was named cannot be tried again.
    """
    from asi_watch.config.loading import load_config
    from asi_watch.live.operating.control import NotRunningError, ask
    from asi_watch.live.operating.requests import RetryRequest

    if not (slots or all_failed or skipped or published):
        raise click.UsageError("say which: --slot TIME, --all-failed, --skipped or --published")
    if published and not (slots or since):
        raise click.UsageError("--published needs --slot TIME or --since TIME")
    config = load_config(config_path)
    request = RetryRequest(camera, slots, all_failed, skipped, published, since, until)
    if camera is not None and camera not in config.cameras:
        known = ", ".join(config.cameras)
        raise click.BadParameter(f"no camera {camera!r}; there is {known}", param_hint="--camera")
    names = request.asked_of(list(config.cameras))
    try:
        asked = ask(
            config.state_dir,
            "retry",
            camera=camera,
            slots=[slot.isoformat() for slot in slots],
            failed=all_failed,
            skipped=skipped,
            published=published,
            since=since.isoformat() if since else None,
            until=until.isoformat() if until else None,
        )["asked"]
        when = "the daemon tries them again now"
    except NotRunningError:
        asked = _mark(config.state_dir, names, request)
        when = "they are tried again when the daemon starts"
    for name, marked in asked.items():
        for slot in marked:
            click.echo(f"{name} {slot.replace('T', ' ')}")
    count = sum(map(len, asked.values()))
    nothing = "no such bracket" if published else "no such bracket has failed or was skipped"
    click.echo(f"{count} bracket{'s' * (count != 1)}: {when}" if count else nothing)
    done = {slot for marked in asked.values() for slot in marked}
    left_out = [slot for slot in slots if slot.isoformat() not in done]
    for slot in left_out:
        click.echo(f"{slot}: {_why_not(config.state_dir, names, slot)}", err=True)
    if left_out:
        raise SystemExit(1)


def _why_not(state_dir: Path, names: list[str], slot: datetime) -> str:
    from asi_watch.live.ledger.ledger import Ledger

    with Ledger(state_dir, read_only=True) as ledger:
        published = [name for name in names if ledger.get(name, slot) is not None]
    if published:
        return f"published by {', '.join(published)}, and left alone; --published merges it anew"
    return "no such bracket in the ledger; `asi-watch history` names them"


def _mark(state_dir: Path, names: list[str], request: RetryRequest) -> dict[str, list[str]]:
    """Write the wish into the ledger; the lock makes sure that no daemon uses it meanwhile."""
    from asi_watch.live.ledger.ledger import FILE_NAME, Ledger, LedgerError
    from asi_watch.live.lock import StateLock

    if not (state_dir / FILE_NAME).exists():
        raise LedgerError(f"{state_dir / FILE_NAME}: no ledger yet; has the daemon run here?")
    lock = StateLock(state_dir)
    try:
        with Ledger(state_dir) as ledger:
            return {
                name: [
                    slot.isoformat()
                    for slot in ledger.ask_again(name, slots=request.slots, **request.which)
                ]
                for name in names
            }
    finally:
        lock.release()
