from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.live.ledger.ledger import (
    FILE_NAME,
    CurveDecision,
    Ledger,
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
)
from asi_watch.live.ledger.ledger_schema import MIGRATIONS
from asi_watch.live.ledger.owed_rows import OwingLedger
from asi_watch.live.records import BracketRecord, RejectedFile

NOON = datetime(2026, 6, 21, 12)
RECORD = BracketRecord(
    camera="roof",
    slot=NOON,
    state="published",
    revision=1,
    expected=2,
    complete=True,
    inputs=(
        Exposure("a/x_80.jpg", NOON, 80.0, 10, 20, 30),
        Exposure("a/\udcff_160.jpg", NOON + timedelta(seconds=1), 160.0, 11, 21, 31),
    ),
    rejected=(RejectedFile("a/z_320.jpg", 1, 2, "ends too soon"),),
    products=("a/20260621120000_hdr.jpg",),
    curve_id="c0ffee",
    algorithm="debevec_custom",
    latency=0.25,
    timings={"encode": 0.02},
)


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record(RECORD)
        back = ledger.get("roof", NOON)
    assert back is not None
    assert back.updated_utc
    assert replace(back, updated_utc="") == RECORD


def test_a_row_survives_and_is_replaced_not_doubled(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record(RECORD)
    with Ledger(tmp_path) as ledger:
        ledger.record(replace(RECORD, revision=2))
        assert [r.revision for r in ledger.history()] == [2]
        assert ledger.totals("roof") == {"published": 1}


def test_the_ledger_is_as_durable_as_sqlite_can_be(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_history_gives_the_newest_rows_in_order(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for n in range(5):
            ledger.record(replace(RECORD, slot=NOON + n * timedelta(seconds=30)))
        ledger.record(replace(RECORD, camera="yard"))
        rows = ledger.history(camera="roof", limit=2)
        assert [r.slot for r in rows] == [NOON + n * timedelta(seconds=30) for n in (3, 4)]
        assert len(ledger.history(since=NOON + timedelta(seconds=60))) == 3


def test_failed_brackets_with_attempts_left_are_found(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record(replace(RECORD, state="failed", attempts=2, reason="disk full"))
        later = NOON + timedelta(seconds=30)
        ledger.record(replace(RECORD, slot=later, state="failed", attempts=8, reason="sizes"))
        assert [r.slot for r in ledger.to_retry("roof", 8)] == [NOON]


def test_readers_read_beside_the_daemon(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record(RECORD)
        with Ledger(tmp_path, read_only=True) as reader:
            assert len(reader.history()) == 1
            with pytest.raises(LedgerError):
                reader.record(RECORD)


def test_a_reader_without_a_ledger_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger yet"):
        Ledger(tmp_path, read_only=True)


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match="newer asi-watch"):
        Ledger(tmp_path)


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, for sure" * 100)
    with pytest.raises(LedgerDamagedError, match=FILE_NAME):
        Ledger(tmp_path)


def test_a_ledger_damaged_within_is_found_out_at_start(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for n in range(300):
            ledger.record(replace(RECORD, slot=NOON + n * timedelta(seconds=30)))
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8192] = b"\x5a" * 8192
    path.write_bytes(content)
    with pytest.raises(LedgerDamagedError):
        Ledger(tmp_path)


def test_the_check_at_start_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path) as ledger:
        for n in range(300):
            ledger.record(replace(RECORD, slot=NOON + n * timedelta(seconds=30)))
    monkeypatch.setattr("asi_watch.live.ledger.ledger_file._CHECK_SECONDS", -1.0)
    monkeypatch.setattr("asi_watch.live.ledger.ledger_file._CHECK_STEPS", 10)
    with Ledger(tmp_path) as ledger:
        assert len(ledger.history()) == 300


def test_a_ledger_of_the_first_schema_is_migrated(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / FILE_NAME)
    db.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
    values = (
        "roof", NOON.isoformat(), "skipped", 0, 0, 5, 0, "[]", "[]", "[]",
        None, None, 0, 0, None, "{}", "2 of 5", "2026-06-21T12:00:40.000+00:00",
    )  # fmt: skip
    with db:
        db.execute(f"INSERT INTO brackets VALUES ({', '.join('?' * len(values))})", values)
    db.close()
    with pytest.raises(LedgerError, match="start the daemon once"):
        Ledger(tmp_path, read_only=True)
    with Ledger(tmp_path) as ledger:
        (row,) = ledger.history()
        assert (row.state, row.reason) == ("skipped", "2 of 5")
        assert ledger.ask_again("roof", failed=False, skipped=True) == [NOON]
        assert ledger._db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_brackets_asked_for_are_tried_again_until_they_are_written(tmp_path: Path) -> None:
    failed = replace(RECORD, state="failed", attempts=8)
    skipped = replace(RECORD, slot=NOON + timedelta(seconds=30), state="skipped")
    published = replace(RECORD, slot=NOON + timedelta(seconds=60))
    with Ledger(tmp_path) as ledger:
        for row in (failed, skipped, published):
            ledger.record(row)
        assert ledger.to_retry("roof", 8) == []
        assert ledger.ask_again("roof", slots=[published.slot], failed=True, skipped=False) == [
            NOON
        ]
        assert [(r.slot, r.attempts) for r in ledger.to_retry("roof", 8)] == [(NOON, 0)]
        assert ledger.ask_again("roof", slots=[skipped.slot], failed=False, skipped=False)
        assert [r.slot for r in ledger.to_retry("roof", 8)] == [NOON, skipped.slot]
        assert [r.slot for r in ledger.to_retry("roof", 8, after=NOON, limit=5)] == [skipped.slot]
        ledger.record(skipped)
        assert [r.slot for r in ledger.to_retry("roof", 8)] == [NOON]


def _make_full(ledger: Ledger) -> None:
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_is_told_from_other_errors_and_leaves_no_transaction(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        _make_full(ledger)
        with pytest.raises(LedgerFullError, match="full"):
            for n in range(100):
                ledger.record(replace(RECORD, slot=NOON + n * timedelta(seconds=30)))
        assert not ledger._db.in_transaction
        ledger._db.execute("PRAGMA max_page_count = 100000")
        ledger.record(RECORD)


def test_rows_that_cannot_be_written_are_owed_and_written_when_there_is_room(
    tmp_path: Path,
) -> None:
    with OwingLedger(tmp_path) as ledger:
        _make_full(ledger)
        for n in range(100):
            ledger.record(replace(RECORD, slot=NOON + n * timedelta(seconds=30)))
        assert 0 < ledger.owed < 100
        last = ledger.get("roof", NOON + 99 * timedelta(seconds=30))
        assert last is not None
        assert last.products == RECORD.products
        assert ledger.try_offset("roof", NOON, timedelta(seconds=-3)) in (True, False)
        ledger.settle(0.0)
        assert ledger.owed
        ledger._db.execute("PRAGMA max_page_count = 100000")
        ledger.settle(1.0)
        assert ledger.owed, "tried again too soon"
        ledger.settle(10.0)
        assert ledger.owed == 0
        assert len(ledger.history()) == 100


def test_nothing_more_is_published_once_too_many_rows_are_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asi_watch.live.ledger.owed_rows.MOST_OWED", 3)
    with OwingLedger(tmp_path) as ledger:
        _make_full(ledger)
        for n in range(60):
            ledger.record(replace(RECORD, slot=NOON + n * timedelta(seconds=30)))
        assert ledger.why_not() == "the ledger cannot be written"


def test_learned_offsets_come_back_in_order(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record_offset("roof", NOON, timedelta(seconds=-14.5))
        ledger.record_offset("roof", NOON - timedelta(days=1), timedelta(seconds=3))
        assert ledger.offsets("roof") == [
            (NOON - timedelta(days=1), timedelta(seconds=3)),
            (NOON, timedelta(seconds=-14.5)),
        ]
        assert ledger.offsets("yard") == []


def test_decisions_on_curves_are_kept(tmp_path: Path) -> None:
    first = CurveDecision("roof", "aa", "/c/aa.npz", None, "adopted", "first", 0.1, None, 3)
    second = CurveDecision("roof", "bb", "/c/bb.npz", None, "rejected", "worse", 0.2, 0.1, 10)
    with Ledger(tmp_path) as ledger:
        ledger.record_curve(first)
        ledger.record_curve(second)
        assert [c.curve_id for c in ledger.curves("roof")] == ["aa", "bb"]
        adopted = ledger.adopted_curve("roof")
        assert adopted is not None
        assert adopted.curve_id == "aa"
        assert ledger.adopted_curve("yard") is None
