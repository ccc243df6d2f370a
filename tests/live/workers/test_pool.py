"""Workers whose jobs hang, as on a dead network share: the other cameras' work goes on."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from asi_watch.live.workers.pool import BACKLOG, LIVE, MERGE, READ, JobPool, Urgency
from asi_watch.live.workers.turns import Turns

NOW: Urgency = (LIVE, READ, 0.0)
LATER: Urgency = (BACKLOG, READ, 0.0)


class Share:
    """A folder whose server is away until the test ends: whoever asks waits."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self.asked = 0
        self.answered = 0
        self._lock = threading.Lock()

    def read(self) -> None:
        with self._lock:
            self.asked += 1
        self.back.wait(60)
        with self._lock:
            self.answered += 1


@pytest.fixture
def share() -> Iterator[Share]:
    share = Share()
    yield share
    share.back.set()


def no_crash(error: Exception) -> None:
    raise AssertionError(error)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_dead_share_takes_the_workers_from_nobody(share: Share, workers: int) -> None:
    pool = JobPool(workers)
    pool.start()
    for _ in range(50):
        pool.submit("dead", NOW, share.read, no_crash)
        pool.submit("dying", NOW, share.read, no_crash)
    done: list[int] = []
    for number in range(50):
        pool.submit("alive", LATER, lambda n=number: done.append(n), no_crash)  # type: ignore[misc]
    until(lambda: share.asked == workers)
    assert done == []
    # All the rest follows from time alone: each look finds what hangs by now.
    for _ in range(2 * pool.most_of_one):
        pool.look_after(time.monotonic() + 100)
        time.sleep(0.02)
    until(lambda: len(done) == 50)
    assert done == sorted(done)
    for camera in ("dead", "dying"):
        hanging = pool.hanging(camera, time.monotonic() + 100)
        assert hanging is not None
        assert hanging.jobs == pool.most_of_one
        assert hanging.seconds > 50
    assert pool.hanging("alive", time.monotonic()) is None
    assert share.asked == 2 * pool.most_of_one
    assert pool.busy() == (share.asked, 100 - share.asked)
    assert pool.busy()[0] <= pool.most_jobs(2)
    # The server comes back: nothing is lost, and there are as many threads as before.
    share.back.set()
    until(lambda: share.answered == 100)
    assert pool.hanging("dead", time.monotonic()) is None
    until(lambda: sum(t.is_alive() for t in pool._threads) == 2 * workers)
    pool.close(lambda urgency: True)
    assert pool.join(10)


def test_what_hangs_leaves_its_camera_the_other_workers(share: Share) -> None:
    pool = JobPool(3)
    pool.start()
    done: list[int] = []
    pool.submit("roof", NOW, share.read, no_crash)
    until(lambda: share.asked == 1)
    pool.look_after(time.monotonic() + 100)
    for number in range(20):
        pool.submit("roof", NOW, lambda n=number: done.append(n), no_crash)  # type: ignore[misc]
    until(lambda: len(done) == 20)
    share.back.set()
    pool.close(lambda urgency: True)
    assert pool.join(10)


def test_a_live_job_does_not_wait_for_a_backlog(share: Share) -> None:
    pool = JobPool(2)
    pool.start()
    for _ in range(6):
        pool.submit("roof", LATER, share.read, no_crash)
    until(lambda: share.asked == 2)
    done: list[int] = []
    pool.submit("roof", NOW, lambda: done.append(1), no_crash)
    until(lambda: done == [1])
    assert share.asked == 2
    share.back.set()
    pool.close(lambda urgency: True)
    assert pool.join(10)
    assert share.answered == 6


def test_a_backlog_begins_only_where_live_jobs_leave_a_worker(share: Share) -> None:
    pool = JobPool(2)
    pool.start()
    live = [Share(), Share()]
    for one in live:
        pool.submit("roof", NOW, one.read, no_crash)
        until(lambda one=one: one.asked == 1)  # type: ignore[misc]
    for _ in range(3):
        pool.submit("gate", LATER, share.read, no_crash)
    time.sleep(0.05)
    assert share.asked == 0
    live[0].back.set()
    until(lambda: share.asked == 1)
    time.sleep(0.05)
    assert share.asked == 1
    live[1].back.set()
    until(lambda: share.asked == 2)
    share.back.set()
    pool.close(lambda urgency: True)
    assert pool.join(10)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has its process's priority")
def test_a_backlog_leaves_the_cores_to_live_jobs() -> None:
    pool = JobPool(1)
    pool.start()
    seen: dict[str, int] = {}

    def look(kind: str) -> None:
        seen[kind] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    pool.submit("roof", NOW, lambda: look("live"), no_crash)
    pool.submit("roof", LATER, lambda: look("backlog"), no_crash)
    pool.close(lambda urgency: True)
    assert pool.join(10)
    assert seen["backlog"] == min(seen["live"] + 10, 19)


def test_the_most_urgent_job_goes_first_whosever_it_is(share: Share) -> None:
    pool = JobPool(1)
    pool.submit("gate", (LIVE, MERGE, -1.0), share.read, no_crash)
    done: list[tuple[str, Urgency]] = []
    jobs: list[tuple[str, Urgency]] = [
        ("roof", (BACKLOG, MERGE, 1.0)),
        ("lab", (LIVE, READ, 1.0)),
        ("roof", (LIVE, MERGE, 9.0)),
        ("lab", (LIVE, MERGE, 9.0)),
        ("roof", (LIVE, MERGE, 1.0)),
    ]
    for one in jobs:
        pool.submit(one[0], one[1], lambda one=one: done.append(one), no_crash)  # type: ignore[misc]
    pool.start()
    share.back.set()
    pool.close(lambda urgency: urgency[0] == LIVE)
    assert pool.join(10)
    assert done == [jobs[4], jobs[2], jobs[3], jobs[1]]


def test_a_crash_costs_one_job(caplog: pytest.LogCaptureFixture) -> None:
    pool = JobPool(1)
    told: list[Exception] = []
    done: list[int] = []
    pool.submit("roof", NOW, lambda: done.append(1 // 0), told.append)
    pool.submit("roof", NOW, lambda: done.append(1), told.append)
    pool.start()
    pool.close(lambda urgency: True)
    assert pool.join(10)
    assert (done, pool.crashes) == ([1], 1)
    assert isinstance(told[0], ZeroDivisionError)


def test_nobody_waits_for_whoever_has_been_at_it_for_too_long() -> None:
    turns = Turns(patience=0.3)
    with turns.beside_others():
        time.sleep(0.35)
        began = time.monotonic()
        with turns.alone():
            time.sleep(0.35)
            for _ in range(20):
                with turns.beside_others():
                    pass
    # Not 0.3 s for each of them.
    assert time.monotonic() - began < 3
