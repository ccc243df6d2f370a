"""Whatever happens in whatever order: the ledger ends where a run over the folder would."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asi_watch.merge_bracket import Failed
from tests.faults.collector_world import EXPOSURES, World, inputs_of, number_of, path_of
from tests.faults.tally import MODEL, Tally

# Three slots in a row, one of a camera whose battery is dead, one of a typing error.
YEAR_2000, YEAR_2099 = number_of(datetime(2000, 1, 1)), number_of(datetime(2099, 1, 1))
SLOTS = (0, 0, 0, 1, 1, 1, 2, 2, 2, YEAR_2000, YEAR_2099)
COPIES = range(3)
OFFSETS = [timedelta(seconds=s) for s in (-14, -5, 0, 5, 15)]
# Fewer than the collector's attempts in all: nothing is parked.
MAX_FAILURES = 5
FULL = Failed("output", "the disk is full")
CRASHED = Failed("retry", "merging crashed")
HOPELESS = Failed("permanent", "sizes differ")
LONG_WALKS = 5_000

paths = st.builds(
    path_of, st.sampled_from(SLOTS), st.sampled_from(EXPOSURES), st.sampled_from(COPIES)
)
mtimes = st.integers(1, 6)


class Arrivals(RuleBasedStateMachine):
    """Files arrive, whole or not, are rewritten or vanish, while the process lives and dies."""

    late = "remerge"
    may_vanish = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(late=self.late)
        self.failures = 0
        self.vanished: set[str] = set()

    @initialize(
        exposures=st.sampled_from([EXPOSURES, 3, "auto"]),
        min_exposures=st.integers(1, 3),
        offset=st.sampled_from(OFFSETS),
    )
    def begin(self, exposures: Any, min_exposures: int, offset: timedelta) -> None:
        self.world = World(
            exposures=exposures, min_exposures=min_exposures, offset=offset, late=self.late
        )

    # -- the camera -------------------------------------------------------------------------

    @rule(path=paths, kind=st.sampled_from(["whole", "whole", "half", "bad"]), mtime=mtimes)
    def write_unseen(self, path: str, kind: str, mtime: int) -> None:
        self.world.write(path, kind, mtime)

    @rule(
        path=paths,
        kind=st.sampled_from(["whole", "whole", "half"]),
        mtime=mtimes,
        settled=st.booleans(),
    )
    def write(self, path: str, kind: str, mtime: int, settled: bool) -> None:
        self.world.write(path, kind, mtime)
        self.world.events.append((path, settled))

    @rule(slot=st.sampled_from(SLOTS), mtime=mtimes)
    def write_bracket(self, slot: int, mtime: int) -> None:
        for exposure in EXPOSURES:
            self.write(path_of(slot, exposure, 0), "whole", mtime, True)

    @precondition(lambda self: self.may_vanish and self.world.disk)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.world.disk)))
        self.world.vanish(path)
        self.vanished.add(path)

    # -- what the daemon sees ---------------------------------------------------------------

    @precondition(lambda self: self.world.disk)
    @rule(data=st.data(), settled=st.booleans())
    def event_of_nothing_new(self, data: st.DataObject, settled: bool) -> None:
        self.world.event(data.draw(st.sampled_from(sorted(self.world.disk))), settled)

    @precondition(lambda self: self.world.events)
    @rule(data=st.data(), lost=st.sampled_from([False, False, False, True]))
    def event(self, data: st.DataObject, lost: bool) -> None:
        path, settled = self._one(data, self.world.events)
        if not lost:
            self.world.event(path, settled)

    @rule(settled=st.booleans())
    def scan(self, settled: bool) -> None:
        self.world.scan(settled)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 10.0, 20.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule()
    def ask_again(self) -> None:
        for slot, row in sorted(self.world.rows.items()):
            if row.state != "published":
                self.world.ask_again(slot)

    # -- the workers ------------------------------------------------------------------------

    @precondition(lambda self: self.world.reads)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.world.work_read(data.draw(st.integers(0, len(self.world.reads) - 1)))

    @precondition(lambda self: self.world.answers)
    @rule(data=st.data())
    def hear_read(self, data: st.DataObject) -> None:
        self.world.hear_read(data.draw(st.integers(0, len(self.world.answers) - 1)))

    @rule()
    def read_all(self) -> None:
        while self.world.reads:
            self.world.work_read(0)
        while self.world.answers:
            self.world.hear_read(0)

    @rule(seconds=st.sampled_from([0.0, 20.0]))
    def work_off(self, seconds: float) -> None:
        self.world.work_off()
        self.world.advance(seconds)
        self.world.work_off()

    @precondition(lambda self: self.world.merges)
    @rule(data=st.data(), failure=st.sampled_from([None, None, FULL, CRASHED, HOPELESS]))
    def merge(self, data: st.DataObject, failure: Failed | None) -> None:
        index = data.draw(st.integers(0, len(self.world.merges) - 1))
        self.world.work_merge(index, self.may_fail(failure))

    def may_fail(self, failure: Failed | None) -> Failed | None:
        """A full disk may be full for ever so long; other failures are counted."""
        if failure is CRASHED or failure is HOPELESS:
            self.failures += 1
            return failure if self.failures <= MAX_FAILURES else None
        return failure

    @precondition(lambda self: self.world.results)
    @rule(data=st.data())
    def hear_merge(self, data: st.DataObject) -> None:
        self.world.hear_merge(data.draw(st.integers(0, len(self.world.results) - 1)))

    @staticmethod
    def _one(data: st.DataObject, of: list[Any]) -> Any:
        return of.pop(data.draw(st.integers(0, len(of) - 1)))

    # -- what must hold ---------------------------------------------------------------------

    @invariant()
    def nothing_is_merged_twice(self) -> None:
        for slot, made in self.world.made.items():
            for earlier, later in pairwise(made):
                assert earlier != later, f"{slot} merged twice from the same files"

    @invariant()
    def folders_are_done_when_their_files_have_rows(self) -> None:
        assert self.world.done_without_row() == []

    @invariant()
    def time_is_enough(self) -> None:
        """What is due now is done at once: the owner never spins."""
        due = self.world.next_due()
        if due is not None and due <= self.world.now:
            self.world.advance(0.0)
            self.world.advance(0.0)
            due = self.world.next_due()
            assert due is None or due > self.world.now

    def teardown(self) -> None:
        world = self.world
        # An interrupted rewrite ends some day; what never was an image may stay half for ever.
        for path, content in sorted(world.disk.items()):
            if content.kind != "whole" and path in world.once_whole:
                world.write(path, "whole", content.signature[1])
        world.finish()
        # What was parked is tried again by the operator, some day.
        for slot in [s for s, row in sorted(world.rows.items()) if row.state == "failed"]:
            world.ask_again(slot)
        world.finish()
        self.check_the_end()
        before = dict(world.rows)
        made = {slot: len(m) for slot, m in world.made.items()}
        world.restart()
        world.finish()
        assert {s: len(m) for s, m in world.made.items()} == made, "merged again after a restart"
        assert {s: (r.state, inputs_of(r)) for s, r in world.rows.items()} == {
            s: (r.state, inputs_of(r)) for s, r in before.items()
        }

    def check_the_end(self) -> None:
        world = self.world
        for slot in sorted({world.slot_of(path) for path in world.disk}):
            files, row, batch = world.files_of(slot), world.rows.get(slot), world.batch(slot)
            assert row is not None, f"no row for {sorted(files)}"
            self.check_row(slot, row, files, batch)
            for path, content in files.items():
                assert row.knows(path, content.signature), f"{path} is not in its row: {row}"
        for slot, row in world.rows.items():
            if row.state == "published":
                self.check_product(slot, row)
            for path in (*(e.path for e in row.inputs), *(r.path for r in row.rejected)):
                assert world.slot_of(path) == slot, f"{path} has another slot than when it came"

    def check_product(self, slot: datetime, row: Any) -> None:
        assert self.world.products[slot] == (row.revision, inputs_of(row))

    def check_row(self, slot: datetime, row: Any, files: Any, batch: Any) -> None:
        enough = len(batch) >= self.world.rules.min_exposures
        assert row.state == ("published" if enough else "skipped"), row
        assert inputs_of(row) == batch


class WithLosses(Arrivals):
    """Files may vanish as well: then the product made while they were there stands."""

    may_vanish = True

    def check_product(self, slot: datetime, row: Any) -> None:
        revision, _ = self.world.products[slot]
        # Dead between product and row, and then an input went: the daemon asks the product, which
        # this world does not.
        asked = revision > row.revision and any(
            self.world.slot_of(p) == slot for p in self.vanished
        )
        if not asked:
            super().check_product(slot, row)

    def check_row(self, slot: datetime, row: Any, files: Any, batch: Any) -> None:
        if not any(self.world.slot_of(path) == slot for path in self.vanished):
            super().check_row(slot, row, files, batch)
        elif len(batch) >= self.world.rules.min_exposures:
            assert row.state == "published", row


class LateIgnored(Arrivals):
    """With `late: ignore` the first product stands, and every later file is in its row."""

    late = "ignore"

    def check_row(self, slot: datetime, row: Any, files: Any, batch: Any) -> None:
        if len(batch) >= self.world.rules.min_exposures:
            assert row.state == "published", row
        assert row.revision <= 1


MACHINES = [Arrivals, WithLosses, LateIgnored]
_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@pytest.mark.parametrize("machine", MACHINES)
def test_any_order_ends_as_a_run_over_the_folder(machine: type[Arrivals]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(max_examples=25, stateful_step_count=40, suppress_health_check=_QUIET),
    )


@pytest.mark.soak
@pytest.mark.parametrize("machine", MACHINES)
def test_any_order_for_long(machine: type[Arrivals]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(max_examples=1000, stateful_step_count=60, suppress_health_check=_QUIET),
    )


# -- the same by dice: quick enough for long walks ---------------------------------------------


def walk(machine: type[Arrivals], seed: int, steps: int) -> Arrivals:
    """Take `steps` random steps and check the end; the seed alone decides."""
    dice = random.Random(seed)
    walker = machine()
    walker.begin(dice.choice([EXPOSURES, 3, "auto"]), dice.randint(1, 3), dice.choice(OFFSETS))
    for _ in range(steps):
        _step(walker, dice)
        walker.nothing_is_merged_twice()
        walker.folders_are_done_when_their_files_have_rows()
        walker.time_is_enough()
    walker.teardown()
    return walker


def _step(walker: Arrivals, dice: random.Random) -> None:
    world = walker.world
    path = path_of(dice.choice(SLOTS), dice.choice(EXPOSURES), dice.choice(COPIES))
    match dice.choice(_STEPS):
        case "write":
            walker.write_unseen(
                path, dice.choice(["whole", "whole", "half", "bad"]), dice.randint(1, 6)
            )
            if dice.random() < 0.7:
                world.event(path, dice.random() < 0.7)
        case "bracket":
            walker.write_bracket(dice.choice(SLOTS), dice.randint(1, 6))
        case "event of nothing new" if world.disk:
            world.event(dice.choice(sorted(world.disk)), dice.random() < 0.5)
        case "work off":
            walker.work_off(dice.choice([0.0, 20.0]))
        case "ask again" if dice.random() < 0.5:
            walker.ask_again()
        case "event" if world.events:
            world.event(*world.events.pop(dice.randrange(len(world.events))))
        case "scan":
            world.scan(dice.random() < 0.5)
        case "time":
            world.advance(dice.choice([0.0, 0.5, 1.0, 4.0, 10.0, 20.0, 400.0]))
        case "read" if world.reads:
            world.work_read(dice.randrange(len(world.reads)))
        case "hear read" if world.answers:
            world.hear_read(dice.randrange(len(world.answers)))
        case "merge" if world.merges:
            failure = walker.may_fail(dice.choice([None, None, None, FULL, CRASHED, HOPELESS]))
            world.work_merge(dice.randrange(len(world.merges)), failure)
        case "hear merge" if world.results:
            world.hear_merge(dice.randrange(len(world.results)))
        case "restart" if dice.random() < 0.2:
            world.restart()
        case "vanish" if walker.may_vanish and world.disk:
            gone = dice.choice(sorted(world.disk))
            world.vanish(gone)
            walker.vanished.add(gone)


_STEPS = (
    *("write", "event", "scan", "time", "read", "hear read", "merge", "hear merge") * 2,
    *("bracket", "work off") * 2,
    *("event of nothing new", "ask again", "restart", "vanish"),
)


@pytest.mark.parametrize("machine", MACHINES)
def test_random_walks_end_as_a_run_over_the_folder(machine: type[Arrivals]) -> None:
    for seed in range(120):
        walk(machine, seed, 60)


@pytest.mark.soak
def test_long_random_walks(tally: Tally) -> None:
    merges = 0
    for machine in MACHINES:
        for seed in range(LONG_WALKS):
            walker = walk(machine, seed, 120)
            merges += sum(map(bool, chain(*walker.world.made.values())))
    tally.add(MODEL, histories=LONG_WALKS * len(MACHINES), merges=merges, differences=0)
