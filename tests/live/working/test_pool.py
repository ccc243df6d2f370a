"""Workers whose jobs hang, as on a dead network share: the other cameras' work goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from asi_watch.live.working.pool import JobPool, Urgency
from asi_watch.live.working.turns import Turns

NOW: Urgency = (0, 0.0, 0)
LATER: Urgency = (1, 0.0, 0)


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
    until(lambda: sum(t.is_alive() for t in pool._threads) == workers)
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


def test_the_most_urgent_job_goes_first_whosever_it_is(share: Share) -> None:
    pool = JobPool(1)
    pool.submit("gate", (-1, 0.0, 0), share.read, no_crash)
    done: list[tuple[str, Urgency]] = []
    jobs: list[tuple[str, Urgency]] = [
        ("roof", (1, 5.0, 0)),
        ("lab", (0, 9.0, 1)),
        ("roof", (0, 9.0, 0)),
        ("lab", (0, 9.0, 0)),
        ("roof", (0, 1.0, 0)),
    ]
    for one in jobs:
        pool.submit(one[0], one[1], lambda one=one: done.append(one), no_crash)  # type: ignore[misc]
    pool.start()
    share.back.set()
    pool.close(lambda urgency: urgency[0] == 0)
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
