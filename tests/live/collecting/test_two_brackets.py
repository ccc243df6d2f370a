"""A slot that holds two brackets says so in its row, whatever was merged."""

from __future__ import annotations

from dataclasses import replace

from asi_watch.live.ledger.records import WITHOUT_CURVE
from asi_watch.merge_bracket import Published
from tests.live.collecting.test_collector import NOON, Bench, name, whole

SECOND = [name(0, int(exposure), 15 + index) for index, exposure in enumerate((80, 160, 320))]


def test_the_row_says_that_another_bracket_was_left_out() -> None:
    bench = Bench(auto_merge=False)
    bench.arrive(*whole())
    bench.arrive(*SECOND)
    for merge in list(bench.merges):
        bench.finish(merge)
    bench.wait(1000.0)
    bench.finish(bench.merges[-1])
    row = bench.rows[NOON]
    assert row.state == "published"
    assert row.complete
    assert row.reason is not None
    assert row.reason.startswith("the slot holds 2 brackets, 15 s apart")
    assert len(row.rejected) == 3


def test_a_bracket_that_has_the_slot_to_itself_says_nothing() -> None:
    bench = Bench()
    bench.arrive(*whole()[:2])
    bench.arrive(name(0, 80, 9), whole()[2])
    assert bench.rows[NOON].reason is None
    assert bench.rows[NOON].rejected


def test_a_fallback_product_stays_known_as_one() -> None:
    bench = Bench(auto_merge=False)
    bench.arrive(*whole(), *SECOND)
    (merge,) = bench.merges
    made = Published(("a",), "mertens", None, fallback=True)
    bench.carry_out(bench.collector.merge_done(merge.slot, made, bench.now))
    assert replace(bench.rows[NOON], rejected=()).reason == WITHOUT_CURVE
