"""The ledger: one durable row per bracket that is over, and what else must survive a restart.

Only the daemon's owner thread writes rows; commands read, and leave requests. A row is on the disk
when `record` returns, unless `blocked` says why it cannot be written.
"""

import json
import logging
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from asi_watch.files import shown
from asi_watch.live.ledger import records, schema
from asi_watch.live.ledger.records import (
    FOR_CHANNELS,
    WAITS_FOR_CURVE,
    WITHOUT_CURVE,
    BracketRecord,
    CurveDecision,
    Request,
    Retry,
    utc_now,
)
from asi_watch.live.ledger.schema import LedgerDamagedError, LedgerError, LedgerFullError
from asi_watch.logs import event

__all__ = ["Ledger", "LedgerDamagedError", "LedgerError", "LedgerFullError"]

log = logging.getLogger(__name__)

FILE_NAME = "ledger.sqlite3"
SUSPECT_NAME = f"{FILE_NAME}.suspect"
"""Written when the ledger proves damaged while in use: the next start rebuilds it."""
_SETTLE_EVERY = 2.0
_LOOK_EVERY = 1.0
_MOST_REQUESTS = 100
_REQUESTS_KEPT = timedelta(days=7)
_CLOCK_WRONG = timedelta(days=1)
_EVERYTHING = timedelta(days=36_500)
_MOST_LOGGED = 20
_NEWEST_ROWS = 5000
_NO_LIMIT = sys.maxsize
_NAMES, _CURVE = records._columns(BracketRecord), records._columns(CurveDecision)
_MARK = "UPDATE brackets SET asked = 1, attempts = 0 WHERE camera = ? AND"

_T = TypeVar("_T")
_Row = tuple[Any, ...]


class Ledger:
    """A connection to the ledger's file: the daemon's own, or a command's.

    Transactions are durable (`synchronous=FULL`). A row that cannot be read is skipped, counted
    in `unreadable` and logged; it never keeps anybody from the other rows.

    Parameters
    ----------
    state_dir : Path
        Folder of the ledger's file; must exist.
    read_only : bool
        For commands that only look.
    beside_daemon : bool
        For commands that leave requests: the file must be there, and is not migrated nor checked.

    Raises
    ------
    LedgerError
        If the file is missing (for a command), may not be opened or was written by a newer
        version; a `LedgerDamagedError` if it is no ledger or a damaged one.
    """

    def __init__(
        self, state_dir: Path, *, read_only: bool = False, beside_daemon: bool = False
    ) -> None:
        self.path = state_dir / FILE_NAME
        self.unreadable = 0
        """Rows met so far that cannot be read."""
        self.rebuilt = False
        """Whether this start had to rebuild it."""
        self.blocked: str | None = None
        """Why rows cannot be written now, None if they can; then nothing may be published."""
        self._pending: dict[tuple[str, datetime], BracketRecord] = {}
        self._settled = self._looked = float("-inf")
        self._owner = not (read_only or beside_daemon)
        self._file: tuple[int, int] | None = None
        if self._owner:
            self._db = schema._open_own(self.path)
            status = self.path.stat()
            self._file = (status.st_dev, status.st_ino)
        else:
            self._db = schema._open_beside(self.path, read_only=read_only)

    def close(self) -> None:
        """Close the connection."""
        # Closing deletes the journal by its name: not that of a file put in place of this one.
        if self._place() != "another":
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, camera: str, slot: datetime) -> BracketRecord | None:
        """Look up the row of one bracket.

        Parameters
        ----------
        camera : str
        slot : datetime
            Naive, in the clock of the file names.
        """
        if (camera, slot) in self._pending:
            return self._pending[camera, slot]
        return next(iter(self._select("camera = ? AND slot = ?", camera, slot.isoformat())), None)

    def record(self, record: BracketRecord) -> None:
        """Write or replace a bracket's row, durably; it is kept in memory while `blocked`.

        Parameters
        ----------
        record : BracketRecord
            Bounded on the way, see `MOST_REJECTED`.
        """
        key = record.camera, record.slot
        try:
            self.record_all([replace(record, updated_utc=utc_now())])
        except LedgerFullError as error:
            self._block(error)
            self._pending[key] = records._bounded(record)
        else:
            self._pending.pop(key, None)

    def record_all(self, rows: Iterable[BracketRecord]) -> None:
        """Write rows as they are, all or none; LedgerFullError if they cannot be written now.

        Parameters
        ----------
        rows : iterable of BracketRecord
        """
        values = [records._to_row(records._bounded(row)) for row in rows]
        names = ", ".join(f":{name}" for name in _NAMES.split(", "))
        with self._transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO brackets ({_NAMES}) VALUES ({names})", values
            )

    def to_retry(
        self,
        camera: str,
        max_attempts: int,
        *,
        after: datetime | None = None,
        limit: int = _NO_LIMIT,
    ) -> list[BracketRecord]:
        """Return brackets to be merged again: failed with attempts left, or asked for.

        What waits for a curve is not among them until one is there (`ask_without_curve`).

        Parameters
        ----------
        camera : str
        max_attempts : int
        after : datetime or None
            Only slots after this one.
        limit : int
            The first so many in the order of their slots.
        """
        # The planner alone would go through all rows of the camera, at every start.
        table, of_camera = "SELECT slot FROM brackets INDEXED BY", "WHERE camera = ?1 AND slot > ?2"
        failed = f"{table} brackets_by_state {of_camera} AND state = 'failed'"
        asked = f"{table} brackets_asked {of_camera} AND asked = 1"
        condition = (
            f"slot IN ({failed} AND attempts < ?4 UNION ALL {asked})"
            " AND (asked = 1 OR ifnull(reason, '') NOT LIKE ?5)"
        )
        return self._walk(camera, condition, after, limit, max_attempts, f"{WAITS_FOR_CURVE}%")

    def published(
        self, camera: str, *, after: datetime | None, before: datetime | None, limit: int
    ) -> list[BracketRecord]:
        """Return published brackets that nobody wants merged again, in the order of their slots.

        Parameters
        ----------
        camera : str
        after, before : datetime or None
            Only slots between these.
        limit : int
            The first so many.
        """
        condition = "slot < ?4 AND state = 'published' AND asked = 0"
        return self._walk(camera, condition, after, limit, before.isoformat() if before else "~")

    def _walk(
        self, camera: str, condition: str, after: datetime | None, limit: int, *values: Any
    ) -> list[BracketRecord]:
        """Read on until there are `limit` readable rows: a page of damage must not end a walk."""
        found: list[BracketRecord] = []
        since: Any = "" if after is None else after.isoformat()
        while len(found) < limit:
            rows = self._all(
                f"SELECT slot, {_NAMES} FROM brackets WHERE camera = ?1 AND slot > ?2"
                f" AND {condition} ORDER BY slot LIMIT ?3",
                (camera, since, limit, *values),
            )
            found += self._readable([row[1:] for row in rows], _bracket)
            if len(rows) < limit or rows[-1][0] == since:
                break
            since = rows[-1][0]
        return found[:limit]

    def ask_again(self, camera: str, which: Retry) -> list[datetime]:
        """Mark brackets as to be merged again; return their slots.

        Parameters
        ----------
        camera : str
        which : Retry
            LedgerFullError if that cannot be written now.
        """
        marked: list[_Row] = []
        with self._transaction():
            for where, values in which.conditions():
                marked += self._db.execute(f"{_MARK} {where} RETURNING slot", (camera, *values))
        return sorted(set(self._readable(marked, lambda row: datetime.fromisoformat(row[0]))))

    def ask_without_curve(
        self, camera: str, since: datetime | None, channels: Collection[int]
    ) -> int:
        """Mark brackets that waited for a curve as to be merged; return how many.

        Parameters
        ----------
        camera : str
        since : datetime or None
            UTC: also what was published without a curve after this time.
        channels : collection of int
            Those that there are curves for: images of others would only fall back once more.
        """
        # Rows of 0.1 do not say what their images were like.
        images = [f"%{FOR_CHANNELS.format(n)}%" for n in ("_", *channels)]
        mark = f"{_MARK} state = ? AND reason LIKE ? AND (reason NOT LIKE ?"
        mark += f"{' OR reason LIKE ?' * len(channels)}) AND updated_utc >= ?"
        after = since.isoformat(timespec="milliseconds") if since else "~"
        with self._transaction():
            waited = self._db.execute(mark, (camera, "failed", f"{WAITS_FOR_CURVE}%", *images, ""))
            values = (camera, "published", f"{WITHOUT_CURVE}%", *images, after)
            return waited.rowcount + self._db.execute(mark, values).rowcount

    def recent_complete(
        self,
        camera: str,
        limit: int,
        *,
        without_curve: bool = False,
        spread: timedelta = timedelta(0),
    ) -> list[BracketRecord]:
        """Return the newest complete brackets of a camera, newest first.

        Parameters
        ----------
        camera : str
        limit : int
        without_curve : bool
            Those that no curve fitted, among the camera's newest thousands of rows; otherwise
            those that are published.
        spread : timedelta
            Of published ones, an even share of those that lie so far back from the newest.
        """
        if not without_curve:
            condition = "camera = ?1 AND state = 'published' AND complete = 1"
            newest = self._select(f"{condition} ORDER BY slot DESC LIMIT ?2", camera, limit)
            if not spread or len(newest) < limit:
                return newest
            within = f"{condition} AND slot >= ?2"
            counted = "ROW_NUMBER() OVER (ORDER BY slot DESC) AS number, COUNT(*) OVER () AS total"
            rows = f"SELECT slot, {counted} FROM brackets WHERE {within}"
            share = f"SELECT slot FROM ({rows}) WHERE (number - 1) % MAX(1, total / ?3) = 0"
            since = (newest[0].slot - spread).isoformat()
            every = f"{within} AND slot IN ({share}) ORDER BY slot DESC LIMIT ?3"
            return self._select(every, camera, since, limit)
        return self._select(
            "camera = ?1 AND complete = 1 AND slot IN (SELECT slot FROM brackets WHERE camera = ?1"
            " ORDER BY slot DESC LIMIT ?2) AND ((state = 'failed' AND reason LIKE ?3)"
            " OR (state = 'published' AND reason LIKE ?4)) ORDER BY slot DESC LIMIT ?5",
            *(camera, _NEWEST_ROWS, f"{WAITS_FOR_CURVE}%", f"{WITHOUT_CURVE}%", limit),
        )

    def history(
        self, *, camera: str | None = None, since: datetime | None = None, limit: int | None = None
    ) -> list[BracketRecord]:
        """Return the newest rows in the order of their slots.

        Parameters
        ----------
        camera : str or None
            None: of all cameras.
        since : datetime or None
            Only slots from this one on.
        limit : int or None
            At most so many.
        """
        first, most = since.isoformat() if since else "", _NO_LIMIT if limit is None else limit
        condition = "camera = ? AND slot >= ? ORDER BY slot DESC LIMIT ?"
        # Camera by camera: there is an order by slot only within each.
        names = self.cameras() if camera is None else [camera]
        rows = [row for name in names for row in self._select(condition, name, first, most)]
        rows.sort(key=lambda row: (row.slot, row.camera))
        return rows[max(0, len(rows) - most) :]

    def slots(self, camera: str, since: datetime) -> list[int]:
        """Return the slots of all rows of a camera from a time on, in no order.

        As seconds from 1970 on, in the clock of the names: they are tens of thousands.

        Parameters
        ----------
        camera : str
        since : datetime
        """
        # By an index that holds them: the rows themselves are large.
        rows = self._all(
            "SELECT CAST(strftime('%s', slot) AS INTEGER) AS seconds FROM brackets"
            " INDEXED BY brackets_by_state WHERE camera = ? AND seconds NOTNULL"
            " AND state IN ('published', 'skipped', 'failed') AND slot >= ?",
            (camera, since.isoformat()),
        )
        return [row[0] for row in rows]

    def cameras(self) -> list[str]:
        """Return the names of all cameras that have rows."""
        # From one to the next: the rows of a camera need not be looked through.
        rows = self._all(
            "WITH RECURSIVE found (name) AS (SELECT min(camera) FROM brackets UNION ALL SELECT"
            " (SELECT min(camera) FROM brackets WHERE camera > name) FROM found WHERE name NOTNULL)"
            " SELECT name FROM found WHERE name NOTNULL"
        )
        return self._readable(rows, _name)

    def last_change(self, camera: str) -> datetime | None:
        """Return the UTC time at which a row of this camera was last written.

        Parameters
        ----------
        camera : str
        """
        return self._time("SELECT max(updated_utc) FROM brackets WHERE camera = ?", camera)

    def folder_watermarks(self, camera: str) -> dict[str, int]:
        """Return up to which modification time (ns) all files of a folder have rows.

        By folder, relative to the watch folder; empty before the first start with this camera.

        Parameters
        ----------
        camera : str
        """
        rows = self._all("SELECT folder, mtime_ns FROM folders WHERE camera = ?", (camera,))
        return dict(self._readable(rows, _watermark))

    def set_folder_watermarks(self, camera: str, watermarks: Mapping[str, int]) -> bool:
        """Write such times, durably; False if that cannot be done now: they are read again then.

        Parameters
        ----------
        camera : str
        watermarks : mapping of str to int
        """
        # As JSON text: a folder's name may have bytes that are no UTF-8.
        rows = [(camera, json.dumps(folder), at) for folder, at in watermarks.items()]
        try:
            with self._transaction():
                self._db.executemany("INSERT OR REPLACE INTO folders VALUES (?, ?, ?)", rows)
        except LedgerFullError as error:
            self._block(error)
            return False
        return True

    def first_lookback(self, camera: str, lookback: timedelta) -> timedelta:
        """Return how far back a first start must look, which has no watermarks to go by.

        Parameters
        ----------
        camera : str
        lookback : timedelta
            As configured; longer where an 0.1 daemon has not been up to date for longer.
        """
        since = self._time("SELECT caught_up_utc FROM marks WHERE camera = ?", camera)
        since = since or self.last_change(camera)
        if since is None:
            return lookback
        away = datetime.now(UTC) - since
        # A time in the future: a clock was wrong, and nothing is known.
        return _EVERYTHING if away < -_CLOCK_WRONG else max(lookback, away + timedelta(hours=1))

    def record_curve(self, decision: CurveDecision) -> None:
        """Note what became of a candidate curve, durably.

        LedgerFullError if that cannot be written now: then the curve is not to be used.

        Parameters
        ----------
        decision : CurveDecision
        """
        row = asdict(replace(decision, decided_utc=decision.decided_utc or utc_now()))
        marks = ", ".join(f":{name}" for name in row)
        with self._transaction():
            self._db.execute(f"INSERT INTO curves ({', '.join(row)}) VALUES ({marks})", row)

    def curves(self, camera: str) -> list[CurveDecision]:
        """Return all decisions on a camera's curves, oldest first."""
        rows = self._all(f"SELECT {_CURVE} FROM curves WHERE camera = ? ORDER BY id", (camera,))
        return self._readable(rows, partial(records._read_row, CurveDecision))

    def add_request(self, kind: str, camera: str | None, arguments: Mapping[str, Any]) -> int:
        """Leave a request for the running daemon, or for the next start; return its number.

        Parameters
        ----------
        kind : str
            Such as ``retry``.
        camera : str or None
            None: every camera.
        arguments : mapping
            JSON-able details.
        """
        oldest = (datetime.now(UTC) - _REQUESTS_KEPT).isoformat(timespec="milliseconds")
        row = (kind, camera, json.dumps(dict(arguments)), utc_now())
        insert = "INSERT INTO requests (kind, camera, arguments, asked_utc) VALUES (?, ?, ?, ?)"
        with self._transaction():
            self._db.execute("DELETE FROM requests WHERE asked_utc < ?", (oldest,))
            return int(self._db.execute(insert, row).lastrowid or 0)

    def take_requests(self) -> list[Request]:
        """Return the requests that have no answer yet, oldest first, at most 100."""
        names = records._columns(Request)
        text = f"SELECT {names} FROM requests WHERE ok IS NULL ORDER BY id LIMIT {_MOST_REQUESTS}"
        rows = self._all(text)
        requests = self._readable(rows, partial(records._read_row, Request))
        for number in {row[0] for row in rows} - {request.id for request in requests}:
            self.answer_request(number, "the request cannot be read", ok=False)
        return requests

    def answer_request(self, number: int, text: str, *, ok: bool) -> None:
        """Answer a request; while the ledger cannot be written it is taken again later.

        Parameters
        ----------
        number : int
        text : str
        ok : bool
            Whether it was granted.
        """
        update = "UPDATE requests SET answer = ?, ok = ? WHERE id = ?"
        with suppress(LedgerFullError), self._transaction():
            self._db.execute(update, (shown(text), int(ok), number))

    def note_progress(self, number: int, text: str) -> None:
        """Say how far a request has come that takes a while; it stays open.

        Parameters
        ----------
        number : int
        text : str
        """
        with suppress(LedgerFullError), self._transaction():
            self._db.execute("UPDATE requests SET answer = ? WHERE id = ?", (shown(text), number))

    def answer_to(self, number: int) -> tuple[str, bool | None]:
        """Return what was said to a request, and whether it was granted: None while it is open.

        Parameters
        ----------
        number : int
        """
        rows = self._all("SELECT answer, ok FROM requests WHERE id = ?", (number,))
        answer, ok = rows[0] if rows else ("the request is gone", False)
        return answer or "", None if ok is None else bool(ok)

    @property
    def pending(self) -> int:
        """How many rows wait in memory to be written."""
        return len(self._pending)

    def settle(self, now: float) -> None:
        """Write pending rows and look after the file; to be called several times a second.

        Parameters
        ----------
        now : float
            Monotonic time.

        Raises
        ------
        LedgerError
            If the file has been deleted or replaced while in use: SQLite itself would go on
            writing rows that are never read again.
        """
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            place = self._place()
            if place != "there":
                raise LedgerError(f"{self.path}: the file is {place} while in use; start again")
        if self.blocked is None or now - self._settled < _SETTLE_EVERY:
            return
        self._settled = now
        rows = self.pending
        try:
            # Each row is taken off once it is written.
            for key, record in list(self._pending.items()):
                self.record_all([replace(record, updated_utc=utc_now())])
                del self._pending[key]
            with self._transaction():
                # A page that is written, or shows that none can be.
                self._db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")
        except LedgerFullError as error:
            self.blocked = str(error)
            return
        self.blocked = None
        event(log, logging.WARNING, "ledger written again", rows=rows)

    def _block(self, error: LedgerFullError) -> None:
        if not self._owner:
            raise error
        if self.blocked is None:
            text = "ledger cannot be written: nothing is published until it can"
            event(log, logging.ERROR, text, reason=str(error))
        self.blocked = str(error)

    def _place(self) -> str:
        try:
            there = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "gone"
        except OSError:
            return "there"  # it cannot be known
        return "there" if self._file in (None, (there.st_dev, there.st_ino)) else "another"

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk has rolled back already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._error(error, writing=True) from error

    def _all(self, sql: str, values: _Row = ()) -> list[_Row]:
        # All rows at once: an unfinished query would keep the journal from being written back.
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error, *, writing: bool = False) -> LedgerError:
        found = schema._ledger_error(self.path, error, writing=writing)
        if self._owner and isinstance(found, LedgerDamagedError):
            # The check at start may be too short to find this again.
            with suppress(OSError):
                self.path.with_name(SUSPECT_NAME).write_text(f"{found}\n")
        return found

    def _select(self, condition: str, *values: Any) -> list[BracketRecord]:
        rows = self._all(f"SELECT {_NAMES} FROM brackets WHERE {condition}", values)
        return self._readable(rows, _bracket)

    def _time(self, sql: str, camera: str) -> datetime | None:
        rows = [row for row in self._all(sql, (camera,)) if row[0] is not None]
        return next(iter(self._readable(rows, _utc)), None)

    def _readable(self, rows: Iterable[_Row], read: Callable[[_Row], _T]) -> list[_T]:
        found = []
        for row in rows:
            try:
                found.append(read(row))
            except records.UNREADABLE as error:
                self.unreadable += 1
                if self._owner and self.unreadable <= _MOST_LOGGED:
                    text = "row of the ledger cannot be read, skipped"
                    event(log, logging.ERROR, text, row=str(row[:2]), reason=str(error))
        return found


def _bracket(row: _Row) -> BracketRecord:
    return records._read_row(BracketRecord, row)


def _name(row: _Row) -> str:
    if not isinstance(row[0], str) or "\N{REPLACEMENT CHARACTER}" in row[0]:
        raise TypeError(f"a camera is named {row[0]!r:.40}")
    return row[0]


def _utc(row: _Row) -> datetime:
    return datetime.fromisoformat(row[0]).astimezone(UTC)


def _watermark(row: _Row) -> tuple[str, int]:
    folder, at = json.loads(row[0]), row[1]
    if not isinstance(folder, str) or not isinstance(at, int):
        raise TypeError(f"a folder is {row!r:.80}")
    return folder, at
