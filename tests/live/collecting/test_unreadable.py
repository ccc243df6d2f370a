"""Files that cannot be read at all, so that nothing tells whether they have changed."""

from __future__ import annotations

import pytest

from asi_watch.live.messages import ReadFile, Unusable
from tests.live.collecting.test_collector import GRACE, Bench, name, slot, whole


class Forbidding(Bench):
    """A bench with files that it may not open."""

    forbidden: frozenset[str] = frozenset()

    def read(self, command: ReadFile) -> None:
        if command.path not in self.forbidden:
            super().read(command)
            return
        self.reads.append(command.path)
        # An endless round would not end the test.
        assert self.reads.count(command.path) < 10
        outcome = Unusable("cannot be read (Permission denied)", True, None)
        self.carry_out(self.collector.read_done(command.slot, command.path, outcome, self.now))


@pytest.fixture
def bench() -> Forbidding:
    return Forbidding()


def test_a_file_that_nobody_may_read_costs_the_bracket_nothing_but_this_file(
    bench: Forbidding,
) -> None:
    bench.forbidden = frozenset(whole()[2:])
    bench.arrive(*whole())
    for _ in range(5):
        bench.wait(GRACE)
    assert bench.used() == [80.0, 160.0]
    assert [r.path for r in bench.rows[slot(0)].rejected] == whole()[2:]
    # When it came, and once more at the end.
    assert bench.reads.count(whole()[2]) == 2


def test_it_is_looked_at_once_more_when_the_bracket_is_overtaken(bench: Forbidding) -> None:
    bench.forbidden = frozenset(whole()[2:])
    bench.arrive(*whole())
    bench.now += 1
    bench.arrive(*whole(1))
    assert bench.used() == [80.0, 160.0]
    assert bench.reads.count(whole()[2]) == 2


def test_it_is_taken_when_it_may_be_read_at_last(bench: Forbidding) -> None:
    bench.forbidden = frozenset([name(0, 320, 2)])
    bench.arrive(*whole())
    bench.forbidden = frozenset()
    bench.wait(GRACE)
    assert bench.used() == [80.0, 160.0, 320.0]
