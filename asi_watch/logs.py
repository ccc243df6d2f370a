"""Logging: one event, one line, readable by people, ``grep`` and log collectors.

A line is a constant sentence followed by its facts::

    time=2026-05-04T12:00:31.482Z level=info logger=merger msg="bracket published" camera=roof

or the same as one JSON object. Under the journal the time is left to journald and each line
begins with its priority (``<6>``, see ``sd-daemon(3)``), so that ``journalctl -p warning`` works.

structlog writes the lines. File names are input from outside: whatever they hold (newlines,
terminal escapes, undecodable bytes), a record stays one line of printable text, so that no name
can forge a second record.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Literal, TextIO

LogFormat = Literal["logfmt", "json"]

VALUE_LIMIT = 4096
"""Characters: enough for any path, and journald (48 KiB a line) never splits a record."""

_ROOT_LOGGER, _FACTS = "asi_watch", "asi_watch_facts"
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_.-]")
_KINDS = 1024
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6}


def event(logger: logging.Logger, level: int, message: str, /, **facts: object) -> None:
    """Log a constant sentence with its facts.

    Parameters
    ----------
    logger, level
        As in `logging`.
    message : str
        What varies belongs in the facts, so that lines can be counted.
    **facts : object
        Written in the order given, as ``key=value``; None is left out.
    """
    if logger.isEnabledFor(level):
        # stacklevel: the record names the caller, not this helper.
        logger.log(level, message, extra={_FACTS: facts}, stacklevel=2)


def failure(logger: logging.Logger, message: str, error: BaseException, /, **facts: object) -> None:
    """Log an unforeseen error with its traceback, still on one line.

    Parameters
    ----------
    logger, message, **facts
        As for `event`.
    error : BaseException
    """
    exc_info = (type(error), error, error.__traceback__)
    logger.error(message, exc_info=exc_info, extra={_FACTS: facts}, stacklevel=2)


class LineFormatter(logging.Formatter):
    """Format a record as exactly one line of printable text.

    Parameters
    ----------
    style : {"logfmt", "json"}
    journal : bool
        True when journald reads the line: priority first, no time of our own.
    """

    def __init__(self, style: LogFormat = "logfmt", *, journal: bool = False) -> None:
        super().__init__()
        # Imported here: only what writes a log pays for it.
        from structlog.processors import JSONRenderer, LogfmtRenderer

        self._journal, self._json = journal, style == "json"
        self._render: Callable[..., Any] = (
            JSONRenderer(allow_nan=False) if self._json else LogfmtRenderer(bool_as_flag=False)
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level = record.levelname.lower()
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # A wrong template in some package must not cost the line.
            message = f"{record.msg} {record.args}"
        head: dict[str, object] = {} if self._journal else {"time": stamp.replace("+00:00", "Z")}
        name = record.name.removeprefix(f"{_ROOT_LOGGER}.")
        head |= {"level": level, "logger": name, "msg": message}
        facts = dict(facts_of(record))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            facts["error"] = f"{type(error).__name__}: {error}"
            facts["traceback"] = self.formatException(record.exc_info)
        # A fact may not replace the head: in JSON the later of two equal keys would win.
        whole = head | {f"{k}_" if k in head else k: v for k, v in facts.items()}
        values = {
            _NOT_IN_KEYS.sub("_", key) or "_": _value(value, self._json)
            for key, value in whole.items()
            if value is not None
        }
        line = self._render(None, "", values)
        return f"<{_PRIORITIES.get(level, 7)}>{line}" if self._journal else str(line)


class RepeatFilter(logging.Filter):
    """Let `burst` records of a kind through per `window` and count the rest.

    Records are of one kind when logger, level, message and camera are the same. The first record
    of the next window carries ``suppressed=N``.

    Parameters
    ----------
    burst : int
    window : timedelta
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        burst: int = 10,
        window: timedelta = timedelta(seconds=60),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._burst, self._window, self._clock = burst, window.total_seconds(), clock
        # By kind: when its window began, and how many records came since.
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be written, after counting it."""
        now, facts = self._clock(), facts_of(record)
        kind = (str(record.msg), record.name, record.levelname, str(facts.get("camera", "")))
        with self._lock:
            if kind not in self._seen and len(self._seen) >= _KINDS:
                self._seen.clear()
            began, count = self._seen.get(kind, (now, 0))
            suppressed = 0
            if now - began >= self._window:
                began, count, suppressed = now, 0, max(0, count - self._burst)
            self._seen[kind] = (began, count + 1)
        if suppressed:
            setattr(record, _FACTS, {**facts, "suppressed": suppressed})
        return count < self._burst


class _OwnHandler(logging.StreamHandler[TextIO]):
    """A type of our own, so that a second set-up replaces only what the first one added."""


def setup_logging(
    level: int | str = logging.INFO,
    style: LogFormat = "logfmt",
    *,
    stream: TextIO | None = None,
    journal: bool | None = None,
    repeats: RepeatFilter | None = None,
) -> None:
    """Send every record of the process to one stream; called again, it replaces the first set-up.

    Parameters
    ----------
    level : int or str
        Least level of asi-watch's own records; records of other packages need a warning.
    style : {"logfmt", "json"}
    stream : text stream or None
        None means standard error.
    journal : bool or None
        Whether journald reads the stream; None means find out.
    repeats : RepeatFilter or None
        What suppresses repetitions; None writes everything.
    """
    out = sys.stderr if stream is None else stream
    handler = _OwnHandler(out)
    for_journal = _read_by_journal(out) if journal is None else journal
    handler.setFormatter(LineFormatter(style, journal=for_journal))
    if repeats is not None:
        handler.addFilter(repeats)
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _OwnHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_ROOT_LOGGER).setLevel(level.upper() if isinstance(level, str) else level)
    logging.captureWarnings(True)


def _read_by_journal(stream: TextIO) -> bool:
    """Tell whether journald reads `stream`, by the device and inode in ``JOURNAL_STREAM``."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    # The variable is inherited; only the comparison tells the journal from a redirected stream.
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def facts_of(record: logging.LogRecord) -> Mapping[str, object]:
    """Return the facts of a record that `event` made; none of other records."""
    facts: Mapping[str, object] = getattr(record, _FACTS, {})
    return facts


def _value(value: object, json: bool) -> object:
    """Return a value as a person would write it; JSON keeps numbers, lists and mappings."""
    match value:
        case bool():
            return value
        case Integral():
            return int(value)
        case Real():
            keeps = json and math.isfinite(float(value))
            return float(value) if keeps else f"{float(value):.6g}"
        case list() | tuple():
            parts = [_value(v, json) for v in value]
            return parts if json else ",".join(map(str, parts))
        case Mapping() if json:
            return {_value(str(k), json): _value(v, json) for k, v in value.items()}
        case datetime():
            text = value.isoformat()
        case timedelta():
            text = f"{value.total_seconds():.6g}s"
        case bytes() | PurePath():
            text = os.fsdecode(value)
        case _:
            text = str(value)
    # Both ends are kept: a path begins and ends with what matters, a traceback ends with it.
    if len(text) > VALUE_LIMIT:
        text = f"{text[: VALUE_LIMIT // 4]} … {text[-VALUE_LIMIT * 3 // 4 :]}"
    if json:
        # No lone surrogates: strict parsers refuse them.
        return text.encode("utf-8", "backslashreplace").decode()
    # The renderer itself quotes, and writes newlines.
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def _escape(char: str) -> str:
    # 0xDC80 to 0xDCFF: how Python carries a byte of a file name that is not UTF-8.
    byte = 0xDC80 <= ord(char) <= 0xDCFF
    return f"\\x{ord(char) - 0xDC00:02x}" if byte else char.encode("unicode_escape").decode()
