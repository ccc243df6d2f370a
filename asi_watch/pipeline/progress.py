"""How far a long run has come: a bar on a terminal, now and then a log line elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show the progress of a run on standard error.

    Parameters
    ----------
    what : str
        What is being done, e.g. "merging".
    total : int
        How many steps there are.

    Yields
    ------
    callable
        To be called after each step, from one thread.
    """
    if sys.stderr.isatty():
        with _bar(what, total) as advance:
            yield advance
    else:
        yield _lines(what, total)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        Remaining(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)

        def advance() -> None:
            bar.advance(task)

        yield advance


def _lines(what: str, total: int) -> Callable[[], None]:
    done = 0
    told = time.monotonic()

    def advance() -> None:
        nonlocal done, told
        done += 1
        now = time.monotonic()
        if now - told >= _SECONDS_BETWEEN_LINES:
            told = now
            log.info("%s: %d of %d", what, done, total)

    return advance
