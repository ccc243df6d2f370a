"""Response files and their plots."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.files import shown
from asi_watch.hdr.response import ChannelOrder, ResponseCurve, as_log_response, judge_curve
from asi_watch.pipeline.merging import user_modes
from asi_watch.products import publish
from asi_watch.response_files import read_response_file, response_bytes, to_bgr, warning_of

__all__ = [
    "_save_response_plot",
    "check_plot_name",
    "extrapolated_codes",
    "load_response_curve",
    "plot_title",
    "publish_plot",
    "save_response_curve",
]

log = logging.getLogger(__name__)


def _save_response_plot(
    response: NDArray[np.floating[Any]],
    out_path: str | Path,
    include_mean: bool = True,
    dpi: int = 150,
    channel_order: ChannelOrder = "BGR",
    title: str = "Response of the camera",
    extrapolated: Sequence[Sequence[tuple[int, int]]] = (),
) -> Path:
    """Plot the camera log-response g(z) per channel and save the figure.

    Parameters
    ----------
    response : ndarray, shape (256, 1, C) or (256, C)
        Response curve in the ln domain.
    out_path : str or Path
        The suffix chooses the format; missing folders are made.
    include_mean : bool
        Also plot the mean of the channels.
    dpi : int
        Resolution.
    channel_order : {"BGR", "RGB"}
        Which colour each column is drawn in.
    title : str
    extrapolated : sequence of sequences of (int, int)
        See `asi_watch.plots.save_response_plot`.

    Returns
    -------
    Path
        The saved file.
    """
    # Imported when drawn with: matplotlib takes longer to load than a bracket to merge.
    from asi_watch.plots import save_response_plot

    def draw(path: Path) -> None:
        save_response_plot(response, path, include_mean, dpi, channel_order, title, extrapolated)

    return publish_plot(draw, Path(out_path))


def save_response_curve(
    path: str | Path,
    response: ArrayLike,
    metadata: dict[str, Any] | None = None,
    save_plot: bool = True,
    plot_filename: str = "response_curve.jpg",
) -> None:
    """Save a response curve to an npz file, in the ln domain, with JSON metadata.

    Parameters
    ----------
    path : str or Path
        ``.npz`` is added where it is missing, as NumPy does. Missing folders are made; the file
        appears whole or not at all.
    response : array_like, shape (256, C) or (256, 1, C)
        g(z), stored as `response`, float32 (256, C), columns as they are.
    metadata : dict, optional
        Stored as a JSON string under `metadata`. Without `channel_order` the columns are taken
        to be blue, green, red.
    save_plot : bool
        Also plot the curve into the folder of the file.
    plot_filename : str
        Name of the plot, or where it goes; its suffix chooses the format.

    Raises
    ------
    ValueError
        If the array is no response curve, or there is no such format; nothing is written then.
    PublishError
        If the file cannot be written.
    """
    if save_plot:
        check_plot_name(plot_filename)
    target = Path(path)
    if target.suffix != ".npz":
        target = target.with_name(f"{target.name}.npz")
    mode, folder_mode = user_modes()
    data = response_bytes(response, metadata)
    order = (metadata or {}).get("channel_order", "BGR")
    for problem in judge_curve(to_bgr(as_log_response(response), order)):
        log.warning("%s: %s", shown(target), warning_of(problem))
    publish(data, target, mode=mode, folder_mode=folder_mode)
    if save_plot:
        noted = dict(metadata or {})
        curve = as_log_response(response)
        _save_response_plot(
            curve,
            target.parent / plot_filename,
            channel_order=order,
            title=plot_title(target.name, ResponseCurve(to_bgr(curve, order), noted)),
            extrapolated=extrapolated_codes(noted, curve.shape[1]) if order == "BGR" else (),
        )


def load_response_curve(path: str | Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Load a response curve from an npz file.

    Parameters
    ----------
    path : str or Path
        Ours or one written by asi_core.

    Returns
    -------
    response : ndarray, shape (256, C), float32
        g(z) in the ln domain, columns in the order that `metadata["channel_order"]` names.
    metadata : dict
        Of the file; `channel_order` is "RGB" where the file has none.

    Raises
    ------
    ResponseFileError
        If the file is missing, damaged, or holds something else.
    """
    response, metadata = read_response_file(path)
    for problem in judge_curve(to_bgr(response, metadata["channel_order"])):
        log.warning("%s: %s", shown(os.fspath(path)), warning_of(problem))
    return response, metadata


def plot_title(name: str, curve: ResponseCurve) -> str:
    """Give what a plot of a curve is called: file, curve and day, where they are known."""
    made = str(curve.metadata.get("timestamp_utc", ""))[:10]
    return " · ".join(filter(None, (shown(name), f"curve {curve.curve_id}", shown(made))))


def extrapolated_codes(metadata: Mapping[str, Any], channels: int) -> list[list[tuple[int, int]]]:
    """Read from a file's metadata which codes had no samples, for each channel (BGR).

    Parameters
    ----------
    metadata : mapping
        Of any origin.
    channels : int

    Returns
    -------
    list of list of (int, int)
        First and last code of each run; empty where the file does not say.
    """
    report = metadata.get("report")
    runs = report.get("extrapolated") if isinstance(report, dict) else None
    try:
        found = [[(int(first), int(last)) for first, last in channel] for channel in runs or ()]
    except (TypeError, ValueError):
        return []
    inside = all(0 <= a <= b <= 255 for channel in found for a, b in channel)
    return found if inside and len(found) == channels else []


def check_plot_name(path: str | Path) -> None:
    """Refuse a plot whose suffix names no format, before any work is done for it.

    Raises
    ------
    ValueError
        If there is no such format.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in known:
        raise ValueError(
            f"{shown(os.fspath(path))}: the suffix of a plot chooses its format, such as .png,"
            f" .jpg, .svg or .pdf; {f'.{suffix} is none' if suffix else 'this name has none'}"
        )


def publish_plot(draw: Callable[[Path], object], target: Path) -> Path:
    """Draw into a temporary folder and put the figure in its place, whole.

    Parameters
    ----------
    draw : callable
        Saves a figure at the path it is given.
    target : Path

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    ValueError
        If there is no such format.
    """
    check_plot_name(target)
    mode, folder_mode = user_modes()
    with tempfile.TemporaryDirectory(prefix="asi-watch-") as folder:
        drawn = Path(folder) / f"plot{target.suffix}"
        draw(drawn)
        publish(drawn.read_bytes(), target, mode=mode, folder_mode=folder_mode)
    return target
