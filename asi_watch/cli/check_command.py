"""``asi-watch check``: whether a configuration is right, and what it means in full."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asi_watch.cli import _options as options
from asi_watch.cli import config_option
from asi_watch.config.checks import find_warnings
from asi_watch.config.loading import ConfigError, config_schema, dump_config, read_config
from asi_watch.config.model import CameraConfig, Config
from asi_watch.config.values import Way
from asi_watch.errors import AsiWatchError
from asi_watch.files import answered, folder_fault, shown

if TYPE_CHECKING:
    from asi_watch.cli._newest_files import NewestFiles
    from asi_watch.live.curves.in_use import Choice

_ANSWER_WITHIN = 5.0


_DECODERS = (("rawpy", "raw", ("dng",)), ("astropy", "fits", ("fits", "fit", "fts")))


def _print_schema(context: click.Context, _option: object, wanted: bool) -> None:
    if wanted:
        click.echo(json.dumps(config_schema(), indent=2, ensure_ascii=False))
        context.exit()


@click.command()
@config_option
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of the configuration, for editors, and check nothing.",
)
def command(config_path: str) -> None:
    """Check a configuration file and print it with every default.

    The complete configuration goes to standard output as YAML. Problems go to standard error,
    all of them at once, and end in exit code 2; warnings go there too and change nothing. Once
    each value by itself is right, a response file that cannot be used is a problem too, and a
    folder that is a file or lies in the state folder. What the names of each camera's newest files
    are taken for is shown as well, whether exposures and slots fit them, and the curve in use.
    """
    loaded = read_config(config_path)
    options.echo_log()
    examined = examine(loaded.config)
    for line in examined.lines:
        click.echo(line, err=True)
    for way, text in examined.warnings:
        click.echo(f"warning: {loaded.document.problem(way, text)}", err=True)
    if examined.problems:
        raise ConfigError(loaded.document.problem(*found) for found in examined.problems)
    click.echo(dump_config(loaded.config), nl=False)


@dataclass(slots=True)
class Examined:
    """What a valid configuration means on this machine; each fault with its key."""

    lines: list[str] = field(default_factory=list)
    warnings: list[tuple[Way, str]] = field(default_factory=list)
    problems: list[tuple[Way, str]] = field(default_factory=list)
    newest: dict[str, NewestFiles] = field(default_factory=dict)
    curves: dict[str, Choice] = field(default_factory=dict)


def examine(config: Config) -> Examined:
    """Compare a configuration with folders, curves and the newest files of its cameras.

    Parameters
    ----------
    config : Config
    """
    from asi_watch.cli._newest_files import find_newest, frame_warnings

    found = Examined(warnings=[*find_warnings(config), *_room_warnings(config)])
    found.problems += [*_place_faults(config), *_reader_faults(config)]
    for name, camera in config.cameras.items():
        newest, choice = find_newest(camera), _choice(camera, config)
        found.newest[name], found.curves[name] = newest, choice
        curves = {channels: file.curve for channels, file in choice.files.items()}
        notes = [*newest.warnings(), *_curve_warnings(camera, choice)]
        notes += frame_warnings(newest, curves)
        found.warnings += [(("cameras", name, *way), text) for way, text in notes]
        if choice.fault is not None and _may_be_read(camera.response):
            found.problems.append((("cameras", name, "response"), choice.fault))
        found.lines += newest.lines()
        found.lines += [f"{name}: {line}" for line in _curve_lines(camera, choice)]
    return found


def _reader_faults(config: Config) -> Iterator[tuple[Way, str]]:
    """Find kinds of exposures whose decoder is not installed."""
    for name, camera in config.cameras.items():
        for package, extra, kinds in _DECODERS:
            wanted = [kind for kind in camera.extensions if kind in kinds]
            if wanted and find_spec(package) is None:
                text = f"{wanted[0]} is read with {package}: pip install 'asi-watch[{extra}]'"
                yield ("cameras", name, "extensions"), text


# -- curves ----------------------------------------------------------------------------------


def _choice(camera: CameraConfig, config: Config) -> Choice:
    """Find the curves that the daemon uses, as far as its ledger can be read."""
    try:
        return options.curves_in_use(camera, config)
    except AsiWatchError as error:
        click.echo(f"warning: {error}", err=True)
        return options.curves_in_use(camera, None)


def _may_be_read(path: Path | None) -> bool:
    """Tell whether this user may read a file: another may, and the daemon be that one."""
    return path is not None and bool(answered(_ANSWER_WITHIN, partial(os.access, path, os.R_OK))[0])


def _curve_warnings(camera: CameraConfig, choice: Choice) -> Iterator[tuple[Way, str]]:
    if not camera.merge.needs_curve:
        return
    if choice.fault is not None and not _may_be_read(camera.response):
        yield ("response",), choice.fault
    elif choice.missing and choice.files:
        text = "the curve that the daemon has adopted is used instead; is the name right?"
        yield ("response",), f"{str(camera.response)!r} does not exist; {text}"
    elif not choice.files and choice.fault is None:
        there = f"is at {str(camera.response)!r} yet" if camera.response else "is given"
        wait = camera.without_response == "wait"
        then = "wait for it" if wait else "are merged by mertens, without radiance, meanwhile"
        text = f"no response curve {there}: one is calibrated from the first brackets;"
        yield ("response",), f"{text} brackets {then}"


def _curve_lines(camera: CameraConfig, choice: Choice) -> Iterator[str]:
    """Name the curves in use, and say what other settings would improve."""
    for file in choice.files.values():
        provisional = ", provisional" if file.curve.metadata.get("provisional") else ""
        yield f"curve {file.curve.curve_id}{provisional} {shown(file.path)} ({file.why})"
    formats = [product.format for product in camera.products]
    if (hint := options.radiance_hint(camera.merge.algorithm, formats)) is not None:
        yield hint


# -- folders ---------------------------------------------------------------------------------


def _place_faults(config: Config) -> Iterator[tuple[Way, str]]:
    """Find folders that can never be written to, and those that lie in the state folder."""
    folders: dict[Way, Path] = {("state_dir",): config.state_dir}
    for name, camera in config.cameras.items():
        folders |= {("cameras", name, key): getattr(camera, key) for key in ("watch", "output")}
        for number, product in enumerate(camera.products):
            if product.output is not None:
                folders["cameras", name, "products", number, "output"] = product.output
        if camera.staging is not None:
            folders["cameras", name, "staging"] = camera.staging
            yield from _staging_faults(camera)
    found = answered(_ANSWER_WITHIN, *(partial(_looked_at, path) for path in folders.values()))
    state = Path(found[0][0] if found[0] else config.state_dir)
    for (way, folder), looked in zip(folders.items(), found, strict=True):
        real, fault = looked or (str(folder), "")
        if fault:
            yield way, f"{str(folder)!r} {fault}"
        if way != ("state_dir",) and Path(real).is_relative_to(state):
            text = f"{str(folder)!r} lies in state_dir, which holds the daemon's own files and is"
            yield way, f"{text} deleted with it; give pictures a folder elsewhere"


def _staging_faults(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    """Find out whether products can be renamed from the staging folder into their own."""
    folders = [path for path in (camera.staging, *camera.outputs) if path is not None]
    devices = answered(_ANSWER_WITHIN, *(partial(_device_of, path) for path in folders))
    for folder, device in zip(folders[1:], devices[1:], strict=True):
        if None not in (device, devices[0]) and device != devices[0]:
            text = f"{str(folders[0])!r} is on another file system than {str(folder)!r}"
            yield ("cameras", camera.name, "staging"), f"{text}; give it a folder beside that"


def _device_of(folder: Path) -> int:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.stat().st_dev


def _room_warnings(config: Config) -> Iterator[tuple[Way, str]]:
    """Find folders with less free space than `disk.keep_free`: nothing is written there."""
    from asi_watch.live.disk import free_bytes

    floor = config.disk.keep_free
    if floor is None:
        return
    folders = dict.fromkeys(
        [config.state_dir, *(f for c in config.cameras.values() for f in c.outputs)]
    )
    looks = answered(_ANSWER_WITHIN, *(partial(free_bytes, folder) for folder in folders))
    for folder, free in zip(folders, looks, strict=True):
        if free is not None and free < floor:
            text = f"{floor / 1e9:.3g} GB is more than the {free / 1e9:.3g} GB that are free at"
            yield ("disk", "keep_free"), f"{text} {str(folder)!r}: nothing is published"


def _looked_at(folder: Path) -> tuple[str, str]:
    """Give the folder that links lead to, and why no file can be written there."""
    return os.path.realpath(folder), folder_fault(folder)
