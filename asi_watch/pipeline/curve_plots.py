"""A figure of two response curves and what lies between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asi_watch.files import shown
from asi_watch.hdr.response import ResponseCurve
from asi_watch.pipeline.comparing import FIRST_CODE, LAST_CODE, CurveComparison, compare_curves
from asi_watch.pipeline.curves import publish_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["save_comparison_plot"]

_COLOURS = (("blue", "#2b6cb0"), ("green", "#2f855a"), ("red", "#c53030"))
_GREY = (("grey", "#4a5568"),)
_CODES = np.arange(256)


def save_comparison_plot(
    first: ResponseCurve,
    second: ResponseCurve,
    names: tuple[str, str],
    out_path: str | Path,
    dpi: int = 150,
) -> Path:
    """Draw two curves, the free constant of each channel removed, and their difference.

    Parameters
    ----------
    first, second : ResponseCurve
    names : (str, str)
        What they are called in the figure.
    out_path : str or Path
        The suffix chooses the format.
    dpi : int

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ResponseFileError
        If they differ in their number of channels.
    ValueError
        If there is no such format.
    """
    from matplotlib.figure import Figure

    result = compare_curves(first, second)
    figure = Figure(figsize=(7.0, 7.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_curves(above, first, result, (shown(names[0]), shown(names[1])))
    _draw_difference(below, result)
    return publish_plot(lambda path: figure.savefig(path, dpi=dpi), Path(out_path))


def _draw_curves(
    axes: Axes,
    first: ResponseCurve,
    result: CurveComparison,
    names: tuple[str, str],
) -> None:
    g1 = first.log_response.astype(np.float64)
    g2 = g1 + result.difference * np.log(2.0)
    for column, (name, colour) in enumerate(_channels(first)):
        axes.plot(_CODES, g1[:, column], color=colour, label=f"{name}, A")
        axes.plot(_CODES, g2[:, column], color=colour, ls="--", label=f"{name}, B")
    axes.set(ylabel="g(z) = ln(irradiance × time)")
    axes.set_title(f"A  {names[0]}\nB  {names[1]}", fontsize="small", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=len(_channels(first)))


def _draw_difference(axes: Axes, result: CurveComparison) -> None:
    channels = _GREY if result.difference.shape[1] == 1 else _COLOURS
    for column, (name, colour) in enumerate(channels):
        label = f"{name}, RMS {result.rms[column]:.4f}"
        axes.plot(_CODES, result.difference[:, column], color=colour, label=label)
    reach = 1.3 * max(*result.worst, 1e-3)
    axes.axhline(0, color="black", lw=0.8)
    axes.axvspan(0, FIRST_CODE, color="black", alpha=0.06, lw=0, label="not compared")
    axes.axvspan(LAST_CODE, 255, color="black", alpha=0.06, lw=0)
    axes.set(xlabel="code z", ylabel="B − A (stops)", xlim=(0, 255), ylim=(-reach, reach))
    axes.grid(alpha=0.25)
    # Above the axes: inside, it would lie on the curves.
    axes.legend(
        frameon=False,
        ncols=4,
        fontsize="small",
        columnspacing=1.2,
        handlelength=1.4,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )


def _channels(curve: ResponseCurve) -> tuple[tuple[str, str], ...]:
    return _COLOURS if curve.channels == 3 else _GREY
