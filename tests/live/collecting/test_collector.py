"""The collector by itself: no files, no threads, a clock of our own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from asi_watch.brackets import Exposure
from asi_watch.config.model import BracketConfig
from asi_watch.live.collecting.collector import Collector
from asi_watch.live.ledger.records import MAX_ATTEMPTS, BracketRecord
from asi_watch.live.messages import (
    MergeBracket,
    ReadFile,
    ReadOk,
    Unchanged,
    Unusable,
    Vanished,
    WriteRecord,
)
from asi_watch.merge_bracket import Failed, Published
from tests.faults.collector_world import camera_config, next_due

EXPOSURES = (80.0, 160.0, 320.0)
NOON = datetime(2026, 6, 21, 12)
GRACE = 10.0
STABLE = 1.0


def name(slot: int, exposure: int, second: int = 0) -> str:
    return f"{NOON + timedelta(seconds=30 * slot + second):%Y%m%d%H%M%S}_{exposure}.jpg"


def slot(number: int) -> datetime:
    return NOON + timedelta(seconds=30 * number)


@dataclass
class Bench:
    """A collector with a disk of signatures, a ledger in a dict, and a clock."""

    rules: dict[str, Any] = field(default_factory=dict)
    rows: dict[datetime, BracketRecord] = field(default_factory=dict)
    disk: dict[str, tuple[int, int]] = field(default_factory=dict)
    bad: dict[str, Unusable] = field(default_factory=dict)
    merges: list[MergeBracket] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    now: float = 100.0
    auto_merge: bool = True
    fail: Failed | None = None

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        values = {"exposures": EXPOSURES, "min_exposures": 2, "grace": timedelta(seconds=GRACE)}
        rules = BracketConfig().model_copy(update={**values, **self.rules})
        self.collector = Collector(camera_config(rules), self)

    def get(self, camera: str, slot: datetime) -> BracketRecord | None:
        assert camera == "roof"
        return self.rows.get(slot)

    def write(self, path: str, stamp: int = 1, size: int = 10) -> str:
        self.disk[path] = (size, stamp)
        return path

    def arrive(self, *paths: str, settled: bool = True, scan: bool = False) -> None:
        for path in paths:
            if path not in self.disk:
                self.write(path)
            signature = self.disk[path] if scan else None
            self.carry_out(self.collector.found(path, signature, settled, self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.collector.due(self.now))

    def carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            match command:
                case ReadFile():
                    self.read(command)
                case MergeBracket():
                    self.merges.append(command)
                    if self.auto_merge:
                        self.finish(command)
                case WriteRecord(record):
                    self.rows[record.slot] = record

    def read(self, command: ReadFile) -> None:
        self.reads.append(command.path)
        found = self.disk.get(command.path)
        outcome: Any
        if found is None:
            outcome = Vanished()
        elif command.known == found:
            outcome = Unchanged()
        elif command.path in self.bad:
            outcome = Unusable(
                self.bad[command.path].reason, self.bad[command.path].may_recover, found
            )
        else:
            outcome = ReadOk(Exposure(command.path, command.timestamp, command.exposure_us, *found))
        self.carry_out(self.collector.read_done(command.slot, command.path, outcome, self.now))

    def finish(self, command: MergeBracket) -> None:
        outcome = self.fail or Published((f"{command.slot:%H%M%S}_hdr.jpg",), "x", "c0ffee")
        self.carry_out(self.collector.merge_done(command.slot, outcome, self.now))

    def used(self, number: int = 0) -> list[float]:
        return [e.exposure_us for e in self.rows[slot(number)].inputs]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def whole(number: int = 0) -> list[str]:
    return [name(number, int(e), i) for i, e in enumerate(EXPOSURES)]


def test_a_bracket_is_merged_as_soon_as_it_is_complete(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    assert bench.merges == []
    bench.arrive(whole()[2])
    assert len(bench.merges) == 1
    assert bench.merges[0].complete
    assert bench.rows[slot(0)].state == "published"
    assert bench.rows[slot(0)].revision == 1
    assert len(bench.collector._open) == 0


def test_names_that_are_no_exposures_are_counted(bench: Bench) -> None:
    bench.arrive("thumbs.jpg", "20260621120000_hdr.jpg", "20260621120000.jpg")
    assert bench.collector.counters["names_ignored"] == 3
    assert bench.reads == []


def test_an_incomplete_bracket_is_merged_when_its_grace_is_over(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    bench.wait(GRACE - 0.1)
    assert bench.merges == []
    bench.wait(0.2)
    assert not bench.merges[0].complete
    assert bench.used() == [80.0, 160.0]


def test_grace_counts_from_the_last_arrival(bench: Bench) -> None:
    bench.arrive(whole()[0])
    bench.wait(GRACE - 1)
    bench.arrive(whole()[1])
    bench.wait(GRACE - 1)
    assert bench.merges == []
    bench.wait(1)
    assert len(bench.merges) == 1


def stand_still(bench: Bench, seconds: float) -> None:
    bench.carry_out(bench.collector.due(bench.now, seconds))


def test_time_in_which_nothing_could_be_heard_is_no_waiting(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    bench.now += 3 * GRACE
    stand_still(bench, 3 * GRACE)
    bench.wait(GRACE - 1)
    assert bench.merges == []
    bench.arrive(whole()[2])
    assert bench.merges[0].complete
    bench.arrive(*whole(1)[:2])
    stand_still(bench, 3 * GRACE)
    bench.wait(1)
    bench.arrive(name(1, 80, 5))
    # A new arrival begins the waiting anew.
    bench.wait(GRACE)
    assert len(bench.merges) == 2


def test_an_owner_that_is_always_late_ends_brackets_nevertheless(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    for _ in range(100):
        stand_still(bench, 1)
        bench.wait(1)
    assert len(bench.merges) == 1


def test_a_bracket_with_too_few_exposures_is_recorded_as_skipped(bench: Bench) -> None:
    bench.arrive(whole()[0])
    bench.wait(GRACE)
    row = bench.rows[slot(0)]
    assert row.state == "skipped"
    assert row.reason is not None
    assert "1 of 3" in row.reason
    assert row.revision == 0
    assert [e.path for e in row.inputs] == [whole()[0]]


def test_files_of_one_exposure_time_are_the_named_cause_of_a_skip(bench: Bench) -> None:
    for second in range(3):
        bench.arrive(bench.write(name(0, 80, second), second))
    bench.wait(GRACE)
    row = bench.rows[slot(0)]
    assert row.state == "skipped"
    assert "3 files have the same exposure time of 80 µs" in str(row.reason)


def test_a_later_complete_bracket_flushes_an_earlier_one(bench: Bench) -> None:
    bench.arrive(*whole(0)[:2])
    bench.wait(1)
    bench.arrive(*whole(1))
    assert [m.slot for m in bench.merges] == [slot(1), slot(0)]


def test_an_earlier_complete_bracket_does_not_flush_a_later_one(bench: Bench) -> None:
    bench.arrive(*whole(1)[:2])
    bench.arrive(*whole(0))
    assert [m.slot for m in bench.merges] == [slot(0)]


def test_of_two_files_with_one_exposure_the_newest_wins(bench: Bench) -> None:
    first, second = bench.write(name(0, 80, 0), 5), bench.write(name(0, 80, 1), 7)
    bench.arrive(second, first, *whole()[1:])
    row = bench.rows[slot(0)]
    assert row.inputs[0].path == second
    assert row.duplicates == 1
    assert row.rejected[0].path == first
    assert "superseded" in row.rejected[0].reason


def test_of_two_brackets_in_a_slot_one_is_merged_whatever_comes_when(bench: Bench) -> None:
    early = [bench.write(path, 9) for path in whole()]
    late = [bench.write(name(0, int(time), 20 + n), 5) for n, time in enumerate(EXPOSURES)]
    bench.arrive(early[0], late[0], late[1])
    bench.wait(GRACE)
    # The fuller one goes first; the other lends what it lacks, as long as that is so.
    assert {e.path for e in bench.rows[slot(0)].inputs} == {late[0], late[1]}
    bench.arrive(early[1], early[2])
    bench.wait(GRACE)
    assert [e.path for e in bench.rows[slot(0)].inputs] == early
    bench.arrive(late[2])
    bench.wait(GRACE)
    row = bench.rows[slot(0)]
    assert [e.path for e in row.inputs] == late
    assert {r.path for r in row.rejected} == set(early)
    assert all("holds two brackets" in r.reason for r in row.rejected)


def test_a_file_only_created_is_read_when_it_lay_still(bench: Bench) -> None:
    bench.arrive(whole()[0], settled=False)
    assert bench.reads == []
    assert next_due(bench.collector) == pytest.approx(bench.now + STABLE)
    bench.wait(STABLE)
    assert bench.reads == [whole()[0]]


def test_a_file_created_and_then_closed_is_read_at_once(bench: Bench) -> None:
    bench.arrive(whole()[0], settled=False)
    bench.arrive(whole()[0])
    assert len(bench.reads) == 1
    bench.wait(STABLE)
    assert len(bench.reads) == 1


def test_a_half_file_is_read_again_when_it_changes(bench: Bench) -> None:
    path = whole()[2]
    bench.bad[path] = Unusable("ends too soon", True, None)
    bench.arrive(*whole())
    assert bench.merges == []
    del bench.bad[path]
    bench.write(path, stamp=2)
    bench.arrive(path)
    assert bench.used() == list(EXPOSURES)
    assert bench.rows[slot(0)].rejected == ()


def test_a_half_file_that_became_whole_without_an_event_is_found_in_the_end(bench: Bench) -> None:
    path = whole()[2]
    bench.bad[path] = Unusable("ends too soon", True, None)
    bench.arrive(*whole())
    del bench.bad[path]
    bench.write(path, stamp=2)
    bench.wait(GRACE)
    assert bench.used() == list(EXPOSURES)


def test_a_half_file_is_recorded_as_unusable_when_its_bracket_is_over(bench: Bench) -> None:
    path = whole()[2]
    bench.bad[path] = Unusable("ends too soon", True, None)
    bench.arrive(*whole())
    bench.wait(GRACE)
    bench.wait(0)
    row = bench.rows[slot(0)]
    assert row.state == "published"
    assert not row.complete
    assert [(r.path, r.reason) for r in row.rejected] == [(path, "ends too soon")]


def test_a_late_exposure_makes_a_new_revision(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    bench.wait(GRACE)
    bench.arrive(whole()[2])
    row = bench.rows[slot(0)]
    assert row.revision == 2
    assert row.late == 1
    assert row.complete
    assert bench.used() == list(EXPOSURES)
    assert bench.merges[1].folder == "."


def test_a_late_exposure_is_ignored_where_the_rules_say_so() -> None:
    bench = Bench({"late": "ignore"})
    bench.arrive(*whole()[:2])
    bench.wait(GRACE)
    bench.arrive(whole()[2])
    row = bench.rows[slot(0)]
    assert (row.revision, row.late) == (1, 1)
    assert row.rejected[0].reason == "late: ignored"
    bench.arrive(whole()[2], scan=True)
    assert len(bench.merges) == 1


def test_a_late_file_that_loses_to_a_newer_one_changes_no_product(bench: Bench) -> None:
    newest = bench.write(name(0, 80, 5), stamp=9)
    bench.arrive(newest, *whole()[1:])
    older = bench.write(name(0, 80, 0), stamp=3)
    bench.arrive(older)
    bench.wait(GRACE)
    assert len(bench.merges) == 1
    row = bench.rows[slot(0)]
    assert row.revision == 1
    assert row.knows(older, (10, 3))


def test_no_revision_is_made_when_an_earlier_input_is_gone(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    bench.wait(GRACE)
    del bench.disk[whole()[0]]
    bench.arrive(whole()[2])
    row = bench.rows[slot(0)]
    assert len(bench.merges) == 1
    assert row.revision == 1
    assert row.late == 1
    assert "earlier input" in row.rejected[-1].reason
    assert len(bench.collector._open) == 0


def test_a_skipped_bracket_is_merged_when_enough_has_come(bench: Bench) -> None:
    bench.arrive(whole()[0])
    bench.wait(GRACE)
    bench.arrive(*whole()[1:])
    assert bench.rows[slot(0)].state == "published"
    assert bench.rows[slot(0)].revision == 1
    assert bench.used() == list(EXPOSURES)


def test_after_a_restart_what_is_published_is_not_merged_again(bench: Bench) -> None:
    bench.arrive(*whole())
    bench.restart()
    bench.arrive(*whole(), scan=True)
    bench.arrive(*whole())  # an event gives no signature: the file is looked at, not merged
    bench.wait(GRACE * 3)
    assert len(bench.merges) == 1
    assert len(bench.collector._open) == 0


def test_after_a_restart_what_was_not_published_is_merged(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    bench.restart()
    bench.arrive(*whole()[:2], scan=True)
    bench.arrive(whole()[2])
    assert bench.used() == list(EXPOSURES)


def test_a_file_that_vanishes_is_counted(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    bench.carry_out(bench.collector.found(whole()[2], None, True, bench.now))
    bench.wait(GRACE)
    assert bench.collector.counters["files_vanished"] == 1
    assert bench.used() == [80.0, 160.0]


def test_an_exposure_that_comes_during_the_merge_makes_a_revision(bench: Bench) -> None:
    bench.auto_merge = False
    bench.arrive(*whole()[:2])
    bench.wait(GRACE)
    bench.arrive(whole()[2])
    assert len(bench.merges) == 1
    bench.auto_merge = True
    bench.finish(bench.merges[0])
    assert [m.revision for m in bench.merges] == [1, 2]
    assert bench.used() == list(EXPOSURES)


def test_a_failed_merge_is_tried_again_and_then_parked(bench: Bench) -> None:
    bench.fail = Failed("retry", "the disk is full")
    bench.arrive(*whole())
    assert bench.rows[slot(0)].state == "failed"
    for _ in range(2 * MAX_ATTEMPTS):
        bench.wait(1000)
    assert len(bench.merges) == MAX_ATTEMPTS
    assert bench.collector.counters["parked"] == 1
    assert bench.rows[slot(0)].reason == "the disk is full"


def test_a_failed_merge_succeeds_later(bench: Bench) -> None:
    bench.fail = Failed("retry", "the disk is full")
    bench.arrive(*whole())
    bench.fail = None
    bench.wait(1000)
    assert bench.rows[slot(0)].state == "published"


def test_a_merge_that_can_never_succeed_is_parked_at_once(bench: Bench) -> None:
    bench.fail = Failed("permanent", "sizes differ")
    bench.arrive(*whole())
    bench.wait(1000)
    assert len(bench.merges) == 1
    assert bench.collector.counters["parked"] == 1


def test_a_failed_bracket_is_taken_up_after_a_restart(bench: Bench) -> None:
    bench.fail = Failed("retry", "the disk is full")
    bench.arrive(*whole())
    bench.restart()
    bench.fail = None
    bench.carry_out(bench.collector.resume(bench.rows[slot(0)], bench.now))
    assert bench.rows[slot(0)].state == "published"


def test_inputs_that_changed_before_the_merge_are_read_again(bench: Bench) -> None:
    bench.auto_merge = False
    bench.arrive(*whole())
    bench.write(whole()[1], stamp=2)
    bench.auto_merge = True
    stale = Failed("inputs", "has changed", files=(whole()[1],))
    bench.carry_out(bench.collector.merge_done(slot(0), stale, bench.now))
    assert bench.rows[slot(0)].state == "published"
    assert bench.rows[slot(0)].inputs[1].mtime_ns == 2


def test_a_file_rewritten_after_publication_counts_as_late(bench: Bench) -> None:
    bench.arrive(*whole())
    bench.write(whole()[0], stamp=8)
    bench.arrive(whole()[0])
    bench.wait(GRACE)
    row = bench.rows[slot(0)]
    assert row.revision == 2
    assert row.inputs[0].mtime_ns == 8


def test_unusable_late_files_are_noted_once(bench: Bench) -> None:
    bench.arrive(*whole())
    late = bench.write(name(0, 640, 9))
    bench.bad[late] = Unusable("not an image", False, None)
    bench.arrive(late)
    reads = len(bench.reads)
    bench.arrive(late, scan=True)
    assert len(bench.reads) == reads
    assert bench.rows[slot(0)].rejected[0].path == late


def test_what_the_place_of_the_products_is_at_fault_for_is_never_parked(bench: Bench) -> None:
    bench.fail = Failed("output", "the disk is full")
    bench.arrive(*whole())
    for number in range(2 * MAX_ATTEMPTS):
        # It waits in the ledger until the camera takes it up.
        row = bench.rows[slot(0)]
        assert (row.state, row.attempts, row.reason) == ("failed", 0, "waits: the disk is full")
        assert len(bench.merges) == number + 1
        bench.carry_out(bench.collector.resume(row, bench.now))
    assert bench.collector.counters["parked"] == 0
    bench.fail = None
    bench.carry_out(bench.collector.resume(row, bench.now))
    assert bench.rows[slot(0)].state == "published"


def test_a_parked_bracket_is_tried_again_when_asked(bench: Bench) -> None:
    bench.fail = Failed("permanent", "sizes differ")
    bench.arrive(*whole())
    bench.fail = None
    bench.carry_out(bench.collector.resume(replace(bench.rows[slot(0)], attempts=0), bench.now))
    assert bench.rows[slot(0)].state == "published"
    assert bench.rows[slot(0)].revision == 1


def test_a_bracket_that_waits_for_its_next_attempt_has_it_when_asked(bench: Bench) -> None:
    bench.fail = Failed("retry", "oh")
    bench.arrive(*whole())
    bench.fail = None
    bench.carry_out(bench.collector.resume(replace(bench.rows[slot(0)], attempts=0), bench.now))
    bench.wait(0)
    assert bench.rows[slot(0)].state == "published"


def test_a_skipped_bracket_asked_for_looks_at_its_unusable_files_again(bench: Bench) -> None:
    path = whole()[2]
    bench.rules = {"min_exposures": 3}
    bench.restart()
    bench.bad[path] = Unusable("not an image", False, None)
    bench.arrive(*whole())
    bench.wait(GRACE)
    assert bench.rows[slot(0)].state == "skipped"
    # The same file to the byte and the nanosecond; it was the reader that was at fault.
    del bench.bad[path]
    bench.restart()
    bench.carry_out(bench.collector.resume(bench.rows[slot(0)], bench.now))
    row = bench.rows[slot(0)]
    assert (row.state, row.rejected) == ("published", ())
    assert bench.used() == list(EXPOSURES)


def test_a_retried_bracket_whose_files_are_gone_is_skipped_with_its_reason(bench: Bench) -> None:
    bench.fail = Failed("permanent", "sizes differ")
    bench.arrive(*whole())
    bench.disk.clear()
    bench.carry_out(bench.collector.resume(bench.rows[slot(0)], bench.now))
    bench.wait(GRACE)
    assert bench.rows[slot(0)].state == "skipped"
    assert len(bench.collector._open) == 0


# -- time ---------------------------------------------------------------------------------------


def at(moment: datetime) -> list[str]:
    return [
        f"{moment + timedelta(seconds=i):%Y%m%d%H%M%S}_{int(e)}.jpg"
        for i, e in enumerate(EXPOSURES)
    ]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2000, 1, 1),  # the clock's battery is dead
        datetime(1970, 1, 1),
        datetime(2099, 12, 31, 23, 59, 30),  # set by a typing error
        datetime(2026, 12, 31, 23, 59, 30),
        datetime(2027, 1, 1),
        datetime(2024, 2, 29),
        datetime(2026, 3, 29, 2, 30),  # an hour that summer time left out
    ],
)
def test_whatever_the_camera_takes_for_now_a_bracket_is_merged(
    bench: Bench, moment: datetime
) -> None:
    bench.arrive(*whole(0))
    bench.arrive(*at(moment))
    bench.arrive(*whole(1))
    assert set(bench.rows) == {slot(0), moment, slot(1)}
    assert all(row.complete and row.revision == 1 for row in bench.rows.values())


def test_a_timestamp_from_the_future_does_not_hold_up_or_cut_short_the_present(
    bench: Bench,
) -> None:
    bench.arrive(at(datetime(2099, 1, 1))[0])
    bench.arrive(*whole(0)[:2])
    bench.wait(GRACE / 2)
    assert bench.merges == []
    bench.arrive(whole(0)[2])
    assert bench.rows[slot(0)].complete
    bench.wait(GRACE)
    assert bench.rows[datetime(2099, 1, 1)].state == "skipped"
    assert len(bench.collector._open) == 0


def test_a_complete_bracket_of_the_future_ends_what_is_open_without_loss(bench: Bench) -> None:
    bench.arrive(*whole(0)[:2])
    bench.wait(1)
    bench.arrive(*at(datetime(2099, 1, 1)))
    assert not bench.rows[slot(0)].complete
    bench.arrive(whole(0)[2])
    assert bench.rows[slot(0)].revision == 2
    assert bench.used() == list(EXPOSURES)


def test_a_clock_set_back_into_a_bracket_that_is_over_makes_a_revision(bench: Bench) -> None:
    bench.arrive(*whole(0))
    # An hour later the same names again: the newer files win, as on the disk itself.
    for path in whole(0):
        bench.write(path, stamp=99)
    bench.arrive(*whole(0))
    bench.wait(GRACE)
    row = bench.rows[slot(0)]
    assert row.revision == 2
    assert {e.mtime_ns for e in row.inputs} == {99}
    assert len(bench.collector._open) == 0


def test_waiting_is_not_measured_by_names(bench: Bench) -> None:
    # Names that run a hundred times too fast, and backwards.
    moments = [NOON + timedelta(minutes=50 * n) for n in range(5)][::-1]
    for moment in moments:
        bench.arrive(*at(moment)[:2])
        bench.wait(GRACE / 2)
    bench.wait(GRACE)
    assert [m.slot for m in bench.merges] == moments
    assert len(bench.collector._open) == 0


def test_midnight_belongs_to_the_new_day_and_the_bracket_before_it_to_the_old(bench: Bench) -> None:
    midnight = datetime(2026, 6, 22)
    bench.arrive(*at(midnight - timedelta(seconds=2)))
    assert bench.merges == []
    bench.wait(GRACE)
    assert set(bench.rows) == {midnight - timedelta(seconds=30), midnight}


def test_what_has_too_many_exposures_is_no_bracket() -> None:
    bench = Bench(rules={"exposures": "auto"})
    names = [f"{NOON:%Y%m%d%H%M%S}_{time}.jpg" for time in range(1, 121)]
    bench.arrive(*names)
    bench.wait(GRACE)
    assert bench.merges == []
    row = bench.rows[NOON]
    assert row.state == "skipped"
    assert "120 exposure times in one slot, at most 64 are merged" in (row.reason or "")
    assert bench.collector.expected.count() is None


def test_a_published_product_stands_though_junk_comes_late() -> None:
    bench = Bench()
    bench.arrive(*whole())
    published = bench.rows[slot(0)]
    bench.arrive(*(f"{slot(0):%Y%m%d%H%M%S}_{time}.jpg" for time in range(2001, 2101)))
    bench.wait(GRACE)
    row = bench.rows[slot(0)]
    assert (row.state, row.inputs, row.products) == (
        "published",
        published.inputs,
        published.products,
    )
    assert len(bench.collector._open) == 0


def test_with_an_offset_a_bracket_over_midnight_stays_whole() -> None:
    midnight = datetime(2026, 6, 22)
    bench = Bench({"offset": timedelta(seconds=-15)})
    bench.arrive(*at(midnight - timedelta(seconds=2)))
    assert bench.rows[midnight].complete


# -- what happens while a bracket is being merged ------------------------------------------------


def test_the_row_names_what_was_merged_though_a_file_vanished_meanwhile(bench: Bench) -> None:
    bench.auto_merge = False
    bench.arrive(*whole())
    del bench.disk[whole()[0]]
    bench.carry_out(bench.collector.found(whole()[0], None, True, bench.now))
    bench.finish(bench.merges[0])
    assert bench.rows[slot(0)].inputs == bench.merges[0].exposures
    assert len(bench.collector._open) == 0


def test_the_row_names_what_was_merged_though_a_file_was_damaged_meanwhile(bench: Bench) -> None:
    bench.auto_merge = False
    bench.arrive(*whole())
    bench.bad[whole()[0]] = Unusable("not an image", False, None)
    bench.write(whole()[0], stamp=5)
    bench.arrive(whole()[0])
    bench.finish(bench.merges[0])
    row = bench.rows[slot(0)]
    assert row.inputs == bench.merges[0].exposures
    assert row.knows(whole()[0], (10, 5))
    assert len(bench.collector._open) == 0


def test_what_vanished_during_a_merge_that_failed_is_not_asked_for_again(bench: Bench) -> None:
    bench.auto_merge = False
    bench.arrive(*whole())
    del bench.disk[whole()[0]]
    bench.carry_out(bench.collector.found(whole()[0], None, True, bench.now))
    bench.fail, bench.auto_merge = Failed("retry", "oh"), True
    bench.finish(bench.merges[0])
    bench.fail = None
    bench.wait(1000)
    assert bench.used() == [160.0, 320.0]


# -- overtaken ----------------------------------------------------------------------------------


def test_brackets_found_by_one_scan_do_not_overtake_one_another(bench: Bench) -> None:
    # The rest of the earlier bracket may be in the next portion of the same scan.
    bench.arrive(*whole(0)[:2], scan=True)
    bench.arrive(*whole(1), scan=True)
    assert [m.slot for m in bench.merges] == [slot(1)]
    bench.arrive(whole(0)[2], scan=True)
    assert bench.rows[slot(0)].revision == 1
    assert bench.used() == list(EXPOSURES)


def test_a_backlog_read_newest_first_is_not_overtaken_by_what_is_newer(bench: Bench) -> None:
    bench.arrive(*whole(9)[:2], scan=True)
    bench.wait(1)
    bench.arrive(*whole(5)[:2], scan=True)
    bench.wait(1)
    bench.arrive(whole(9)[2], scan=True)
    assert [m.slot for m in bench.merges] == [slot(9)]
    bench.arrive(whole(5)[2], scan=True)
    assert all(row.complete and row.revision == 1 for row in bench.rows.values())


def test_a_revision_overtakes_nothing(bench: Bench) -> None:
    bench.arrive(*whole(5)[:2])
    bench.wait(GRACE)
    bench.arrive(*whole(0)[:2])
    bench.wait(1)
    bench.arrive(whole(5)[2])
    assert slot(0) not in bench.rows


# -- late ---------------------------------------------------------------------------------------


def test_a_second_bracket_in_a_slot_that_is_whole_makes_one_revision(bench: Bench) -> None:
    bench.arrive(*whole(0))
    # The clock went back: three more exposures, seconds later by name, newer by file.
    for index, exposure in enumerate(EXPOSURES):
        bench.wait(1)
        bench.arrive(bench.write(name(0, int(exposure), 12 + index), stamp=50 + index))
    bench.wait(GRACE)
    row = bench.rows[slot(0)]
    assert row.revision == 2
    assert [e.mtime_ns for e in row.inputs] == [50, 51, 52]
    assert len(bench.merges) == 2


def test_where_late_ones_are_ignored_a_longer_bracket_is_learned_all_the_same() -> None:
    bench = Bench({"exposures": "auto", "late": "ignore"})
    longer = (*EXPOSURES, 640.0, 1280.0)
    for number in range(5):
        bench.arrive(*whole(number))
        bench.wait(GRACE)
    for number in range(5, 12):
        for index, exposure in enumerate(longer):
            bench.arrive(name(number, int(exposure), index))
            bench.wait(1)
        bench.wait(GRACE)
    assert bench.used(11) == list(longer)
    assert bench.rows[slot(11)].complete


# -- only created -------------------------------------------------------------------------------


def test_a_file_that_a_scan_finds_whole_is_used_at_once(bench: Bench) -> None:
    bench.arrive(*whole(), settled=False, scan=True)
    assert len(bench.merges) == 1
    assert bench.rows[slot(0)].complete


def test_a_file_that_a_scan_finds_growing_is_looked_at_again_when_it_lay_still(
    bench: Bench,
) -> None:
    path = whole()[2]
    bench.bad[path] = Unusable("ends too soon", True, None)
    bench.arrive(*whole(), settled=False, scan=True)
    assert bench.merges == []
    assert bench.collector.counters["files_unusable"] == 0
    del bench.bad[path]
    bench.wait(STABLE)
    assert bench.used() == list(EXPOSURES)
    assert bench.reads.count(path) == 2


def test_a_growing_file_is_not_judged_by_its_first_bytes(bench: Bench) -> None:
    path = whole()[2]
    bench.bad[path] = Unusable("not an image", False, None)
    bench.arrive(*whole(), settled=False, scan=True)
    del bench.bad[path]
    bench.arrive(path)
    assert bench.rows[slot(0)].rejected == ()
    assert bench.used() == list(EXPOSURES)


def test_an_empty_file_is_not_looked_at_before_it_lay_still(bench: Bench) -> None:
    bench.write(whole()[0], size=0)
    bench.arrive(whole()[0], settled=False, scan=True)
    assert bench.reads == []


def test_no_revision_is_made_when_an_earlier_input_goes_between_two_attempts(bench: Bench) -> None:
    bench.arrive(*whole()[:2])
    bench.wait(GRACE)
    bench.fail = Failed("retry", "oh")
    bench.arrive(whole()[2])
    assert bench.rows[slot(0)].state == "failed"
    bench.fail = Failed("inputs", "has changed", files=(whole()[0],))
    del bench.disk[whole()[0]]
    bench.wait(1000)
    row = bench.rows[slot(0)]
    assert (row.state, row.revision) == ("published", 1)
    assert "earlier input" in row.rejected[-1].reason
    assert len(bench.collector._open) == 0
