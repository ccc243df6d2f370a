"""Durations as an operator writes them (``30s``, ``500ms``, ``24h``) and back again."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

__all__ = ["NEVER", "format_duration", "parse_duration"]

NEVER = "never"
"""The word for a duration that does not end; configuration keys that allow it hold None."""

_MICROSECONDS = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "min": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_OTHER_SPELLINGS = {"m": "min", "µs": "us", "μs": "us"}  # the micro sign and the Greek mu
_DURATION = re.compile(r"(?P<number>-?[0-9]{1,18}(?:\.[0-9]{1,15})?) ?(?P<unit>[A-Za-zµμ]{0,9})")
_LONGEST = timedelta(days=36_500)
_EXAMPLES = "write a number and its unit, such as 500ms, 30s, 2min, 24h or 1d"


def parse_duration(text: str) -> timedelta:
    """Read a duration with its unit.

    Parameters
    ----------
    text : str
        A number (decimals allowed, a minus sign too) and one of the units
        ``us``, ``ms``, ``s``, ``min`` (or ``m``), ``h``, ``d``.

    Returns
    -------
    datetime.timedelta
        Exact: nothing is rounded.

    Raises
    ------
    ValueError
        When the unit is missing or unknown, when the value is finer than a microsecond or
        longer than a hundred years. The text says what would be right.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{_shown(text)} is not a duration; {_EXAMPLES}")
    number, unit = match["number"], match["unit"]
    if not unit:
        raise ValueError(
            f"{_shown(text)} has no unit; write it with one: {number}s, {number}min or {number}h"
        )
    per_unit = _MICROSECONDS.get(_OTHER_SPELLINGS.get(unit, unit))
    if per_unit is None:
        known = ", ".join(_MICROSECONDS)
        raise ValueError(f"{_shown(text)} has the unknown unit {unit!r}; known are {known}")
    microseconds = Decimal(number) * per_unit
    if microseconds != microseconds.to_integral_value():
        raise ValueError(f"{_shown(text)} is finer than a microsecond; {_EXAMPLES}")
    if abs(microseconds) > _LONGEST // timedelta(microseconds=1):
        raise ValueError(f"{_shown(text)} is longer than a hundred years; {_EXAMPLES}")
    return timedelta(microseconds=int(microseconds))


def format_duration(duration: timedelta) -> str:
    """Write a duration so that `parse_duration` gives the same one back.

    Parameters
    ----------
    duration : datetime.timedelta
        Any length, negative too.

    Returns
    -------
    str
        A whole number of the largest unit that holds it exactly: ``90s``, ``24h``, ``2d``.
    """
    microseconds = duration // timedelta(microseconds=1)
    if microseconds == 0:
        return "0s"
    for unit, per_unit in _MICROSECONDS.items():
        # One day reads better as the 24h, one minute as the 60s that people write.
        one = unit in ("d", "min") and abs(microseconds) == per_unit
        if microseconds % per_unit == 0 and not one:
            return f"{microseconds // per_unit}{unit}"
    raise AssertionError("every duration is a whole number of microseconds")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
