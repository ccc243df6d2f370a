"""Brackets from a table of files: a Series by timestamp and exposure time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from asi_watch.brackets import Exposure
from asi_watch.errors import BracketError
from asi_watch.files import shown
from asi_watch.pipeline.archive_bracket import ArchiveBracket
from asi_watch.pipeline.finding import bracket_of
from asi_watch.pipeline.naming import parse_timestamp

__all__ = ["bracket_of_group", "check_table", "group_of", "slot_of_timestamp"]

log = logging.getLogger(__name__)


def check_table(asi_files: Any) -> pd.Series[Any]:
    """Refuse what is no table of files, and name the rows without a timestamp.

    Parameters
    ----------
    asi_files : Series
        Index (timestamp, exposure time).

    Returns
    -------
    Series
        The same.

    Raises
    ------
    TypeError
        If it is no Series.
    ValueError
        If its index has no two levels, or they are swapped.
    """
    table = _series(asi_files)
    if table.index.nlevels != 2:
        raise ValueError("asi_files needs an index of two levels: timestamp and exposure time")
    stamps, times = (table.index.get_level_values(level) for level in (0, 1))
    if _are_numbers(stamps) and not _are_numbers(times):
        raise ValueError(
            "the levels of the index are swapped: the timestamp comes first, then the exposure"
            " time; .swaplevel() helps"
        )
    lost = table[stamps.isna()]
    if len(lost):
        example = _shown_path(lost.iloc[0])
        log.warning("%d rows without a timestamp are left out, e.g. %s", len(lost), example)
    return table


def group_of(timestamp_group: Any) -> tuple[Any, pd.Series[Any]]:
    """Take apart what ``asi_files.groupby(level=0)`` gives.

    Raises
    ------
    TypeError
        If it is no timestamp with a Series.
    """
    if not isinstance(timestamp_group, tuple) or len(timestamp_group) != 2:
        raise TypeError(
            "timestamp_group is (timestamp, Series), as asi_files.groupby(level=0) gives them;"
            f" got {type(timestamp_group).__name__}"
        )
    timestamp, group = timestamp_group
    return timestamp, _series(group)


def bracket_of_group(timestamp: Any, group: pd.Series[Any], root: str) -> ArchiveBracket:
    """Build the bracket of one timestamp.

    Parameters
    ----------
    timestamp : timestamp-like
    group : Series
        Paths relative to `root`, the exposure time in microseconds in the index's last level.
    root : str

    Returns
    -------
    ArchiveBracket

    Raises
    ------
    BracketError
        If there are no images, an exposure time is none, or a path leads out of `root`.
    """
    slot = slot_of_timestamp(timestamp)
    exposures = {e.path: e for e in _exposures(slot, group, root)}
    if not exposures:
        raise BracketError(f"{timestamp}: no images")
    return bracket_of(slot, list(exposures.values()), root)


def slot_of_timestamp(timestamp: Any) -> datetime:
    """Give a timestamp of any kind as the naive slot of a bracket.

    Raises
    ------
    BracketError
        If it is none.
    """
    stamp = pd.Timestamp(timestamp)
    if pd.isna(stamp):
        raise BracketError(f"{timestamp!r} is no timestamp")
    return stamp.tz_localize(None).floor("us").to_pydatetime()


def _exposures(slot: datetime, group: pd.Series[Any], root: str) -> Iterator[Exposure]:
    times = group.index.get_level_values(-1)
    for time, path in zip(times, group.to_numpy(dtype=object), strict=True):
        if not isinstance(path, str | os.PathLike):
            log.warning("bracket %s: no file for the exposure time %s, but %r", slot, time, path)
            continue
        name = _below(os.fspath(path), root)
        yield Exposure(name, parse_timestamp(name) or slot, _exposure_us(time, name))


def _below(path: str, root: str) -> str:
    if not os.path.isabs(path):  # noqa: PTH117 - names may hold undecodable bytes
        return path
    try:
        return os.fspath(PurePath(path).relative_to(os.path.abspath(root)))  # noqa: PTH100
    except ValueError:
        raise BracketError(f"{shown(path)}: is not below root_dir ({shown(root)})") from None


def _exposure_us(value: Any, name: str) -> float:
    try:
        time = float(value)
    except (TypeError, ValueError):
        time = float("nan")
    if not (np.isfinite(time) and time > 0):
        raise BracketError(f"{shown(name)}: {value!r} is no exposure time in microseconds")
    return time


def _series(table: Any) -> pd.Series[Any]:
    if isinstance(table, pd.Series):
        return table
    hint = "; take one of its columns" if isinstance(table, pd.DataFrame) else ""
    raise TypeError(f"a pandas Series of paths is wanted; got {type(table).__name__}{hint}")


def _are_numbers(level: pd.Index[Any]) -> bool:
    return bool(len(level)) and all(isinstance(v, int | float | np.number) for v in level)


def _shown_path(path: Any) -> str:
    return shown(os.fspath(path)) if isinstance(path, str | os.PathLike) else repr(path)
