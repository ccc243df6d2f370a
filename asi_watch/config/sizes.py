"""Amounts of memory as an operator writes them (``512MB``) and back again."""

from __future__ import annotations

import re

__all__ = ["format_size", "parse_size"]

_BYTES = {
    "TiB": 1 << 40,
    "TB": 10**12,
    "GiB": 1 << 30,
    "GB": 10**9,
    "MiB": 1 << 20,
    "MB": 10**6,
    "KiB": 1 << 10,
    "kB": 10**3,
    "B": 1,
}
_SPELLINGS = {unit.lower(): factor for unit, factor in _BYTES.items()}
_SIZE = re.compile(r"(?P<number>[0-9]{1,20}) ?(?P<unit>[A-Za-z]{0,4})")


def parse_size(text: str) -> int:
    """Read an amount of memory with its unit.

    Parameters
    ----------
    text : str
        A whole number and one of ``B kB MB GB TB`` (thousands) or ``KiB MiB GiB TiB`` (1024s).

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ValueError
        When it is none; the text says what would be right.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match["unit"].lower() not in (*_SPELLINGS, ""):
        shown = repr(text if len(text) <= 40 else text[:37] + "...")
        raise ValueError(f"{shown} is no amount of memory; write it as 512MB or 2GiB")
    if not match["unit"]:
        raise ValueError(f"{text.strip()!r} has no unit; did you mean {match['number']}MB?")
    return int(match["number"]) * _SPELLINGS[match["unit"].lower()]


def format_size(size: int) -> str:
    """Write a number of bytes so that `parse_size` gives the same one back.

    Parameters
    ----------
    size : int
        Bytes, zero or more.

    Returns
    -------
    str
        A whole number of the unit that makes it shortest: ``512MB``, ``2GiB``.
    """
    texts = [f"{size // factor}{unit}" for unit, factor in _BYTES.items() if size % factor == 0]
    return min(texts, key=len) if size else "0B"
