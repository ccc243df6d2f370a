"""Brackets that wait for room, or for a curve, for weeks: in the ledger, not in memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.curves.in_use import CurveFile
from asi_watch.live.ledger.records import WAITS_FOR_CURVE
from asi_watch.live.messages import MergeBracket
from asi_watch.merge_bracket import Failed, Published
from tests.live.products import totals
from tests.live.test_camera import EXPOSURES, NOON, STEP, Bench


class WaitingBench(Bench):
    """A camera whose merges are counted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Nothing is to outlive this test.
        self.ledger._db.execute("PRAGMA synchronous = OFF")
        self.merged: Counter[datetime] = Counter()
        self.full = False
        self.worker.merge = self._merge  # type: ignore[method-assign]
        self.now = 0.0

    def _merge(self, command: MergeBracket, now: float) -> Published | Failed:
        if self.full:
            return Failed("output", "the folder is gone")
        self.merged[command.slot] += 1
        return Published(
            (f"{command.slot:%H%M%S}_hdr.jpg",), "mertens", None, timings={"latency": 0.1}
        )

    def night(self, brackets: range) -> None:
        """Take brackets one after the other, time going by."""
        for number in brackets:
            self.now += 30.0
            self.scan(number, at=self.now)
            self.work(self.now)
            self.camera.tick(self.now)

    def catch_up(self) -> int:
        """Let time go by until nothing is left; the most brackets that were open meanwhile."""
        most = 0
        for _ in range(100_000):
            self.now += 0.2
            self.camera.tick(self.now)
            most = max(most, open_brackets(self))
            if not self.pool.jobs and not self.camera._rows_left:
                break
            self.work(self.now)
        return most


def resident() -> int:
    """Bytes of memory this process has."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def open_brackets(bench: Bench) -> int:
    return len(bench.camera._collector._open)


def waits(bench: WaitingBench, brackets: int) -> None:
    """Let so many wait on a full disk, and then be merged: all, each once."""
    bench.disk.paused = "full"
    bench.night(range(brackets))
    assert open_brackets(bench) == 0
    assert bench.camera.snapshot()["waiting_in_ledger"] == brackets
    assert totals(bench.ledger) == {"failed": brackets}
    assert not bench.merged
    bench.disk.paused = None
    assert bench.catch_up() <= 100
    assert len(bench.merged) == brackets
    assert set(bench.merged.values()) == {1}
    shown = bench.camera.snapshot()
    assert totals(bench.ledger) == {"published": brackets}
    assert (shown["waiting_in_ledger"], shown["open_count"]) == (0, 0)


def test_a_full_disk_makes_brackets_wait_in_the_ledger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits(WaitingBench(tmp_path), 400)
    told = [r.levelname for r in caplog.records if "wait in the ledger" in r.getMessage()]
    assert told == ["WARNING"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_thousand_brackets_wait_in_bounded_memory(tmp_path: Path) -> None:
    bench = WaitingBench(tmp_path)
    bench.disk.paused = "full"
    bench.night(range(2_000))
    before = resident()
    bench.night(range(2_000, 50_000))
    grown = resident() - before
    print(f"memory grown by {grown / 1e6:.1f} MB over 48,000 waiting brackets")
    # In memory they took 3 KB each.
    assert grown < 20_000_000
    bench.disk.paused = None
    bench.catch_up()
    assert len(bench.merged) == 50_000
    assert set(bench.merged.values()) == {1}
    assert totals(bench.ledger) == {"published": 50_000}


def test_a_restart_while_brackets_wait_loses_none(tmp_path: Path) -> None:
    bench = WaitingBench(tmp_path)
    bench.disk.paused = "full"
    bench.night(range(300))
    bench.ledger.close()
    again = WaitingBench(tmp_path)
    again.disk.paused = "full"
    for second in range(60):
        again.camera.tick(float(second))
        again.work(float(second))
    assert open_brackets(again) == 0
    again.now = 60.0
    again.scan(*range(300))
    again.disk.paused = None
    again.catch_up()
    assert len(again.merged) == 300
    assert set(again.merged.values()) == {1}


def test_an_output_folder_that_is_away_makes_brackets_wait_in_the_ledger(tmp_path: Path) -> None:
    bench = WaitingBench(tmp_path)
    bench.full = True
    bench.night(range(400))
    assert open_brackets(bench) <= 1
    bench.full = False
    for _ in range(100):
        bench.now += 10.0
        bench.camera.tick(bench.now)
        bench.work(bench.now)
    bench.catch_up()
    assert len(bench.merged) == 400
    assert set(bench.merged.values()) == {1}


def test_nothing_more_is_taken_in_when_rows_cannot_be_written_either(tmp_path: Path) -> None:
    bench = WaitingBench(tmp_path)
    bench.ledger.blocked = "no space"
    bench.night(range(20))
    bench.camera.tick(bench.now)
    assert bench.camera._intake.paused
    assert not bench.merged
    # What was in the inbox already waits as well.
    bench.night(range(20, 25))
    assert not bench.merged
    bench.ledger.blocked = None
    bench.catch_up()
    assert not bench.camera._intake.paused
    assert len(bench.merged) == 25


def test_a_revision_that_waits_is_made_from_the_ledger(tmp_path: Path) -> None:
    bench = WaitingBench(tmp_path)
    bench.scan(0, which=EXPOSURES[:2])
    bench.work()
    bench.camera.tick(100.0)
    assert bench.rows()[0].state in ("published", "skipped")
    bench.ledger.record(replace(bench.rows()[0], state="published", revision=1))
    bench.merged.clear()
    bench.disk.paused = "full"
    bench.scan(0, at=200.0)
    bench.scan(1, at=200.0)
    bench.work(200.0)
    row, _ = bench.rows()
    assert (row.state, row.revision, len(row.inputs)) == ("failed", 2, 3)
    bench.disk.paused = None
    bench.now = 300.0
    bench.catch_up()
    row, _ = bench.rows()
    assert (row.state, row.revision, len(row.inputs)) == ("published", 2, 3)
    assert bench.merged == {NOON: 1, NOON + STEP: 1}


class WithoutCurve(WaitingBench):
    """A camera that merges nothing without a response curve."""

    more = "without_response: wait"

    def use_curve(self, channels: int = 3) -> None:
        curve = ResponseCurve(np.zeros((256, channels), np.float32), {})
        self.camera._curves._use({channels: CurveFile(curve, Path("x.npz"))})
        self.camera._use_curves(True)


def test_without_a_curve_brackets_wait_in_the_ledger(tmp_path: Path) -> None:
    bench = WithoutCurve(tmp_path)
    bench.night(range(200))
    assert not bench.merged
    assert open_brackets(bench) == 0
    assert {row.state for row in bench.rows()} == {"failed"}
    bench.use_curve()
    bench.catch_up()
    assert set(bench.merged.values()) == {1}
    assert len(bench.merged) == 200


def test_brackets_that_no_curve_fits_wait_and_are_never_given_up(tmp_path: Path) -> None:
    bench = WithoutCurve(tmp_path)
    bench.use_curve(channels=1)
    merge = bench.worker.merge
    bench.worker.merge = lambda *_: Failed("curve", "the images have 3 channels")  # type: ignore[method-assign]
    bench.night(range(5))
    for _ in range(20):
        bench.now += 400.0
        bench.camera.tick(bench.now)
        bench.work(bench.now)
    rows = bench.rows()
    assert {row.attempts for row in rows} == {0}
    assert all((row.reason or "").startswith(WAITS_FOR_CURVE) for row in rows)
    bench.worker.merge = merge  # type: ignore[method-assign]
    bench.use_curve()
    bench.catch_up()
    assert {row.state for row in bench.rows()} == {"published"}
