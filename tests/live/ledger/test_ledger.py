from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.live.ledger.ledger import (
    FILE_NAME,
    Ledger,
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
)
from asi_watch.live.ledger.records import (
    MOST_REJECTED,
    BracketRecord,
    CurveDecision,
    RejectedFile,
    Retry,
)
from asi_watch.live.ledger.schema import MIGRATIONS
from tests.live.products import totals

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
        assert totals(ledger) == {"published": 1}


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
    monkeypatch.setattr("asi_watch.live.ledger.schema._CHECK_SECONDS", -1.0)
    monkeypatch.setattr("asi_watch.live.ledger.schema._CHECK_STEPS", 10)
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
        assert ledger.ask_again("roof", Retry(skipped=True)) == [NOON]
        assert ledger._db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_brackets_asked_for_are_tried_again_until_they_are_written(tmp_path: Path) -> None:
    failed = replace(RECORD, state="failed", attempts=8)
    skipped = replace(RECORD, slot=NOON + timedelta(seconds=30), state="skipped")
    published = replace(RECORD, slot=NOON + timedelta(seconds=60))
    with Ledger(tmp_path) as ledger:
        for row in (failed, skipped, published):
            ledger.record(row)
        assert ledger.to_retry("roof", 8) == []
        assert ledger.ask_again("roof", Retry(slots=(published.slot,), failed=True)) == [NOON]
        assert [(r.slot, r.attempts) for r in ledger.to_retry("roof", 8)] == [(NOON, 0)]
        assert ledger.ask_again("roof", Retry(slots=(skipped.slot,)))
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
                slot = NOON + n * timedelta(seconds=30)
                ledger.record_all([replace(RECORD, slot=slot, updated_utc="2026")])
        assert not ledger._db.in_transaction
        ledger._db.execute("PRAGMA max_page_count = 100000")
        ledger.record(RECORD)


def test_rows_that_cannot_be_written_wait_in_memory_until_they_can(tmp_path: Path) -> None:
    curve = CurveDecision("roof", "a" * 90_000, "/c/aa.npz", None, "adopted", "x", 0.1, None, 3)
    with Ledger(tmp_path) as ledger:
        _make_full(ledger)
        for n in range(100):
            ledger.record(replace(RECORD, slot=NOON + n * timedelta(seconds=30)))
        assert 0 < ledger.pending < 100
        assert "full" in (ledger.blocked or "")
        assert not ledger.set_folder_watermarks("roof", {f"{n}" * 500: n for n in range(200)})
        with pytest.raises(LedgerFullError):
            ledger.record_curve(curve)
        last = ledger.get("roof", NOON + 99 * timedelta(seconds=30))
        assert last is not None
        assert last.products == RECORD.products
        ledger.settle(0.0)
        assert ledger.blocked
        ledger._db.execute("PRAGMA max_page_count = 100000")
        ledger.settle(1.0)
        assert ledger.blocked, "tried again too soon"
        ledger.settle(10.0)
        assert (ledger.blocked, ledger.pending) == (None, 0)
        assert len(ledger.history()) == 100
        assert ledger.curves("roof") == []


def test_a_lock_that_somebody_holds_blocks_for_a_moment_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asi_watch.live.ledger.schema._BUSY_SECONDS", 0.05)
    with Ledger(tmp_path) as ledger:
        other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ledger.record(RECORD)
        assert "locked" in (ledger.blocked or "")
        other.execute("ROLLBACK")
        other.close()
        ledger.settle(10.0)
        assert ledger.blocked is None
        assert len(ledger.history()) == 1


@pytest.mark.parametrize("how", ["gone", "another"])
def test_a_ledger_taken_away_in_use_ends_the_daemon(tmp_path: Path, how: str) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record(RECORD)
        ledger.settle(0.0)
        path = tmp_path / FILE_NAME
        if how == "another":
            path.with_name("new").write_bytes(path.read_bytes())
            path.with_name("new").replace(path)
        else:
            path.unlink()
        with pytest.raises(LedgerError, match=f"the file is {how} while in use") as caught:
            ledger.settle(5.0)
        assert caught.value.exit_code == 5


# -- rows that cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "camera = CAST(x'726f6fff66' AS TEXT)",
        "slot = CAST(x'32303236ff' AS TEXT)",
        "inputs = CAST(x'5b7bff' AS TEXT)",
        "updated_utc = CAST(x'ff' AS TEXT)",
        "timings = '['",
        "revision = 'two'",
        "products = x'00'",
        """rejected = '[{"path": 1}]'""",
        f"inputs = '{'[' * 100_000}'",
    ],
)
def test_one_row_that_cannot_be_read_hides_no_other(tmp_path: Path, damage: str) -> None:
    slots = [NOON + n * timedelta(seconds=30) for n in range(5)]
    with Ledger(tmp_path) as ledger:
        for slot in slots:
            ledger.record(replace(RECORD, slot=slot, state="failed", attempts=1))
        with ledger._transaction():
            ledger._db.execute(f"UPDATE brackets SET {damage} WHERE slot = ?", (_text(slots[2]),))
    sound = [*slots[:2], *slots[3:]]
    with Ledger(tmp_path) as ledger:
        assert [r.slot for r in ledger.history()] == sound
        assert ledger.unreadable
        assert [r.slot for r in ledger.to_retry("roof", 8)] == sound
        walked, last = [], None
        while rows := ledger.to_retry("roof", 8, after=last, limit=1):
            walked.append(rows[0].slot)
            last = rows[0].slot
        assert walked == sound
        assert ledger.get("roof", slots[2]) is None
        assert ledger.last_change("roof") is not None or "updated_utc" in damage
        assert ledger.cameras() == ["roof"]
        # The row is written again when its files are found.
        ledger.record(replace(RECORD, slot=slots[2]))
        assert ledger.get("roof", slots[2]) is not None


def _text(slot: datetime) -> str:
    return slot.isoformat()


def test_other_cells_that_cannot_be_read_are_skipped_as_well(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.set_folder_watermarks("roof", {"a": 1, "b": 2})
        ledger.record_curve(
            CurveDecision("roof", "aa", "/aa.npz", None, "adopted", "first", None, None, 3)
        )
        number = ledger.add_request("retry", "roof", {})
        with ledger._transaction():
            ledger._db.execute("UPDATE folders SET mtime_ns = 'soon' WHERE mtime_ns = 1")
            ledger._db.execute("UPDATE curves SET path = x'00'")
            ledger._db.execute("UPDATE requests SET arguments = '{'")
        assert ledger.folder_watermarks("roof") == {"b": 2}
        assert ledger.curves("roof") == []
        assert ledger.take_requests() == []
        assert ledger.answer_to(number) == ("the request cannot be read", False)


def test_a_row_is_bounded_however_many_files_come(tmp_path: Path) -> None:
    junk = tuple(RejectedFile(f"a/{n}.jpg", 3, n, "x" * 5000) for n in range(3000))
    with Ledger(tmp_path) as ledger:
        ledger.record(replace(RECORD, rejected=junk, reason="y" * 100_000))
        row = ledger.get("roof", NOON)
        assert row is not None
        assert (len(row.rejected), row.unlisted) == (MOST_REJECTED, 3000 - MOST_REJECTED)
        # Written again with one more, the count goes on.
        ledger.record(replace(row, rejected=(*row.rejected, junk[-1])))
        row = ledger.get("roof", NOON)
        assert row is not None
        assert row.unlisted == 3001 - MOST_REJECTED
        (size,) = ledger._db.execute("SELECT length(rejected) FROM brackets").fetchone()
    assert size < 100_000


def test_an_exposure_that_the_merge_left_out_is_listed_once() -> None:
    first, second = RECORD.inputs
    before = RejectedFile(first.path, *first.signature, "contradicts its exposure time, by 1.3")
    record = replace(RECORD, rejected=(before,)).without({first.path: "contradicts it by 1.4"})
    assert record.inputs == (second,)
    assert [r.reason for r in record.rejected] == ["contradicts it by 1.4"]


# -- folders, requests, modes -------------------------------------------------------------------


def test_watermarks_come_back_whatever_the_name_of_the_folder(tmp_path: Path) -> None:
    marks = {"": 1, "2026/06/21": 1 << 62, "a\udcff\n": 3}
    with Ledger(tmp_path) as ledger:
        assert ledger.folder_watermarks("roof") == {}
        assert ledger.set_folder_watermarks("roof", marks)
        assert ledger.set_folder_watermarks("yard", {"": 7})
        assert ledger.set_folder_watermarks("roof", {"": 2})
    with Ledger(tmp_path) as ledger:
        assert ledger.folder_watermarks("roof") == marks | {"": 2}


def test_a_first_start_looks_as_far_back_as_the_older_version_had_rows(tmp_path: Path) -> None:
    day = timedelta(days=1)
    with Ledger(tmp_path) as ledger:
        assert ledger.first_lookback("roof", day) == day
        for ago, expected in ((0, day), (10, 10 * day), (-5, timedelta(days=36_500))):
            moment = (datetime.now(UTC) - ago * day).isoformat(timespec="seconds")
            with ledger._transaction():
                row = ("roof", moment)
                ledger._db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", row)
            found = ledger.first_lookback("roof", day)
            assert expected <= found <= expected + timedelta(hours=2)


def test_a_command_leaves_a_request_and_reads_the_answer(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger, Ledger(tmp_path, beside_daemon=True) as command:
        number = command.add_request("retry", None, {"slots": ["2026-06-21T12:00:00"]})
        assert command.answer_to(number) == ("", None)
        (request,) = ledger.take_requests()
        assert (request.id, request.kind, request.camera) == (number, "retry", None)
        assert request.arguments == {"slots": ["2026-06-21T12:00:00"]}
        ledger.answer_request(number, "done \udcff", ok=True)
        assert ledger.take_requests() == []
        assert command.answer_to(number) == ("done \\udcff", True)


def test_the_files_are_for_the_user_of_the_service_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch(0o666)
    with Ledger(tmp_path) as ledger:
        ledger.record(RECORD)
        modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}


def test_the_latest_change_is_looked_up_not_searched_for(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        plan = ledger._db.execute(
            "EXPLAIN QUERY PLAN SELECT max(updated_utc) FROM brackets WHERE camera = 'roof'"
        ).fetchall()
        assert "brackets_by_change" in str(plan)


def test_decisions_on_curves_are_kept(tmp_path: Path) -> None:
    first = CurveDecision("roof", "aa", "/c/aa.npz", None, "adopted", "first", 0.1, None, 3)
    second = CurveDecision("roof", "bb", "/c/bb.npz", None, "rejected", "worse", 0.2, 0.1, 10)
    with Ledger(tmp_path) as ledger:
        ledger.record_curve(first)
        ledger.record_curve(second)
        assert [c.curve_id for c in ledger.curves("roof")] == ["aa", "bb"]


def test_complete_brackets_are_an_even_share_of_the_last_days(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for hour in range(96):
            complete = hour % 2 == 0
            slot = NOON + timedelta(hours=hour)
            ledger.record(replace(RECORD, slot=slot, complete=complete))
        newest = [r.slot for r in ledger.recent_complete("roof", 4)]
        spread = [r.slot for r in ledger.recent_complete("roof", 6, spread=timedelta(days=2))]
        few = ledger.recent_complete("roof", 60, spread=timedelta(days=2))
    last = NOON + timedelta(hours=94)
    assert newest == [last - timedelta(hours=2 * k) for k in range(4)]
    assert spread == [last - timedelta(hours=8 * k) for k in range(6)]
    assert len(few) == 48
