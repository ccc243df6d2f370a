"""How far a long run has come: a bar on a terminal, now and then a log line elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0
_Step = TypeVar("_Step")


def progress(steps: Iterable[_Step], what: str, total: int) -> Iterator[_Step]:
    """Pass on the steps of a run and show on standard error how many there were.

    Parameters
    ----------
    steps : iterable
    what : str
        Such as "merging".
    total : int
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(steps, what, total, console=Console(stderr=True), transient=True)
        return
    logged = time.monotonic()
    for done, step in enumerate(steps, start=1):
        yield step
        if time.monotonic() - logged >= _SECONDS_BETWEEN_LINES:
            logged = time.monotonic()
            log.info("%s: %d of %d", what, done, total)
