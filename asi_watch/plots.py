"""Figures of response curves: looked at, mailed, pinned to the wall; never on the live path.

Matplotlib is imported when a figure is drawn, and only its object-oriented interface is used, so
that importing this module costs nothing and no global state is shared between threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from asi_watch.hdr.calibration import Calibration
from asi_watch.hdr.response import as_log_response

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"B": "#2b6cb0", "G": "#2f855a", "R": "#c53030", "grey": "#4a5568"}
_NAMES = {"B": "blue", "G": "green", "R": "red", "grey": "grey"}


def save_response_plot(
    log_response: ArrayLike,
    out_path: str | Path,
    include_mean: bool = True,
    dpi: int = 150,
    channel_order: Literal["BGR", "RGB"] = "BGR",
) -> Path:
    """Draw g(z) of every channel and save the figure.

    Parameters
    ----------
    log_response : array_like, shape (256, C) or (256, 1, C)
    out_path : str or Path
        The suffix chooses the format.
    include_mean : bool
        Draw the mean of the channels as well.
    dpi : int
    channel_order : {"BGR", "RGB"}

    Returns
    -------
    Path
        The file written.
    """
    curve = as_log_response(log_response)
    figure = _figure(7.0, 5.0)
    axes = figure.add_subplot()
    _draw_curves(axes, curve, channel_order, include_mean)
    return _save(figure, out_path, dpi)


def save_calibration_report_plot(
    calibration: Calibration, out_path: str | Path, dpi: int = 150
) -> Path:
    """Draw a calibration's curve, residuals and coverage and save the figure."""
    figure = _figure(7.0, 5.0)
    axes = figure.add_subplot()
    _draw_curves(axes, calibration.log_response, "BGR", False)
    return _save(figure, out_path, dpi)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_curves(axes: Axes, curve: np.ndarray, channel_order: str, include_mean: bool) -> None:
    keys = list(channel_order) if curve.shape[1] == 3 else ["grey"]
    codes = np.arange(256)
    for column, key in enumerate(keys):
        axes.plot(codes, curve[:, column], color=_COLOURS[key], label=_NAMES[key])
    if include_mean and curve.shape[1] > 1:
        axes.plot(codes, curve.mean(axis=1), color="black", ls="--", lw=1, label="mean")
    axes.set(xlabel="code z", ylabel="g(z) = ln(irradiance × time)", xlim=(0, 255))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _save(figure: Figure, out_path: str | Path, dpi: int) -> Path:
    path = Path(out_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    return path
