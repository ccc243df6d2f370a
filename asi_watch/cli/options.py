"""What commands share: options, which camera and names they mean, and where warnings go."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from asi_watch.config.model import CameraConfig, Config
    from asi_watch.naming import ParsedName
    from asi_watch.pipeline import ArchiveRules

__all__ = [
    "Circle",
    "RunningConfig",
    "archive_rules",
    "camera_of",
    "disc_of",
    "disc_or_auto_of",
    "duration",
    "echo_log",
    "exposure_unit_option",
    "names_options",
    "round_to_option",
    "running_config",
]

Circle = tuple[float, float, float]
_STATE_DIR = re.compile(r"^state_dir[ \t]*:[ \t]+(?P<value>[^\r\n]+)", re.MULTILINE)


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Standard error is looked up each time: a progress bar puts itself in its place.
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        click.echo(f"{prefix}{record.getMessage()}", err=True)


def echo_log() -> None:
    """Send what the package logs to standard error, one plain line each, until the command ends."""
    logger = logging.getLogger("asi_watch")
    before = (logger.handlers, logger.level, logger.propagate)

    def restore() -> None:
        logger.handlers, level, logger.propagate = before
        logger.setLevel(level)

    click.get_current_context().call_on_close(restore)
    logger.handlers = [_Echo()]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> timedelta | None:
    """Read the value of an option as a positive duration."""
    if value is None:
        return None
    from asi_watch.config.values import parse_duration

    try:
        length: timedelta = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if length <= timedelta(0):
        raise click.BadParameter(f"{value!r} must be longer than nothing")
    return length


round_to_option = click.option(
    "--round-to",
    callback=duration,
    metavar="TIME",
    help="Length of a slot; exposures in the same one are a bracket  [default: 30s].",
)
exposure_unit_option = click.option(
    "--exposure-unit",
    "--exposures-unit",
    type=click.Choice(["us", "ms", "s"]),
    help="What the number in a file name counts  [default: us].",
)


def names_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how file names are read."""
    options = (
        click.option(
            "-c",
            "--config",
            "config_path",
            metavar="FILE",
            type=click.Path(),
            help="Take everything not given here from this configuration file.",
        ),
        click.option("--camera", metavar="NAME", help="Which of its cameras, if it has several."),
        round_to_option,
        exposure_unit_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def camera_of(
    config_path: str | None, camera: str | None
) -> tuple[str, CameraConfig, Config] | None:
    """Find the camera that -c and --camera mean.

    Returns
    -------
    (name, CameraConfig, Config) or None
        None without a configuration file.

    Raises
    ------
    click.UsageError
        If that is no camera, or not one alone.
    """
    if config_path is None:
        if camera is not None:
            raise click.UsageError("--camera needs -c FILE, which says what the camera is")
        return None
    from asi_watch.config.loading import load_config

    config = load_config(config_path)
    known = ", ".join(config.cameras)
    if camera is None:
        if len(config.cameras) > 1:
            raise click.UsageError(f"{config_path} has several cameras, say --camera: {known}")
        camera = next(iter(config.cameras))
    if camera not in config.cameras:
        raise click.BadParameter(f"no camera {camera!r}; there is {known}", param_hint="--camera")
    return camera, config.cameras[camera], config


def archive_rules(
    found: tuple[str, CameraConfig, Config] | None,
    round_to: timedelta | None,
    exposure_unit: str | None,
    min_exposures: int | None = None,
) -> ArchiveRules:
    """Say how an archive's names are read and its brackets are made."""
    from dataclasses import replace

    from asi_watch.pipeline import ArchiveRules

    if found is None:
        rules = ArchiveRules(parse=_parser(exposure_unit or "us"))
    else:
        _, camera, _ = found
        if exposure_unit is not None:
            raise click.UsageError("--exposure-unit: the configuration file says that already")
        pattern = camera.pattern
        rules = ArchiveRules(
            round_to=camera.bracket.round_to,
            parse=pattern.parse,
            extensions=frozenset(camera.extensions),
            expected=camera.expected_exposures_us,
            min_exposures=camera.bracket.min_exposures,
            timezone=pattern.timezone,
            offset=camera.bracket.offset,
            configured=True,
        )
    if round_to is not None:
        rules = replace(rules, round_to=round_to)
    return rules if min_exposures is None else replace(rules, min_exposures=min_exposures)


def _parser(unit: str) -> Callable[[str], ParsedName | None]:
    from asi_watch.naming import MICROSECONDS_PER_UNIT
    from asi_watch.pipeline.find_brackets import parse_name

    factor = MICROSECONDS_PER_UNIT[unit]
    if factor == 1:
        return parse_name

    def parse(name: str) -> ParsedName | None:
        parsed = parse_name(name)
        return None if parsed is None else parsed._replace(exposure_us=parsed.exposure_us * factor)

    return parse


# -- the circle of --sky-disc ----------------------------------------------------------------


def disc_or_auto_of(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Circle | Literal["auto", "none"] | None:
    """Read X,Y,RADIUS, ``auto`` or ``none``; None where the option is not given."""
    return "auto" if value == "auto" else _disc(value, "auto, none")


def disc_of(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Circle | Literal["none"] | None:
    """Read X,Y,RADIUS or ``none``; None where the option is not given."""
    return _disc(value, "none")


def _disc(value: str | None, choices: str) -> Circle | Literal["none"] | None:
    if value is None:
        return None
    if value == "none":
        return "none"
    try:
        x, y, radius = (float(number) for number in value.split(","))
    except ValueError:
        x = y = radius = math.nan
    if not (math.isfinite(x) and math.isfinite(y) and 0 < radius < math.inf):
        raise click.BadParameter(
            f"{value!r} is not {choices} or three numbers such as 1024,1010,980"
        )
    return x, y, radius


# -- the configuration of a daemon, which may just be being edited ---------------------------


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
    from asi_watch.config.document import ConfigError
    from asi_watch.config.loading import load_config
    from asi_watch.naming import parse_timezone

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
    import yaml

    from asi_watch.config.document import MAX_BYTES
    from asi_watch.config.model import Config

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
