"""Opening the ledger's file, whatever lies in its place."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.live.ledger import schema
from asi_watch.live.ledger.ledger import FILE_NAME, Ledger, LedgerDamagedError, LedgerError
from asi_watch.live.ledger.rebuild import open_ledger
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.live.ledger.schema import MIGRATIONS
from tests.live.products import totals

NOON = datetime(2026, 6, 21, 12)


def bracket(number: int) -> BracketRecord:
    slot = NOON + number * timedelta(seconds=30)
    inputs = (Exposure(f"2026/{number}.jpg", slot, 80.0, 1000, number),)
    stamp = "2026-06-21T12:00:40.000+00:00"
    return BracketRecord("roof", slot, "failed", 1, 8, inputs=inputs, updated_utc=stamp)


def make_old(path: Path, version: int, rows: int = 3) -> None:
    """Make a ledger as the daemon of that schema version left it."""
    columns = {1: 18, 2: 19, 3: 19, 4: 19}[version]
    with Ledger(path.parent) as ledger:
        ledger.record_all(map(bracket, range(rows)))
        values = [row[:columns] for row in ledger._all("SELECT * FROM brackets")]
    for part in path.parent.glob(f"{FILE_NAME}*"):
        part.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        for number in range(version):
            db.executescript(MIGRATIONS[number])
        db.execute(f"PRAGMA user_version = {version}")
        marks = ", ".join("?" * columns)
        db.executemany(f"INSERT INTO brackets VALUES ({marks})", values)
        decision = ("roof", "aa", "/aa.npz", None, "adopted", "first", 0.1, None, 3, "2026-06-21")
        db.execute(
            "INSERT INTO curves (camera, curve_id, path, base_id, verdict, reason, residual,"
            " present_residual, brackets, decided_utc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            decision,
        )


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_every_earlier_schema_is_migrated_and_keeps_its_rows(tmp_path: Path, version: int) -> None:
    make_old(tmp_path / FILE_NAME, version)
    with open_ledger(tmp_path, ()) as ledger:
        assert not ledger.rebuilt
        assert ledger.history() == [bracket(n) for n in range(3)]
        (decision,) = ledger.curves("roof")
        assert (decision.verdict, decision.residual, decision.coverage) == ("adopted", 0.1, None)
        ledger.record(replace(bracket(0), state="published"))
    with Ledger(tmp_path, read_only=True) as ledger:
        assert totals(ledger) == {"failed": 2, "published": 1}


@pytest.mark.parametrize("disk_full", [True, False])
def test_a_migration_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_full: bool
) -> None:
    path = tmp_path / FILE_NAME
    make_old(path, 1, rows=40)
    with monkeypatch.context() as patch:
        if disk_full:
            migrate = schema._migrate

            def on_a_full_disk(db: sqlite3.Connection, path: Path) -> None:
                (pages,) = db.execute("PRAGMA page_count").fetchone()
                db.execute(f"PRAGMA max_page_count = {pages}")
                migrate(db, path)

            patch.setattr(schema, "_migrate", on_a_full_disk)
        else:
            broken = (*MIGRATIONS[:2], "CREATE TABLE more (x); CREATE TABLE more (x);")
            patch.setattr(schema, "MIGRATIONS", broken)
        with pytest.raises(LedgerError, match="full" if disk_full else "more already exists"):
            Ledger(tmp_path)
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        assert db.execute("SELECT count(*) FROM brackets").fetchone() == (40,)
        assert db.execute("SELECT name FROM sqlite_schema WHERE name = 'more'").fetchall() == []
    assert version == (1 if disk_full else 2)
    with Ledger(tmp_path) as ledger:
        assert len(ledger.history()) == 40


def opened_rows(state: Path) -> tuple[list[BracketRecord], bool]:
    with open_ledger(state, ()) as ledger:
        return ledger.history(), any(state.glob(f"{FILE_NAME}.damaged-*"))


def test_an_empty_file_is_a_ledger_that_was_lost(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"")
    assert opened_rows(tmp_path) == ([], False)


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_database_of_something_else_is_moved_aside_untouched(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE songs (title)")
        db.execute("INSERT INTO songs VALUES ('x')")
        db.execute(f"PRAGMA user_version = {version}")
    assert opened_rows(tmp_path) == ([], True)
    with closing(sqlite3.connect(tmp_path / f"{FILE_NAME}.damaged-1")) as db:
        assert db.execute("SELECT title FROM songs").fetchall() == [("x",)]


def test_a_ledger_without_one_of_its_tables_is_rebuilt(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record_all(map(bracket, range(3)))
        ledger._db.execute("DROP TABLE curves")
    assert opened_rows(tmp_path) == ([], True)


def test_a_text_in_its_place_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("notes of the operator\n" * 1000)
    assert opened_rows(tmp_path) == ([], True)


def test_rubbish_in_the_shared_memory_harms_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record_all(map(bracket, range(3)))
        journal = (tmp_path / f"{FILE_NAME}-wal").read_bytes()
    (tmp_path / f"{FILE_NAME}-shm").write_bytes(os.urandom(32768))
    (tmp_path / f"{FILE_NAME}-wal").write_bytes(journal)
    assert opened_rows(tmp_path) == ([bracket(n) for n in range(3)], False)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_what_is_no_file_is_named_and_left_alone(tmp_path: Path, make: object) -> None:
    make(tmp_path / FILE_NAME)  # type: ignore[operator]
    for read_only in (False, True):
        with pytest.raises(LedgerError, match="is no file; move it") as caught:
            Ledger(tmp_path, read_only=read_only)
        assert not isinstance(caught.value, LedgerDamagedError)
    assert (tmp_path / FILE_NAME).exists()


def test_a_ledger_that_cannot_be_moved_aside_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"rubbish" * 1000)

    def refused(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(LedgerError, match="cannot be rebuilt"):
        open_ledger(tmp_path, ())


_AS_NOBODY = """
import os, sys
from pathlib import Path
from asi_watch.live.ledger.ledger import Ledger, LedgerError
os.setuid(65534)
try:
    Ledger(Path(sys.argv[1])).close()
except LedgerError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else")
@pytest.mark.parametrize(
    ("file_mode", "folder_mode"), [(0o444, 0o777), (0o600, 0o777), (0o666, 0o755)]
)
def test_a_ledger_of_somebody_else_is_told_with_what_to_do(
    file_mode: int, folder_mode: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("theirs")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)
    with Ledger(folder) as ledger:
        ledger.record(bracket(0))
    (folder / FILE_NAME).chmod(file_mode)
    folder.chmod(folder_mode)
    answer = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(folder)], capture_output=True, text=True, check=True
    )
    assert "must be writable for user 65534" in answer.stdout
    assert (folder / FILE_NAME).exists()


def test_a_reader_finds_no_rows_in_a_ledger_that_is_just_being_made(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()

    with Ledger(tmp_path, read_only=True) as ledger:
        assert ledger.history() == []
        assert ledger.get("roof", bracket(1).slot) is None

    assert (tmp_path / FILE_NAME).stat().st_size == 0, "a reader leaves the file to the daemon"
