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

ROOT_LOGGER = "asi_watch"
VALUE_LIMIT = 4096
"""Characters: enough for any path, and journald (48 KiB a line) never splits a record."""

_FACTS = "asi_watch_facts"
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_.-]")
_SUMMARY_EVERY, _KINDS = 3600.0, 1024
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6}
_log = logging.getLogger(__name__)


def event(logger: logging.Logger, level: int, message: str, /, **facts: object) -> None:
    """Log a sentence with its facts.

    Parameters
    ----------
    logger : logging.Logger
        Whose event it is.
    level : int
        As in `logging`.
    message : str
        A constant sentence: what varies belongs in the facts, so that lines can be counted.
    **facts : object
        Written in the order given, as ``key=value``; None is left out.
    """
    if logger.isEnabledFor(level):
        # stacklevel: the record names the caller, not this helper.
        logger.log(level, message, extra={_FACTS: facts}, stacklevel=2)


def failure(logger: logging.Logger, message: str, error: BaseException, /, **facts: object) -> None:
    """Log an unforeseen error with its traceback, still on one line; otherwise as `event`.

    Parameters
    ----------
    logger : logging.Logger
    message : str
    error : BaseException
    **facts : object
    """
    exc_info = (type(error), error, error.__traceback__)
    logger.error(message, exc_info=exc_info, extra={_FACTS: facts}, stacklevel=2)


class LineFormatter(logging.Formatter):
    """Format a record as exactly one line of printable text.

    Parameters
    ----------
    style : {"logfmt", "json"}
        Shape of the line.
    journal : bool
        True when journald reads the line: priority first, no time of our own.
    """

    def __init__(self, style: LogFormat = "logfmt", *, journal: bool = False) -> None:
        super().__init__()
        # Imported here: only what writes a log pays for it.
        from structlog.processors import JSONRenderer, LogfmtRenderer

        self._journal = journal
        self._json = style == "json"
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
        name = record.name.removeprefix(f"{ROOT_LOGGER}.")
        head |= {"level": level, "logger": name, "msg": message}
        facts = dict(_facts_of(record))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            facts["error"] = f"{type(error).__name__}: {error}"
            facts["traceback"] = self.formatException(record.exc_info)
        # A fact may not replace the head: in JSON the later of two equal keys would win.
        whole = head | {f"{k}_" if k in head else k: v for k, v in facts.items()}
        line = self._render(
            None,
            "",
            {
                _NOT_IN_KEYS.sub("_", k) or "_": _value(v, self._json)
                for k, v in whole.items()
                if v is not None
            },
        )
        return f"<{_PRIORITIES.get(level, 7)}>{line}" if self._journal else str(line)


class RepeatFilter(logging.Filter):
    """Let `burst` records of a kind through per `window`, count the rest, and say how many.

    Records are of one kind when logger, level, message and camera are the same. The first record
    of the next window carries ``suppressed=N``; what was suppressed of kinds that fell silent is
    logged about once an hour, and at the end of ``with``.

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
        # By kind: when its window began, how many passed, how many were suppressed.
        self._seen: dict[tuple[str, ...], tuple[float, int, int]] = {}
        self._summary_at = clock() + _SUMMARY_EVERY
        self._lock = threading.Lock()

    def __enter__(self) -> RepeatFilter:
        return self

    def __exit__(self, *_: object) -> None:
        self.summarize()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be written, after counting it."""
        now, facts = self._clock(), _facts_of(record)
        if now >= self._summary_at or len(self._seen) >= _KINDS:
            self._summary_at = now + _SUMMARY_EVERY
            self.summarize()
        kind = (str(record.msg), record.name, record.levelname, str(facts.get("camera", "")))
        with self._lock:
            began, passed, suppressed = self._seen.get(kind, (now, 0, 0))
            if now - began >= self._window:
                began, passed = now, 0
            passes = passed < self._burst
            first = passes and passed == 0
            left = 0 if first else suppressed + (not passes)
            self._seen[kind] = (began, passed + passes, left)
        if first and suppressed:
            setattr(record, _FACTS, {**facts, "suppressed": suppressed})
        return passes

    def summarize(self) -> None:
        """Log how many records were suppressed and not counted in another one, and forget them."""
        with self._lock:
            seen, self._seen = self._seen, {}
        text = "records suppressed"
        for (message, _, _, camera), (_, _, count) in seen.items():
            if count:
                event(_log, logging.WARNING, text, what=message, records=count, camera=camera)


class _OwnHandler(logging.StreamHandler[TextIO]):
    """A type of our own, so that a second set-up replaces only what the first one added."""


def setup_logging(
    level: int | str = logging.INFO,
    style: LogFormat = "logfmt",
    *,
    stream: TextIO | None = None,
    journal: bool | None = None,
    repeats: RepeatFilter | None = None,
) -> logging.Handler:
    """Send every record of the process to one stream; called again, it replaces the first set-up.

    Parameters
    ----------
    level : int or str
        Least level of asi-watch's own records, also by name in either case; records of other
        packages need a warning.
    style : {"logfmt", "json"}
    stream : text stream or None
        None means standard error.
    journal : bool or None
        Whether journald reads the stream; None means find out.
    repeats : RepeatFilter or None
        What suppresses repetitions; None writes everything.

    Returns
    -------
    logging.Handler
        Put on the root logger.
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
    logging.getLogger(ROOT_LOGGER).setLevel(level.upper() if isinstance(level, str) else level)
    logging.captureWarnings(True)
    return handler


def _read_by_journal(stream: TextIO) -> bool:
    """Tell whether journald reads `stream`, by the device and inode in ``JOURNAL_STREAM``."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    # The variable is inherited; only the comparison tells the journal from a redirected stream.
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _facts_of(record: logging.LogRecord) -> Mapping[str, object]:
    facts = getattr(record, _FACTS, None)
    return facts if isinstance(facts, Mapping) else {}


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
