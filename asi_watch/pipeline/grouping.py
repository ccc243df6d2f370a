"""Exposure brackets as a pandas groupby, and the length of a slot as pandas writes it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from asi_watch.pipeline.finding import log_nameless, walk_images
from asi_watch.pipeline.naming import parse_timestamp

if TYPE_CHECKING:
    from pandas.core.groupby import DataFrameGroupBy

__all__ = ["_group_files_by_time", "slot_length"]


def _group_files_by_time(
    directory: str | Path, round_ts_to: str = "30s"
) -> DataFrameGroupBy[Any, Any]:
    """Group image files found in directory by rounded timestamp (e.g. every 30 s).

    Parameters
    ----------
    directory : str or Path
        Sub-folders are searched too. Products (``*_hdr.*``) are left out; names without a
        timestamp are skipped and counted in the log.
    round_ts_to : str
        Length of a slot, e.g. ``30s`` or ``1min``; timestamps are rounded down.

    Returns
    -------
    pandas groupby
        Over `timestamp_rounded`, with the columns `filepath` (str, `directory` included) and
        `timestamp`; empty for a folder without images.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder, or it is a file.
    ValueError
        If `round_ts_to` is no fixed length of time.
    """
    slot_length(round_ts_to)
    root = os.fspath(Path(directory))
    paths, timestamps, nameless = [], [], []
    for path in walk_images(root):
        timestamp = parse_timestamp(path)
        if timestamp is None:
            nameless.append(path)
            continue
        paths.append(f"{root}/{path}")
        timestamps.append(timestamp)
    log_nameless(nameless, "timestamp")
    frame = pd.DataFrame(
        {
            # Of objects: names may hold bytes that pandas' own strings cannot.
            "filepath": pd.Series(paths, dtype=object),
            "timestamp": pd.Series(timestamps, dtype="datetime64[ns]"),
        }
    )
    frame["timestamp_rounded"] = frame["timestamp"].dt.floor(round_ts_to)
    frame = frame.sort_values(["timestamp", "filepath"], kind="stable", ignore_index=True)
    return frame.groupby("timestamp_rounded")


def slot_length(round_ts_to: str) -> timedelta:
    """Read the length of a slot as pandas does.

    Parameters
    ----------
    round_ts_to : str
        Such as ``30s``, ``1min`` or ``2h``.

    Returns
    -------
    timedelta

    Raises
    ------
    ValueError
        If it is no fixed, positive length of time of whole microseconds.
    """
    try:
        offset: Any = pd.tseries.frequencies.to_offset(round_ts_to)
        length: timedelta = pd.Timedelta(offset).to_pytimedelta()
    except ValueError as error:
        raise ValueError(
            f"round_ts_to {round_ts_to!r} is no fixed length of time; write 30s or 1min"
        ) from error
    if length <= timedelta(0):
        raise ValueError(f"round_ts_to must be longer than nothing; got {round_ts_to!r}")
    return length
