"""Counts of brackets are asked every second: kept up, not counted again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.records import BracketRecord

NOON = datetime(2026, 6, 21, 12)


def row(number: int, camera: str = "roof") -> BracketRecord:
    return BracketRecord(camera, NOON + number * timedelta(seconds=30), "failed")


def test_totals_follow_every_row(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record(row(0))
        assert ledger.totals("roof") == {"failed": 1}
        ledger.record(row(1))
        ledger.record(row(0, "garden"))
        ledger.record(replace(row(0), state="published"))
        ledger.record(replace(row(2), state="skipped"))
        ledger.record(replace(row(2), state="skipped"))
        assert ledger.totals("roof") == {"failed": 1, "published": 1, "skipped": 1}
        assert ledger.totals("garden") == {"failed": 1}
        ledger.record_all([replace(row(1), state="published"), row(3)])
        assert ledger.totals("roof") == {"failed": 1, "published": 2, "skipped": 1}
        kept = ledger.totals("roof")
    with Ledger(tmp_path) as ledger:
        assert ledger.totals("roof") == kept


def test_the_latest_change_is_looked_up_not_searched_for(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record(row(0))
        plan = ledger._db.execute(
            "EXPLAIN QUERY PLAN SELECT max(updated_utc) FROM brackets WHERE camera = 'roof'"
        ).fetchall()
        assert "brackets_by_change" in str(plan)
        assert ledger.last_change("roof") is not None
