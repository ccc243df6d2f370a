"""A contact sheet of one bracket merged in several ways: a PNG, or a page that stands alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

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


class Tile(NamedTuple):
    """One way to merge the bracket."""

    label: str
    yaml: str  # the lines to copy; empty for the settings as they are
    picture: NDArray[np.uint8]  # (H, W, C), BGR


def small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
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


def write_png(tiles: Sequence[Tile], title: str, path: Path) -> None:
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


def write_html(tiles: Sequence[Tile], title: str, path: Path) -> None:
    """Write a page that holds pictures, histograms and YAML lines itself."""
    path.write_text(_PAGE.format(title=escape(title), tiles="".join(map(_html, tiles))), "utf-8")


def _html(tile: Tile) -> str:
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
