"""A bounded pool of worker threads that takes the most urgent job first."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from asi_watch.logs import failure

log = logging.getLogger(__name__)

Urgency = tuple[int, float, int]
"""Class (live before backlog), place of the slot, step: the smallest goes first."""

_LAST: tuple[Any, ...] = (1 << 30,)


class JobPool:
    """Worker threads over one priority queue.

    Parameters
    ----------
    workers : int
        Number of threads.
    """

    def __init__(self, workers: int) -> None:
        self.crashes = 0
        self._queue: queue.PriorityQueue[tuple[Any, ...]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._running = 0
        self._state = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{n}", daemon=True)
            for n in range(workers)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(
        self, urgency: Urgency, job: Callable[[], None], crashed: Callable[[Exception], None]
    ) -> None:
        """Queue a job.

        Parameters
        ----------
        urgency : tuple
            See `Urgency`; jobs of equal urgency run in the order they came.
        job : callable
            Runs in a worker; reports its own foreseen failures.
        crashed : callable
            Told of an unforeseen error, so that whoever waits for the job is not left waiting.
        """
        self._queue.put((urgency, next(self._order), job, crashed))

    def busy(self) -> tuple[int, int]:
        """Return how many jobs run and how many wait."""
        return self._running, self._queue.qsize()

    def close(self, finish: Callable[[Urgency], bool]) -> None:
        """Drop waiting jobs that `finish` does not want; the threads end after the rest."""
        kept = []
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if finish(item[0]):
                kept.append(item)
        for item in kept:
            self._queue.put(item)
        for _ in self._threads:
            self._queue.put((_LAST, next(self._order), None, None))

    def join(self, timeout: float) -> bool:
        """Wait for the threads of a closed pool; False if `timeout` seconds were not enough."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while True:
            _, _, job, crashed = self._queue.get()
            if job is None:
                return
            with self._state:
                self._running += 1
            try:
                job()
            # The one boundary of this thread: an unforeseen error costs one job, not the worker.
            except Exception as error:  # noqa: BLE001
                self.crashes += 1
                failure(log, "job crashed", error)
                crashed(error)
            finally:
                with self._state:
                    self._running -= 1
