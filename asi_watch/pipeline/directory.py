"""HDR images from a table of files and from a directory."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from asi_watch.errors import AsiWatchError
from asi_watch.pipeline.archive import (
    ArchiveSummary,
    check_workers,
    merge_all,
    merge_archive,
)
from asi_watch.pipeline.archive_bracket import ArchiveBracket
from asi_watch.pipeline.doubles import log_superseded
from asi_watch.pipeline.finding import ArchiveRules
from asi_watch.pipeline.grouping import slot_length
from asi_watch.pipeline.merging import BracketMerger, MergePlan
from asi_watch.pipeline.progress import progress
from asi_watch.pipeline.settings import MergeChoices, merge_choices, product_of
from asi_watch.pipeline.tables import (
    bracket_of_group,
    check_table,
    group_of,
    slot_of_timestamp,
)
from asi_watch.response_files import load_curve

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
    TypeError
        If `timestamp_group` is something else.
    """
    timestamp, group = group_of(timestamp_group)
    merger = BracketMerger(_series_plan(root_dir, target_dir, kwargs_merging))
    bracket = bracket_of_group(timestamp, group, os.fspath(Path(root_dir)))
    log_superseded([bracket])
    merger.merge(bracket)
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
        Index (timestamp, exposure time in microseconds), values paths relative to `root_dir`. A
        row without a path is named in the log, and its bracket merged without it; a row without a
        timestamp is named and left out.
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
    TypeError
        If `asi_files` is no Series.
    ValueError
        If the index has no two levels, or an argument does not fit.
    """
    table = check_table(asi_files)
    check_workers(n_workers)
    root = os.fspath(Path(root_dir))
    merger = BracketMerger(_series_plan(root_dir, target_dir, kwargs_merging))
    timestamps: list[Any] = []
    made: dict[datetime, str] = {}
    brackets: list[ArchiveBracket] = []
    for timestamp, group in table.groupby(level=0):
        timestamps.append(timestamp)
        try:
            brackets.append(bracket_of_group(timestamp, group, root))
        except AsiWatchError as error:
            log.warning("bracket %s not merged: %s", timestamp, error)
    log_superseded(brackets)
    with progress("merging", len(brackets)) as advance:
        for outcome in merge_all(brackets, merger, n_workers):
            if outcome.products:
                made[outcome.slot] = os.fspath(outcome.products[0])
            advance()
    index = pd.Index(timestamps, name=table.index.names[0])
    paths = [made.get(slot_of_timestamp(timestamp)) for timestamp in timestamps]
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
        core), `leave_out_unreadable` (merge what is left of a bracket with an unreadable image),
        `force` (merge even with a calibrated curve that cannot explain the images).

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder, or it is a file.
    BracketError
        If it holds no images, or none that a curve can be calibrated from.
    ResponseFileError
        If the response file cannot be used.
    ValueError
        If an argument does not fit.
    """
    workers = kwargs.pop("n_workers", None)
    if workers is not None:
        check_workers(workers)
    leave_out = kwargs.pop("leave_out_unreadable", False)
    force = kwargs.pop("force", False)
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
        force=force,
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
