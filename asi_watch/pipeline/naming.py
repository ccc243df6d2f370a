"""File names as asi_core reads them: a timestamp anywhere, the exposure at the end."""

from __future__ import annotations

import re
from datetime import datetime

from asi_watch.naming import ParsedName, is_hidden

__all__ = ["_EXPO_RE", "_parse_exposure_from_name", "parse_name", "parse_timestamp"]

# As file managers and FTP servers name a second file of a name: ..._640_1.jpg beside ..._640.jpg.
_COPY = re.compile(r"^_[0-9]{2,10}_[0-9]\.[^.]+$")

_EXPO_RE = re.compile(r"_([0-9]{1,10})\.[^.]+$")
"""Exposure time at the end of a file name, before its extension: group 1."""

# Overlapping on purpose: a counter before the timestamp must not hide it.
_TIMESTAMP = re.compile(r"(?=([0-9]{14}|[0-9]{8}_[0-9]{6}(?![0-9])))")
_YEARS = range(1970, 2262)  # what pandas can hold in nanoseconds


def _parse_exposure_from_name(name: str) -> int | None:
    """Read the exposure time at the end of a file name, ``*_<EXPO>.<ext>``.

    Parameters
    ----------
    name : str
        File name; folders before it are ignored.

    Returns
    -------
    int or None
        The number as it stands there; None when there is none. The time of day in
        ``YYYYMMDD_HHMMSS.jpg`` is no exposure.
    """
    base = name.rpartition("/")[2]
    match = _EXPO_RE.search(base)
    if match is None:
        return None
    found = _find_timestamp(base)
    if found is not None and match.start() < found[1]:
        return None
    return int(match[1])


def parse_timestamp(name: str) -> datetime | None:
    """Read the first 14 digits of a file name that are a date and time.

    Parameters
    ----------
    name : str
        File name; folders before it are ignored. ``YYYYMMDD_HHMMSS`` is understood as well.

    Returns
    -------
    datetime or None
        Naive, in the clock of the name.
    """
    found = _find_timestamp(name.rpartition("/")[2])
    return None if found is None else found[0]


def parse_name(name: str) -> ParsedName | None:
    """Read timestamp and exposure of a file name.

    Parameters
    ----------
    name : str
        As for `parse_timestamp`.

    Returns
    -------
    ParsedName or None
        The number in the name is taken as microseconds. None when timestamp or exposure is
        missing, or the exposure is zero; for a hidden file, and for a copy such as
        ``..._640_1.jpg``.
    """
    base = name.rpartition("/")[2]
    found = None if is_hidden(base) else _find_timestamp(base)
    exposure = _parse_exposure_from_name(base)
    if found is None or not exposure or _COPY.match(base[found[1] :]):
        return None
    return ParsedName(found[0], float(exposure))


def _find_timestamp(base: str) -> tuple[datetime, int] | None:
    for match in _TIMESTAMP.finditer(base):
        digits = match[1].replace("_", "")
        if int(digits[:4]) not in _YEARS:
            continue
        fields = (int(digits[i : i + 2]) for i in range(4, 14, 2))
        try:
            month, day, hour, minute, second = fields
            return datetime(int(digits[:4]), month, day, hour, minute, second), match.end(1)
        except ValueError:
            continue
    return None
