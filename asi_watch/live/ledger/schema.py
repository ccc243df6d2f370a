"""The ledger's file: its tables and migrations, opening and checking it, what errors mean."""

import os
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path

from asi_watch.errors import AsiWatchError

_PAGE_SIZE = 8192
_BUSY_SECONDS = 5.0
# How long the check of the whole file may take at start; a large ledger is then trusted.
_CHECK_SECONDS = 5.0
_CHECK_STEPS = 20_000

# Entry n brings a ledger of schema version n to n + 1. Never change one that has shipped.
MIGRATIONS = (
    """
    CREATE TABLE brackets (
        camera TEXT NOT NULL, slot TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('published', 'skipped', 'failed')),
        revision INTEGER NOT NULL, attempts INTEGER NOT NULL,
        expected INTEGER, complete INTEGER NOT NULL,
        inputs TEXT NOT NULL, rejected TEXT NOT NULL, products TEXT NOT NULL,
        curve_id TEXT, algorithm TEXT,
        duplicates INTEGER NOT NULL, late INTEGER NOT NULL,
        latency REAL, timings TEXT NOT NULL,
        reason TEXT, updated_utc TEXT NOT NULL,
        PRIMARY KEY (camera, slot)
    ) WITHOUT ROWID;
    CREATE INDEX brackets_by_state ON brackets (camera, state, slot);
    CREATE TABLE curves (
        id INTEGER PRIMARY KEY, camera TEXT NOT NULL,
        curve_id TEXT NOT NULL, path TEXT NOT NULL, base_id TEXT,
        verdict TEXT NOT NULL CHECK (verdict IN ('adopted', 'rejected')),
        reason TEXT NOT NULL, residual REAL, present_residual REAL,
        brackets INTEGER NOT NULL, decided_utc TEXT NOT NULL
    );
    CREATE INDEX curves_by_camera ON curves (camera, id);
    """,
    # asked: an operator wants this bracket merged again; cleared when the row is written next.
    # offsets: learned by 0.1, no longer used.
    """
    ALTER TABLE brackets ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX brackets_asked ON brackets (camera, slot) WHERE asked = 1;
    CREATE TABLE offsets (
        camera TEXT NOT NULL, since TEXT NOT NULL, offset_us INTEGER NOT NULL,
        PRIMARY KEY (camera, since)
    ) WITHOUT ROWID;
    """,
    # The latest change is looked up at every start, in a table of years.
    "CREATE INDEX brackets_by_change ON brackets (camera, updated_utc);",
    # Written by 0.1; read once, at the first start of a newer version.
    "CREATE TABLE marks (camera TEXT PRIMARY KEY, caught_up_utc TEXT NOT NULL) WITHOUT ROWID;",
    # unlisted: how many rejected files the row does not list. channels: of the curve.
    # folders: up to which modification time every file of a folder has a row.
    # requests: what commands want the running daemon to do.
    """
    ALTER TABLE brackets ADD COLUMN unlisted INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE curves ADD COLUMN channels INTEGER;
    CREATE TABLE folders (
        camera TEXT NOT NULL, folder TEXT NOT NULL, mtime_ns INTEGER NOT NULL,
        PRIMARY KEY (camera, folder)
    ) WITHOUT ROWID;
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, camera TEXT, arguments TEXT NOT NULL,
        asked_utc TEXT NOT NULL, answer TEXT, ok INTEGER
    );
    CREATE INDEX requests_open ON requests (id) WHERE ok IS NULL;
    """,
    # Any verdict. coverage: codes, in the worst channel. drift: stops from the curve in use.
    """
    ALTER TABLE curves RENAME TO older_curves;
    CREATE TABLE curves (
        id INTEGER PRIMARY KEY, camera TEXT NOT NULL,
        curve_id TEXT NOT NULL, path TEXT NOT NULL, base_id TEXT,
        verdict TEXT NOT NULL,
        reason TEXT NOT NULL, residual REAL, present_residual REAL,
        brackets INTEGER NOT NULL, decided_utc TEXT NOT NULL, channels INTEGER,
        coverage INTEGER, drift REAL, provisional INTEGER NOT NULL DEFAULT 0
    );
    INSERT INTO curves SELECT *, NULL, NULL, 0 FROM older_curves;
    DROP TABLE older_curves;
    CREATE INDEX curves_by_camera ON curves (camera, id);
    """,
)


class LedgerError(AsiWatchError):
    """The ledger cannot be opened, read or written."""

    exit_code = 5


class LedgerFullError(LedgerError):
    """A row could not be written now: no space, a failing disk, another writer. Try later."""


class LedgerDamagedError(LedgerError):
    """The file is no ledger or a damaged one: it has to be rebuilt."""


_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LATER = {
    getattr(sqlite3, f"SQLITE_{name}")
    for name in ["FULL", "IOERR", "BUSY", "LOCKED", "READONLY", "CANTOPEN", "NOMEM", "PERM"]
}


def _ledger_error(path: object, error: sqlite3.Error, *, writing: bool = False) -> LedgerError:
    """Translate an error of SQLite by what can be done about it, also while `writing` a row."""
    # The low byte is the primary code; the rest says where it happened.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED or isinstance(error, sqlite3.InternalError):
        return LedgerDamagedError(f"{path}: {error}")
    return (LedgerFullError if writing and code in _LATER else LedgerError)(f"{path}: {error}")


def _open_own(path: Path) -> sqlite3.Connection:
    """Open the ledger for the daemon: made if missing, migrated, checked."""
    _is_there(path)
    try:
        # SQLite gives its other files the mode of this one: for the service alone, since whoever
        # can read them can lock them.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(PermissionError):
            os.fchmod(handle, 0o600)
        os.close(handle)
    except OSError as error:
        raise _opening_error(path, sqlite3.OperationalError(error.strerror or error)) from error
    db = _connect(path)
    try:
        # Before the first table: a row of 2 KB then needs no page of its own.
        db.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        # Single rows are looked up; a larger cache would only hold memory.
        db.execute("PRAGMA cache_size = -512")
        _migrate(db, path)
        if finding := _odd_table(db, path) or _quick_check(db, _CHECK_SECONDS):
            raise LedgerDamagedError(f"{path}: {finding}")
    except sqlite3.Error as error:
        db.close()
        raise _opening_error(path, error) from error
    except LedgerError:
        db.close()
        raise
    return db


def _open_beside(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open the ledger for a command, beside a running daemon or without one."""
    if not _is_there(path):
        raise LedgerError(f"{path}: no ledger yet; has the daemon run here?")
    db = _connect(path)
    try:
        if _is_empty(db):
            # The daemon is just making it. Until then a ledger without rows is read instead.
            db.close()
            db = _empty_ledger(path)
        if read_only:
            db.execute("PRAGMA query_only = ON")
        version = _version(db, path)
    except sqlite3.Error as error:
        db.close()
        raise _opening_error(path, error) from error
    if version < len(MIGRATIONS):
        db.close()
        raise LedgerError(f"{path}: schema {version} is old; start the daemon once")
    return db


def _quick_check(db: sqlite3.Connection, seconds: float) -> str | None:
    """Return the first damage found in a database, None if none is found in time."""
    deadline = time.monotonic() + seconds
    db.set_progress_handler(lambda: time.monotonic() > deadline, _CHECK_STEPS)
    try:
        (finding,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return None
    finally:
        db.set_progress_handler(None, 0)
    return None if finding == "ok" else str(finding)


def _is_there(path: Path) -> bool:
    """Tell whether the file is there; LedgerError for what is no file or cannot be looked at."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise LedgerError(f"{path}: {error.strerror}; {_as_the_service(path)}") from error
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror or error}; is state_dir right?") from error
    if not stat.S_ISREG(mode):
        raise LedgerError(f"{path}: is no file; move it out of the way")
    return True


def _as_the_service(path: Path) -> str:
    return (
        f"file and folder must be writable for user {os.geteuid()}, run this as the user of the"
        f" service: {path}"
    )


def _connect(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise _opening_error(path, error) from error
    # One byte that is no UTF-8 must not end a whole query.
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db


def _empty_ledger(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    _migrate(db, path)
    return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"{path}: written by a newer asi-watch (schema {version}, this one knows"
            f" {len(MIGRATIONS)}); upgrade asi-watch or use another state_dir"
        )
    return int(version)


def _is_empty(db: sqlite3.Connection) -> bool:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return not (version or db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = _version(db, path)
    if version == 0 and not _is_empty(db):
        raise LedgerDamagedError(f"{path}: a database, but no ledger")
    for number in range(version, len(MIGRATIONS)):
        try:
            db.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            )
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            # Not the disk: the tables are not those of that version.
            raise LedgerDamagedError(f"{path}: schema {version}, but {error}") from error


def _odd_table(db: sqlite3.Connection, path: Path) -> str | None:
    """Say which table is missing or has other columns than that of a new ledger."""
    columns = "SELECT name FROM pragma_table_info(?) ORDER BY cid"
    with closing(_empty_ledger(path)) as new:
        for table in new.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            if db.execute(columns, table).fetchall() != new.execute(columns, table).fetchall():
                return f"its table {table[0]} is not that of a ledger"
    return None


def _opening_error(path: Path, error: sqlite3.Error) -> LedgerError:
    found = _ledger_error(path, error)
    if isinstance(found, LedgerDamagedError):
        return found
    there = (p for p in (path, path.parent) if p.exists())
    if not all(os.access(p, os.W_OK, effective_ids=True) for p in there):
        return LedgerError(f"{found}; {_as_the_service(path)}")
    return found
