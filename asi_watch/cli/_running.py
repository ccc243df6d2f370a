"""What a look at the daemon needs of a configuration, which may just be being edited."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import click
import yaml

from asi_watch.config.document import MAX_BYTES, ConfigError
from asi_watch.config.loading import load_config
from asi_watch.config.model import Config
from asi_watch.naming import parse_timezone

__all__ = ["RunningConfig", "running_config"]

_STATE_DIR = re.compile(r"^state_dir[ \t]*:[ \t]+(?P<value>[^\r\n]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RunningConfig:
    """Where the daemon's state is, and the clocks of its cameras as far as they can be read.

    `whole` is false where the file is refused.
    """

    state_dir: Path
    clocks: Mapping[str, tzinfo]
    whole: bool = True

    def ago(self, camera: str, span: timedelta) -> datetime:
        """Give the naive time of a camera's clock some time ago; UTC for a camera not known.

        Parameters
        ----------
        camera : str
        span : timedelta
        """
        return datetime.now(self.clocks.get(camera, UTC)).replace(tzinfo=None) - span


def running_config(path: str) -> RunningConfig:
    """Read what a command needs that changes nothing; a refused file need not keep it from it.

    The daemon goes on with the configuration it has. Problems go to standard error.

    Raises
    ------
    ConfigError
        If the file cannot be read at all.
    """
    try:
        config = load_config(path)
    except ConfigError as error:
        found = _of_refused(path)
        if found is None:
            raise
        click.echo(
            f"{error}\n{path} would be refused; shown is the state in {found.state_dir}", err=True
        )
        return found
    zones = {name: parse_timezone(camera.timezone) for name, camera in config.cameras.items()}
    return RunningConfig(config.state_dir, zones)


def _of_refused(path: str) -> RunningConfig | None:
    """Take the folder from the line that names it, whatever else the file holds."""
    try:
        text = Path(path).read_bytes()[:MAX_BYTES].decode(errors="replace")
    except OSError:
        return None
    match = _STATE_DIR.search(text)
    named: object = Config.model_fields["state_dir"].default
    if match is not None:
        try:
            named = yaml.safe_load(match["value"])
        except yaml.YAMLError:
            named = match["value"].strip()
    if not isinstance(named, str | Path) or not str(named).strip() or "\0" in str(named):
        return None
    return RunningConfig(Path(path).absolute().parent / named, {}, whole=False)
