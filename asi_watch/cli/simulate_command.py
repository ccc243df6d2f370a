"""``asi-watch simulate``: a camera that is not there."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from asi_watch.cli._options import read_span, reads, stopped_by_signal
from asi_watch.files import counted
from asi_watch.simulator import simulation as sim
from asi_watch.simulator.sensor import RESPONSES
from asi_watch.simulator.styles import STYLES

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(sim.SimulatorSettings)}
_STARTS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")
_FOLDER = click.Path(file_okay=False, path_type=Path)
_Decorator = Callable[[Callable[..., None]], Callable[..., None]]

_EPILOG = """\b
Examples:
  asi-watch simulate --out /tmp/roof --brackets 3
  asi-watch simulate --out /tmp/roof --brackets 200 --speed 20 --size 1024 --writer mixed
  asi-watch simulate --out /tmp/roof --style mobotix --speed 10

Ctrl-C stops after the file in work. With --truth the folder DIR-truth stands beside DIR:
response.npz holds the true response curve, <slot>_truth.npz the true radiance (relative irradiance
per ms, BGR) of each bracket at its middle exposure.
"""


def _read_seconds(text: str) -> float:
    return read_span(text).total_seconds()


def _read_exposures(text: str) -> tuple[float, ...]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not word.isdecimal():
            raise ValueError(f"{word!r} is no whole number of µs; write for example 80,160,320")
    return tuple(map(float, words))


def _option(flag: str, help_text: str, name: str | None = None, **settings: Any) -> _Decorator:
    """Make an option whose default is that of the simulator's settings."""
    name = name or flag.removeprefix("--")
    settings.setdefault("default", _DEFAULTS[name])
    return click.option(flag, name, help=help_text, **settings)


_seconds = {"callback": reads(_read_seconds)}


@click.command("simulate", epilog=_EPILOG, context_settings={"show_default": True})
@_option("--out", "Folder the camera writes into.", type=_FOLDER, required=True, default=None)
@_option("--brackets", "How many brackets; 0 goes on until stopped.")
@_option("--interval", "From one bracket to the next.", "interval_s", default="30s", **_seconds)
@_option("--settle", "From one exposure to the next.", "settle_s", default="1s", **_seconds)
@_option("--speed", "Camera seconds per real second; inf does not wait.")
@_option(
    "--exposures",
    "Exposure times in µs, in the order they are taken, such as 80,160  [default: the style's].",
    "exposures_us",
    default=None,
    metavar="LIST",
    callback=reads(_read_exposures),
)
@_option("--size", "Pixels along a side.")
@_option("--seed", "Same seed, same files.")
@_option("--clouds", "How cloudy it is.", type=click.Choice(list(sim.CLOUD_COVER)))
@_option("--response", "Response curve of the camera.", type=click.Choice(RESPONSES))
@_option("--quality", "JPEG quality.")
@_option(
    "--start",
    "First slot on the camera's clock; it sets the sun's place too.",
    type=click.DateTime(_STARTS),
    default="2026-06-21 09:00:00",
    metavar="TIME",
)
@_option("--style", "Whose files these are like.", type=click.Choice(list(STYLES)))
@_option(
    "--pattern",
    "File names, as `filename` in the configuration  [default: the style's].",
    default=None,
)
@_option("--folders", "Sub-folders, as for strftime  [default: the style's].", default=None)
@_option(
    "--writer",
    "How files are written: in one go, slowly in pieces, under another name first, or mixed.",
    type=click.Choice(sim.WRITERS),
)
@_option("--truth", "Save the true radiance and response curve too.", is_flag=True)
def command(**options: Any) -> None:
    """Write exposure brackets of a rendered sky, as a camera would."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = sim.SimulatorSettings(**given)
        with stopped_by_signal() as stop:
            summary = sim.simulate(settings, stop=stop)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write or read: {error}") from error
    click.echo(_outcome(settings, summary), err=True)


def _outcome(settings: sim.SimulatorSettings, summary: sim.Summary) -> str:
    word, brackets = "stopped after" if summary.stopped else "wrote", summary.brackets
    text = f"{word} {summary.files} files of {counted(brackets, 'bracket')} in {settings.out}"
    if settings.truth:
        text += f"; truth in {settings.truth_folder}"
    if math.isfinite(settings.speed) and summary.behind_s > max(
        1.0, settings.interval_s / settings.speed
    ):
        text += f"\nfell behind by {summary.behind_s:.1f} s: a smaller --size or --speed keeps pace"
    return text
