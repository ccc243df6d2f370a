"""``asi-watch run``: the daemon in the foreground."""

import logging
import os
import sys
from pathlib import Path

import click

from asi_watch.cli import config_option
from asi_watch.config.loading import load_config
from asi_watch.errors import AsiWatchError
from asi_watch.logs import RepeatFilter, setup_logging

_EPILOG = """\b
Examples:
  asi-watch run -c /etc/asi-watch/asi-watch.yaml
  asi-watch run -c my-camera.yaml 2> daemon.log
"""


@click.command(epilog=_EPILOG)
@config_option
def command(config_path: str) -> None:
    """Watch the cameras and merge their brackets, in the foreground.

    Runs until SIGTERM or SIGINT (Ctrl-C), then finishes the merges in flight. SIGHUP checks the
    configuration, finishes these merges and starts again with it, in the same process. Exit codes:
    0 stopped in order, 1 merges abandoned or another error, 2 configuration refused, 3 another
    daemon uses the same state_dir, 5 the ledger cannot be used, 6 the state folder cannot be used.
    """
    # Imported here: `--help` must not wait for OpenCV.
    from asi_watch.live.daemon import Daemon, restart_process
    from asi_watch.live.messages import Reload
    from asi_watch.live.sdnotify import Notifier
    from asi_watch.live.state_folder import StateFolderError

    # Products, curves, the ledger: for the service and its group.
    os.umask(0o027)
    config = load_config(config_path)
    setup_logging(config.log.level, config.log.format, repeats=RepeatFilter(burst=60))
    daemon = Daemon(Path(config_path), config, Notifier.from_environment())
    code = 0
    try:
        if isinstance(daemon.run(), Reload):
            restart_process()
    except AsiWatchError as error:
        # The daemon has logged it.
        code = getattr(error, "exit_code", 1)
        if isinstance(error, StateFolderError) and isinstance(error.__cause__, PermissionError):
            # No other start helps: the service stays down, as for a configuration refused.
            code = 2
    if not daemon.finished:
        # Python would wait for what worker threads hold, and libraries abort that are taken down
        # under them.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 1)
    sys.exit(code)
