"""What commands share: the camera and names they mean, the daemon's state folder, warnings."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import yaml
from rich.console import Console
from rich.table import Table

from asi_watch.config.loading import MAX_BYTES, ConfigError, load_config
from asi_watch.config.model import RADIANCE_FORMATS, CameraConfig, Config
from asi_watch.config.values import parse_duration
from asi_watch.files import answered, shown
from asi_watch.logs import facts_of
from asi_watch.naming import MICROSECONDS_PER_UNIT, ParsedName

if TYPE_CHECKING:
    from asi_watch.live.curves.in_use import Choice
    from asi_watch.pipeline import ArchiveRules

_ANSWER_WITHIN = 5.0
_LOOK_EVERY = 0.1
# A calibration is ended by the daemon after a quarter of an hour.
_LONGEST_REQUEST = 1000.0

_T = TypeVar("_T")
# A slot is a time of the camera's clock, without a zone.
SLOT = click.DateTime(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"])
slots_option = click.option(
    "--slot",
    "slots",
    type=SLOT,
    multiple=True,
    metavar="TIME",
    help="This bracket: 2026-06-21T12:00:30, in the clock of the file names. May be repeated.",
)


def reads(read: Callable[[str], _T]) -> Callable[[Any, Any, str | None], _T | None]:
    """Make an option's callback that reports the ValueError of a reader as a wrong option."""

    def callback(_context: Any, _option: Any, text: str | None) -> _T | None:
        try:
            return None if text is None else read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def read_plot_name(text: str) -> str:
    """Refuse a name without a format, or in no folder, before anything is done."""
    from asi_watch.plots import check_plot_name

    check_plot_name(text)
    if not Path(text).absolute().parent.is_dir():
        raise ValueError(f"{shown(Path(text).parent)} is no folder; make it, or write elsewhere")
    return text


def read_span(text: str) -> timedelta:
    """Read a positive duration."""
    span: timedelta = parse_duration(text)
    if span <= timedelta(0):
        raise ValueError(f"{text!r} must be longer than nothing")
    return span


def read_disc(text: str) -> tuple[float, float, float] | str:
    """Read X,Y,RADIUS in pixels; ``none`` is given back."""
    if text == "none":
        return text
    try:
        x, y, radius = (float(number) for number in text.split(","))
    except ValueError:
        x = y = radius = math.nan
    if not (math.isfinite(x) and math.isfinite(y) and 0 < radius < math.inf):
        raise ValueError(f"{text!r} is not none or three numbers such as 1024,1010,980")
    return x, y, radius


# -- cameras and names -----------------------------------------------------------------------


def names_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how file names are read."""
    for option in (
        click.option(
            "--exposure-unit",
            "--exposures-unit",
            type=click.Choice(["us", "ms", "s"]),
            help="What the number in a file name counts  [default: us].",
        ),
        click.option(
            "--round-to",
            callback=reads(read_span),
            metavar="TIME",
            help="Length of a slot; exposures in the same one are a bracket  [default: 30s].",
        ),
        click.option("--camera", metavar="NAME", help="Which of its cameras, if it has several."),
        click.option(
            "-c",
            "--config",
            "config_path",
            metavar="FILE",
            help="Take everything not given here from this configuration file.",
        ),
    ):
        command = option(command)
    return command


def check_camera(config: Config, camera: str | None) -> None:
    """Refuse a --camera that the configuration does not have."""
    if camera is not None and camera not in config.cameras:
        text = f"no camera {camera!r}; there is {', '.join(config.cameras)}"
        raise click.BadParameter(text, param_hint="--camera")


def camera_of(config_path: str | None, camera: str | None) -> tuple[CameraConfig, Config] | None:
    """Find the camera that -c and --camera mean; None without a configuration file."""
    if config_path is None:
        if camera is not None:
            raise click.UsageError("--camera needs -c FILE, which says what the camera is")
        return None
    return camera_of_config(config_path, camera)


def camera_of_config(config_path: str, camera: str | None) -> tuple[CameraConfig, Config]:
    """Find the camera that a name means; without a name, the only one there is."""
    config = load_config(config_path)
    check_camera(config, camera)
    if camera is None and len(config.cameras) > 1:
        known = ", ".join(config.cameras)
        raise click.UsageError(f"{config_path} has several cameras, say which: {known}")
    return config.cameras[camera or next(iter(config.cameras))], config


def curves_in_use(camera: CameraConfig, config: Config | None) -> Choice:
    """Choose the curves that the daemon uses; without a `config`, none that it has adopted."""
    from asi_watch.live.curves.in_use import Choice, choose_curves
    from asi_watch.live.ledger.ledger import FILE_NAME, Ledger

    if not camera.merge.needs_curve:
        return Choice()
    call = partial(os.path.isfile, config.state_dir / FILE_NAME) if config else bool
    if config is None or not answered(_ANSWER_WITHIN, call)[0]:
        return choose_curves(camera, None)
    with Ledger(config.state_dir, read_only=True) as ledger:
        return choose_curves(camera, ledger)


def ask_daemon(
    state_dir: Path,
    kind: str,
    camera: str | None,
    arguments: dict[str, Any],
    later: str,
    patience: float = 5.0,
) -> bool:
    """Leave a request in the ledger, wait for the running daemon's answer, and show it.

    False if the daemon refuses. `later` says what happens where none runs; the `patience` in
    seconds begins again with whatever the daemon says meanwhile.
    """
    from asi_watch.live.ledger.ledger import Ledger
    from asi_watch.live.state_folder import NotRunningError, read_status

    with Ledger(state_dir, beside_daemon=True) as ledger:
        number = ledger.add_request(kind, camera, arguments)
        try:
            read_status(state_dir)
        except NotRunningError:
            click.echo(f"no daemon runs: {later}")
            return True
        said, deadline = "", time.monotonic() + patience
        while time.monotonic() < deadline:
            text, ok = ledger.answer_to(number)
            if ok is not None:
                click.echo(shown(text), err=not ok)
                return ok
            if text != said:
                said, deadline = text, time.monotonic() + _LONGEST_REQUEST
                click.echo(f"{shown(text)} …", err=True)
            time.sleep(_LOOK_EVERY)
    click.echo("the daemon is busy: it takes the request up as soon as it can")
    return True


def archive_rules(
    camera: CameraConfig | None,
    round_to: timedelta | None,
    exposure_unit: str | None,
    min_exposures: int | None = None,
) -> ArchiveRules:
    """Say how an archive's names are read and its brackets are made."""
    from asi_watch.pipeline import ArchiveRules

    given: dict[str, Any] = {"round_to": round_to, "min_exposures": min_exposures}
    values = {key: value for key, value in given.items() if value is not None}
    if camera is None:
        return ArchiveRules(parse=_name_reader(exposure_unit or "us"), **values)
    if exposure_unit is not None:
        raise click.UsageError("--exposure-unit: the configuration file says that already")
    configured: dict[str, Any] = {
        "round_to": camera.bracket.round_to,
        "min_exposures": camera.bracket.min_exposures,
        "offset": camera.bracket.offset,
        "parse": camera.pattern.parse,
        "wants": camera.wants,
        "times": camera.exposure_times,
        "timezone": camera.pattern.timezone,
        "extensions": frozenset(camera.extensions),
        "expected": camera.expected_exposures_us,
    }
    return ArchiveRules(**configured | values)


def _name_reader(unit: str) -> Callable[[str], ParsedName | None]:
    from asi_watch.pipeline.find_brackets import parse_name

    def parse(name: str) -> ParsedName | None:
        parsed = parse_name(name)
        return parsed and parsed._replace(
            exposure_us=parsed.exposure_us * MICROSECONDS_PER_UNIT[unit]
        )

    return parse


@contextmanager
def stopped_by_signal() -> Iterator[threading.Event]:
    """Let Ctrl-C and SIGTERM set an event; a second one ends the command at once."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop_once(_number: int, _frame: object) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, stop_once)
    try:
        yield stop
    finally:
        restore()


# -- messages and state ----------------------------------------------------------------------


def span_text(seconds: float, decimals: int) -> str:
    """Write a span to read: after an outage it may be hours."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.{decimals}f} s"


def row(title: str, cells: Iterable[str]) -> str:
    """Align one row of a table of channels."""
    return f"{title:<24}" + "".join(f"{cell:>16}" for cell in cells)


def names_row(channels: int) -> str:
    """Give the head of a table of channels, in BGR order."""
    return row("", ("blue", "green", "red") if channels == 3 else ("grey",) * channels)


def radiance_hint(algorithm: str, formats: Iterable[str]) -> str | None:
    """Say which algorithm would keep radiance linear; None where it is, or none is made."""
    radiance = [name for name in formats if name in RADIANCE_FORMATS]
    if algorithm != "debevec_custom" or not radiance:
        return None
    return (
        f"radiance ({', '.join(radiance)}) by debevec_custom: codes are stretched between the clips"
        " as in asi_core, which bends it by up to a tenth of a stop; debevec_exact keeps it linear"
    )


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Any]], *right: str) -> None:
    """Print a table, whose first column is never wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, title in enumerate(titles):
        justify: Any = "right" if title in right else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=at == 0)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    # A pipe has no width: give the rows room there.
    console.width = console.width if console.is_terminal else 160
    console.print(table)


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Standard error is looked up each time: a progress bar puts itself in its place.
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        facts = facts_of(record)
        why = [str(facts[key]) for key in ("file", "reason") if key in facts]
        click.echo(prefix + ": ".join([record.getMessage(), *why]), err=True)


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


def state_folder(path: str) -> tuple[Path, Config | None]:
    """Find the state folder that a configuration file names; None where the file is refused.

    A running daemon goes on with the configuration it has, so a file that is just being edited
    keeps nobody from looking. Its problems go to standard error.
    """
    try:
        config = load_config(path)
    except ConfigError as error:
        folder = _folder_in_refused(path)
        if folder is None:
            raise
        text = f"{error}\n{path} would be refused; shown is the state in {folder}"
        click.echo(text, err=True)
        return folder, None
    return config.state_dir, config


def _folder_in_refused(path: str) -> Path | None:
    """Take the folder from the line that names it, whatever else the file holds."""
    try:
        text = Path(path).read_bytes()[:MAX_BYTES].decode(errors="replace")
        line = re.search(r"^state_dir[ \t]*:[ \t]+(.+)", text, re.MULTILINE)
        named = yaml.safe_load(line[1]) if line else str(Config.model_fields["state_dir"].default)
        return Path(path).absolute().parent / named
    except (OSError, TypeError, yaml.YAMLError):
        return None
