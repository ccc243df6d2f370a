from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.live.ledger import FILE_NAME, CurveDecision, Ledger, LedgerError
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
    with pytest.raises(LedgerError, match=FILE_NAME):
        Ledger(tmp_path)


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
