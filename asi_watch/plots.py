"""Figures of response curves.

Matplotlib is imported when a figure is drawn, and only its object-oriented interface is used, so
that importing this module costs nothing and no global state is shared between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from asi_watch.files import counted, shown
from asi_watch.hdr.calibration import Calibration
from asi_watch.hdr.response import ResponseCurve, as_log_response
from asi_watch.products.publish import OutputFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"B": "#2b6cb0", "G": "#2f855a", "R": "#c53030", "grey": "#4a5568"}
_G_LABEL = "g(z) = ln(irradiance × time), ln units"
_TITLE_WIDTH = 60  # characters that fit over axes of seven inches
_NAMES = {"B": "blue", "G": "green", "R": "red", "grey": "grey"}
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 11, "fontweight": "bold"}


def save_response_plot(
    log_response: ArrayLike,
    out_path: str | Path,
    include_mean: bool = True,
    dpi: int = 150,
    channel_order: Literal["BGR", "RGB"] = "BGR",
    title: str = "",
    extrapolated: Sequence[Sequence[tuple[int, int]]] = (),
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
    title : str
    extrapolated : sequence of sequences of (int, int)
        For each channel, in that order, first and last of each run of codes without samples: they
        are thin and dashed.
    """
    curve = as_log_response(log_response)
    keys = _keys(curve, channel_order)
    figure = _figure(7.0, 5.0)
    axes = figure.add_subplot()
    measured = np.ones(curve.shape, dtype=bool)
    for column, runs in enumerate(extrapolated):
        for first, last in runs:
            measured[first : last + 1, column] = False
    _draw_curves(axes, curve, keys, measured)
    if include_mean and len(keys) > 1:
        axes.plot(curve.mean(axis=1), color="black", ls="--", lw=1, label="mean")
    if not measured.all():
        axes.plot([], [], color=_COLOURS["grey"], lw=0.8, ls="--", label="no samples")
    axes.legend(frameon=False)
    _dress(axes, _G_LABEL, title)
    return _save(figure, out_path, dpi)


def save_curve_plot(curve: ResponseCurve, name: str, out_path: str | Path) -> Path:
    """Draw a curve with its name, id and day, and the codes that had no samples dashed.

    Parameters
    ----------
    curve : ResponseCurve
    name : str
        Of its file.
    out_path : str or Path
    """
    made = str(curve.metadata.get("timestamp_utc", ""))[:10]
    title = " · ".join(filter(None, (shown(name), f"curve {curve.curve_id}", shown(made))))
    guessed = _extrapolated_codes(curve)
    return save_response_plot(curve.log_response, out_path, title=title, extrapolated=guessed)


def _extrapolated_codes(curve: ResponseCurve) -> list[list[tuple[int, int]]]:
    """Read from metadata of any origin the runs of codes without samples; [] if it has none."""
    report = curve.metadata.get("report")
    runs = report.get("extrapolated") if isinstance(report, dict) else None
    try:
        codes = [[(int(first), int(last)) for first, last in channel] for channel in runs or ()]
    except (TypeError, ValueError):
        return []
    inside = all(0 <= a <= b <= 255 for channel in codes for a, b in channel)
    return codes if inside and len(codes) == curve.channels else []


def save_calibration_report_plot(
    calibration: Calibration, out_path: str | Path, dpi: int = 150, title: str = ""
) -> Path:
    """Draw a calibration's curve with its samples, and its residuals at each code.

    Parameters
    ----------
    calibration : Calibration
    out_path : str or Path
    dpi : int
    title : str
        Of the whole figure, such as the camera.
    """
    report, curve = calibration.report, calibration.log_response
    values = (f"{v:.3f}" if np.isfinite(v) else "unknown" for v in report.residual_stops)
    lines = (
        f"{title} · curve {ResponseCurve(curve).curve_id}",
        f"{counted(report.brackets, 'bracket')}, {report.samples:,} places, residual"
        f" {' · '.join(values)} stops, {report.settings.get('method', '–')}",
        *(f"! {text}" for text in report.warnings[:3]),
    )
    figure = _figure(8.0, 8.0)
    figure.suptitle(_wrapped("\n".join(lines), 90), x=0.01, ha="left", fontsize=10)
    grid = figure.add_gridspec(2, 1, height_ratios=(7, 3))
    curve_axes = figure.add_subplot(grid[0])
    _draw_curves(curve_axes, curve, _keys(curve), np.array(report.samples_per_code).T > 0)
    _draw_cloud(curve_axes, calibration)
    _dress(curve_axes, _G_LABEL, "Response, and the samples it is made from")
    residual_axes = figure.add_subplot(grid[1], sharex=curve_axes)
    for key, values_at in zip(_keys(curve), report.residual_by_code, strict=True):
        residual_axes.plot(np.array(values_at), color=_COLOURS[key], lw=1.0)
    residual_axes.set_ylim(bottom=0.0)
    _dress(residual_axes, "residual (stops)", "Residual at each code")
    return _save(figure, out_path, dpi)


def save_drift_plot(
    decisions: Iterable[tuple[str, str, float | None, float | None]],
    camera: str,
    out_path: str | Path,
    dpi: int = 150,
) -> Path:
    """Draw how a camera's candidate curves drifted, and what they left unexplained.

    Parameters
    ----------
    decisions : iterable of (str, str, float or None, float or None)
        UTC time in ISO format, verdict, residual and drift in stops.
    camera : str
        For the title.
    out_path : str or Path
    dpi : int
    """
    decisions = list(decisions)
    figure = _figure(9.0, 6.0)
    above, below = figure.subplots(2, 1, sharex=True)
    kinds = {"adopted": ("tab:green", "o"), "rejected": ("tab:red", "x")}
    for verdict in dict.fromkeys(verdict for _, verdict, _, _ in decisions):
        colour, marker = kinds.get(verdict, ("tab:gray", "."))
        rows = [row for row in decisions if row[1] == verdict]
        times = [datetime.fromisoformat(row[0]) for row in rows]
        style = {"color": colour, "marker": marker, "ls": "none", "label": verdict}
        for axes, column in ((above, 3), (below, 2)):
            values = [np.nan if row[column] is None else row[column] for row in rows]
            axes.plot(times, np.array(values, np.float64), **style)
    _dress(above, "drift (stops)", f"Curves of {shown(camera)}: drift from the first one")
    _dress(below, "residual (stops)", "Left unexplained by the candidates")
    for axes in (above, below):
        axes.set_ylim(bottom=0.0)
    if decisions:
        above.legend(frameon=False, ncols=4)
    figure.autofmt_xdate()
    return _save(figure, out_path, dpi)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, out_path: str | Path, dpi: int) -> Path:
    """Put a figure in its place, whole or not at all."""
    path, drawn = Path(out_path), BytesIO()
    check_plot_name(path)
    figure.savefig(drawn, dpi=dpi, format=path.suffix[1:])
    OutputFolder(path.parent).publish(drawn.getvalue(), path.name)
    return path


def check_plot_name(path: str | Path) -> None:
    """Refuse (ValueError) a plot whose suffix names no format, before any work is done for it.

    Parameters
    ----------
    path : str or Path
    """
    from matplotlib.backend_bases import FigureCanvasBase

    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(
            f"{shown(path)}: the suffix of a plot chooses its format, such as .png, .jpg, .svg or"
            f" .pdf; {f'.{suffix} is none' if suffix else 'this name has none'}"
        )


def _keys(curve: np.ndarray, order: str = "BGR") -> list[str]:
    return list(order) if curve.shape[1] == 3 else ["grey"]


def _wrapped(title: str, width: int) -> str:
    """Break lines that are longer than their figure, such as those with a path."""
    return "\n".join(fill(line, width) for line in title.splitlines())


def _dress(axes: Axes, label: str, title: str) -> None:
    axes.set_ylabel(label)
    axes.set_title(_wrapped(title, _TITLE_WIDTH), **_TITLE)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curves(axes: Axes, curve: np.ndarray, keys: list[str], measured: np.ndarray) -> None:
    """Draw a line for each channel, thin and dashed where its codes were not measured."""
    for g, seen, key in zip(curve.T, measured.T, keys, strict=True):
        if not seen.all():
            axes.plot(g, color=_COLOURS[key], lw=0.8, ls="--")
        axes.plot(np.where(seen, g, np.nan), color=_COLOURS[key], lw=1.3, label=_NAMES[key])
    axes.set(xlabel="code z", xlim=(0, 255))
    axes.legend(frameon=False)


def _draw_cloud(axes: Axes, calibration: Calibration) -> None:
    """Draw the samples as dots under the curves, all of g in view."""
    curve = calibration.log_response
    dots: dict[str, Any] = {"ms": 6.0, "mec": "none", "alpha": 0.2, "zorder": 1.5}
    for points, key in zip(calibration.cloud, _keys(curve), strict=False):
        axes.plot(*points.T, ".", color=_COLOURS[key], rasterized=True, **dots)
    axes.set_ylim(float(curve.min()) - 0.4, float(curve.max()) + 0.4)
