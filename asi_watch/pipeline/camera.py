"""The camera's response from a folder of brackets, and the range of ln E that it can tell."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asi_watch.calibrate_brackets import (
    BracketFiles,
    CalibratedCurve,
    CalibrationChoices,
    calibrate_brackets,
    lne_range,
)
from asi_watch.errors import BracketError
from asi_watch.files import shown
from asi_watch.pipeline.archive_bracket import ArchiveBracket
from asi_watch.pipeline.curves import check_plot_name, publish_plot, save_response_curve
from asi_watch.pipeline.finding import ArchiveRules, find_brackets, walk_images
from asi_watch.pipeline.grouping import slot_length
from asi_watch.pipeline.naming import parse_name
from asi_watch.pipeline.progress import progress
from asi_watch.response_files import load_curve

__all__ = ["calibrate_archive", "calibrate_camera", "calibrate_found", "get_lne_range"]

log = logging.getLogger(__name__)

_WARNINGS_SHOWN = 6


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
