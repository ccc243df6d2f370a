"""HDR images from a table of files and from a directory."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from asi_watch.brackets import Exposure
from asi_watch.errors import AsiWatchError, BracketError
from asi_watch.files import shown
from asi_watch.pipeline.archive import ArchiveSummary, merge_all, merge_archive
from asi_watch.pipeline.finding import ArchiveBracket, ArchiveRules, bracket_of
from asi_watch.pipeline.grouping import slot_length
from asi_watch.pipeline.merging import BracketMerger, MergePlan
from asi_watch.pipeline.naming import parse_timestamp
from asi_watch.pipeline.progress import progress
from asi_watch.pipeline.settings import MergeChoices, merge_choices, product_of
from asi_watch.responses import load_curve

__all__ = ["process_directory", "process_hdr_series", "process_timestamp"]

log = logging.getLogger(__name__)


def process_timestamp(
    timestamp_group: tuple[Hashable, pd.Series[Any]],
    root_dir: str | Path,
    target_dir: str | Path,
    **kwargs_merging: Any,
) -> bool:
    """Merge all images of one timestamp.

    Parameters
    ----------
    timestamp_group : (timestamp, Series)
        As ``asi_files.groupby(level=0)`` gives them: values are paths relative to `root_dir`,
        the last level of the index is the exposure time in microseconds.
    root_dir, target_dir : str or Path
        The picture is written as ``%Y%m%d%H%M%S_hdr.jpg`` below `target_dir`, in the sub-folder
        of the image taken first.
    **kwargs_merging
        As for `process_hdr_series`.

    Returns
    -------
    bool
        True when the picture is in its place. A failure is never hidden behind False: it raises.

    Raises
    ------
    ImageError, BracketError, ResponseFileError, PublishError
        Why there is no picture, with the file.
    """
    merger = BracketMerger(_series_plan(root_dir, target_dir, kwargs_merging))
    merger.merge(_bracket_of_series(*timestamp_group, os.fspath(Path(root_dir))))
    return True


def process_hdr_series(
    asi_files: pd.Series[Any],
    root_dir: str | Path,
    target_dir: str | Path,
    n_workers: int = 0,
    **kwargs_merging: Any,
) -> pd.Series[Any]:
    """Merge a table of images.

    Parameters
    ----------
    asi_files : Series
        Index (timestamp, exposure time in microseconds), values paths relative to `root_dir`.
    root_dir, target_dir : str or Path
        Sub-folders below `root_dir` are kept below `target_dir`.
    n_workers : int
        Threads; 0 merges in the calling thread.
    **kwargs_merging
        Keywords of `asi_watch.hdr.merging.merge_exposure_series`, `channel_order`, and
        `response_file`. Without any response the brackets are merged by `debevec`, calibrating
        on each bracket itself; with one, by `debevec_custom`.

    Returns
    -------
    Series
        Named `created_hdr`: for each timestamp the path of its HDR file (`target_dir` included),
        None where it could not be made, for a reason that is in the log.

    Raises
    ------
    ValueError
        If the index has no two levels, or an argument does not fit.
    """
    if asi_files.index.nlevels != 2:
        raise ValueError("asi_files needs an index of two levels: timestamp and exposure time")
    root = os.fspath(Path(root_dir))
    merger = BracketMerger(_series_plan(root_dir, target_dir, kwargs_merging))
    timestamps: list[Any] = []
    made: dict[datetime, str] = {}
    brackets: list[ArchiveBracket] = []
    for timestamp, group in asi_files.groupby(level=0):
        timestamps.append(timestamp)
        try:
            brackets.append(_bracket_of_series(timestamp, group, root))
        except AsiWatchError as error:
            log.warning("bracket %s not merged: %s", timestamp, error)
    with progress("merging", len(brackets)) as advance:
        for outcome in merge_all(brackets, merger, n_workers):
            if outcome.products:
                made[outcome.slot] = os.fspath(outcome.products[0])
            advance()
    index = pd.Index(timestamps, name=asi_files.index.names[0])
    paths = [made.get(_slot(timestamp)) for timestamp in timestamps]
    return pd.Series(paths, index=index, name="created_hdr", dtype=object)


def process_directory(
    directory: str | Path,
    save_dir: str | Path,
    round_ts_to: str = "30s",
    response_file: str | Path | None = None,
    **kwargs: Any,
) -> None:
    """Make an HDR image of every bracket in a directory.

    One bad bracket never stops the rest: it is logged with its reason, and at the end a summary
    is logged (as a warning if anything was amiss).

    Parameters
    ----------
    directory : str or Path
        Images named ``YYYYmmddHHMMSS_<EXPO>.<ext>``, sub-folders included.
    save_dir : str or Path
        The images are written as ``%Y%m%d%H%M%S_hdr.jpg`` below it, in the sub-folder of their
        bracket's first image. It may be `directory` or lie in it.
    round_ts_to : str
        Length of a slot, e.g. ``30s`` or ``1min``.
    response_file : str or Path, optional
        The camera's response curve. Without one, and without `response`, a curve is calibrated
        from the directory itself, in memory, and the log says so.
    **kwargs
        Keywords of `asi_watch.hdr.merging.merge_exposure_series`, with
        `algorithm="debevec_custom"` unless given; `filetype` may also be ``.exr``, ``.tiff`` or
        ``.hdr``. Further: `channel_order` of `response`, `n_workers` (threads; default one per
        core), `leave_out_unreadable` (merge what is left of a bracket with an unreadable image).

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    BracketError
        If it holds no images, or none that a curve can be calibrated from.
    ResponseFileError
        If the response file cannot be used.
    ValueError
        If an argument does not fit.
    """
    workers = kwargs.pop("n_workers", None)
    leave_out = kwargs.pop("leave_out_unreadable", False)
    choices = _choices(kwargs, response_file, "debevec_custom")
    summary = merge_archive(
        directory,
        save_dir,
        rules=ArchiveRules(round_to=slot_length(round_ts_to)),
        settings=choices.settings,
        curve=choices.curve,
        products=(product_of(choices.filetype or ".jpg"),),
        workers=workers,
        leave_out_unreadable=leave_out,
    )
    log_summary(summary)


def log_summary(summary: ArchiveSummary) -> None:
    """Log what became of an archive, louder if anything was amiss."""
    log.log(logging.INFO if summary.flawless else logging.WARNING, "%s", summary.sentence())


def _choices(
    kwargs: dict[str, Any], response_file: str | Path | None, algorithm: str
) -> MergeChoices:
    if response_file is not None:
        if kwargs.get("response") is not None:
            raise ValueError("give response or response_file, not both")
        # A file knows its own channel order.
        if kwargs.pop("channel_order", None) is not None:
            raise ValueError("channel_order belongs to response; a response file tells its own")
        kwargs = {**kwargs, "response": load_curve(response_file)}
    return merge_choices(**{"algorithm": algorithm, **kwargs})


def _series_plan(
    root_dir: str | Path, target_dir: str | Path, kwargs_merging: dict[str, Any]
) -> MergePlan:
    kwargs = dict(kwargs_merging)
    response_file = kwargs.pop("response_file", None)
    has_response = response_file is not None or kwargs.get("response") is not None
    choices = _choices(kwargs, response_file, "debevec_custom" if has_response else "debevec")
    return MergePlan(
        root=os.fspath(Path(root_dir)),
        output=Path(target_dir),
        settings=choices.settings,
        curve=choices.curve,
        products=(product_of(choices.filetype or ".jpg"),),
        camera=Path(root_dir).resolve().name,
        to_utc=lambda slot: slot.replace(tzinfo=UTC),
    )


def _bracket_of_series(timestamp: Any, group: pd.Series[Any], root: str) -> ArchiveBracket:
    slot = _slot(timestamp)
    exposures = list(_exposures_of_series(slot, group))
    if not exposures:
        raise BracketError(f"{timestamp}: no images")
    return bracket_of(slot, exposures, root)


def _exposures_of_series(slot: datetime, group: pd.Series[Any]) -> Iterator[Exposure]:
    times = group.index.get_level_values(-1)
    for time, path in zip(times, group.to_numpy(dtype=object), strict=True):
        if isinstance(path, str | os.PathLike):
            name = os.fspath(path)
            exposure_us = _exposure_us(time, name)
            yield Exposure(name, parse_timestamp(name) or slot, exposure_us)


def _exposure_us(value: Any, name: str) -> float:
    try:
        time = float(value)
    except (TypeError, ValueError):
        time = float("nan")
    if not (np.isfinite(time) and time > 0):
        raise BracketError(f"{shown(name)}: {value!r} is no exposure time in microseconds")
    return time


def _slot(timestamp: Any) -> datetime:
    stamp = pd.Timestamp(timestamp)
    if pd.isna(stamp):
        raise BracketError(f"{timestamp!r} is no timestamp")
    return stamp.tz_localize(None).floor("us").to_pydatetime()
