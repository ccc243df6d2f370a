"""How far a long run has come: a bar on a terminal, now and then a log line elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

_FIRST_LINE_AFTER, _NEXT_LINES_AFTER = 1.0, 10.0  # seconds
_Step = TypeVar("_Step")


def progress(steps: Iterable[_Step], what: str, total: int) -> Iterator[_Step]:
    """Pass on the steps of a run; show on standard error how many there were, and the time left.

    Parameters
    ----------
    steps : iterable
    what : str
        Such as "merging".
    total : int
    """
    if sys.stderr.isatty():
        yield from _with_bar(steps, what, total)
        return
    started = time.monotonic()
    due = started + _FIRST_LINE_AFTER
    for done, step in enumerate(steps, start=1):
        yield step
        now = time.monotonic()
        if now >= due and done < total:
            due = now + _NEXT_LINES_AFTER
            rate = done / (now - started)
            left = (total - done) / rate
            log.info("%s: %d of %d, %.1f per second, %.0f s left", what, done, total, rate, left)


def _with_bar(steps: Iterable[_Step], what: str, total: int) -> Iterator[_Step]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        *(bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn()),
        *(bars.TextColumn("{task.speed!s:.4} per s"), bars.TimeRemainingColumn()),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(steps, total, description=what)
