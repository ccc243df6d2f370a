from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from asi_watch.live.workers.backlog import Backlog, LiveEdge, WaitingFile, urgency_key

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)


def slot(number: int) -> datetime:
    return NOON + number * STEP


def file(number: int, frame: int = 0) -> WaitingFile:
    return WaitingFile(f"{number}-{frame}.jpg", (1, 1), True, 0.0)


@given(st.lists(st.integers(0, 50)), st.sampled_from(["newest", "oldest"]))
def test_every_file_comes_out_once_and_in_order(numbers: list[int], order: str) -> None:
    backlog = Backlog("newest" if order == "newest" else "oldest")
    for frame, number in enumerate(numbers):
        backlog.add(slot(number), file(number, frame))
    assert len(backlog) == len(numbers)
    out = [[int(f.path.split("-")[0]) for f in files] for files in backlog.next_brackets()]
    assert [set(group) for group in out] == [
        {n} for n in sorted(set(numbers), reverse=order == "newest")
    ]
    assert sorted(n for group in out for n in group) == sorted(numbers)
    assert len(backlog) == 0


def test_a_bracket_taken_out_by_other_ways_comes_no_more() -> None:
    backlog = Backlog("oldest")
    for number in (1, 2):
        backlog.add(slot(number), file(number))
    assert backlog.take(slot(1)) == [file(1)]
    assert backlog.take(slot(1)) == []
    backlog.add(slot(1), file(1, 7))
    assert list(backlog.next_brackets()) == [[file(1, 7)], [file(2)]]


def test_the_newest_slots_are_live() -> None:
    edge = LiveEdge(STEP)
    assert edge.seen(slot(10), 0.0)
    assert edge.seen(slot(8), 1.0)
    assert not edge.seen(slot(7), 2.0)
    assert edge.seen(slot(11), 3.0)


def test_an_edge_in_the_future_gives_way_to_what_does_arrive() -> None:
    edge = LiveEdge(STEP)
    edge.seen(slot(0), 0.0)
    edge.seen(datetime(2099, 1, 1), 1.0)
    assert not edge.seen(slot(1), 30.0)
    assert not edge.seen(slot(3), 100.0)
    assert edge.seen(slot(5), 130.0)
    assert edge.seen(slot(6), 160.0)


def test_a_backlog_beside_live_brackets_does_not_move_the_edge() -> None:
    edge = LiveEdge(STEP)
    for second in range(0, 600, 30):
        assert edge.seen(slot(1000 + second // 30), float(second))
        assert not edge.seen(slot(second), float(second))


def test_live_comes_before_backlog_and_backlog_in_order() -> None:
    assert urgency_key(slot(1), "oldest") < urgency_key(slot(2), "oldest")
    assert urgency_key(slot(2), "newest") < urgency_key(slot(1), "newest")
