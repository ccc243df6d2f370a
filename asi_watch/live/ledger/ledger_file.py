"""The ledger's file: opening, checking and migrating it; transactions; what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from asi_watch.live.ledger.ledger_schema import (
    MIGRATIONS,
    TABLES,
    LedgerDamagedError,
    LedgerError,
    ledger_error,
)

FILE_NAME = "ledger.sqlite3"
PAGE_SIZE = 8192
# SQLite's place for a number of the application's own.
_UNFINISHED = 0x41534957

Rows = Generator[tuple[Any, ...], None, None]
# How long the check of the whole file may take at start; a large ledger is then trusted.
_CHECK_SECONDS = 5.0
_CHECK_STEPS = 20_000
_LEFT_OPEN: list[sqlite3.Connection] = []


class LedgerFile:
    """A connection to the file: the daemon's own, or a reader's (`read_only=True`).

    A transaction is on the disk when it ends: `synchronous=FULL`, so that a power cut loses
    none (NORMAL does).

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
        self._file: tuple[int, int] | None = None
        if read_only and not self.path.exists():
            raise LedgerError(f"{self.path}: no ledger yet; has the daemon run here?")
        if self.path.exists() and not self.path.is_file():
            raise LedgerError(f"{self.path}: is no file; move it out of the way")
        try:
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        except sqlite3.Error as error:
            raise self._opening_error(error) from error
        try:
            if read_only:
                self._read_only()
            else:
                self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise self._opening_error(error) from error
        except LedgerError:
            self._db.close()
            raise

    def _read_only(self) -> None:
        if not self._pragma("user_version") and not self._tables():
            # The daemon is just making it. Until then a ledger without rows is read in its place.
            self._db.close()
            self._db = sqlite3.connect(":memory:", isolation_level=None)
            self._migrate()
        self._db.execute("PRAGMA query_only = ON")
        self._refuse_other_versions()

    def _prepare(self) -> None:
        # Before the first table: a row of 2 KB then needs no page of its own.
        self._db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        # Single rows are looked up; pages kept would only be memory held for good.
        self._db.execute("PRAGMA cache_size = -512")
        # A file that may only be read is opened without a word: better told now than row by row.
        if not os.access(self.path, os.W_OK):
            raise self._opening_error(sqlite3.OperationalError("is read-only"))
        self._migrate()
        self._check_tables()
        self._check(_CHECK_SECONDS)
        status = self.path.stat()
        self._file = (status.st_dev, status.st_ino)

    @property
    def unfinished(self) -> bool:
        """True from the making of a new file until `finish`: rows of an earlier one may lack."""
        return bool(self._pragma("application_id") == _UNFINISHED)

    def finish(self) -> None:
        """Say that all that was known of earlier rows is in this file."""
        with self._transaction():
            self._db.execute("PRAGMA application_id = 0")

    @property
    def place(self) -> Literal["there", "gone", "another"]:
        """Where the file is that is open: in its place, or gone, or replaced by another."""
        try:
            there = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "gone"
        except OSError:
            return "there"  # nobody can tell
        return "there" if self._file in (None, (there.st_dev, there.st_ino)) else "another"

    def copy_to(self, path: Path) -> None:
        """Write all rows to a new file, also when this one has lost its name.

        Raises
        ------
        LedgerError
            If that is not possible.
        """
        try:
            with closing(sqlite3.connect(path)) as copy:
                self._db.backup(copy)
        except sqlite3.Error as error:
            raise ledger_error(path, error) from error

    def close(self) -> None:
        """Close the connection."""
        if self.place == "another":
            # Closed, SQLite would delete the journal of that name: by now it is the other's.
            _LEFT_OPEN.append(self._db)
            return
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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

    def _refuse_other_versions(self) -> int:
        """Return the file's version, unless only another asi-watch can read it."""
        version = int(self._pragma("user_version"))
        if version > len(MIGRATIONS):
            raise LedgerError(
                f"{self.path}: written by a newer asi-watch (schema {version}, this one knows"
                f" {len(MIGRATIONS)}); upgrade asi-watch or use another state_dir"
            )
        if version < len(MIGRATIONS) and self._pragma("query_only"):
            raise LedgerError(f"{self.path}: schema {version} is old; start the daemon once")
        return version

    def _migrate(self) -> None:
        version = self._refuse_other_versions()
        if version == 0 and self._tables():
            raise LedgerDamagedError(f"{self.path}: a database, but no ledger")
        for number in range(version, len(MIGRATIONS)):
            mark = f"PRAGMA application_id = {_UNFINISHED};" if number == 0 else ""
            try:
                self._db.executescript(
                    f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1};"
                    f" {mark} COMMIT;"
                )
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                    raise
                # Not the disk: the tables are not those of that version.
                raise LedgerDamagedError(f"{self.path}: schema {version}, but {error}") from error

    def _check_tables(self) -> None:
        for table, columns in TABLES.items():
            found = [name for _, name, *_ in self._db.execute(f"PRAGMA table_info({table})")]
            if found != list(columns):
                raise LedgerDamagedError(f"{self.path}: its table {table} is not that of a ledger")

    def _tables(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return int(count)

    def _pragma(self, name: str) -> Any:
        (value,) = self._db.execute(f"PRAGMA {name}").fetchone()
        return value

    def _opening_error(self, error: sqlite3.Error) -> LedgerError:
        found = ledger_error(self.path, error)
        if isinstance(found, LedgerDamagedError):
            return found
        if not all(os.access(p, os.W_OK) for p in (self.path, self.path.parent) if p.exists()):
            return LedgerError(
                f"{found}; file and folder must be writable for user {os.geteuid()}: {self.path}"
            )
        return found

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

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return list(self._execute(sql, values))

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> Rows:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise ledger_error(self.path, error) from error
