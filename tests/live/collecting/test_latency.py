"""From when a latency counts, and whose: that of the first publication of a bracket."""

from __future__ import annotations

from dataclasses import replace

from asi_watch.live.messages import ProductKept
from asi_watch.merge_bracket import Published
from tests.live.collecting.test_collector import NOON, Bench, name, whole


def test_an_event_tells_when_an_exposure_came_a_scan_does_not() -> None:
    bench = Bench()
    bench.arrive(*whole(0)[:-1], scan=True)
    bench.now += 1.0
    bench.arrive(whole(0)[-1])
    bench.arrive(*whole(1)[:-1])
    bench.now += 1.0
    bench.arrive(whole(1)[-1], scan=True)
    assert [merge.seen_by_event for merge in bench.merges] == [True, False]


def test_what_is_taken_up_again_was_there_long_before() -> None:
    bench = Bench()
    bench.arrive(*whole()[:2])
    bench.wait(100.0)
    bench.carry_out(bench.collector.resume(bench.rows[NOON], bench.now))
    bench.wait(100.0)
    assert [merge.seen_by_event for merge in bench.merges] == [True, False]


def test_a_revision_keeps_the_latency_of_the_first_publication() -> None:
    bench = Bench(auto_merge=False)
    bench.arrive(*whole()[:2])
    bench.wait(100.0)
    bench.carry_out(
        bench.collector.merge_done(
            NOON, Published(("a",), "x", "c", timings={"latency": 2.5}), bench.now
        )
    )
    assert bench.rows[NOON].latency == 2.5
    bench.arrive(whole()[2])
    bench.wait(100.0)
    later = Published(("a",), "x", "c", timings={"latency": 0.25})
    bench.carry_out(bench.collector.merge_done(NOON, later, bench.now))
    assert (bench.rows[NOON].revision, bench.rows[NOON].latency) == (2, 2.5)
    bench.arrive(name(0, 80, 3))
    bench.wait(100.0)
    known = replace(bench.rows[NOON], latency=None)
    bench.carry_out(bench.collector.merge_done(NOON, ProductKept(known), bench.now))
    assert bench.rows[NOON].latency == 2.5
