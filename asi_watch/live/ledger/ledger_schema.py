"""The ledger's tables, how an older ledger becomes a present one, and what SQLite's errors mean."""

from __future__ import annotations

import sqlite3

from asi_watch.errors import AsiWatchError

# Migrations: entry n brings a ledger of schema version n to n + 1. Never edit one that has shipped.
MIGRATIONS = (
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
    # asked: an operator wants this bracket tried again; gone with the row's next writing.
    # offsets: from which timestamp on which bracket.offset holds, where it is learned.
    """
    ALTER TABLE brackets ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX brackets_asked ON brackets (camera, slot) WHERE asked = 1;
    CREATE TABLE offsets (
        camera      TEXT NOT NULL,
        since       TEXT NOT NULL,
        offset_us   INTEGER NOT NULL,
        PRIMARY KEY (camera, since)
    ) WITHOUT ROWID;
    """,
    # The latest change is asked for at every start, of a table of years.
    "CREATE INDEX brackets_by_change ON brackets (camera, updated_utc);",
    # Up to when all that was found has a row: how far back the next start must look.
    "CREATE TABLE marks (camera TEXT PRIMARY KEY, caught_up_utc TEXT NOT NULL) WITHOUT ROWID;",
)

TABLES = {
    "brackets": (
        "camera", "slot", "state", "revision", "attempts", "expected", "complete", "inputs",
        "rejected", "products", "curve_id", "algorithm", "duplicates", "late", "latency",
        "timings", "reason", "updated_utc", "asked",
    ),
    "curves": (
        "id", "camera", "curve_id", "path", "base_id", "verdict", "reason", "residual",
        "present_residual", "brackets", "decided_utc",
    ),
    "offsets": ("camera", "since", "offset_us"),
    "marks": ("camera", "caught_up_utc"),
}  # fmt: skip
"""Tables and their columns after all migrations."""


class LedgerError(AsiWatchError):
    """The ledger cannot be opened, read or written."""


class LedgerFullError(LedgerError):
    """A row could not be written for want of room, or because the disk failed: try later."""


class LedgerDamagedError(LedgerError):
    """The file is no ledger, or a damaged one: it has to be made anew."""


_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LATER = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
}


def ledger_error(path: object, error: sqlite3.Error, *, writing: bool = False) -> LedgerError:
    """Translate an error of SQLite's by what can be done about it."""
    # The low byte is the primary code; the rest says where it happened.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED or isinstance(error, sqlite3.InternalError):
        return LedgerDamagedError(f"{path}: {error}")
    if writing and code in _LATER:
        return LedgerFullError(f"{path}: {error}")
    return LedgerError(f"{path}: {error}")
