"""How far a long run has come: a bar on a terminal, now and then a log line elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show the progress of a run on standard error; yields what is called after each step.

    Parameters
    ----------
    what : str
        Such as "merging".
    total : int
    """
    if not sys.stderr.isatty():
        yield _lines(what, total)
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _lines(what: str, total: int) -> Callable[[], None]:
    done, logged = 0, time.monotonic()

    def advance() -> None:
        nonlocal done, logged
        done += 1
        now = time.monotonic()
        if now - logged >= _SECONDS_BETWEEN_LINES:
            logged = now
            log.info("%s: %d of %d", what, done, total)

    return advance
