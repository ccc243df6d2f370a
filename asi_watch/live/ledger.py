"""The ledger: one durable row per bracket that is over, one per curve a camera has used.

Only the daemon's owner thread writes; commands read beside it (SQLite in WAL mode). A row is on
the disk when `record` returns: `synchronous=FULL`, so that a power cut loses none (NORMAL does).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asi_watch.live.ledger_schema import (
    MIGRATIONS,
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
    ledger_error,
)
from asi_watch.live.records import (
    BracketRecord,
    RejectedFile,
    exposure_from_json,
    exposure_to_json,
)

__all__ = [
    "FILE_NAME",
    "CurveDecision",
    "Ledger",
    "LedgerDamagedError",
    "LedgerError",
    "LedgerFullError",
]

FILE_NAME = "ledger.sqlite3"
# How long the check of the whole file may take at start; a large ledger is then trusted.
_CHECK_SECONDS = 5.0
_CHECK_STEPS = 20_000

_COLUMNS = (
    "camera, slot, state, revision, attempts, expected, complete, inputs, rejected, products,"
    " curve_id, algorithm, duplicates, late, latency, timings, reason, updated_utc"
)


@dataclass(frozen=True, slots=True)
class CurveDecision:
    """What became of a candidate curve."""

    camera: str
    curve_id: str
    path: str
    base_id: str | None
    verdict: str
    reason: str
    residual: float | None
    present_residual: float | None
    brackets: int
    decided_utc: str = ""


class Ledger:
    """The daemon's own connection, or a reader's (`read_only=True`).

    Parameters
    ----------
    state_dir : Path
        Folder of the ledger's file; must exist.
    read_only : bool
        Open beside a running daemon, for commands.

    Raises
    ------
    LedgerError
        If the file is not there (read only) or was written by a newer version; a
        `LedgerDamagedError` if it is no ledger or a damaged one.
    """

    def __init__(self, state_dir: Path, *, read_only: bool = False) -> None:
        self.path = state_dir / FILE_NAME
        self._totals: dict[str, Counter[str]] = {}
        if read_only and not self.path.exists():
            raise LedgerError(f"{self.path}: no ledger yet; has the daemon run here?")
        try:
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        except sqlite3.Error as error:
            raise ledger_error(self.path, error) from error
        try:
            if not read_only:
                # Before the first table: a row of 2 KB then needs no page of its own.
                self._db.execute("PRAGMA page_size = 8192")
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                # Single rows are looked up; pages kept would only be memory held for good.
                self._db.execute("PRAGMA cache_size = -512")
            else:
                self._db.execute("PRAGMA query_only = ON")
            self._migrate(read_only)
            if not read_only:
                self._check(_CHECK_SECONDS)
        except sqlite3.Error as error:
            self._db.close()
            raise ledger_error(self.path, error) from error
        except LedgerError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- brackets ---------------------------------------------------------------------------

    def get(self, camera: str, slot: datetime) -> BracketRecord | None:
        """Look up the row of one bracket."""
        rows = self._select("WHERE camera = ? AND slot = ?", (camera, slot.isoformat()))
        return next(rows, None)

    def record(self, record: BracketRecord) -> None:
        """Write or replace a bracket's row, durably."""
        counted = dict(self._totals)
        totals = counted.get(record.camera)
        before = None if totals is None else self._state(record.camera, record.slot)
        self.record_all([replace(record, updated_utc=_utc_now())])
        if totals is not None:
            totals[record.state] += 1
            if before is not None:
                totals[before] -= 1
        self._totals = counted

    def record_all(self, records: Iterable[BracketRecord]) -> None:
        """Write rows as they are, with the times they were last changed at, all or none."""
        self._totals.clear()
        rows = [_to_row(record) for record in records]
        marks = ", ".join("?" * len(_COLUMNS.split(",")))
        with self._transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO brackets ({_COLUMNS}) VALUES ({marks})", rows
            )

    def to_retry(
        self,
        camera: str,
        max_attempts: int,
        *,
        after: datetime | None = None,
        limit: int | None = None,
    ) -> list[BracketRecord]:
        """Brackets of a camera to try again: failed with attempts left, or asked for.

        Parameters
        ----------
        camera : str
        max_attempts : int
        after : datetime or None
            Only slots after this one.
        limit : int or None
            The first so many in the order of their slots.
        """
        return list(
            self._select(
                "WHERE camera = ? AND slot > ?"
                " AND ((state = 'failed' AND attempts < ?) OR asked = 1) ORDER BY slot LIMIT ?",
                (
                    camera,
                    "" if after is None else after.isoformat(),
                    max_attempts,
                    -1 if limit is None else limit,
                ),
            )
        )

    def ask_again(
        self, camera: str, *, slots: Sequence[datetime] = (), failed: bool, skipped: bool
    ) -> list[datetime]:
        """Mark brackets that are not published as to be tried again.

        Parameters
        ----------
        camera : str
        slots : sequence of datetime
            These, whatever their state but published.
        failed, skipped : bool
            All brackets of the state.

        Returns
        -------
        list of datetime
            The slots that were marked.
        """
        marked: list[datetime] = []
        states = [s for s, wanted in (("failed", failed), ("skipped", skipped)) if wanted]
        update = "UPDATE brackets SET asked = 1, attempts = 0 WHERE camera = ? AND "
        with self._transaction():
            for state in states:
                rows = self._db.execute(update + "state = ? RETURNING slot", (camera, state))
                marked += [datetime.fromisoformat(slot) for (slot,) in rows]
            for slot in slots:
                rows = self._db.execute(
                    update + "slot = ? AND state != 'published' RETURNING slot",
                    (camera, slot.isoformat()),
                )
                marked += [datetime.fromisoformat(value) for (value,) in rows]
        return sorted(set(marked))

    def recent_complete(self, camera: str, limit: int) -> list[BracketRecord]:
        """Newest published complete brackets of a camera, newest first."""
        return list(
            self._select(
                "WHERE camera = ? AND state = 'published' AND complete = 1"
                " ORDER BY slot DESC LIMIT ?",
                (camera, limit),
            )
        )

    def finished(
        self, camera: str, *, after: datetime | None = None, limit: int
    ) -> list[BracketRecord]:
        """Published and skipped brackets of a camera in the order of their slots.

        Parameters
        ----------
        camera : str
        after : datetime or None
            Only slots after this one.
        limit : int
            The first so many.
        """
        since = "" if after is None else after.isoformat()
        return list(
            self._select(
                "WHERE camera = ? AND slot > ? AND state != 'failed' ORDER BY slot LIMIT ?",
                (camera, since, limit),
            )
        )

    def history(
        self, *, camera: str | None = None, since: datetime | None = None, limit: int | None = None
    ) -> list[BracketRecord]:
        """Rows of the ledger in the order of their slots, the newest `limit` of them."""
        where, values = ["1"], list[Any]()
        if camera is not None:
            where.append("camera = ?")
            values.append(camera)
        if since is not None:
            where.append("slot >= ?")
            values.append(since.isoformat())
        tail = f"WHERE {' AND '.join(where)} ORDER BY slot DESC, camera LIMIT ?"
        return list(self._select(tail, (*values, -1 if limit is None else limit)))[::-1]

    def totals(self, camera: str) -> dict[str, int]:
        """Count a camera's brackets by state."""
        # Asked every second, of a table of years: counted once, then kept up.
        if camera not in self._totals:
            rows = self._execute(
                "SELECT state, count(*) FROM brackets WHERE camera = ? GROUP BY state", (camera,)
            )
            self._totals[camera] = Counter({str(state): int(count) for state, count in rows})
        return {state: count for state, count in self._totals[camera].items() if count}

    def _state(self, camera: str, slot: datetime) -> str | None:
        rows = self._execute(
            "SELECT state FROM brackets WHERE camera = ? AND slot = ?", (camera, slot.isoformat())
        )
        return next((str(state) for (state,) in rows), None)

    def last_change(self, camera: str) -> datetime | None:
        """UTC time at which a row of this camera was last written."""
        (value,) = next(
            self._execute("SELECT max(updated_utc) FROM brackets WHERE camera = ?", (camera,))
        )
        return None if value is None else datetime.fromisoformat(value)

    # -- curves -----------------------------------------------------------------------------

    def record_curve(self, decision: CurveDecision) -> None:
        """Note what became of a candidate curve, durably."""
        row = asdict(replace(decision, decided_utc=_utc_now()))
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        with self._transaction():
            self._db.execute(f"INSERT INTO curves ({names}) VALUES ({marks})", tuple(row.values()))

    def curves(self, camera: str) -> list[CurveDecision]:
        """All decisions on a camera's curves, oldest first."""
        names = ", ".join(CurveDecision.__slots__)
        rows = self._execute(f"SELECT {names} FROM curves WHERE camera = ? ORDER BY id", (camera,))
        return [CurveDecision(*row) for row in rows]

    def adopted_curve(self, camera: str) -> CurveDecision | None:
        """Return the curve a camera adopted last."""
        adopted = [c for c in self.curves(camera) if c.verdict == "adopted"]
        return adopted[-1] if adopted else None

    # -- learned offsets --------------------------------------------------------------------

    def record_offset(self, camera: str, since: datetime, offset: timedelta) -> None:
        """Note from which timestamp on which offset of the slots holds, durably."""
        row = (camera, since.isoformat(), offset // timedelta(microseconds=1))
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)", row)

    def offsets(self, camera: str) -> list[tuple[datetime, timedelta]]:
        """Offsets of a camera's slots, each with the timestamp it holds from."""
        rows = self._execute(
            "SELECT since, offset_us FROM offsets WHERE camera = ? ORDER BY since", (camera,)
        )
        return [(datetime.fromisoformat(s), timedelta(microseconds=us)) for s, us in rows]

    # -- within -----------------------------------------------------------------------------

    def _check(self, seconds: float) -> None:
        """Look through the whole file for damage, as long as that takes no longer than given."""
        deadline = time.monotonic() + seconds
        self._db.set_progress_handler(lambda: time.monotonic() > deadline, _CHECK_STEPS)
        try:
            (finding,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return
        finally:
            self._db.set_progress_handler(None, 0)
        if finding != "ok":
            raise LedgerDamagedError(f"{self.path}: {finding}")

    def _migrate(self, read_only: bool) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise LedgerError(
                f"{self.path}: written by a newer asi-watch (schema {version}, this one knows"
                f" {len(MIGRATIONS)}); upgrade asi-watch or use another state_dir"
            )
        if read_only:
            if version < len(MIGRATIONS):
                raise LedgerError(f"{self.path}: schema {version} is old; start the daemon once")
            return
        for number in range(version, len(MIGRATIONS)):
            self._db.executescript(
                f"BEGIN; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            )

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
            raise ledger_error(self.path, error, writing=True) from error

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise ledger_error(self.path, error) from error

    def _select(self, tail: str, values: tuple[Any, ...]) -> Iterator[BracketRecord]:
        for row in self._execute(f"SELECT {_COLUMNS} FROM brackets {tail}", values):
            try:
                yield _from_row(row)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise LedgerDamagedError(f"{self.path}: a row makes no sense: {error}") from error


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _to_row(record: BracketRecord) -> tuple[Any, ...]:
    return (
        record.camera,
        record.slot.isoformat(),
        record.state,
        record.revision,
        record.attempts,
        record.expected,
        int(record.complete),
        json.dumps([exposure_to_json(e) for e in record.inputs]),
        json.dumps([asdict(r) for r in record.rejected]),
        json.dumps(record.products),
        record.curve_id,
        record.algorithm,
        record.duplicates,
        record.late,
        record.latency,
        json.dumps(record.timings),
        record.reason,
        record.updated_utc,
    )


def _from_row(row: tuple[Any, ...]) -> BracketRecord:
    named = dict(zip(_COLUMNS.replace(" ", "").split(","), row, strict=True))
    named["slot"] = datetime.fromisoformat(named["slot"])
    named["complete"] = bool(named["complete"])
    named["inputs"] = tuple(exposure_from_json(e) for e in json.loads(named["inputs"]))
    named["rejected"] = tuple(RejectedFile(**r) for r in json.loads(named["rejected"]))
    named["products"] = tuple(json.loads(named["products"]))
    named["timings"] = json.loads(named["timings"])
    return BracketRecord(**named)
