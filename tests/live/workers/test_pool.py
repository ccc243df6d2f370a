"""Workers whose jobs hang, as on a dead network share: the other cameras' work goes on."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from asi_watch.live.workers import pool as pool_module
from asi_watch.live.workers.pool import BACKLOG, LIVE, MERGE, READ, JobPool, Urgency

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


@dataclass
class Task:
    """A job of the tests."""

    camera: str
    urgency: Urgency
    do: Callable[[], object]
    error: Exception | None = None

    def run(self) -> None:
        self.do()

    def crashed(self, error: Exception) -> None:
        self.error = error


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
        pool.submit(Task("dead", NOW, share.read))
        pool.submit(Task("dying", NOW, share.read))
    done: list[int] = []
    for number in range(50):
        pool.submit(Task("alive", LATER, lambda n=number: done.append(n)))  # type: ignore[misc]
    until(lambda: share.asked == workers)
    assert done == []
    # All the rest follows from time alone: each look finds what hangs by now.
    for _ in range(2 * pool.most_of_one):
        pool.replace_hanging(time.monotonic() + 100)
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
    assert pool.busy()[0] <= pool.most_running
    # The server comes back: nothing is lost, and there are as many threads as before.
    share.back.set()
    until(lambda: share.answered == 100)
    assert pool.hanging("dead", time.monotonic()) is None
    until(lambda: sum(t.is_alive() for t in pool._threads) == 2 * workers)
    pool.close()
    assert pool.join(10)


def test_what_hangs_leaves_its_camera_the_other_workers(share: Share) -> None:
    pool = JobPool(3)
    pool.start()
    done: list[int] = []
    pool.submit(Task("roof", NOW, share.read))
    until(lambda: share.asked == 1)
    pool.replace_hanging(time.monotonic() + 100)
    for number in range(20):
        pool.submit(Task("roof", NOW, lambda n=number: done.append(n)))  # type: ignore[misc]
    until(lambda: len(done) == 20)
    share.back.set()
    pool.close()
    assert pool.join(10)


def test_a_live_job_does_not_wait_for_a_backlog(share: Share) -> None:
    pool = JobPool(2)
    pool.start()
    for _ in range(6):
        pool.submit(Task("roof", LATER, share.read))
    until(lambda: share.asked == 2)
    done: list[int] = []
    pool.submit(Task("roof", NOW, lambda: done.append(1)))
    until(lambda: done == [1])
    assert share.asked == 2
    share.back.set()
    until(lambda: share.answered == 6)
    pool.close()
    assert pool.join(10)


def test_a_backlog_begins_only_where_live_jobs_leave_a_worker(share: Share) -> None:
    pool = JobPool(2)
    pool.start()
    live = [Share(), Share()]
    for one in live:
        pool.submit(Task("roof", NOW, one.read))
        until(lambda one=one: one.asked == 1)  # type: ignore[misc]
    for _ in range(3):
        pool.submit(Task("gate", LATER, share.read))
    time.sleep(0.05)
    assert share.asked == 0
    live[0].back.set()
    until(lambda: share.asked == 1)
    time.sleep(0.05)
    assert share.asked == 1
    live[1].back.set()
    until(lambda: share.asked == 2)
    share.back.set()
    pool.close()
    assert pool.join(10)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has its process's priority")
def test_a_backlog_leaves_the_cores_to_live_jobs() -> None:
    pool = JobPool(1)
    pool.start()
    seen: dict[str, int] = {}

    def look(kind: str) -> None:
        seen[kind] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    pool.submit(Task("roof", NOW, lambda: look("live")))
    pool.submit(Task("roof", LATER, lambda: look("backlog")))
    until(lambda: len(seen) == 2)
    pool.close()
    assert pool.join(10)
    assert seen["backlog"] == min(seen["live"] + 10, 19)


def test_merges_go_first_and_cameras_take_turns(share: Share) -> None:
    pool = JobPool(1)
    pool.submit(Task("gate", (LIVE, MERGE, -1.0), share.read))
    done: list[tuple[str, Urgency]] = []
    flood: list[tuple[str, Urgency]] = [("roof", (LIVE, READ, float(n))) for n in range(50)]
    others: list[tuple[str, Urgency]] = [
        ("lab", (LIVE, READ, 99.0)),
        ("roof", (LIVE, MERGE, 9.0)),
        ("lab", (LIVE, MERGE, 8.0)),
        ("roof", (LIVE, MERGE, 1.0)),
    ]
    for one in (*flood, *others):
        pool.submit(Task(*one, lambda one=one: done.append(one)))  # type: ignore[misc]
    pool.start()
    share.back.set()
    until(lambda: len(done) == 54)
    assert done[:3] == [others[3], others[2], others[1]]
    # A flood of one camera's files does not hold up another's.
    assert others[0] in done[3:5]
    pool.close()
    assert pool.join(10)


def test_a_closed_pool_finishes_merges_alone(share: Share) -> None:
    pool = JobPool(1)
    done: list[str] = []
    pool.submit(Task("gate", (LIVE, MERGE, -1.0), share.read))
    pool.submit(Task("gate", NOW, lambda: done.append("read")))
    pool.submit(Task("gate", (BACKLOG, MERGE, 1.0), lambda: done.append("merge")))
    pool.start()
    until(lambda: share.asked == 1)
    pool.close()
    share.back.set()
    assert pool.join(10)
    assert done == ["merge"]


def test_what_hangs_is_replaced_within_a_bound(
    share: Share, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_module, "MOST_REPLACED", 3)
    pool = JobPool(1)
    pool.start()
    for number in range(20):
        pool.submit(Task(f"dead {number}", NOW, share.read))
    for looks in range(10):
        until(lambda looks=looks: share.asked == min(1 + looks, 4))  # type: ignore[misc]
        pool.replace_hanging(time.monotonic() + 100)
    assert len(pool._threads) == pool.most_running == 5
    assert caplog.text.count("hanging workers are not replaced") == 1
    share.back.set()
    pool.close()
    assert pool.join(10)


def test_a_crash_costs_one_job(caplog: pytest.LogCaptureFixture) -> None:
    pool = JobPool(1)
    done: list[int] = []
    failing = Task("roof", NOW, lambda: done.append(1 // 0))
    pool.submit(failing)
    pool.submit(Task("roof", NOW, lambda: done.append(1)))
    pool.start()
    until(lambda: done == [1])
    pool.close()
    assert pool.join(10)
    assert pool.crashes == 1
    assert isinstance(failing.error, ZeroDivisionError)
