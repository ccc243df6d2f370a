"""What a look at the daemon needs of a configuration, which may just be being edited."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import click
import yaml

from asi_watch.config.document import MAX_BYTES, ConfigError, read_document
from asi_watch.config.loading import load_config
from asi_watch.config.model import Config
from asi_watch.naming import parse_timezone

__all__ = ["RunningConfig", "running_config"]

_STATE_DIR = re.compile(r"state_dir[ \t]*:[ \t]+(?P<value>[^\r\n]+)")


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
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES)
    except OSError:
        return None
    data = _values(text, path)
    named = data.get("state_dir", Config.model_fields["state_dir"].default)
    if not isinstance(named, str | Path) or not str(named).strip() or "\0" in str(named):
        return None
    base = Path(path).absolute().parent
    cameras = data.get("cameras")
    clocks = {str(n): _clock(c) for n, c in cameras.items()} if isinstance(cameras, dict) else {}
    return RunningConfig(base / named, clocks, whole=False)


def _values(text: bytes, path: str) -> dict[str, Any]:
    try:
        data = read_document(text, path).data
    except ConfigError:
        # No YAML at all: of its lines one may still name the folder.
        match = re.search(rf"^{_STATE_DIR.pattern}", text.decode(errors="replace"), re.MULTILINE)
        return {} if match is None else {"state_dir": _plain(match["value"])}
    return data if isinstance(data, dict) else {}


def _plain(value: str) -> object:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value.strip()


def _clock(camera: object) -> tzinfo:
    name = camera.get("timezone", "UTC") if isinstance(camera, dict) else "UTC"
    try:
        return parse_timezone(name) if isinstance(name, str) else UTC
    except ValueError:
        return UTC
