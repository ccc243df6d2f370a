"""What became of every bracket of an archive, as a table, and how far the run has come."""

import csv
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from asi_watch.errors import AsiWatchError
from asi_watch.files import shown
from asi_watch.products.provenance import Unusable

log = logging.getLogger(__name__)

_FIRST_LINE_AFTER, _NEXT_LINES_AFTER = 1.0, 10.0  # seconds
_Step = TypeVar("_Step")
_COLUMNS = ("slot", "state", "products", "missing_us", "left_out", "notes", "reason")


@dataclass(frozen=True, slots=True)
class BracketOutcome:
    """What became of one bracket."""

    slot: datetime
    products: tuple[Path, ...] = ()
    left_out: tuple[Unusable, ...] = ()  # exposures: unreadable, or they contradict the others
    stood: bool = False  # the products were there already
    notes: tuple[str, ...] = ()  # what makes them doubtful, and which are missing
    error: AsiWatchError | None = None  # why there are none
    missing: tuple[float, ...] = ()  # exposure times, in µs, that complete brackets have
    skipped: bool = False  # the run was interrupted before it

    @property
    def state(self) -> Literal["published", "stood", "failed", "skipped"]:
        """What became of it in one word."""
        if self.skipped:
            return "skipped"
        if self.error is not None:
            return "failed"
        return "stood" if self.stood else "published"


class ReportFile:
    """Writes the report of one run; its file appears when the run ends, also by an interrupt.

    Parameters
    ----------
    path : Path
        Its suffix chooses the format: ``.csv`` or ``.json`` (a list of objects). ValueError for
        others; an OSError if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".csv", ".json"):
            raise ValueError(f"{shown(path)}: a report is a .csv or .json file")
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._rows = 0

    def __enter__(self) -> "ReportFile":
        self._file = self._part.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        if self._path.suffix == ".csv":
            csv.writer(self._file).writerow(_COLUMNS)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        if self._path.suffix == ".json":
            self._file.write("\n]\n" if self._rows else "[]\n")
        self._file.close()
        self._part.replace(self._path)

    def add(self, outcome: BracketOutcome) -> None:
        """Write the row of one bracket.

        Parameters
        ----------
        outcome : BracketOutcome
        """
        row: dict[str, Any] = {
            "slot": outcome.slot.isoformat(),
            "state": outcome.state,
            "products": [str(product) for product in outcome.products],
            "missing_us": list(outcome.missing),
            "left_out": [f"{one.path}: {one.reason}" for one in outcome.left_out],
            "notes": list(outcome.notes),
            "reason": str(outcome.error or ""),
        }
        if self._path.suffix == ".json":
            self._file.write(",\n" if self._rows else "[\n")
            self._file.write(json.dumps(row, ensure_ascii=False))
        else:
            cells = (
                "; ".join(map(str, v)) if isinstance(v, list) else v.replace("\n", " ")
                for v in row.values()
            )
            csv.writer(self._file).writerow(cells)
        self._rows += 1


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
