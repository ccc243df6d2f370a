"""``asi-watch retention``: what retention would delete, or deleting it."""

import time

import click

from asi_watch.cli import config_option
from asi_watch.cli._options import check_camera, print_table
from asi_watch.config.loading import load_config
from asi_watch.files import shown
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.retention import KINDS, Outcome, retain

_EPILOG = """\b
Examples:
  asi-watch retention -c /etc/asi-watch/asi-watch.yaml
  asi-watch retention -c asi-watch.yaml --camera roof --apply
"""
_TITLES = ("camera", "kind", "files", "size", "oldest slot", "newest slot", "failed")


@click.command(epilog=_EPILOG)
@config_option
@click.option("--camera", metavar="NAME", help="One camera alone.")
@click.option("--apply", is_flag=True, help="Delete the files, whatever dry_run says.")
def command(config_path: str, camera: str | None, apply: bool) -> None:
    """Show what retention would delete now; with --apply, delete it.

    Only files of published brackets, oldest first. The daemon does the same every hour where
    `retention` is configured and `dry_run` is false. Exit code 1 when files could not be deleted.
    """
    config = load_config(config_path)
    check_camera(config, camera)
    chosen = [c for c in config.cameras.values() if camera in (None, c.name)]
    if not any(getattr(c.retention, k).any for c in chosen for k in KINDS):
        click.echo("no retention is configured: nothing is ever deleted")
        return
    with Ledger(config.state_dir, read_only=True) as ledger:
        outcomes = retain(chosen, ledger, time.time(), apply=apply)
    print_table(_TITLES, map(_row, outcomes), "files", "size", "failed")
    if not any(o.files or o.failed for o in outcomes):
        click.echo("nothing to delete: what is within the limits or younger than 1 h stays")
    else:
        click.echo("deleted" if apply else "nothing was deleted; --apply does it")
    for outcome in outcomes:
        if outcome.kept:
            click.echo(
                f"{outcome.camera}: the exposures of {outcome.kept} brackets stay, since their"
                " product is not in place (retention.require_product)"
            )
        if outcome.reason:
            click.echo(f"{outcome.camera}: {shown(outcome.reason)}", err=True)
    if any(outcome.failed for outcome in outcomes):
        raise SystemExit(1)


def _row(outcome: Outcome) -> tuple[str, ...]:
    o = outcome
    times = (f"{t:%Y-%m-%d %H:%M:%S}" if t else "" for t in (o.oldest, o.newest))
    size = f"{o.size / 1e9:.1f} GB" if o.size >= 1e9 else f"{o.size / 1e6:.1f} MB"
    return (o.camera, o.kind, str(o.files), size, *times, str(o.failed or ""))
