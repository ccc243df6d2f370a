"""A camera with a pool that runs nothing by itself: what is asked for, how much, in which order."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.buffers import BufferPool
from asi_watch.config import parse_config
from asi_watch.config.model import Order
from asi_watch.live.camera import Camera, Shared
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import WITHOUT_CURVE, BracketRecord, Retry
from asi_watch.live.messages import (
    FolderRead,
    Found,
    FoundFile,
    Inbox,
    MergeBracket,
    MergeOutcome,
    ProductKept,
    ReadFile,
    ReadOk,
    ReadOutcome,
    Unusable,
    Vanished,
)
from asi_watch.live.workers import scheduler
from asi_watch.live.workers.merger import MemoryBudget
from asi_watch.live.workers.pool import BACKLOG, LIVE, MERGE, READ, Job, JobPool
from asi_watch.live.workers.quarantine import Quarantine
from asi_watch.merge_bracket import Failed, Published

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
EXPOSURES = (80, 160, 320)


class SlowPool(JobPool):
    """Keeps the jobs; the test says when one is done."""

    def __init__(self) -> None:
        super().__init__(1)
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)


class Disk:
    """A disk that is full when the test says so."""

    paused: str | None = None

    def low(self, *folders: Path) -> str | None:
        return self.paused


class FakeWorker:
    """Reads and merges without files."""

    def read(self, command: ReadFile) -> ReadOutcome:
        return ReadOk(Exposure(command.path, command.timestamp, command.exposure_us, 1, 1))

    def merge(self, command: MergeBracket, now: float) -> MergeOutcome:
        return Published(
            (f"{command.slot:%H%M%S}_hdr.jpg",), "mertens", None, timings={"latency": 0.1}
        )


class Bench:
    more = "merge: {algorithm: mertens}"

    def __init__(self, folder: Path, order: Order = "oldest", **bracket: object) -> None:
        lines = "".join(f", {key}: {value}" for key, value in bracket.items())
        text = (
            f"cameras: {{roof: {{watch: {folder}/in, output: {folder}/out,"
            f" bracket: {{exposures: {list(EXPOSURES)}{lines}}}, {self.more}}}}}"
        )
        config = parse_config(text.encode(), "x", folder).config
        self.pool = SlowPool()
        self.ledger = Ledger(folder)
        self.inbox = Inbox()
        self.disk = Disk()
        shared = Shared(
            state_dir=folder,
            order=order,
            ledger=self.ledger,
            inbox=self.inbox,
            pool=self.pool,
            budget=MemoryBudget(1 << 20),
            buffers=BufferPool(1 << 20),
            quarantine=Quarantine(folder),
            disk=self.disk,  # type: ignore[arg-type]
        )
        self.camera = Camera(config.cameras["roof"], shared, 0.0)
        self.use(FakeWorker())
        self.most_reads = 0

    def use(self, worker: FakeWorker) -> None:
        self.worker = self.camera._scheduler._worker = worker

    def scan(self, *numbers: int, at: float = 0.0, which: tuple[int, ...] = EXPOSURES) -> None:
        files = tuple(
            FoundFile(
                f"{NOON + n * STEP + timedelta(seconds=i):%Y%m%d%H%M%S}_{e}.jpg", (1, 1), True
            )
            for n in numbers
            for i, e in enumerate(which)
        )
        self.camera.handle(Found("roof", files, at), at)

    def work(self, at: float = 0.0) -> list[tuple[int, int, int]]:
        """Run what is most urgent until nothing is left; (class, slot, step) of each."""
        done = []
        while self.pool.jobs:
            done.append(self.work_once(at))
        return done

    def work_once(self, at: float = 0.0) -> tuple[int, int, int]:
        """Run what is most urgent."""
        jobs = self.pool.jobs
        self.most_reads = max(self.most_reads, sum(job.urgency[1] == READ for job in jobs))
        jobs.sort(key=lambda job: job.urgency)
        job = jobs.pop(0)
        kind, step, place = job.urgency
        seconds = abs(place) - (NOON - datetime(1970, 1, 1)).total_seconds()
        job.run()
        while (message := self.inbox.get(timeout=0)) is not None:
            self.camera.handle(message, at)
        return kind, int(seconds // 30), step

    def rows(self) -> list[BracketRecord]:
        return self.ledger.history()


def test_a_backlog_is_read_a_part_at_a_time_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MOST_READS", 30)
    bench = Bench(tmp_path)
    bench.scan(*range(200, 0, -1))
    assert len(bench.pool.jobs) <= 30 + 3 * len(EXPOSURES)
    assert bench.camera.snapshot()["backlog"] >= 500
    bench.work()
    assert bench.most_reads <= 30 + 3 * len(EXPOSURES)
    assert len(bench.rows()) == 200
    assert all(row.complete and row.revision == 1 for row in bench.rows())
    assert bench.camera.snapshot()["backlog"] == 0


def test_a_merge_goes_before_newer_exposures_that_are_to_be_read(tmp_path: Path) -> None:
    """It gives back the memory that they need: else each of them is decoded twice."""
    bench = Bench(tmp_path)
    bench.scan(1000)
    while len(bench.pool.jobs) > 1 or bench.pool.jobs[0].urgency[1] == READ:
        bench.work_once()
    bench.scan(1001)
    done = bench.work()
    assert done[0] == (LIVE, 1000, MERGE)
    assert {slot for _, slot, _ in done[1:]} == {1001}


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_brackets_of_a_backlog_are_merged_in_the_order_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Order
) -> None:
    monkeypatch.setattr(scheduler, "MOST_READS", 9)
    bench = Bench(tmp_path, order)
    bench.scan(1000)
    bench.scan(*range(50))
    done = bench.work()
    assert done[0][:2] == (LIVE, 1000)
    merged = [slot for kind, slot, step in done if step == MERGE and kind == BACKLOG]
    assert len(merged) == 50
    # Those that were asked for before the queue was full come in any case.
    later = [slot for slot in merged if slot >= 3]
    assert later == sorted(later, reverse=order == "newest")


def test_a_live_bracket_overtakes_a_backlog(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.scan(1000)
    bench.scan(*range(100), at=1.0)
    bench.scan(1001, at=2.0)
    done = bench.work()
    first = [item for item in done if item[0] == LIVE]
    assert done[: len(first)] == first
    assert {slot for _, slot, _ in first} == {1000, 1001}


def test_a_bracket_that_begins_by_other_ways_has_its_waiting_files_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MOST_READS", 9)
    bench = Bench(tmp_path)
    bench.scan(1000)
    bench.scan(*range(50), which=EXPOSURES[:2])
    before = len(bench.pool.jobs)
    monkeypatch.setattr(scheduler, "MOST_READS", 1000)
    bench.scan(40, which=EXPOSURES[2:])
    assert len(bench.pool.jobs) == before + len(EXPOSURES)


def test_on_a_full_disk_merges_wait_and_go_on_in_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.disk.paused = "full"
    bench.scan(0, 1, 2)
    bench.work()
    assert {row.state for row in bench.rows()} == {"failed"}
    assert bench.camera.snapshot()["waiting_in_ledger"] == 3
    bench.camera.tick(1.0)
    assert bench.pool.jobs == []
    bench.disk.paused = None
    bench.camera.tick(2.0)
    bench.work()
    assert {row.state for row in bench.rows()} == {"published"}


def test_when_products_find_no_place_one_bracket_is_tried_at_a_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    merged: list[datetime] = []
    full = True

    def merge(command: MergeBracket, now: float) -> Published | Failed:
        merged.append(command.slot)
        if full:
            return Failed("output", "the folder is gone")
        return Published(
            (f"{command.slot:%H%M%S}_hdr.jpg",), "mertens", None, timings={"latency": 0.1}
        )

    bench.worker.merge = merge  # type: ignore[method-assign]
    for number in range(100):
        bench.scan(number, at=30.0 * number)
        bench.work(30.0 * number)
    for second in range(3000, 6000, 5):
        bench.camera.tick(float(second))
        bench.work(float(second))
    # Not 100 brackets every five minutes.
    assert len(merged) < 3000 / 5 + 40
    assert bench.camera.snapshot()["waiting_in_ledger"] > 50
    full = False
    merged.clear()
    for second in range(6000, 6700, 5):
        bench.camera.tick(float(second))
        bench.work(float(second))
    assert {row.state for row in bench.rows()} == {"published"}
    assert len(bench.rows()) == len(merged) == 100


def test_many_brackets_asked_for_are_taken_up_a_part_at_a_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.scan(*range(120), which=EXPOSURES[:2])
    bench.work()
    bench.camera.tick(100.0)
    assert len(bench.rows()) == 120
    assert {row.state for row in bench.rows()} == {"skipped"}
    asked = bench.camera.retry(Retry(skipped=True))
    assert len(asked) == 120
    bench.camera.tick(101.0)
    assert len(bench.pool.jobs) == 50 * 2
    for second in range(102, 110):
        bench.work(second)
        bench.camera.tick(second)
    bench.camera.tick(200.0)
    changed = [row.updated_utc for row in bench.rows()]
    assert len(changed) == 120
    counts = bench.camera.snapshot()["counts"]
    assert (counts["exposures_read"], counts["skipped"]) == (2 * 240, 240)


def test_a_bracket_is_not_over_because_the_machine_stood_still(tmp_path: Path) -> None:
    bench = Bench(tmp_path, grace="1s", min_exposures=2)
    bench.camera.tick(0.0)
    bench.scan(0, at=0.1, which=EXPOSURES[:2])
    bench.work(0.1)
    # What the camera writes after these seconds has not been heard of yet.
    bench.camera.tick(8.0)
    assert bench.pool.jobs == []
    for tenths in range(1, 9):
        bench.camera.tick(8.0 + tenths / 10)
        assert bench.pool.jobs == []
    for tenths in range(9, 12):
        bench.camera.tick(8.0 + tenths / 10)
    bench.work(9.2)
    assert [row.complete for row in bench.rows()] == [False]


def test_a_bracket_is_logged_once_whatever_of_it_comes_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench(tmp_path)
    bench.scan(0)
    bench.work()
    outcome = Unusable("ends before its end mark", True, (1, 1))
    bench.worker.read = lambda command: outcome  # type: ignore[method-assign]
    late = f"{NOON + timedelta(seconds=9):%Y%m%d%H%M%S}_80.jpg"
    bench.camera.handle(Found("roof", (FoundFile(late, (1, 1), True),), 1.0), 1.0)
    bench.work()
    assert [r.path for r in bench.rows()[0].rejected] == [late]
    told = [r.getMessage() for r in caplog.records]
    assert told.count("bracket published") == 1
    assert told.count("row amended") == 1


def test_names_that_do_not_fit_and_duplicate_files_are_logged_once_an_hour(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)

    def told(text: str) -> list[str]:
        return [r.getMessage() for r in caplog.records if text in r.getMessage()]

    def strange(at: float) -> None:
        file = FoundFile(f"20260621_12{at:04.0f}_80.jpg", (1, 1), True)
        bench.camera.handle(Found("roof", (file, file), at), at)

    strange(0.0)
    strange(3000.0)
    assert len(told("do not fit")) == 1
    strange(4000.0)
    strange(0.0)
    assert len(told("do not fit")) == 2
    assert bench.camera.snapshot()["counts"]["names_ignored"] == 3
    bench.scan(0)
    copies = [FoundFile(f"copy/{NOON:%Y%m%d%H%M%S}_80.jpg", (1, 1), True)]
    bench.camera.handle(Found("roof", tuple(copies), 0.0), 0.0)
    bench.work()
    assert len(told("two files have one exposure time")) == 1


def again(bench: Bench) -> BracketRecord:
    """Ask for the published bracket of noon once more, and have it done."""
    asked = bench.camera.retry(Retry(slots=(NOON,), published=True))
    assert asked == [NOON]
    bench.camera.tick(1.0)
    bench.work(1.0)
    (row,) = bench.rows()
    assert bench.ledger.to_retry("roof", 8) == []
    return row


def test_what_is_published_is_merged_again_when_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.scan(0)
    bench.work()
    assert bench.camera.retry(Retry(slots=(NOON,), failed=True, skipped=True)) == []
    assert again(bench).revision == 2
    assert again(bench).revision == 3


def test_a_product_stands_whose_exposures_are_gone_though_more_is_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.scan(0)
    bench.work()
    bench.ledger.record(replace(bench.rows()[0], reason=WITHOUT_CURVE))
    bench.worker.read = lambda command: Vanished()  # type: ignore[method-assign]
    row = again(bench)
    assert (row.state, row.revision, row.reason) == ("published", 1, None)
    assert len(row.inputs) == len(EXPOSURES)


def test_history_and_log_say_why_nothing_came_of_a_merge_that_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    bench.scan(0)
    bench.work()
    standing = bench.rows()[0]
    kept = ProductKept(standing, "no curve fits")
    bench.worker.merge = lambda command, now: kept  # type: ignore[method-assign]
    caplog.clear()
    row = again(bench)
    assert (row.state, row.revision) == ("published", 1)
    assert row.reason == "not merged again: no curve fits"
    (logged,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert "its product stands" in logged.getMessage()


# -- folders whose files all have rows ------------------------------------------------------------


def folder_read(bench: Bench, folder: str, mtime_ns: int, at: float) -> dict[str, int]:
    """A folder was read whole; its watermarks some time later."""
    bench.camera.handle(FolderRead("roof", folder, mtime_ns), at)
    bench.camera.tick(at + 10.0)
    return bench.ledger.folder_watermarks("roof")


def test_a_folder_is_done_when_all_its_files_have_rows(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert folder_read(bench, "empty", 7, 0.0) == {"empty": 7}
    bench.scan(0, 1, at=20.0)
    assert "" not in folder_read(bench, "", 5, 20.0)
    bench.work_once(40.0)
    bench.camera.tick(60.0)
    assert "" not in bench.ledger.folder_watermarks("roof")
    bench.work(60.0)
    bench.camera.tick(70.0)
    assert bench.ledger.folder_watermarks("roof") == {"empty": 7, "": 5}


def test_what_a_first_start_skipped_is_noted_though_younger_files_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.scan(0, 1, at=0.0)
    bench.camera.handle(FolderRead("roof", "", 3, skipped=True), 0.0)
    # Otherwise an archive that is moved in now would be too old for the next start.
    assert folder_read(bench, "", 5, 0.0) == {"": 3}
    bench.work_once(20.0)
    bench.work(40.0)
    bench.camera.tick(50.0)
    assert bench.ledger.folder_watermarks("roof") == {"": 5}


def test_a_folder_of_a_backlog_is_not_done_and_one_whose_brackets_wait_in_the_ledger_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MOST_READS", 3)
    bench = Bench(tmp_path)
    bench.scan(*range(9, -1, -1))
    assert bench.camera.snapshot()["backlog"]
    assert folder_read(bench, "", 5, 0.0) == {}
    bench.disk.paused = "full"
    bench.work(10.0)
    bench.camera.tick(20.0)
    assert {row.state for row in bench.rows()} == {"failed"}
    assert bench.ledger.folder_watermarks("roof") == {"": 5}
    bench.disk.paused = None
    bench.camera.tick(30.0)
    bench.work(30.0)
    bench.camera.tick(40.0)
    assert [row.state for row in bench.rows()] == ["published"] * 10
    assert bench.ledger.folder_watermarks("roof") == {"": 5}


def test_while_rows_cannot_be_written_no_folder_is_done(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ledger.blocked = "no space"
    assert folder_read(bench, "", 5, 0.0) == {}
    bench.ledger.blocked = None
    bench.camera.tick(30.0)
    assert bench.ledger.folder_watermarks("roof") == {"": 5}
