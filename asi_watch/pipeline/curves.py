"""Response curves: calibrated from a folder of brackets, kept in files, drawn."""

import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch import calibrate_brackets as calibration
from asi_watch import plots, response_files
from asi_watch.calibrate_brackets import CalibratedCurve, CalibrationChoices
from asi_watch.errors import BracketError, ResponseFileError
from asi_watch.files import open_regular, shown
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.response import ChannelOrder, ResponseCurve, as_log_response, judge_curve
from asi_watch.images.headers import HeaderError, read_header
from asi_watch.pipeline import find_brackets as found
from asi_watch.pipeline.find_brackets import ArchiveBracket, ArchiveRules
from asi_watch.products.publish import OutputFolder

log = logging.getLogger(__name__)

_NEVER = datetime.max.replace(tzinfo=UTC)


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
        appears whole or not at all (PublishError).
    response : array_like, shape (256, C) or (256, 1, C)
        g(z), stored as float32 (256, C), columns as they are. ValueError if it is no curve, or
        the plot has no format; nothing is written then.
    metadata : dict, optional
        Without `channel_order` the columns are taken to be blue, green, red.
    save_plot : bool
    plot_filename : str
        Relative to the folder of the file; its suffix chooses the format.
    """
    if save_plot:
        plots.check_plot_name(plot_filename)
    target = Path(path)
    if target.suffix != ".npz":
        target = target.with_name(f"{target.name}.npz")
    data = response_files.response_bytes(response, metadata)
    order = (metadata or {}).get("channel_order", "BGR")
    curve = _judged(as_log_response(response), dict(metadata or {}), order, shown(target))
    OutputFolder(target.parent).publish(data, target.name)
    if save_plot:
        plots.save_curve_plot(curve, target.name, target.parent / plot_filename)


def load_response_curve(path: str | Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Load g(z), shape (256, C), in the ln domain, and the metadata of a file.

    Columns are in the order that `metadata["channel_order"]` names: "RGB" where the file has none.

    Parameters
    ----------
    path : str or Path
        Ours or one written by asi_core; ResponseFileError if it is missing, damaged, or holds
        something else.
    """
    response, metadata = response_files.read_response_file(path)
    _judged(response, metadata, metadata["channel_order"], shown(path))
    return response, metadata


class CurveHistory(tuple[ResponseCurve, ...]):
    """Curves of one camera over the years, the newest first."""

    def at(self, moment: datetime) -> tuple[ResponseCurve, ...]:
        """Choose the curves that were in use at a moment: for each number of channels one.

        Before the first was made, that one stands.

        Parameters
        ----------
        moment : datetime
            With a time zone.
        """
        chosen: dict[int, ResponseCurve] = {}
        for curve in self:
            if _made(curve) <= moment:
                chosen.setdefault(curve.channels, curve)
        for curve in reversed(self):
            chosen.setdefault(curve.channels, curve)
        return tuple(chosen.values())


def load_curve_history(folder: str | Path) -> CurveHistory:
    """Load all response files of a folder and its sub-folders; ResponseFileError if one is bad.

    Parameters
    ----------
    folder : str or Path
        Of one camera, such as ``curves/NAME`` in a daemon's `state_dir`.
    """
    curves = []
    for path in sorted(Path(folder).rglob("*.npz")):
        curves.append(response_files.load_curve(path))
        if _made(curves[-1]) == _NEVER:
            text = "does not say when it was made (timestamp_utc), so it has no place in a history"
            raise ResponseFileError(f"{shown(path)}: {text}")
    if not curves:
        raise ResponseFileError(f"{shown(folder)}: no response files (.npz) there")
    return CurveHistory(sorted(curves, key=_made, reverse=True))


def _made(curve: ResponseCurve) -> datetime:
    try:
        moment = datetime.fromisoformat(str(curve.metadata.get("timestamp_utc")))
    except ValueError:
        return _NEVER
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def _judged(
    response: NDArray[np.float32], metadata: dict[str, Any], order: ChannelOrder, name: str
) -> ResponseCurve:
    """Give a curve in BGR order, and log what is strange about it."""
    curve = ResponseCurve(response_files.to_bgr(response, order), metadata)
    for problem in judge_curve(curve.log_response):
        log.warning("%s: %s", name, response_files.warning_of(problem))
    return curve


def _save_response_plot(
    response: NDArray[np.floating[Any]],
    out_path: str | Path,
    include_mean: bool = True,
    dpi: int = 150,
    channel_order: ChannelOrder = "BGR",
) -> Path:
    """Plot the camera's log response g(z) per channel; the suffix chooses the format."""
    title = "Response of the camera"
    return plots.save_response_plot(response, out_path, include_mean, dpi, channel_order, title)


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

    Gives g(z) in the ln domain, shape (256, 1, C), g(128) = 0, channels in BGR order, rising.
    A missing folder, no usable bracket (BracketError), impossible values (ValueError) raise.

    Parameters
    ----------
    image_dir : str or Path
        Folder of images named ``YYYYmmddHHMMSS_<EXPO>.<ext>``, sub-folders included.
    response_file : str or Path
        Where the curve goes; its plot goes beside it as ``response_curve.jpg``.
    samples_per_image : int
        Places sampled in each bracket.
    sample_technique : {"random", "histogram", "flat"}
        "flat" gives the most accurate curves.
    max_processed_groups : int
        How many brackets are used; they are drawn at random, complete ones first.
    smoothness : float
        λ; means the same for any number of samples.
    weight_type : {"triangle", "sine"}
    low_clip, high_clip : int
        Codes outside are not used.
    seed : int, optional
        Same seed, same curve.
    round_ts_to : str
        Length of a slot, e.g. ``30s`` or ``1min``.
    sky_disc : "auto", (x, y, radius) or None
        Places are taken inside the disc that the pictures show, a given one (pixels), or anywhere.
    """
    choices = CalibrationChoices(
        samples_per_image,
        sample_technique,
        max_processed_groups,
        smoothness,
        weight_type,
        low_clip,
        high_clip,
        seed,
        sky_disc,
    )
    rules = ArchiveRules(round_to=found.slot_length(round_ts_to))
    done = calibrate_archive(image_dir, rules, choices)
    _log_warnings(done, shown(image_dir))
    curve = done.curve(shown(image_dir), round_ts_to=round_ts_to)
    save_response_curve(response_file, curve.log_response, dict(curve.metadata))
    return np.array(curve.log_response)[:, np.newaxis, :]


def _log_warnings(done: CalibratedCurve, where: str) -> None:
    """Log the first warnings of a calibration from `where`."""
    lines = [f"the curve calibrated from {where}: {w}" for w in done.calibration.report.warnings]
    found._log_first(lines, "warnings; calibrate shows all")


def calibrate_archive(
    image_dir: str | Path,
    rules: ArchiveRules,
    choices: CalibrationChoices,
    *,
    report_plot: str | Path | None = None,
) -> CalibratedCurve:
    """Calibrate from a folder or an archive; errors as in `calibrate_camera`.

    Parameters
    ----------
    image_dir : str or Path
    rules : ArchiveRules
    choices : CalibrationChoices
    report_plot : str or Path, optional
        Where a plot of curve, data and residuals goes.
    """
    root = os.fspath(Path(image_dir))
    if report_plot is not None:
        plots.check_plot_name(report_plot)
    brackets, _ = found.find_brackets(root, rules)
    done = _calibrate_found(brackets, root, choices)
    if report_plot is not None:
        title = f"{shown(root)} · {datetime.now(UTC):%Y-%m-%d}"
        plots.save_calibration_report_plot(done.calibration, report_plot, title=title)
    return done


def _calibrate_found(
    brackets: Sequence[ArchiveBracket], root: str, choices: CalibrationChoices
) -> CalibratedCurve:
    """Calibrate from brackets found in an archive; see `calibrate_brackets`."""
    files = [
        calibration.BracketFiles(
            tuple(f"{root}/{e.path}" for e in bracket.exposures),
            tuple(e.exposure_us for e in bracket.exposures),
            bracket.slot.isoformat(),
            bracket.complete,
            bracket.why_unusable(2) or "",
        )
        for bracket in brackets
    ]
    return calibration.calibrate_brackets(files, choices, where=shown(root))


def _calibrated_for(
    brackets: Sequence[ArchiveBracket], root: str, settings: MergeSettings, force: bool
) -> list[ResponseCurve]:
    """Calibrate from the archive itself: a curve for each number of channels that it has."""
    log.warning(
        "no response curve given: calibrating one from %s itself, for this run only", shown(root)
    )
    choices = CalibrationChoices(
        sample_technique="flat",
        low_clip=settings.low_clip,
        high_clip=settings.high_clip,
        seed=0,
        sky_disc=settings.sky_disc or "auto",
    )
    curves: list[ResponseCurve] = []
    failed: list[BracketError] = []
    for group in _by_channels(brackets, root):
        try:
            done = _calibrate_found(group, root, choices)
        except BracketError as error:
            failed.append(error)
            continue
        _log_warnings(done, shown(root))
        if done.calibration.report.fits or force:
            curves.append(done.curve(shown(root)))
            continue
        text = "not merged: the curve calibrated from it cannot explain the images, see the"
        advice = "warnings; give a response curve, or --force (force=True)"
        failed.append(BracketError(f"{shown(root)}: {text} {advice}"))
    if not curves:
        raise failed[0]
    for reason in failed:
        log.warning("%s", reason)
    return curves


def _by_channels(brackets: Sequence[ArchiveBracket], root: str) -> list[list[ArchiveBracket]]:
    """Part brackets by the channels of their images (grey by night), the most numerous first."""
    groups: dict[int, list[ArchiveBracket]] = {}
    for bracket in brackets:
        groups.setdefault(_channels(f"{root}/{bracket.exposures[0].path}"), []).append(bracket)
    unknown = groups.pop(0, [])
    rising = sorted(groups.values(), key=len, reverse=True) or [[]]
    rising[0].extend(unknown)
    return rising


def _channels(path: str) -> int:
    """Read how many channels an image has from its beginning; 0 if that does not say."""
    try:
        descriptor, _ = open_regular(path)
    except OSError:
        return 0
    try:
        return read_header(os.pread(descriptor, 1 << 16, 0)).channels
    except (OSError, HeaderError):
        return 0
    finally:
        os.close(descriptor)


def get_lne_range(
    image_dir: str | Path, response_file: str | Path, round_ts_to: str = "30s"
) -> tuple[float, float]:
    """Compute (min g − max ln t, max g − min ln t) over all exposure times of a directory.

    Handed to the merging functions as `lnE_range`, it keeps one scale for all brackets. A missing
    folder, one without exposure times (BracketError) and a bad curve (ResponseFileError) raise.

    Parameters
    ----------
    image_dir : str or Path
        Folder of images, sub-folders included.
    response_file : str or Path
        The curve they will be merged with.
    round_ts_to : str
        Kept for asi_core's sake: the range does not depend on how images are grouped.
    """
    found.slot_length(round_ts_to)
    response = response_files.load_curve(response_file).log_response
    root = os.fspath(Path(image_dir))
    parsed = (found.parse_name(path) for path in found.walk_images(root))
    times = sorted({name.exposure_us for name in parsed if name is not None})
    if not times:
        raise BracketError(f"{shown(root)}: no images with timestamp and exposure in their names")
    return calibration.lne_range(response, times)
