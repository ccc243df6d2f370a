"""Logging: one event, one line, readable by people, ``grep`` and log collectors.

A line is a constant sentence followed by its facts::

    time=2026-05-04T12:00:31.482Z level=info logger=merger msg="bracket published" camera=roof

or the same as one JSON object. Under the journal the time is left to journald and each line
begins with its priority (``<6>``, see ``sd-daemon(3)``), so that ``journalctl -p warning`` works.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, TextIO

from asi_watch.logfmt import json_line, logfmt_line, text_of

LogFormat = Literal["logfmt", "json"]

ROOT_LOGGER = "asi_watch"
_FACTS = "asi_watch_facts"
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

    Examples
    --------
    >>> log = logging.getLogger("asi_watch.live.merger")
    >>> event(log, logging.INFO, "bracket published", camera="roof", exposures=5)
    """
    if logger.isEnabledFor(level):
        # stacklevel: the record names the caller, not this helper.
        logger.log(level, message, extra={_FACTS: facts}, stacklevel=2)


def failure(logger: logging.Logger, message: str, error: BaseException, /, **facts: object) -> None:
    """Log an unforeseen error with its traceback, still on one line.

    Parameters
    ----------
    logger : logging.Logger
        Whose event it is.
    message : str
        A constant sentence.
    error : BaseException
        What was caught; its type, text and traceback become facts.
    **facts : object
        As for `event`.
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
        self._render = json_line if style == "json" else logfmt_line
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        head: dict[str, object] = {} if self._journal else {"time": _utc(record.created)}
        head |= {
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(f"{ROOT_LOGGER}."),
            "msg": _message_of(record),
        }
        facts = {**_facts_of(record), **self._error_facts(record)}
        # A fact may not overwrite the head: in JSON the later of two equal keys would win.
        line = self._render(head | {f"{k}_" if k in head else k: v for k, v in facts.items()})
        return f"<{_priority(record.levelno)}>{line}" if self._journal else line

    def _error_facts(self, record: logging.LogRecord) -> dict[str, object]:
        if not record.exc_info or record.exc_info[1] is None:
            return {}
        error = record.exc_info[1]
        return {
            "error": f"{type(error).__name__}: {error}",
            "traceback": self.formatException(record.exc_info),
        }


class RepeatFilter(logging.Filter):
    """Let the first records of a kind through, count the rest, and say how many there were.

    Records are of one kind when logger, level, message and the facts named in `by` are the same.
    Of a kind, `burst` records pass in every window; the first one of the next window carries
    ``suppressed=N`` for those held back. Counts of kinds that fell silent wait in `pending`.

    Parameters
    ----------
    burst : int
        Records of a kind that pass per window.
    window : timedelta
        Length of a window, which begins with the first record of the kind.
    by : tuple of str
        Facts that tell kinds apart.
    clock : callable
        Monotonic seconds.
    kinds : int
        Kinds remembered at most; the one whose window began first is forgotten first.
    """

    def __init__(
        self,
        burst: int = 10,
        window: timedelta = timedelta(seconds=60),
        by: tuple[str, ...] = ("camera",),
        clock: Callable[[], float] = time.monotonic,
        kinds: int = 1024,
    ) -> None:
        super().__init__()
        self._burst, self._window, self._by = burst, window.total_seconds(), by
        self._clock, self._kinds = clock, kinds
        self._seen: dict[tuple[str, ...], _Window] = {}
        self._forgotten = 0
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be written, after counting it."""
        facts = _facts_of(record)
        told_apart = (text_of(facts.get(name)) for name in self._by)
        key = (str(record.msg), record.name, record.levelname, *told_apart)
        with self._lock:
            suppressed = self._admit(key)
        if suppressed:
            setattr(record, _FACTS, {**facts, "suppressed": suppressed})
        return suppressed is not None

    def pending(self) -> dict[str, int]:
        """Take the counts not told yet.

        Returns
        -------
        dict of str to int
            Message → records held back. The key ``""`` stands for kinds already forgotten.
        """
        with self._lock:
            told = {"": self._forgotten} if self._forgotten else {}
            self._forgotten = 0
            for (message, *_), seen in self._seen.items():
                if seen.suppressed:
                    told[message] = told.get(message, 0) + seen.suppressed
                    seen.suppressed = 0
        return told

    def _admit(self, key: tuple[str, ...]) -> int | None:
        """Return how many were held back before this record, or None to hold it back too."""
        now = self._clock()
        seen = self._seen.get(key)
        if seen is None or now - seen.began >= self._window:
            # Taken out and put back: the dict stays in the order in which windows began.
            self._seen.pop(key, None)
            self._seen[key] = _Window(now)
            if len(self._seen) > self._kinds:
                self._forgotten += self._seen.pop(next(iter(self._seen))).suppressed
            return seen.suppressed if seen else 0
        if seen.passed < self._burst:
            seen.passed += 1
            return 0
        seen.suppressed += 1
        return None


class HeldBackTeller:
    """Tells every hour, and at the end, what a filter held back of kinds that fell silent since.

    Parameters
    ----------
    repeats : RepeatFilter
    every : timedelta
    """

    def __init__(self, repeats: RepeatFilter, every: timedelta = timedelta(hours=1)) -> None:
        self._repeats = repeats
        self._every = every.total_seconds()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="held back", daemon=True)

    def __enter__(self) -> HeldBackTeller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        over = False
        while not over:
            over = self._over.wait(self._every)
            for message, count in self._repeats.pending().items():
                event(_log, logging.WARNING, "held back", what=message or "various", records=count)


class _Window:
    __slots__ = ("began", "passed", "suppressed")

    def __init__(self, began: float) -> None:
        self.began = began
        self.passed = 1
        self.suppressed = 0


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
        Shape of the lines.
    stream : text stream or None
        None means standard error.
    journal : bool or None
        Whether journald reads the stream; None means find out.
    repeats : RepeatFilter or None
        What holds back repetitions; None writes everything.

    Returns
    -------
    logging.Handler
        The handler put on the root logger.
    """
    out = sys.stderr if stream is None else stream
    handler = _OwnHandler(out)
    for_journal = read_by_journal(out) if journal is None else journal
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


def read_by_journal(stream: TextIO) -> bool:
    """Return whether journald reads `stream`, by the device and inode in ``JOURNAL_STREAM``."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    # The variable is inherited; only the comparison tells the journal from a redirected stream.
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def _facts_of(record: logging.LogRecord) -> Mapping[str, object]:
    facts = getattr(record, _FACTS, None)
    return facts if isinstance(facts, Mapping) else {}


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # A wrong template in some package must not cost the line.
        return f"{record.msg} {record.args}"


def _utc(created: float) -> str:
    stamp = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


def _priority(levelno: int) -> int:
    """Return the syslog priority of a level."""
    for least, priority in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4)):
        if levelno >= least:
            return priority
    return 6 if levelno >= logging.INFO else 7
