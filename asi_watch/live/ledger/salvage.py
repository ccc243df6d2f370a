"""Rows of a damaged ledger that can still be read, taken over into a new one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from asi_watch.live.ledger.carving import CarvedRecord, Value, carve
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.ledger_file import PAGE_SIZE
from asi_watch.live.ledger.ledger_rows import COLUMNS, curve_from_row, from_row
from asi_watch.live.records import BracketRecord, CurveDecision, naive_time
from asi_watch.naming import slot_stem

_ROWS_AT_ONCE = 500
_CURVE_COLUMNS = 11
_LONGEST_OFFSET = timedelta(days=1)
_NONSENSE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def salvage(damaged: Path, ledger: Ledger, progress: Callable[[], None]) -> int:
    """Take over what a damaged file still says; of two versions of a row the newer one counts.

    Parameters
    ----------
    damaged : Path
        The file; only read.
    ledger : Ledger
        Takes the rows.
    progress : callable
        Called again and again meanwhile.

    Returns
    -------
    int
        How many brackets it told something of.

    Raises
    ------
    LedgerError
        If the new ledger cannot be written.
    OSError
        If the old one cannot be read at all.
    """
    found = 0
    brackets: list[tuple[BracketRecord, bool]] = []
    curves: dict[int, CurveDecision] = {}
    offsets: dict[tuple[str, datetime], timedelta] = {}
    marks: dict[str, datetime] = {}
    for record in carve(damaged, PAGE_SIZE, progress):
        with contextlib.suppress(*_NONSENSE):
            if record.rowid is not None:
                if len(record.values) == _CURVE_COLUMNS:
                    curves.setdefault(record.rowid, curve_from_row(record.values[1:]))
            elif len(record.values) == 3:
                _take_offset(record.values, offsets)
            elif len(record.values) == 2:
                _take_mark(record.values, marks)
            else:
                brackets.append(_bracket(record))
        if len(brackets) >= _ROWS_AT_ONCE:
            found += ledger.restore(brackets)
            brackets.clear()
    found += ledger.restore(brackets)
    ledger.restore_curves(curves[number] for number in sorted(curves))
    for (camera, since), offset in offsets.items():
        ledger.record_offset(camera, since, offset)
    for camera, moment in marks.items():
        ledger.record_caught_up(camera, moment)
    return found


def _bracket(carved: CarvedRecord) -> tuple[BracketRecord, bool]:
    # Rows written before `asked` was added lack it.
    values, asked = carved.values[: len(COLUMNS)], carved.values[len(COLUMNS) :]
    if len(asked) > 1:
        raise ValueError("too many columns")
    record = from_row(values)
    if datetime.fromisoformat(record.updated_utc).tzinfo is None or not record.camera:
        raise ValueError("no row that was written here")
    stem = slot_stem(record.slot)
    if not all(PurePosixPath(product).name.startswith(stem) for product in record.products):
        raise ValueError("products of another bracket: pieces of two rows")
    return record, asked == (1,)


def _take_offset(values: tuple[Value, ...], offsets: dict[tuple[str, datetime], timedelta]) -> None:
    # Indices of three columns hold texts only.
    camera, since, microseconds = values
    if isinstance(camera, str) and isinstance(since, str) and isinstance(microseconds, int):
        offset = timedelta(microseconds=microseconds)
        if abs(offset) <= _LONGEST_OFFSET:
            offsets.setdefault((camera, naive_time(since)), offset)


def _take_mark(values: tuple[Value, ...], marks: dict[str, datetime]) -> None:
    camera, text = values
    if isinstance(camera, str) and isinstance(text, str):
        moment = datetime.fromisoformat(text)
        # Without a zone it is a slot, of an index. Of several the oldest: to look back too far
        # costs a moment only.
        if moment.tzinfo is not None:
            marks[camera] = min(marks.get(camera, moment), moment)
