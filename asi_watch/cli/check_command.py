"""``asi-watch check``: whether a configuration is right, and what it means in full."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asi_watch.cli import config_option
from asi_watch.config.checks import find_warnings
from asi_watch.config.document import ConfigError, Way
from asi_watch.config.loading import dump_config, read_config
from asi_watch.config.model import CameraConfig, Config
from asi_watch.files import answered, folder_fault, shown

if TYPE_CHECKING:
    from asi_watch.cli.newest_files import NewestFiles
    from asi_watch.hdr.response import ResponseCurve

_ANSWER_WITHIN = 5.0


@click.command()
@config_option
def command(config_path: str) -> None:
    """Check a configuration file and print it with every default.

    The complete configuration goes to standard output as YAML. Problems go to standard error,
    all of them at once, and end in exit code 2; warnings go there too and change nothing. Once
    each value by itself is right, a response file that cannot be used is a problem too, and a
    folder that is a file or lies in the state folder. What the names of each camera's newest files
    are taken for is shown as well, and whether exposures and slots fit them.
    """
    from asi_watch.cli.newest_files import find_newest, frame_warnings

    loaded = read_config(config_path)
    config = loaded.config
    adopted = _adopted_curves(config)
    warnings = [*find_warnings(config, adopted), *_room_warnings(config)]
    problems = list(_place_faults(config))
    for name, camera in config.cameras.items():
        found = find_newest(camera)
        curves, faults, notes = _curves_of(found, adopted.get(name, []))
        notes += [*found.warnings(), *_disc_warnings(found), *frame_warnings(found, curves)]
        warnings += [(("cameras", name, *way), text) for way, text in notes]
        problems += [(("cameras", name, "response"), text) for text in faults]
        hints = _hints(camera, next(iter(curves.values()), None))
        for line in (*found.lines(), *(f"{name}: {hint}" for hint in hints)):
            click.echo(line, err=True)
    for way, text in warnings:
        click.echo(f"warning: {loaded.document.problem(way, text)}", err=True)
    if problems:
        raise ConfigError(loaded.document.problem(way, text) for way, text in problems)
    click.echo(dump_config(config), nl=False)


# -- curves ----------------------------------------------------------------------------------


def _adopted_curves(config: Config) -> dict[str, list[Path]]:
    """Find the curves that the daemon has adopted, newest first, as far as its ledger is read."""
    ledger_file = config.state_dir / "ledger.sqlite3"
    (there,) = answered(_ANSWER_WITHIN, partial(os.path.isfile, ledger_file))
    if not there:
        return {}
    # Only where there is a ledger: a check must not wait for what reads it.
    from asi_watch.live.ledger.ledger import Ledger
    from asi_watch.live.ledger.schema import LedgerError

    try:
        with Ledger(config.state_dir, read_only=True) as ledger:
            rows = {name: reversed(ledger.curves(name)) for name in config.cameras}
    except (LedgerError, OSError):
        return {}
    adopted = {
        n: [Path(c.path) for c in found if c.verdict == "adopted"] for n, found in rows.items()
    }
    return {name: paths for name, paths in adopted.items() if paths}


def _curves_of(
    found: NewestFiles, adopted: Sequence[Path]
) -> tuple[dict[int, ResponseCurve], list[str], list[tuple[Way, str]]]:
    """Judge the camera's curves: those that can be used by channels, what is wrong, what is odd.

    A file that is not there or that this user may not read is not judged: the daemon may be
    another.
    """
    camera, curves, faults = found.camera, dict[int, "ResponseCurve"](), list[str]()
    notes: list[tuple[Way, str]] = []
    if camera.merge.algorithm == "mertens":
        return curves, faults, notes
    for path in ([camera.response] if camera.response else []) + [*adopted]:
        (judged,) = answered(_ANSWER_WITHIN, partial(_judged, path))
        curve, fault, odd = judged or (None, None, [])
        if curve is not None and fault is None and curve.channels not in curves:
            curves[curve.channels] = curve
            notes += [(("response",), f"{path}: {text}") for text in odd]
        elif fault is not None and path == camera.response:
            faults.append(fault)
        elif fault is not None and not curves:
            notes.append((("response",), f"{fault}; the daemon calibrates another"))
    header = found.header() if curves else None
    if header is not None and header.channels not in curves:
        have = " and ".join(map(str, sorted(curves)))
        then = (
            "wait for another curve"
            if camera.without_response == "wait"
            else "are merged by mertens until another curve is calibrated"
        )
        text = f"the curve is of {have} channels, and the camera's images have {header.channels}"
        text += f" ({shown(found.fitting[0][0])}): such brackets {then}"
        notes.append((("response",), text))
    return curves, faults, notes


def _judged(path: Path) -> tuple[ResponseCurve | None, str | None, list[str]]:
    from asi_watch.errors import ResponseFileError
    from asi_watch.response_files import examine_curve, refusal, warning_of

    with path.open("rb"):  # an OSError: not there, or not to be read
        pass
    try:
        curve, problems = examine_curve(path)
    except ResponseFileError as error:
        return None, str(error), []
    impossible = refusal(problems, str(path))
    return curve, impossible, [] if impossible else [warning_of(problem) for problem in problems]


def _hints(camera: CameraConfig, curve: ResponseCurve | None) -> Iterator[str]:
    """Say what other settings would improve."""
    from asi_watch.cli.curve_lines import merge_hints

    return merge_hints(
        camera.merge,
        curve,
        [product.format for product in camera.products],
        "merge.lnE_range: [{}, {}]",
    )


def _disc_warnings(found: NewestFiles) -> Iterator[tuple[Way, str]]:
    """Find sky discs that have nothing of the newest picture inside."""
    camera = found.camera
    given = {"merge": camera.merge.sky_disc, "recalibrate": camera.recalibrate.sky_disc}
    discs = {section: disc for section, disc in given.items() if isinstance(disc, tuple)}
    header = found.header() if discs else None
    if header is None:
        return
    from asi_watch.hdr.disc import SkyDisc

    for section, disc in discs.items():
        try:
            SkyDisc(*disc).mask((header.height, header.width))
        except ValueError as error:
            yield (section, "sky_disc"), f"{error} ({shown(found.fitting[0][0])})"


# -- folders ---------------------------------------------------------------------------------


def _place_faults(config: Config) -> Iterator[tuple[Way, str]]:
    """Find folders that can never be written to, and those that lie in the state folder."""
    folders: dict[Way, Path] = {("state_dir",): config.state_dir}
    for name, camera in config.cameras.items():
        folders |= {("cameras", name, key): getattr(camera, key) for key in ("watch", "output")}
    found = answered(_ANSWER_WITHIN, *(partial(_looked_at, path) for path in folders.values()))
    state = Path(found[0][0] if found[0] else config.state_dir)
    for (way, folder), looked in zip(folders.items(), found, strict=True):
        real, fault = looked or (str(folder), "")
        if fault:
            yield way, f"{str(folder)!r} {fault}"
        if way != ("state_dir",) and Path(real).is_relative_to(state):
            text = f"{str(folder)!r} lies in state_dir, which holds the daemon's own files and is"
            yield way, f"{text} deleted with it; give pictures a folder elsewhere"


def _room_warnings(config: Config) -> Iterator[tuple[Way, str]]:
    """Find folders with less free space than `disk.keep_free`: nothing is written there."""
    from asi_watch.live.disk import free_bytes

    floor = config.disk.keep_free
    if floor is None:
        return
    folders = dict.fromkeys([config.state_dir, *(c.output for c in config.cameras.values())])
    looks = answered(_ANSWER_WITHIN, *(partial(free_bytes, folder) for folder in folders))
    for folder, free in zip(folders, looks, strict=True):
        if free is not None and free < floor:
            text = f"{floor / 1e9:.3g} GB is more than the {free / 1e9:.3g} GB that are free at"
            yield ("disk", "keep_free"), f"{text} {str(folder)!r}: nothing is published"


def _looked_at(folder: Path) -> tuple[str, str]:
    """Give the folder that links lead to, and why no file can be written there."""
    return os.path.realpath(folder), folder_fault(folder)
