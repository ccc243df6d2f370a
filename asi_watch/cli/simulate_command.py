"""`asi-watch simulate`: a camera that is not there."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asi_watch.config.values import parse_duration
from asi_watch.simulator import (
    CLOUD_COVER,
    RESPONSES,
    WRITERS,
    SimulatorSettings,
    Summary,
    Written,
    parse_faults,
    simulate,
)

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(SimulatorSettings)}
_START_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")
_T = TypeVar("_T")

EPILOG = """\b
Examples:
  asi-watch simulate --out /tmp/roof --brackets 3
  asi-watch simulate --out /tmp/roof --brackets 200 --speed 20 --size 1024 --writer mixed
  asi-watch simulate --out /tmp/roof --brackets 50 --speed 10 --faults truncated,late:0.5
  asi-watch simulate --out /tmp/roof --speed 10 --replay /srv/asi/archive/2026/06/21

Ctrl-C stops after the file in work. Beside DIR stand DIR-manifest.jsonl, which lists every file
with its fault, and with --truth the folder DIR-truth: response.npz holds the true response curve,
<slot>_truth.npz the true radiance (relative irradiance per ms, BGR) of each bracket at its middle
exposure.
"""


def _reader(read: Callable[[str], _T]) -> Callable[[Any, Any, str | None], _T | None]:
    """Let click report the ValueError of a reader as a wrong option."""

    def callback(_context: Any, _option: Any, text: str | None) -> _T | None:
        try:
            return None if text is None else read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def _seconds(text: str) -> float:
    return parse_duration(text).total_seconds()


def _exposures(text: str) -> tuple[float, ...]:
    words = [word.strip() for word in text.split(",")]
    bad = [word for word in words if not word.isdecimal()]
    if bad:
        raise ValueError(f"{bad[0]!r} is no whole number of µs; write for example 80,160,320")
    return tuple(float(word) for word in words)


@click.command("simulate", epilog=EPILOG)
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder the camera writes into; made when it is not there.",
)
@click.option(
    "--brackets",
    type=int,
    help="How many brackets; 0 goes on until stopped  [default: 10, or the whole archive].",
)
@click.option(
    "--interval",
    "interval_s",
    default="30s",
    show_default=True,
    callback=_reader(_seconds),
    help="From one bracket to the next, on the camera's clock.",
)
@click.option(
    "--settle",
    "settle_s",
    default="1s",
    show_default=True,
    callback=_reader(_seconds),
    help="From one exposure of a bracket to the next.",
)
@click.option(
    "--speed",
    default=_DEFAULTS["speed"],
    show_default=True,
    help="Camera seconds per real second; inf does not wait.",
)
@click.option(
    "--exposures",
    "exposures_us",
    default="80,160,320,640,1280",
    show_default=True,
    metavar="LIST",
    callback=_reader(_exposures),
    help="Exposure times in µs, in the order they are taken.",
)
@click.option("--size", default=_DEFAULTS["size"], show_default=True, help="Pixels along a side.")
@click.option("--seed", default=_DEFAULTS["seed"], show_default=True, help="Same seed, same files.")
@click.option(
    "--clouds",
    type=click.Choice(list(CLOUD_COVER)),
    default=_DEFAULTS["clouds"],
    show_default=True,
    help="How cloudy it is.",
)
@click.option(
    "--drift",
    "drift_px",
    type=float,
    metavar="PX",
    help="Pixels the clouds overhead move between two exposures [default: as the wind has it].",
)
@click.option(
    "--response",
    type=click.Choice(RESPONSES),
    default=_DEFAULTS["response"],
    show_default=True,
    help="Response curve of the camera.",
)
@click.option("--quality", default=_DEFAULTS["quality"], show_default=True, help="JPEG quality.")
@click.option(
    "--start",
    type=click.DateTime(_START_FORMATS),
    default="2026-06-21 09:00:00",
    show_default=True,
    metavar="TIME",
    help="First slot on the camera's clock; it sets the sun's place too.",
)
@click.option(
    "--pattern",
    default=_DEFAULTS["pattern"],
    show_default=True,
    help="File names, as `filename` in the configuration.",
)
@click.option(
    "--folders",
    default=_DEFAULTS["folders"],
    show_default=True,
    help="Sub-folders, as for strftime.",
)
@click.option(
    "--writer",
    type=click.Choice(WRITERS),
    default=_DEFAULTS["writer"],
    show_default=True,
    help="How files are written: in one go, slowly in pieces, under another name first, or mixed.",
)
@click.option(
    "--faults",
    default="",
    metavar="LIST",
    callback=_reader(parse_faults),
    help="Faults with optional rates per bracket: truncated, late, duplicate, missing, garbage, "
    "fifo, zero, completed-later, all. Example: truncated,late:0.5",
)
@click.option("--truth", is_flag=True, help="Save the true radiance and response curve too.")
@click.option(
    "--replay",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write this archive's brackets again, with new timestamps.",
)
def command(**options: Any) -> None:
    """Write exposure brackets of a rendered sky, or of an archive, as a camera would."""
    console = Console(stderr=True)
    if options["brackets"] is None:
        options["brackets"] = 0 if options["replay"] else _DEFAULTS["brackets"]
    try:
        settings = SimulatorSettings(**options)
        with _stopping() as stop, _progress(console, settings) as on_written:
            summary = simulate(settings, stop=stop, on_written=on_written)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write or read: {error}") from error
    console.print(_closing(settings, summary), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM end the simulation between two files."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(
    console: Console, settings: SimulatorSettings
) -> Iterator[Callable[[Written, Summary], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        total = settings.brackets or None
        task = progress.add_task("brackets", total=total, now="preparing the sky")

        def on_written(written: Written, summary: Summary) -> None:
            now = f"{written.timestamp:%Y-%m-%d %H:%M:%S}  {summary.files} files"
            progress.update(task, completed=summary.brackets, now=now)

        yield on_written


def _closing(settings: SimulatorSettings, summary: Summary) -> str:
    word = "stopped after" if summary.stopped else "wrote"
    text = f"{word} {summary.files} files of {summary.brackets} brackets in {settings.out}"
    if summary.faults:
        counts = ", ".join(f"{kind} {n}" for kind, n in sorted(summary.faults.items()))
        text += f"; faults: {counts}"
    if settings.truth and settings.replay is None:
        text += f"; truth in {settings.truth_folder}"
    late = math.isfinite(settings.speed) and summary.behind_s > max(
        1.0, settings.interval_s / settings.speed
    )
    hint = f"\nfell behind by {summary.behind_s:.1f} s: a smaller --size or --speed keeps pace"
    return text + (hint if late else "")
