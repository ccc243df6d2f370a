"""Write facts as one line: logfmt (``key=value``) or a JSON object.

File names are input from outside: whatever they hold (newlines, terminal escapes, undecodable
bytes), a record stays one line of printable text, so that no name can forge a second record or
move the reader's cursor.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from numbers import Integral, Real
from pathlib import PurePath

# Long enough for any path, short enough that journald (48 KiB a line) never splits a record.
VALUE_LIMIT = 4096

_PLAIN = re.compile(r"[^\s\"'=\\]+")
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_.-]")
_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def logfmt_line(facts: Mapping[str, object]) -> str:
    """Return the facts as ``key=value`` pairs.

    Parameters
    ----------
    facts : Mapping[str, object]
        In the order wanted. None is left out.

    Returns
    -------
    str
        One line of printable text without its newline. Values that hold spaces, quotes, ``=`` or
        a backslash are quoted; inside quotes a backslash escapes.
    """
    return " ".join(f"{_key(k)}={_quoted(text_of(v))}" for k, v in facts.items() if v is not None)


def json_line(facts: Mapping[str, object]) -> str:
    """Return the facts as one JSON object in ASCII.

    Parameters
    ----------
    facts : Mapping[str, object]
        In the order wanted. None is left out; numbers, truth values, lists and mappings keep
        their type, everything else is text.

    Returns
    -------
    str
        One line without its newline, valid for strict parsers: no NaN, no lone surrogates.
    """
    whole = {_well_formed(k): _plain(v) for k, v in facts.items() if v is not None}
    return json.dumps(whole, ensure_ascii=True, allow_nan=False)


def text_of(value: object) -> str:
    """Return a value as a person would write it (not yet escaped)."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Integral():
            return str(int(value))
        case Real():
            return f"{float(value):.6g}"
        case datetime():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds():.6g}s"
        case bytes() | PurePath():
            return os.fsdecode(value)
        case list() | tuple():
            return ",".join(text_of(v) for v in value)
        case _:
            return str(value)


def escaped(text: str) -> str:
    """Return the text with everything unprintable, quotes and backslashes escaped."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        # How Python carries a byte of a file name that is not UTF-8: shown as that byte.
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return _NAMED_ESCAPES.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _key(name: str) -> str:
    return _NOT_IN_KEYS.sub("_", name) or "_"


def _quoted(text: str) -> str:
    safe = escaped(_shortened(text))
    return safe if _PLAIN.fullmatch(safe) else f'"{safe}"'


def _shortened(text: str) -> str:
    # Both ends are kept: a path begins and ends with what matters, a traceback ends with it.
    if len(text) <= VALUE_LIMIT:
        return text
    return f"{text[: VALUE_LIMIT // 4]} … {text[-VALUE_LIMIT * 3 // 4 :]}"


def _plain(value: object) -> object:
    match value:
        case bool():
            return value
        case Integral():
            return int(value)
        case Real():
            number = float(value)
            return number if math.isfinite(number) else str(number)
        case list() | tuple():
            return [_plain(v) for v in value]
        case Mapping():
            return {_well_formed(str(k)): _plain(v) for k, v in value.items()}
        case _:
            return _well_formed(_shortened(text_of(value)))


def _well_formed(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
