"""Response curves: calibrated from a folder of brackets, kept in files, drawn."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.calibrate_brackets import (
    BracketFiles,
    CalibratedCurve,
    CalibrationChoices,
    calibrate_brackets,
    lne_range,
)
from asi_watch.errors import BracketError
from asi_watch.files import shown
from asi_watch.hdr.response import ChannelOrder, ResponseCurve, as_log_response, judge_curve
from asi_watch.pipeline.find_brackets import (
    ArchiveBracket,
    ArchiveRules,
    find_brackets,
    parse_name,
    slot_length,
    walk_images,
)
from asi_watch.pipeline.progress import progress
from asi_watch.products.publish import publish, user_modes
from asi_watch.response_files import (
    load_curve,
    read_response_file,
    response_bytes,
    to_bgr,
    warning_of,
)

__all__ = [
    "_save_response_plot",
    "calibrate_archive",
    "calibrate_camera",
    "calibrate_found",
    "check_plot_name",
    "extrapolated_codes",
    "get_lne_range",
    "load_response_curve",
    "plot_title",
    "publish_plot",
    "save_response_curve",
]

log = logging.getLogger(__name__)

_WARNINGS_SHOWN = 6


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
    """Give what a plot of a curve is called: file, curve and day, where they are known.

    Parameters
    ----------
    name : str
        The curve's file.
    curve : ResponseCurve
    """
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

    Parameters
    ----------
    path : str or Path

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


def calibrate_camera(
    image_dir: str | Path,
    response_file: str | Path,
    samples_per_image: int = 1000,
    sample_technique: str = "random",
    max_processed_groups: int = 10,
    smoothness: float = 50.0,
    weight_type: str = "triangle",
    low_clip: int = 5,
    high_clip: int = 250,
    seed: int | None = None,
    round_ts_to: str = "30s",
    *,
    sky_disc: Literal["auto"] | tuple[float, float, float] | None = "auto",
) -> NDArray[np.float32]:
    """Calibrate a camera's response (Debevec and Malik 1997) from brackets in a directory.

    Parameters
    ----------
    image_dir : str or Path
        Folder of images named ``YYYYmmddHHMMSS_<EXPO>.<ext>``, sub-folders included.
    response_file : str or Path
        Where the curve goes, with all of this noted; its plot goes beside it as
        ``response_curve.jpg``.
    samples_per_image : int
        Places sampled in each bracket.
    sample_technique : {"random", "histogram", "flat"}
        "flat" gives the most accurate curves.
    max_processed_groups : int
        How many brackets are used; they are drawn at random, complete ones first.
    smoothness : float
        λ; means the same for any number of samples.
    weight_type : {"triangle", "sine"}
        Weights of the codes.
    low_clip, high_clip : int
        Codes outside are not used.
    seed : int, optional
        Same seed, same curve.
    round_ts_to : str
        Length of a slot, e.g. ``30s`` or ``1min``.
    sky_disc : "auto", (x, y, radius) or None
        Where places are taken from: inside the disc that a fisheye's pictures show (all of the
        picture if they show none), inside a given one (pixels), or anywhere.

    Returns
    -------
    ndarray, shape (256, 1, C), float32
        g(z) in the ln domain, g(128) = 0, channels in BGR order, rising.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder, or it is a file.
    BracketError
        If no bracket can be used; gives files and reasons.
    ValueError
        If an argument is impossible.
    """
    choices = CalibrationChoices(
        samples_per_image=samples_per_image,
        sample_technique=sample_technique,
        max_processed_groups=max_processed_groups,
        smoothness=smoothness,
        weight_type=weight_type,
        low_clip=low_clip,
        high_clip=high_clip,
        seed=seed,
        sky_disc=sky_disc,
    )
    rules = ArchiveRules(round_to=slot_length(round_ts_to))
    done = calibrate_archive(image_dir, rules, choices)
    for warning in done.calibration.report.warnings[:_WARNINGS_SHOWN]:
        log.warning("the curve calibrated from %s: %s", shown(os.fspath(image_dir)), warning)
    curve = done.curve(shown(os.fspath(image_dir)), round_ts_to=round_ts_to)
    save_response_curve(response_file, curve.log_response, dict(curve.metadata))
    return np.array(curve.log_response)[:, np.newaxis, :]


def calibrate_archive(
    image_dir: str | Path,
    rules: ArchiveRules,
    choices: CalibrationChoices,
    *,
    report_plot: str | Path | None = None,
) -> CalibratedCurve:
    """Calibrate from a folder or an archive, showing progress.

    Parameters
    ----------
    image_dir : str or Path
    rules : ArchiveRules
    choices : CalibrationChoices
    report_plot : str or Path, optional
        Where a plot of curve, data and residuals goes.

    Returns
    -------
    CalibratedCurve

    Raises
    ------
    FileNotFoundError, NotADirectoryError, BracketError, ValueError
        As `calibrate_camera`.
    """
    root = os.fspath(Path(image_dir))
    if report_plot is not None:
        check_plot_name(report_plot)
    brackets = find_brackets(root, rules)
    with progress("reading brackets", min(len(brackets), choices.max_processed_groups)) as advance:
        done = calibrate_found(brackets, root, choices, on_bracket=advance)
    if report_plot is not None:
        from asi_watch.plots import save_calibration_report_plot

        title = f"{shown(root)} · {datetime.now(UTC):%Y-%m-%d}"
        publish_plot(
            lambda path: save_calibration_report_plot(done.calibration, path, title=title),
            Path(report_plot),
        )
    return done


def calibrate_found(
    brackets: Sequence[ArchiveBracket],
    root: str,
    choices: CalibrationChoices,
    *,
    channels: int | None = None,
    on_bracket: Callable[[], None] | None = None,
) -> CalibratedCurve:
    """Calibrate from brackets found in an archive.

    Parameters
    ----------
    brackets : sequence of ArchiveBracket
    root : str
        Folder that their paths are relative to.
    choices, channels, on_bracket
        See `asi_watch.calibrate_brackets.calibrate_brackets`.

    Returns
    -------
    CalibratedCurve

    Raises
    ------
    BracketError
        If no bracket can be used; gives the reasons.
    """
    files = [_files_of(bracket, root) for bracket in brackets]
    return calibrate_brackets(
        files, choices, where=shown(root), channels=channels, on_bracket=on_bracket
    )


def _files_of(bracket: ArchiveBracket, root: str) -> BracketFiles:
    unusable = ""
    try:
        bracket.check_usable(2)
    except BracketError as error:
        unusable = str(error)
    return BracketFiles(
        tuple(f"{root}/{e.path}" for e in bracket.exposures),
        tuple(e.exposure_us for e in bracket.exposures),
        bracket.slot.isoformat(),
        bracket.complete,
        unusable,
    )


def get_lne_range(
    image_dir: str | Path, response_file: str | Path, round_ts_to: str = "30s"
) -> tuple[float, float]:
    """Compute a range of ln E that serves all brackets of a directory.

    Parameters
    ----------
    image_dir : str or Path
        Folder of images, sub-folders included.
    response_file : str or Path
        The curve they will be merged with.
    round_ts_to : str
        Kept for asi_core's sake: the range does not depend on how images are grouped.

    Returns
    -------
    (float, float)
        (min g − max ln t, max g − min ln t) over all channels and all exposure times present;
        hand it to the merging functions as `lnE_range` to keep one scale.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder, or it is a file.
    BracketError
        If no name in it tells an exposure time.
    ResponseFileError
        If the response file cannot be used.
    """
    slot_length(round_ts_to)
    response = load_curve(response_file).log_response
    root = os.fspath(Path(image_dir))
    parsed = (parse_name(path) for path in walk_images(root))
    times = sorted({name.exposure_us for name in parsed if name is not None})
    if not times:
        raise BracketError(f"{shown(root)}: no images with timestamp and exposure in their names")
    return lne_range(response, times)
