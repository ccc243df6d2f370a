"""``asi-watch preview``: one bracket merged in several ways, to choose settings by looking."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from asi_watch.cli import _options as options
from asi_watch.config.loading import ConfigError, dump_config, parse_config
from asi_watch.config.model import CameraConfig, Config
from asi_watch.errors import AsiWatchError, BracketError
from asi_watch.files import shown

if TYPE_CHECKING:
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
_WIDE, _BINS = 640, 64
_COLOURS = ("#2b6cb0", "#2f855a", "#c53030")  # of blue, green and red, as the channels come
_PAGE = """<!doctype html>
<meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px sans-serif; margin: 1.5em }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1.5em }}
img {{ width: 100% }}
h2 {{ font-size: 1em }}
pre {{ background: #f4f4f4; padding: .6em; white-space: pre-wrap }}
</style>
<h1>{title}</h1><main>{tiles}</main>
"""


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
            _write_png(tiles, title, Path(output or "preview.png"))
            click.echo(f"{len(tiles)} pictures in {shown(output or 'preview.png')}")
        if html:
            _write_html(tiles, title, Path(html))
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
) -> _Tile:
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
    linear = plan.settings.sensor is not None
    frames = [read_image(root / e.path, linear=linear) for e in bracket.exposures]
    taken = Bracket(bracket.slot, bracket.exposures), [frame.pixels for frame in frames]
    composed = compose(plan, *taken, curves, levels=frames[0].levels)
    named = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in change)
    label = named.replace("None", "null").replace("False", "off")  # as the file has them
    if composed.fallback:
        label = f"{label}, by mertens for want of a curve".removeprefix(", ")
    picture = _small(composed.merge.picture(np.uint8))
    return _Tile(label or "as configured", _yaml_lines(change), picture)


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


# -- the sheet --------------------------------------------------------------------------------


class _Tile(NamedTuple):
    """One way to merge the bracket."""

    label: str
    yaml: str  # the lines to copy; empty for the settings as they are
    picture: NDArray[np.uint8]  # (H, W, C), BGR


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce a picture (H, W, C) to the width of a tile, always with three channels."""
    height, width = picture.shape[:2]
    factor = min(1.0, _WIDE / width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    reduced = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    return np.ascontiguousarray(np.broadcast_to(reduced, (size[1], size[0], 3)))


def _histograms(picture: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Count the codes of each channel, as shares of the largest count, black left out."""
    counts = [np.histogram(picture[..., c], _BINS, (1, 256))[0] for c in range(3)]
    return [count / max(1, count.max()) for count in counts]


def _write_png(tiles: Sequence[_Tile], title: str, path: Path) -> None:
    """Draw the tiles, each with its label, histogram and YAML lines."""
    from matplotlib.figure import Figure

    columns = min(3, len(tiles))
    rows = -(-len(tiles) // columns)
    figure = Figure(figsize=(4.4 * columns, 6.0 * rows), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.add_gridspec(3 * rows, columns, height_ratios=(6, 1.2, 1.2) * rows)
    for number, tile in enumerate(tiles):
        row, column = 3 * (number // columns), number % columns
        axes = figure.add_subplot(grid[row, column])
        axes.imshow(tile.picture[..., ::-1])
        axes.set_title(tile.label, fontsize=10)
        axes.axis("off")
        axes = figure.add_subplot(grid[row + 1, column])
        for share, colour in zip(_histograms(tile.picture), _COLOURS, strict=True):
            axes.plot(np.linspace(1, 255, _BINS), share, color=colour, lw=1)
        axes.set(xlim=(0, 255), yticks=[], xticks=(0, 128, 255))
        axes = figure.add_subplot(grid[row + 2, column])
        axes.text(0, 1, tile.yaml or "as configured", family="monospace", fontsize=8, va="top")
        axes.axis("off")
    figure.savefig(path, format="png", dpi=110)


def _write_html(tiles: Sequence[_Tile], title: str, path: Path) -> None:
    """Write a page that holds pictures, histograms and YAML lines itself."""
    path.write_text(_PAGE.format(title=escape(title), tiles="".join(map(_html, tiles))), "utf-8")


def _html(tile: _Tile) -> str:
    jpeg = cv2.imencode(".jpg", tile.picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    lines = "".join(
        f'<polyline fill="none" stroke="{colour}" points="'
        + " ".join(f"{4 * x},{60 - 58 * y:.1f}" for x, y in enumerate(share))
        + '"/>'
        for share, colour in zip(_histograms(tile.picture), _COLOURS, strict=True)
    )
    return (
        f"<section><h2>{escape(tile.label)}</h2>"
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        f'<svg viewBox="0 0 {4 * _BINS} 62">{lines}</svg>'
        f"<pre>{escape(tile.yaml or 'as configured')}</pre></section>"
    )
