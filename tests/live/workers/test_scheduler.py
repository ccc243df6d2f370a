"""What of one camera is read next: live brackets at once, a backlog in order and in parts."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_watch.brackets import slot_of
from asi_watch.config.model import CameraConfig
from asi_watch.live.messages import Found, FoundFile
from asi_watch.live.workers import scheduler
from asi_watch.live.workers.scheduler import Scheduler, WaitingFile, _Backlog, _LiveEdge
from asi_watch.naming import NamePattern

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
PATTERN = NamePattern("{timestamp:%Y%m%d%H%M%S}_{exposure}", "us", {}, "UTC")


def slot(number: int) -> datetime:
    return NOON + number * STEP


def file(number: int, frame: int = 0) -> WaitingFile:
    return WaitingFile(f"day/{number}-{frame}.jpg", (1, 1), True, 0.0)


@given(st.lists(st.integers(0, 50)), st.sampled_from(["newest", "oldest"]))
def test_every_file_comes_out_once_and_in_order(numbers: list[int], order: Any) -> None:
    backlog = _Backlog(order)
    for frame, number in enumerate(numbers):
        backlog.add(slot(number), file(number, frame))
    assert len(backlog) == len(numbers)
    assert backlog.folders == ({"day"} if numbers else set())
    out = [
        [int(PurePosixPath(f.path).name.split("-")[0]) for f in files]
        for files in backlog.next_brackets()
    ]
    assert [set(group) for group in out] == [
        {n} for n in sorted(set(numbers), reverse=order == "newest")
    ]
    assert sorted(n for group in out for n in group) == sorted(numbers)
    assert len(backlog) == 0
    assert backlog.folders == set()


def test_a_bracket_taken_out_by_other_ways_comes_no_more() -> None:
    backlog = _Backlog("oldest")
    for number in (1, 2):
        backlog.add(slot(number), file(number))
    assert backlog.take(slot(1)) == [file(1)]
    assert backlog.take(slot(1)) == []
    backlog.add(slot(1), file(1, 7))
    assert list(backlog.next_brackets()) == [[file(1, 7)], [file(2)]]


def test_the_newest_slots_are_live() -> None:
    edge = _LiveEdge(STEP)
    assert edge.seen(slot(10), 0.0)
    assert edge.seen(slot(8), 1.0)
    assert not edge.seen(slot(7), 2.0)
    assert edge.seen(slot(11), 3.0)


def test_an_edge_in_the_future_gives_way_to_what_does_arrive() -> None:
    edge = _LiveEdge(STEP)
    edge.seen(slot(0), 0.0)
    edge.seen(datetime(2099, 1, 1), 1.0)
    assert not edge.seen(slot(1), 30.0)
    assert not edge.seen(slot(3), 100.0)
    assert edge.seen(slot(5), 130.0)
    assert edge.seen(slot(6), 160.0)


def test_a_backlog_beside_live_brackets_does_not_move_the_edge() -> None:
    edge = _LiveEdge(STEP)
    for second in range(0, 600, 30):
        assert edge.seen(slot(1000 + second // 30), float(second))
        assert not edge.seen(slot(second), float(second))


class Brackets:
    """A collector with an offset that never finishes what it is given."""

    def slot_of_name(self, path: str) -> datetime | None:
        parsed = PATTERN.parse(PurePosixPath(path).name)
        return None if parsed is None else slot_of(parsed.timestamp, STEP, timedelta(seconds=-14))

    def is_open(self, slot: datetime) -> bool:
        return False


def test_an_archive_that_is_copied_in_waits_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MOST_READS", 20)
    config = CameraConfig(watch=tmp_path / "in", output=tmp_path / "out")
    none, brackets = cast(Any, None), cast(Any, Brackets())
    one = Scheduler(config, "oldest", none, none, none, none)
    admitted: list[str] = []

    def admit(files: Any) -> None:
        for waiting in files:
            admitted.append(waiting.path)
            one._reading += 1

    # In the order of time, so that each is the newest there is.
    for number in range(100):
        for index in range(4):
            taken = slot(number) + timedelta(seconds=28 + 2 * index)
            found = FoundFile(f"{taken:%Y%m%d%H%M%S}_80.jpg", None, True)
            admit(one.arrived(Found("roof", (found,), 0.1 * number), brackets))
    assert len(admitted) <= 2 * 20
    assert one.backlog == 400 - len(admitted)
    # What is being taken now goes before the rest.
    one._reading = 39
    before = len(admitted)
    admit(one.next_files())
    newest = {brackets.slot_of_name(path) for path in admitted[before:]}
    assert newest
    assert min(at for at in newest if at is not None) >= slot(97)
    while one.backlog:
        one._reading = 0
        admit(one.next_files())
    assert len(admitted) == len(set(admitted)) == 400
