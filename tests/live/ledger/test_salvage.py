"""Real damage to real ledgers: what can be read of them is taken over, and nothing that is not."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.live.ledger.carving import carve
from asi_watch.live.ledger.ledger import FILE_NAME, CurveDecision, Ledger
from asi_watch.live.ledger.ledger_file import PAGE_SIZE
from asi_watch.live.ledger.ledger_schema import MIGRATIONS
from asi_watch.live.ledger.rebuilding import open_ledger
from asi_watch.live.ledger.salvage import salvage
from asi_watch.live.records import BracketRecord, RejectedFile

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
ROWS = 400
CAUGHT_UP = datetime(2026, 6, 21, 12, 30, tzinfo=UTC)
WRITTEN = "2026-06-21T12:00:40.000+00:00"


def bracket(number: int, exposures: int = 5) -> BracketRecord:
    slot = NOON + number * STEP
    return BracketRecord(
        camera="roof",
        slot=slot,
        state="failed",
        revision=1,
        attempts=8,
        inputs=tuple(
            Exposure(f"2026/06/21/{slot:%Y%m%d%H%M%S}_{i}.jpg", slot, 80.0 + i, 1000 + i, number)
            for i in range(exposures)
        ),
        rejected=(RejectedFile("a/\udcff.jpg", 1, 2, "half"),),
        products=(f"2026/06/21/{slot:%Y%m%d%H%M%S}_hdr.jpg",),
        latency=1.0,
        timings={"read": 0.5},
        reason="sizes differ",
        updated_utc=WRITTEN,
    )


CURVE = CurveDecision("roof", "aa", "/aa.npz", None, "adopted", "first", 0.1, None, 3, WRITTEN)


def write(state: Path, numbers: range, exposures: int = 5) -> None:
    state.mkdir(exist_ok=True)
    with Ledger(state) as ledger:
        ledger.record_all(bracket(n, exposures) for n in numbers)
        ledger.record_offset("roof", NOON, timedelta(seconds=3))
        ledger.restore_curves([CURVE])
        ledger.record_caught_up("roof", CAUGHT_UP)


def salvaged(state: Path, folder: Path) -> list[BracketRecord]:
    folder.mkdir(exist_ok=True)
    with Ledger(folder) as ledger:
        salvage(state / FILE_NAME, ledger, lambda: None)
        return ledger.history()


def test_a_sound_ledger_is_read_as_sqlite_reads_it(tmp_path: Path) -> None:
    # Rows too long for their page among them, and some that lie in the journal only.
    write(tmp_path / "a", range(100))
    write(tmp_path / "a", range(100, 110), exposures=300)
    with Ledger(tmp_path / "a") as ledger:
        ledger.record(bracket(110, 80))
        ledger.record(replace(bracket(5), attempts=3))
        ledger.ask_again("roof", slots=[NOON], failed=False, skipped=False)
        wanted = ledger.history()
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / f"{FILE_NAME}-wal").stat().st_size > 0
    for name in "ab":
        assert salvaged(tmp_path / name, tmp_path / f"new-{name}") == wanted
        with Ledger(tmp_path / f"new-{name}") as ledger:
            assert [r.slot for r in ledger.to_retry("roof", 0)] == [NOON]
            assert ledger.offsets("roof") == [(NOON, timedelta(seconds=3))]
            assert ledger.curves("roof") == [CURVE]
            assert ledger.caught_up("roof") == CAUGHT_UP


def overwrite_page(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    page = dice.randrange(1, len(content) // PAGE_SIZE)
    content[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = dice.randbytes(PAGE_SIZE)
    path.write_bytes(content)


def flip_bits(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def zero_header(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def destroy_first_page(path: Path, dice: random.Random) -> None:
    path.write_bytes(dice.randbytes(PAGE_SIZE) + path.read_bytes()[PAGE_SIZE:])


def truncate(path: Path, dice: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4 + 100])


def shift(path: Path, dice: random.Random) -> None:
    """A block of a broken file system: a piece of the file lies elsewhere in it."""
    content = bytearray(path.read_bytes())
    content[PAGE_SIZE : 2 * PAGE_SIZE] = content[5 * PAGE_SIZE : 6 * PAGE_SIZE]
    path.write_bytes(content)


DAMAGE: dict[Callable[[Path, random.Random], None], int] = {
    overwrite_page: 10,
    flip_bits: 15,
    zero_header: 0,
    destroy_first_page: 0,
    truncate: ROWS // 3,
    shift: 10,
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_one_bad_page_costs_only_its_rows(
    tmp_path: Path, damage: Callable[[Path, random.Random], None], seed: int
) -> None:
    state = tmp_path / "state"
    write(state, range(ROWS))
    damage(state / FILE_NAME, random.Random(seed))
    rows = {r.slot: r for r in salvaged(state, tmp_path / "new")}
    wanted = {r.slot: r for r in map(bracket, range(ROWS))}
    assert len(rows) >= ROWS - DAMAGE[damage]
    if damage is not flip_bits:  # within a text nothing gives a flipped bit away
        assert rows.items() <= wanted.items()


def test_a_torn_journal_gives_all_that_was_committed_before(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(30):
            ledger.record(bracket(number))
        (tmp_path / "torn").mkdir()
        for name in (FILE_NAME, f"{FILE_NAME}-wal"):
            shutil.copy(tmp_path / name, tmp_path / "torn")
    journal = tmp_path / "torn" / f"{FILE_NAME}-wal"
    content = journal.read_bytes()
    frame = 24 + PAGE_SIZE
    journal.write_bytes(content[: len(content) // 2] + random.Random(1).randbytes(3 * frame))
    found = salvaged(tmp_path / "torn", tmp_path / "new")
    assert found == [bracket_of(r) for r in found]
    # SQLite itself comes to the same end.
    with sqlite3.connect(tmp_path / "torn" / FILE_NAME) as db:
        (count,) = db.execute("SELECT count(*) FROM brackets").fetchone()
    db.close()
    assert 5 < len(found) == count < 30


def bracket_of(record: BracketRecord) -> BracketRecord:
    number = (record.slot - NOON) // STEP
    return replace(bracket(number), updated_utc=record.updated_utc)


def test_a_journal_alone_or_of_another_file_loses_no_row_below_it(tmp_path: Path) -> None:
    for name, numbers in (("old", range(50)), ("young", range(60))):
        write(tmp_path / name, numbers)
    with Ledger(tmp_path / "young") as ledger:
        ledger.record(bracket(60))
        journal = (tmp_path / "young" / f"{FILE_NAME}-wal").read_bytes()
    mixed = tmp_path / "old" / f"{FILE_NAME}-wal"
    mixed.write_bytes(journal)
    slots = {r.slot for r in salvaged(tmp_path / "old", tmp_path / "new")}
    assert {NOON + n * STEP for n in (*range(50), 60)} <= slots
    (tmp_path / "old" / FILE_NAME).write_bytes(b"")
    assert NOON + 60 * STEP in {r.slot for r in salvaged(tmp_path / "old", tmp_path / "alone")}


@pytest.mark.parametrize("there", [None, b""])
def test_a_journal_whose_database_is_gone_is_not_thrown_away(
    tmp_path: Path, there: bytes | None
) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.finish()
        ledger.record(bracket(0))
        journal = (tmp_path / f"{FILE_NAME}-wal").read_bytes()
    (tmp_path / FILE_NAME).unlink()
    if there is not None:
        (tmp_path / FILE_NAME).write_bytes(there)
    (tmp_path / f"{FILE_NAME}-wal").write_bytes(journal)
    found = open_ledger(tmp_path, ())
    assert found.moved_to is not None
    with found.ledger as ledger:
        assert [bracket_of(r) for r in ledger.history()] == ledger.history() != []


def test_of_two_versions_of_a_row_the_newer_counts(tmp_path: Path) -> None:
    for name, attempts, written in (("a", 1, "05"), ("b", 2, "07"), ("c", 3, "06")):
        with Ledger(tmp_path / _made(tmp_path, name)) as ledger:
            row = replace(bracket(0), attempts=attempts, updated_utc=f"2026-{written}-01T00:00Z")
            ledger.record_all([row])
    with Ledger(tmp_path / _made(tmp_path, "new")) as ledger:
        for name in "abc":
            salvage(tmp_path / name / FILE_NAME, ledger, lambda: None)
        assert [r.attempts for r in ledger.history()] == [2]
        assert ledger.totals("roof") == {"failed": 1}


def _made(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name


def test_rows_of_the_first_schema_are_read(tmp_path: Path) -> None:
    write(tmp_path / "source", range(3))
    with Ledger(tmp_path / "source") as ledger:
        rows = ledger._all("SELECT * FROM brackets")
    (tmp_path / "old").mkdir()
    db = sqlite3.connect(tmp_path / "old" / FILE_NAME)
    with db:
        db.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
        marks = ", ".join("?" * (len(rows[0]) - 1))
        db.executemany(f"INSERT INTO brackets VALUES ({marks})", [row[:-1] for row in rows])
    db.close()
    assert salvaged(tmp_path / "old", tmp_path / "new") == [bracket(n) for n in range(3)]


def test_what_makes_no_sense_is_left_behind(tmp_path: Path) -> None:
    write(tmp_path / "state", range(12))
    nonsense = [
        "state = 'published ' || slot",
        "slot = 'noon'",
        "slot = '2026-06-21T12:00:00+00:00'",
        "updated_utc = '2026-06-21T12:00:00'",
        "updated_utc = 'soon'",
        "inputs = '[1]'",
        "inputs = x'5b5d'",
        "products = '[\"a/20270101000000_hdr.jpg\"]'",
        "products = '[5]'",
        "attempts = 'many'",
        "camera = ''",
    ]
    with Ledger(tmp_path / "state") as ledger, ledger._transaction():
        ledger._db.execute("PRAGMA ignore_check_constraints = ON")
        for number, change in enumerate(nonsense):
            where = (NOON + number * STEP).isoformat()
            ledger._db.execute(f"UPDATE brackets SET {change} WHERE slot = ?", (where,))
    assert salvaged(tmp_path / "state", tmp_path / "new") == [bracket(11)]


@pytest.mark.parametrize("seed", range(3))
def test_no_rubbish_is_too_much(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    write(tmp_path, range(60))
    path = tmp_path / FILE_NAME
    sound = path.read_bytes()
    for _ in range(25):
        content = bytearray(sound)
        for _ in range(dice.choice([1, 10, 300])):
            # Where the structure is: at the beginning of pages and in the first.
            at = dice.choice([0, dice.randrange(len(content) // PAGE_SIZE)]) * PAGE_SIZE
            content[at + dice.randrange(120)] = dice.randrange(256)
        path.write_bytes(content)
        list(carve(path, PAGE_SIZE, lambda: None))
        path.with_name(f"{FILE_NAME}-wal").write_bytes(dice.randbytes(dice.randrange(40_000)))
        list(carve(path, PAGE_SIZE, lambda: None))
        path.with_name(f"{FILE_NAME}-wal").unlink()
