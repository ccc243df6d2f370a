"""``asi-watch retry``: try brackets again that failed or were skipped."""

from datetime import datetime

import click

from asi_watch.cli import config_option
from asi_watch.cli._options import SLOT, ask_daemon, check_camera, slots_option
from asi_watch.config.loading import load_config
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import Retry

_MOST_SLOTS = 1000
_EPILOG = """\b
Examples:
  asi-watch retry -c asi-watch.yaml --all-failed
  asi-watch retry -c asi-watch.yaml --camera roof --slot 2026-06-21T12:00:30
  asi-watch retry -c asi-watch.yaml --camera roof --published --since 2026-06-21 --until 2026-06-22
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option("--camera", metavar="NAME", help="One camera alone.")
@slots_option
@click.option("--all-failed", "failed", is_flag=True, help="All brackets that failed.")
@click.option("--skipped", is_flag=True, help="All brackets that were skipped.")
@click.option(
    "--published",
    is_flag=True,
    help="Brackets that are published: those named by --slot, or all from --since on. Each becomes"
    " a new revision, with the curve and the settings of now.",
)
@click.option("--since", type=SLOT, metavar="TIME", help="Only slots from this one on.")
@click.option("--until", type=SLOT, metavar="TIME", help="Only slots before this one.")
def command(
    config_path: str,
    camera: str | None,
    slots: tuple[datetime, ...],
    since: datetime | None,
    until: datetime | None,
    **states: bool,
) -> None:
    """Try brackets again that failed or were skipped, or merge published ones again.

    A running daemon takes them up at once, otherwise the next start does. Every file the ledger
    knows of them is read again. Published brackets are left alone, save with --published; where
    an exposure of theirs is gone, the product stays as it is. Exit code 1 when a slot that was
    named cannot be tried again, or when the daemon refuses.
    """
    if not (slots or any(states.values())):
        raise click.UsageError("say which: --slot TIME, --all-failed, --skipped or --published")
    if states["published"] and not (slots or since):
        raise click.UsageError("--published needs --slot TIME or --since TIME")
    if len(slots) > _MOST_SLOTS:
        raise click.UsageError(f"at most {_MOST_SLOTS} slots; or name a span: --since, --until")
    config = load_config(config_path)
    check_camera(config, camera)
    names = list(config.cameras) if camera is None else [camera]
    with Ledger(config.state_dir, read_only=True) as ledger:
        refused = _refused(ledger, names, slots, published=states["published"])
    which = Retry(slots=slots, since=since, until=until, **states)
    later = "they are tried again when it starts"
    granted = ask_daemon(config.state_dir, "retry", camera, which.model_dump(mode="json"), later)
    for slot, why in sorted(refused.items()):
        click.echo(f"{slot}: {why}", err=True)
    if refused or not granted:
        raise SystemExit(1)


def _refused(
    ledger: Ledger, names: list[str], slots: tuple[datetime, ...], *, published: bool
) -> dict[datetime, str]:
    """Say which of the named slots cannot be tried again, and why."""
    found = {}
    for slot in slots:
        rows = [row for name in names if (row := ledger.get(name, slot)) is not None]
        if not rows:
            found[slot] = "no such bracket in the ledger; `asi-watch history` names them"
        elif not published and all(row.state == "published" for row in rows):
            by = ", ".join(row.camera for row in rows)
            found[slot] = f"published by {by}, and left alone; --published merges it again"
    return found
