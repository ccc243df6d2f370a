"""What the ledger says of how far back the next start must look."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asi_watch.live.ledger.catching_up import CatchingUp, lookback_at_start
from asi_watch.live.ledger.ledger import LedgerFullError
from asi_watch.live.ledger.owed_rows import OwingLedger
from asi_watch.live.records import BracketRecord

NOON = datetime(2026, 6, 21, 12)
NOW = datetime(2026, 6, 22, 15, tzinfo=UTC)
HOUR, DAY = 3600.0, 86_400.0


class Bench:
    def __init__(self, ledger: OwingLedger) -> None:
        self.ledger = ledger
        self.wall, self.now = NOW, 0.0
        self.taken_in = True
        self.open: set[datetime] = set()
        self.catching_up = CatchingUp("roof", ledger, lambda: self.wall)

    def tick(self, seconds: float = 1.0) -> datetime | None:
        self.now += seconds
        self.wall += timedelta(seconds=seconds)
        self.catching_up.tick(self.now, self.taken_in, lambda: set(self.open))
        return self.ledger.caught_up("roof")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    ledger = OwingLedger(tmp_path)
    yield Bench(ledger)
    ledger.close()


def test_nothing_is_caught_up_while_something_may_lie_in_the_folder(bench: Bench) -> None:
    bench.taken_in = False
    assert bench.tick() is None
    bench.taken_in = True
    first = bench.tick()
    assert first == bench.wall
    # The folder is lost, or there is a backlog.
    bench.taken_in = False
    assert bench.tick(1000) == first
    bench.taken_in = True
    assert bench.tick() == bench.wall


def test_the_last_brackets_of_a_backlog_count_until_they_have_rows(bench: Bench) -> None:
    bench.open = {NOON}
    begun = bench.wall + timedelta(seconds=1)
    assert bench.tick() is None
    # What comes meanwhile, live, need not be waited for.
    bench.open = {NOON, NOON + timedelta(days=1)}
    assert bench.tick(1000) is None
    bench.open = {NOON + timedelta(days=1)}
    assert bench.tick() == begun


def test_it_is_noted_once_a_minute_at_most(bench: Bench) -> None:
    first = bench.tick()
    assert bench.tick(30) == first
    assert bench.tick(31) == bench.wall


def test_a_ledger_that_is_full_or_owes_rows_notes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(OwingLedger, "owed", property(lambda self: 1))
        assert bench.tick() is None

    def full(*_: object) -> None:
        raise LedgerFullError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "record_caught_up", full)
        assert bench.tick() is None
    assert bench.tick(61) == bench.wall


@pytest.mark.parametrize(
    ("caught_up", "seconds"),
    [
        (None, 2 * DAY),
        (NOW - timedelta(minutes=5), 2 * DAY),
        (NOW - timedelta(days=9), 9 * DAY + HOUR),
        (NOW + timedelta(minutes=5), 2 * DAY),
        # The clock was wrong when this was written.
        (NOW + timedelta(days=900), 3e9),
    ],
)
def test_the_next_start_looks_back_to_it(
    bench: Bench, caught_up: datetime | None, seconds: float
) -> None:
    if caught_up is not None:
        bench.ledger.record_caught_up("roof", caught_up)
    found = lookback_at_start(bench.ledger, "roof", 2 * DAY, NOW)
    assert found == pytest.approx(seconds, rel=0.1)


def test_a_row_written_since_does_not_shorten_it(bench: Bench) -> None:
    bench.ledger.record_caught_up("roof", NOW - timedelta(days=9))
    bench.ledger.record(BracketRecord("roof", NOON, "skipped"))
    assert lookback_at_start(bench.ledger, "roof", 2 * DAY, NOW) == 9 * DAY + HOUR


def test_a_ledger_of_before_this_was_noted_goes_by_its_rows(bench: Bench) -> None:
    bench.ledger.record(BracketRecord("roof", NOON, "skipped"))
    later = datetime.now(UTC) + timedelta(days=9)
    found = lookback_at_start(bench.ledger, "roof", 2 * DAY, later)
    assert found == pytest.approx(9 * DAY + HOUR, rel=0.01)


def test_a_mark_that_makes_no_sense_is_damage(bench: Bench) -> None:
    bench.ledger._db.execute("INSERT INTO marks VALUES ('roof', 'yesterday')")
    with pytest.raises(Exception, match="makes no sense"):
        bench.ledger.caught_up("roof")
    assert isinstance(bench.ledger._db, sqlite3.Connection)
