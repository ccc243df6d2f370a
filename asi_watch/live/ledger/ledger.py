"""The ledger: one durable row per bracket that is over, and what else must survive a restart.

Only the daemon's owner thread writes rows; commands read, mark brackets and leave requests. A row
is on the disk when `record` returns, unless `blocked` says why it cannot be written.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict, TypeVar, Unpack

from asi_watch.files import shown
from asi_watch.live.ledger.records import (
    COLUMNS,
    UNREADABLE,
    WAITS_FOR_CURVE,
    WITHOUT_CURVE,
    BracketRecord,
    CurveDecision,
    Request,
    bounded,
    curve_from_row,
    from_row,
    to_row,
    utc_now,
)
from asi_watch.live.ledger.schema import (
    MIGRATIONS,
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
    ledger_error,
    open_beside,
    open_own,
)
from asi_watch.logs import event

__all__ = [
    "FILE_NAME",
    "SUSPECT_NAME",
    "CurveDecision",
    "Ledger",
    "LedgerDamagedError",
    "LedgerError",
    "LedgerFullError",
    "Which",
]

log = logging.getLogger(__name__)

FILE_NAME = "ledger.sqlite3"
SUSPECT_NAME = f"{FILE_NAME}.suspect"
"""Written when the ledger proves damaged while in use: the next start rebuilds it."""
_SETTLE_EVERY = 2.0
_LOOK_EVERY = 1.0
_MOST_REQUESTS = 100
_SLACK = timedelta(hours=1)
_CLOCK_WRONG = timedelta(days=1)
_EVERYTHING = timedelta(days=36_500)
_REQUESTS_KEPT = timedelta(days=7)
_MOST_LOGGED = 20
_NEWEST_ROWS = 5000
_NAMES = ", ".join(COLUMNS)
_MARKS = ", ".join("?" * len(COLUMNS))
_SLOT = COLUMNS.index("slot")
_REPLACED = "\N{REPLACEMENT CHARACTER}"

_T = TypeVar("_T")
_Row = tuple[Any, ...]


class Which(TypedDict):
    """Brackets to be merged again, see `Ledger.ask_again`."""

    failed: bool
    skipped: bool
    published: NotRequired[bool]
    since: NotRequired[datetime | None]
    until: NotRequired[datetime | None]


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
        For commands that write: the file must be there, and is neither migrated nor checked.

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
        self._owner = not (read_only or beside_daemon)
        self._file: tuple[int, int] | None = None
        self.rebuilt = False
        """Whether this start had to rebuild it."""
        self._pending: dict[tuple[str, datetime], BracketRecord] = {}
        self._pending_curves: list[CurveDecision] = []
        self._blocked: str | None = None
        self._settled = self._looked = float("-inf")
        if self._owner:
            self._db, self._file = open_own(self.path)
        else:
            self._db = open_beside(self.path, read_only=read_only)

    def close(self) -> None:
        """Close the connection."""
        # Closing deletes the journal by its name: not that of a file put in place of this one.
        if self._place() != "another":
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- brackets -----------------------------------------------------------------------------

    def get(self, camera: str, slot: datetime) -> BracketRecord | None:
        """Look up the row of one bracket."""
        pending = self._pending.get((camera, slot))
        if pending is not None:
            return pending
        rows = self._select("WHERE camera = ? AND slot = ?", (camera, slot.isoformat()))
        return next(iter(rows), None)

    def record(self, record: BracketRecord) -> None:
        """Write or replace a bracket's row, durably; it is kept in memory while `blocked`."""
        try:
            self.record_all([replace(record, updated_utc=utc_now())])
        except LedgerFullError as error:
            self._block(error)
            self._pending[record.camera, record.slot] = bounded(record)
        else:
            self._pending.pop((record.camera, record.slot), None)

    def record_all(self, records: Iterable[BracketRecord]) -> None:
        """Write rows as they are, with the times they were last changed at, all or none.

        Raises
        ------
        LedgerFullError
            If they cannot be written now.
        """
        rows = [to_row(bounded(record)) for record in records]
        with self._transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO brackets ({_NAMES}) VALUES ({_MARKS})", rows
            )

    def to_retry(
        self,
        camera: str,
        max_attempts: int,
        *,
        after: datetime | None = None,
        limit: int | None = None,
    ) -> list[BracketRecord]:
        """Return brackets to be merged again: failed with attempts left, or asked for.

        What waits for a curve is not among them until one is there (`ask_without_curve`).

        Parameters
        ----------
        camera : str
        max_attempts : int
        after : datetime or None
            Only slots after this one.
        limit : int or None
            The first so many in the order of their slots.
        """
        # The planner alone would go through all rows of the camera, at every start.
        table, of_camera = "SELECT slot FROM brackets INDEXED BY", "WHERE camera = ?1 AND slot > ?2"
        failed = f"{table} brackets_by_state {of_camera} AND state = 'failed'"
        asked = f"{table} brackets_asked {of_camera} AND asked = 1"
        condition = (
            f"slot IN ({failed} AND attempts < ?4 UNION ALL {asked})"
            " AND (asked = 1 OR substr(ifnull(reason, ''), 1, ?5) != ?6)"
        )
        values = (max_attempts, len(WAITS_FOR_CURVE), WAITS_FOR_CURVE)
        return self._following(camera, condition, after, limit, *values)

    def finished(
        self, camera: str, *, after: datetime | None = None, limit: int
    ) -> list[BracketRecord]:
        """Return brackets that nothing is to be done for: the first `limit` slots after `after`."""
        return self._following(camera, "state != 'failed' AND asked = 0", after, limit)

    def _following(
        self, camera: str, condition: str, after: datetime | None, limit: int | None, *values: Any
    ) -> list[BracketRecord]:
        """Read on until there are `limit` readable rows: a page of damage must not end a walk."""
        found: list[BracketRecord] = []
        since: Any = "" if after is None else after.isoformat()
        while limit is None or len(found) < limit:
            wanted = -1 if limit is None else limit - len(found)
            rows = self._all(
                f"SELECT {_NAMES} FROM brackets WHERE camera = ?1 AND slot > ?2 AND {condition}"
                " ORDER BY slot LIMIT ?3",
                (camera, since, wanted, *values),
            )
            found += self._readable(rows, from_row)
            if limit is None or len(rows) < wanted or rows[-1][_SLOT] == since:
                break
            since = rows[-1][_SLOT]
        return found

    def ask_again(
        self, camera: str, *, slots: Sequence[datetime] = (), **which: Unpack[Which]
    ) -> list[datetime]:
        """Mark brackets as to be merged again.

        Parameters
        ----------
        camera : str
        slots : sequence of datetime
            These, whatever their state; published ones only if `published`.
        **which : Which
            `failed`, `skipped`: all brackets of the state. `published`: those of a span of time,
            and those among `slots`. `since`, `until`: of these states, only slots from the one on
            and before the other.

        Returns
        -------
        list of datetime
            The slots that were marked.

        Raises
        ------
        LedgerFullError
            If that cannot be written now.
        """
        since, until = which.get("since"), which.get("until")
        span = ("" if since is None else since.isoformat(), until.isoformat() if until else "~")
        published = which.get("published", False)
        states = [s for s in ("failed", "skipped") if which[s]]
        states += ["published"] * (published and (since or until) is not None)
        update = "UPDATE brackets SET asked = 1, attempts = 0 WHERE camera = ? AND "
        marked: list[str] = []
        with self._transaction():
            for state in states:
                found = "state = ? AND slot >= ? AND slot < ? RETURNING slot"
                marked += [s for (s,) in self._db.execute(update + found, (camera, state, *span))]
            for slot in slots:
                found = "slot = ? AND (state != 'published' OR ?) RETURNING slot"
                values = (camera, slot.isoformat(), published)
                marked += [s for (s,) in self._db.execute(update + found, values)]
        return sorted(set(self._readable([(s,) for s in marked], _slot_of)))

    def ask_without_curve(self, camera: str, since: datetime | None) -> int:
        """Mark brackets that waited for a curve as to be merged.

        Parameters
        ----------
        camera : str
        since : datetime or None
            UTC: also what was published without a curve after this time.

        Returns
        -------
        int
            How many brackets.
        """
        update = "UPDATE brackets SET asked = 1, attempts = 0 WHERE camera = ? AND "
        with self._transaction():
            waited = "state = 'failed' AND substr(reason, 1, ?) = ?"
            values = (camera, len(WAITS_FOR_CURVE), WAITS_FOR_CURVE)
            count = self._db.execute(update + waited, values).rowcount
            if since is not None:
                published = "updated_utc >= ? AND state = 'published' AND substr(reason, 1, ?) = ?"
                stamp = since.isoformat(timespec="milliseconds")
                row = (camera, stamp, len(WITHOUT_CURVE), WITHOUT_CURVE)
                count += self._db.execute(update + published, row).rowcount
        return count

    def recent_complete(self, camera: str, limit: int) -> list[BracketRecord]:
        """Return the newest published complete brackets of a camera, newest first."""
        return self._select(
            "WHERE camera = ? AND state = 'published' AND complete = 1 ORDER BY slot DESC LIMIT ?",
            (camera, limit),
        )

    def recent_without_curve(self, camera: str, limit: int) -> list[BracketRecord]:
        """Return the newest complete brackets that no curve fitted, newest first.

        Only the newest thousands are looked through: older ones are not worth a calibration.
        """
        return self._select(
            "WHERE camera = ?1 AND complete = 1 AND slot IN (SELECT slot FROM brackets"
            " WHERE camera = ?1 ORDER BY slot DESC LIMIT ?2)"
            " AND ((state = 'failed' AND substr(reason, 1, ?3) = ?4)"
            " OR (state = 'published' AND substr(reason, 1, ?5) = ?6))"
            " ORDER BY slot DESC LIMIT ?7",
            (
                camera,
                _NEWEST_ROWS,
                len(WAITS_FOR_CURVE),
                WAITS_FOR_CURVE,
                len(WITHOUT_CURVE),
                WITHOUT_CURVE,
                limit,
            ),
        )

    def history(
        self, *, camera: str | None = None, since: datetime | None = None, limit: int | None = None
    ) -> list[BracketRecord]:
        """Return rows in the order of their slots: the newest `limit` of those from `since` on."""
        cameras = self.cameras() if camera is None else [camera]
        most = -1 if limit is None else limit
        # Camera by camera: there is an order by slot only within each.
        rows = [
            record
            for name in cameras
            for record in self._select(
                "WHERE camera = ? AND slot >= ? ORDER BY slot DESC LIMIT ?",
                (name, "" if since is None else since.isoformat(), most),
            )
        ]
        rows.sort(key=lambda record: (record.slot, record.camera))
        return rows if limit is None else rows[max(0, len(rows) - limit) :]

    def cameras(self) -> list[str]:
        """Return the names of all cameras that have rows."""
        # From one to the next: the rows of a camera need not be looked through.
        rows = self._all(
            "WITH RECURSIVE found (name) AS (SELECT min(camera) FROM brackets UNION ALL SELECT"
            " (SELECT min(camera) FROM brackets WHERE camera > name) FROM found WHERE name NOTNULL)"
            " SELECT name FROM found WHERE name NOTNULL"
        )
        return self._readable(rows, _name_of)

    def totals(self, camera: str) -> dict[str, int]:
        """Count a camera's brackets by state; takes a while in a table of years."""
        sql = "SELECT state, count(*) FROM brackets WHERE camera = ? GROUP BY state"
        return {str(state): int(count) for state, count in self._all(sql, (camera,))}

    def last_change(self, camera: str) -> datetime | None:
        """Return the UTC time at which a row of this camera was last written."""
        rows = self._all("SELECT max(updated_utc) FROM brackets WHERE camera = ?", (camera,))
        return next(iter(self._readable([r for r in rows if r[0] is not None], _utc_of)), None)

    # -- folders ------------------------------------------------------------------------------

    def folder_watermarks(self, camera: str) -> dict[str, int]:
        """Return up to which modification time all files of a folder have rows.

        Returns
        -------
        dict of str to int
            Nanoseconds by folder, relative to the camera's watch folder. Empty before the first
            start with this camera.
        """
        rows = self._all("SELECT folder, mtime_ns FROM folders WHERE camera = ?", (camera,))
        return dict(self._readable(rows, _watermark))

    def set_folder_watermarks(self, camera: str, watermarks: Mapping[str, int]) -> bool:
        """Write such times, durably, in one transaction.

        Returns
        -------
        bool
            False if they cannot be written now: then the next start reads these folders again.
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
        rows = self._all("SELECT caught_up_utc FROM marks WHERE camera = ?", (camera,))
        since = next(iter(self._readable(rows, _utc_of)), None) or self.last_change(camera)
        if since is None:
            return lookback
        away = datetime.now(UTC) - since
        # A time in the future: a clock was wrong, and nothing is known.
        return _EVERYTHING if away < -_CLOCK_WRONG else max(lookback, away + _SLACK)

    # -- curves -------------------------------------------------------------------------------

    def record_curve(self, decision: CurveDecision) -> None:
        """Note what became of a candidate curve, durably; kept in memory while `blocked`."""
        decision = replace(decision, decided_utc=decision.decided_utc or utc_now())
        try:
            self._write_curve(decision)
        except LedgerFullError as error:
            self._block(error)
            self._pending_curves.append(decision)

    def _write_curve(self, decision: CurveDecision) -> None:
        row = asdict(decision)
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        with self._transaction():
            self._db.execute(f"INSERT INTO curves ({names}) VALUES ({marks})", tuple(row.values()))

    def curves(self, camera: str) -> list[CurveDecision]:
        """Return all decisions on a camera's curves, oldest first."""
        names = ", ".join(CurveDecision.__slots__)
        rows = self._all(f"SELECT {names} FROM curves WHERE camera = ? ORDER BY id", (camera,))
        return self._readable(rows, curve_from_row)

    # -- requests of commands -----------------------------------------------------------------

    def add_request(self, kind: str, camera: str | None, arguments: Mapping[str, Any]) -> int:
        """Leave a request for the running daemon, or for the next start.

        Parameters
        ----------
        kind : str
            Such as ``retry``.
        camera : str or None
            None: every camera.
        arguments : mapping
            JSON-able details.

        Returns
        -------
        int
            Its number, for `answer_to`.
        """
        oldest = (datetime.now(UTC) - _REQUESTS_KEPT).isoformat(timespec="milliseconds")
        with self._transaction():
            self._db.execute("DELETE FROM requests WHERE asked_utc < ?", (oldest,))
            row = (kind, camera, json.dumps(dict(arguments)), utc_now())
            insert = "INSERT INTO requests (kind, camera, arguments, asked_utc) VALUES (?, ?, ?, ?)"
            return int(self._db.execute(insert, row).lastrowid or 0)

    def take_requests(self) -> list[Request]:
        """Return the requests that have no answer yet, oldest first, at most 100."""
        rows = self._all(
            "SELECT id, kind, camera, arguments FROM requests WHERE ok IS NULL ORDER BY id LIMIT ?",
            (_MOST_REQUESTS,),
        )
        requests = []
        for row in rows:
            if found := self._readable([row], _request):
                requests += found
            else:
                self.answer_request(row[0], "the request cannot be read", ok=False)
        return requests

    def answer_request(self, number: int, text: str, *, ok: bool) -> None:
        """Answer a request; while the ledger cannot be written it is taken again later."""
        with suppress(LedgerFullError), self._transaction():
            update = "UPDATE requests SET answer = ?, ok = ? WHERE id = ?"
            self._db.execute(update, (shown(text), int(ok), number))

    def answer_to(self, number: int) -> tuple[str, bool] | None:
        """Return the answer to a request and whether it was granted; None while there is none."""
        rows = self._all("SELECT answer, ok FROM requests WHERE id = ? AND ok NOTNULL", (number,))
        return next(((str(answer), bool(ok)) for answer, ok in rows), None)

    # -- not writable, gone -------------------------------------------------------------------

    @property
    def blocked(self) -> str | None:
        """Why rows cannot be written now, None if they can; then nothing may be published."""
        return self._blocked

    @property
    def pending(self) -> int:
        """How many rows wait in memory to be written."""
        return len(self._pending) + len(self._pending_curves)

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
        if self._blocked is None or now - self._settled < _SETTLE_EVERY:
            return
        self._settled = now
        rows = self.pending
        try:
            # Each row is taken off once it is written.
            for key, record in list(self._pending.items()):
                self.record_all([replace(record, updated_utc=utc_now())])
                del self._pending[key]
            while self._pending_curves:
                self._write_curve(self._pending_curves[0])
                del self._pending_curves[0]
            self._prove_writable()
        except LedgerFullError as error:
            self._blocked = str(error)
            return
        self._blocked = None
        event(log, logging.WARNING, "ledger written again", rows=rows)

    def _prove_writable(self) -> None:
        with self._transaction():
            self._db.execute("DELETE FROM requests WHERE id < 0")
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _block(self, error: LedgerFullError) -> None:
        if not self._owner:
            raise error
        if self._blocked is None:
            text = "ledger cannot be written: nothing is published until it can"
            event(log, logging.ERROR, text, reason=str(error))
        self._blocked = str(error)

    def _place(self) -> str:
        try:
            there = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "gone"
        except OSError:
            return "there"  # it cannot be known
        return "there" if self._file in (None, (there.st_dev, there.st_ino)) else "another"

    # -- SQL ----------------------------------------------------------------------------------

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
        found = ledger_error(self.path, error, writing=writing)
        if self._owner and isinstance(found, LedgerDamagedError):
            # The check at start may be too short to find this again.
            with suppress(OSError):
                self.path.with_name(SUSPECT_NAME).write_text(f"{found}\n")
        return found

    def _select(self, tail: str, values: _Row) -> list[BracketRecord]:
        rows = self._all(f"SELECT {_NAMES} FROM brackets {tail}", values)
        return self._readable(rows, from_row)

    def _readable(self, rows: Iterable[_Row], read: Callable[[_Row], _T]) -> list[_T]:
        found = []
        for row in rows:
            try:
                found.append(read(row))
            except UNREADABLE as error:
                self.unreadable += 1
                if self._owner and self.unreadable <= _MOST_LOGGED:
                    text = "row of the ledger cannot be read, skipped"
                    event(log, logging.ERROR, text, row=str(row[:2]), reason=str(error))
        return found


def _slot_of(row: _Row) -> datetime:
    return datetime.fromisoformat(row[0])


def _name_of(row: _Row) -> str:
    if not isinstance(row[0], str) or _REPLACED in row[0]:
        raise TypeError(f"a camera is named {row[0]!r:.40}")
    return row[0]


def _utc_of(row: _Row) -> datetime:
    return datetime.fromisoformat(row[0]).astimezone(UTC)


def _watermark(row: _Row) -> tuple[str, int]:
    folder, at = json.loads(row[0]), row[1]
    if not isinstance(folder, str) or not isinstance(at, int):
        raise TypeError(f"a folder is {row!r:.80}")
    return folder, at


def _request(row: _Row) -> Request:
    number, kind, camera, text = row
    arguments = json.loads(text)
    if not (isinstance(kind, str) and isinstance(arguments, dict)):
        raise TypeError(f"a request is {row!r:.80}")
    if not isinstance(camera, str | None):
        raise TypeError(f"a camera is named {camera!r:.40}")
    return Request(number, kind, camera, arguments)
