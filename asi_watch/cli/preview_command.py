"""``asi-watch preview``: one bracket merged in several ways, to choose settings by looking."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from asi_watch.cli import _options as options
from asi_watch.config.document import ConfigError
from asi_watch.config.loading import dump_config, parse_config
from asi_watch.config.model import CameraConfig, Config
from asi_watch.errors import AsiWatchError, BracketError
from asi_watch.files import shown

if TYPE_CHECKING:
    from asi_watch.cli._contact_sheet import Tile
    from asi_watch.hdr.response import ResponseCurve
    from asi_watch.pipeline.find_brackets import ArchiveBracket

_MOST_TILES = 24
_EPILOG = """\b
Examples:
  asi-watch preview /srv/asi/roof/2026/06/21 -c asi-watch.yaml -o sheet.png
  asi-watch preview roof/20260621120000_80.jpg -c asi-watch.yaml \\
      --vary tone.key=0.12,0.18,0.25 --vary merge.algorithm=debevec_exact,mertens --html sheet.html
"""
_Change = tuple[str, Any]


@click.command(epilog=_EPILOG)
@click.argument("path", metavar="BRACKET_OR_DIR", type=click.Path(exists=True))
@click.option("-c", "--config", "config_path", required=True, metavar="FILE")
@click.option("--camera", metavar="NAME", help="Which of its cameras, if it has several.")
@click.option(
    "--vary",
    "varied",
    multiple=True,
    metavar="KEY=A,B",
    help="Values for a key of the camera, such as tone.key=0.12,0.18; several keys are combined.",
)
@click.option("-o", "--output", metavar="FILE.png", help="The sheet  [default: preview.png].")
@click.option("--html", metavar="FILE.html", help="The same as a page that needs no other file.")
def command(
    path: str,
    config_path: str,
    camera: str | None,
    varied: tuple[str, ...],
    output: str | None,
    html: str | None,
) -> None:
    """Merge one bracket by the present settings and each variation, into one labelled sheet.

    BRACKET_OR_DIR is an exposure of the bracket, or a folder, of which the newest bracket with most
    exposures is taken. Each picture comes with its histogram and the YAML lines to copy.
    """
    from asi_watch.cli._contact_sheet import write_html, write_png

    options.echo_log()
    found = options.camera_of(config_path, camera)
    assert found is not None
    configured, config = found
    choices = [_read_choice(text) for text in varied]
    changes: list[tuple[_Change, ...]] = [(), *(product(*choices) if choices else ())]
    if len(changes) > _MOST_TILES:
        raise click.UsageError(f"{len(changes)} pictures are more than {_MOST_TILES}; vary less")
    cameras = [_changed(config, configured.name, change) for change in changes]
    root, bracket = _bracket(Path(path), configured)
    tiles = [
        _tile(root, bracket, varied_camera, change, config)
        for varied_camera, change in zip(cameras, changes, strict=True)
    ]
    title = f"{configured.name}, {bracket.slot}, {len(bracket.exposures)} exposures"
    try:
        if output or not html:
            write_png(tiles, title, Path(output or "preview.png"))
            click.echo(f"{len(tiles)} pictures in {shown(output or 'preview.png')}")
        if html:
            write_html(tiles, title, Path(html))
            click.echo(f"{len(tiles)} pictures in {shown(html)}")
    except OSError as error:
        raise click.ClickException(f"cannot be written: {error}") from error


def _read_choice(text: str) -> list[_Change]:
    """Read ``tone.key=0.12,0.18``, or a YAML list for values that hold commas themselves."""
    key, equals, values = text.partition("=")
    try:
        parsed = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError:
        parsed = None
    if not (key and equals and parsed):
        raise click.BadParameter(f"{text!r} is not KEY=A,B", param_hint="--vary")
    return [(key, value) for value in parsed]


def _changed(config: Config, name: str, change: tuple[_Change, ...]) -> CameraConfig:
    """Return a camera with other values, checked as those of a file are."""
    document = yaml.safe_load(dump_config(config))
    for key, value in change:
        section = document["cameras"][name]
        *way, last = key.split(".")
        for part in way:
            section = section.setdefault(part, {}) if isinstance(section, dict) else {}
        section[last] = value
    try:
        text = yaml.safe_dump(document, sort_keys=False).encode()
        return parse_config(text, "--vary", Path.cwd()).config.cameras[name]
    except ConfigError as error:
        found = "; ".join(f"{problem.key}: {problem.message}" for problem in error.problems)
        raise click.BadParameter(found, param_hint="--vary") from error


def _bracket(path: Path, camera: CameraConfig) -> tuple[Path, ArchiveBracket]:
    """Find the bracket of a file, or the newest one of a folder, and the folder it lies in."""
    from asi_watch.pipeline.find_brackets import find_brackets

    root = path if path.is_dir() else path.parent
    brackets, _ = find_brackets(root, options.archive_rules(camera, None, None))
    if not path.is_dir():
        brackets = [b for b in brackets if any(e.path == path.name for e in b.files)]
    if not brackets:
        raise BracketError(f"{shown(path)}: no bracket that fits {camera.filename!r}")
    return root, max(brackets, key=lambda bracket: (len(bracket.exposures), bracket.slot))


def _tile(
    root: Path,
    bracket: ArchiveBracket,
    camera: CameraConfig,
    change: tuple[_Change, ...],
    config: Config,
) -> Tile:
    import numpy as np

    from asi_watch.cli._contact_sheet import Tile, small
    from asi_watch.images import read_image
    from asi_watch.merge_bracket import Bracket, MergePlan, compose
    from asi_watch.products.publish import OutputFolder

    curves = _curves(camera, config)
    plan = MergePlan(
        camera=camera.name,
        root=str(root),
        output=OutputFolder(root),
        settings=camera.merge_settings,
        products=tuple(p.spec for p in camera.products),
        without_response="mertens",
    )
    images = [read_image(root / exposure.path).pixels for exposure in bracket.exposures]
    composed = compose(plan, Bracket(bracket.slot, bracket.exposures), images, curves)
    label = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in change).replace(
        "None", "null"
    )
    if composed.fallback:
        label = f"{label}, by mertens for want of a curve".removeprefix(", ")
    picture = small(composed.merge.picture(np.uint8))
    return Tile(label or "as configured", _yaml_lines(change), picture)


def _curves(camera: CameraConfig, config: Config) -> list[ResponseCurve]:
    try:
        files = options.curves_in_use(camera, config).files
    except AsiWatchError:
        files = options.curves_in_use(camera, None).files  # without the ledger's
    return [file.curve for file in files.values()]


def _yaml_lines(change: tuple[_Change, ...]) -> str:
    """Write changed keys as they stand in the camera's section."""
    document: dict[str, Any] = {}
    for key, value in change:
        *way, last = key.split(".")
        section = document
        for part in way:
            section = section.setdefault(part, {})
        section[last] = value
    style: Any = {"sort_keys": False, "default_flow_style": None}
    return yaml.safe_dump(document, **style).strip() if document else ""
