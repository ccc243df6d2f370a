"""``asi-watch check``: whether a configuration is right, and what it means in full."""

from __future__ import annotations

import click

from asi_watch.cli import config_option
from asi_watch.config.loading import dump_config, read_config
from asi_watch.config.warnings import find_warnings

__all__ = ["command"]


@click.command()
@config_option
def command(config_path: str) -> None:
    """Check a configuration file and print it with every default.

    The complete configuration goes to standard output as YAML. Problems go to standard error,
    all of them at once, and end in exit code 2; warnings go there too and change nothing.
    """
    loaded = read_config(config_path)
    for warning in find_warnings(loaded):
        click.echo(f"warning: {warning}", err=True)
    click.echo(dump_config(loaded.config), nl=False)
