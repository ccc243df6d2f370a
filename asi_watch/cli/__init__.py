"""The command line: one module per command, imported only when that command is called."""

import os
import signal
import sys
from importlib import import_module
from typing import Any

if sys.argv[1:2] == ["run"]:
    # Before all that takes its time: a reload must not end a daemon that is just starting. It is
    # handled once the daemon takes its signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

import click

from asi_watch import __version__
from asi_watch.errors import AsiWatchError

# The order is that of the help. A command is the click command named `command` of the module
# asi_watch/cli/<name>_command.py.
_COMMANDS = {
    "run": "Watch the cameras and merge their brackets, in the foreground.",
    "init": "Write a configuration for the pictures that lie in a folder.",
    "check": "Check a configuration file and print it with every default.",
    "doctor": "Find what needs doing on this machine, each with its remedy.",
    "status": "Show what the running daemon is doing.",
    "history": "Show what became of past brackets.",
    "explain": "Say how a product came to be, and whether it could be made again.",
    "retry": "Try brackets again, or merge published ones once more.",
    "retention": "Show what retention would delete, or delete it.",
    "merge": "Merge the brackets of a folder or an archive, once.",
    "preview": "Merge one bracket in several ways, on one sheet to look at.",
    "calibrate": "Derive a camera's response curve from its brackets.",
    "curve": "List, pin, roll back or calibrate the curves of a running camera.",
    "response": "Show or compare response curves.",
    "simulate": "Play a camera that is not there: a sky of known radiance.",
}


class _LazyGroup(click.Group):
    """A group that knows its commands by name and imports them when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # Before NumPy is there: the matrices here are small, and on cores that others use as well
        # its threads wait for one another, twenty times as long as one of them takes for it all.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        command: click.Command = import_module(f"{__name__}.{cmd_name}_command").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error meant for the operator becomes its text and its exit code."""
        try:
            return super().invoke(ctx)
        except AsiWatchError as error:
            click.echo(str(error) or type(error).__name__, err=True)
            # `run` has exit codes of its own, for the service manager.
            ctx.exit(2 if getattr(error, "exit_code", 1) == 2 else 1)


config_option = click.option(
    "-c", "--config", "config_path", required=True, metavar="FILE", help="The YAML configuration."
)
"""The option ``-c FILE`` that several commands take; it arrives as ``config_path``."""


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="asi-watch", message="%(prog)s %(version)s")
def main() -> None:
    """HDR images from the exposure brackets of all-sky cameras, live on the camera PC."""


if __name__ == "__main__":
    sys.exit(main())
