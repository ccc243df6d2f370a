"""The ledger's file: opening, checking and migrating it; transactions; what its errors mean."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from asi_watch.live.ledger_schema import (
    MIGRATIONS,
    LedgerDamagedError,
    LedgerError,
    ledger_error,
)

FILE_NAME = "ledger.sqlite3"
# How long the check of the whole file may take at start; a large ledger is then trusted.
_CHECK_SECONDS = 5.0
_CHECK_STEPS = 20_000


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
