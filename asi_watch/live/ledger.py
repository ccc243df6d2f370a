"""The ledger: one durable row per bracket that is over, one per curve a camera has used.

Only the daemon's owner thread writes; commands read beside it (SQLite in WAL mode). A row is on
the disk when `record` returns: `synchronous=FULL`, so that a power cut loses none (NORMAL does).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asi_watch.errors import AsiWatchError
from asi_watch.live.records import (
    BracketRecord,
    RejectedFile,
    exposure_from_json,
    exposure_to_json,
)

FILE_NAME = "ledger.sqlite3"

# Migrations: entry n brings a ledger of schema version n to n + 1. Never edit one that has shipped.
_MIGRATIONS = (
    """
    CREATE TABLE brackets (
        camera      TEXT NOT NULL,
        slot        TEXT NOT NULL,
        state       TEXT NOT NULL CHECK (state IN ('published', 'skipped', 'failed')),
        revision    INTEGER NOT NULL,
        attempts    INTEGER NOT NULL,
        expected    INTEGER,
        complete    INTEGER NOT NULL,
        inputs      TEXT NOT NULL,
        rejected    TEXT NOT NULL,
        products    TEXT NOT NULL,
        curve_id    TEXT,
        algorithm   TEXT,
        duplicates  INTEGER NOT NULL,
        late        INTEGER NOT NULL,
        latency     REAL,
        timings     TEXT NOT NULL,
        reason      TEXT,
        updated_utc TEXT NOT NULL,
        PRIMARY KEY (camera, slot)
    ) WITHOUT ROWID;
    CREATE INDEX brackets_by_state ON brackets (camera, state, slot);
    CREATE TABLE curves (
        id          INTEGER PRIMARY KEY,
        camera      TEXT NOT NULL,
        curve_id    TEXT NOT NULL,
        path        TEXT NOT NULL,
        base_id     TEXT,
        verdict     TEXT NOT NULL CHECK (verdict IN ('adopted', 'rejected')),
        reason      TEXT NOT NULL,
        residual    REAL,
        present_residual REAL,
        brackets    INTEGER NOT NULL,
        decided_utc TEXT NOT NULL
    );
    CREATE INDEX curves_by_camera ON curves (camera, id);
    """,
)

_COLUMNS = (
    "camera, slot, state, revision, attempts, expected, complete, inputs, rejected, products,"
    " curve_id, algorithm, duplicates, late, latency, timings, reason, updated_utc"
)


class LedgerError(AsiWatchError):
    """The ledger cannot be opened, read or written."""


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
        If the file is not there (read only), is no ledger, or was written by a newer version.
    """

    def __init__(self, state_dir: Path, *, read_only: bool = False) -> None:
        self.path = state_dir / FILE_NAME
        if read_only and not self.path.exists():
            raise LedgerError(f"{self.path}: no ledger yet; has the daemon run here?")
        try:
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            if not read_only:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
            else:
                self._db.execute("PRAGMA query_only = ON")
            self._migrate(read_only)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

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
        row = _to_row(replace(record, updated_utc=_utc_now()))
        marks = ", ".join("?" * len(row))
        with self._transaction():
            self._db.execute(f"INSERT OR REPLACE INTO brackets ({_COLUMNS}) VALUES ({marks})", row)

    def to_retry(self, camera: str, max_attempts: int) -> list[BracketRecord]:
        """Failed brackets of a camera that have attempts left."""
        return list(
            self._select(
                "WHERE camera = ? AND state = 'failed' AND attempts < ? ORDER BY slot",
                (camera, max_attempts),
            )
        )

    def recent_complete(self, camera: str, limit: int) -> list[BracketRecord]:
        """Newest published complete brackets of a camera, newest first."""
        return list(
            self._select(
                "WHERE camera = ? AND state = 'published' AND complete = 1"
                " ORDER BY slot DESC LIMIT ?",
                (camera, limit),
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
        rows = self._execute(
            "SELECT state, count(*) FROM brackets WHERE camera = ? GROUP BY state", (camera,)
        )
        return {str(state): int(count) for state, count in rows}

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

    # -- within -----------------------------------------------------------------------------

    def _migrate(self, read_only: bool) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise LedgerError(
                f"{self.path}: written by a newer asi-watch (schema {version}, this one knows"
                f" {len(_MIGRATIONS)}); upgrade asi-watch or use another state_dir"
            )
        if read_only:
            if version < len(_MIGRATIONS):
                raise LedgerError(f"{self.path}: schema {version} is old; start the daemon once")
            return
        for number in range(version, len(_MIGRATIONS)):
            self._db.executescript(
                f"BEGIN; {_MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

    def _select(self, tail: str, values: tuple[Any, ...]) -> Iterator[BracketRecord]:
        for row in self._execute(f"SELECT {_COLUMNS} FROM brackets {tail}", values):
            yield _from_row(row)


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
