"""Worker threads that take the most urgent job first; no camera can keep them all for ever.

A call to a dead network share may not return as long as its server is away, and cannot be broken
off. So a job that has run for longer than `PATIENCE` counts as hanging: a thread more is started
in its place, which ends when the job does. No camera has more than `most_of_one` jobs in work,
hanging ones included; what it asks for beyond that waits. So at any time as many workers as
configured are free of hanging jobs, save for the seconds until these are told; and there are never
more threads than `most_jobs`.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from asi_watch.logs import event, failure

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds after which a job counts as hanging."""

Urgency = tuple[int, float, int]
"""Class (live before backlog), place of the slot, step: the smallest goes first."""


@dataclass(slots=True, order=True)
class _Job:
    urgency: Urgency
    number: int
    camera: str = field(compare=False)
    run: Callable[[], None] = field(compare=False)
    crashed: Callable[[Exception], None] = field(compare=False)
    since: float = field(compare=False, default=0.0)
    hanging: bool = field(compare=False, default=False)


@dataclass(frozen=True, slots=True)
class Hanging:
    """Jobs of one camera that hang: how many, and for how many seconds the oldest has run."""

    jobs: int
    seconds: float


class JobPool:
    """Worker threads over the jobs of all cameras.

    Parameters
    ----------
    workers : int
        Number of threads, those of hanging jobs not counted.
    patience : float
        Seconds after which a job counts as hanging.
    """

    def __init__(self, workers: int, patience: float = PATIENCE) -> None:
        self.crashes = 0
        self.most_of_one = max(workers, 2)
        self._workers = workers
        self._patience = patience
        self._numbers = itertools.count()
        self._waiting: dict[str, list[_Job]] = {}
        self._running: dict[str, list[_Job]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []

    def most_jobs(self, cameras: int) -> int:
        """How many jobs may be in work at once, if every camera's share were dead."""
        return self._workers + cameras * self.most_of_one

    def start(self) -> None:
        """Start the threads."""
        for _ in range(self._workers):
            self._start_thread()

    def submit(
        self,
        camera: str,
        urgency: Urgency,
        job: Callable[[], None],
        crashed: Callable[[Exception], None],
    ) -> None:
        """Queue a job.

        Parameters
        ----------
        camera : str
            Whose files it is about.
        urgency : tuple
            See `Urgency`; jobs of equal urgency run in the order they came.
        job : callable
            Runs in a worker; reports its own foreseen failures.
        crashed : callable
            Told of an unforeseen error, so that whoever waits for the job is not left waiting.
        """
        queued = _Job(urgency, next(self._numbers), camera, job, crashed)
        with self._changed:
            heapq.heappush(self._waiting.setdefault(camera, []), queued)
            self._changed.notify()

    def busy(self) -> tuple[int, int]:
        """Return how many jobs run and how many wait."""
        with self._changed:
            return _count(self._running), _count(self._waiting)

    def look_after(self, now: float) -> None:
        """Start a thread in place of every job that hangs; called every now and then.

        Parameters
        ----------
        now : float
            Monotonic time.
        """
        with self._changed:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            for job in itertools.chain(*self._running.values()):
                if not job.hanging and now - job.since > self._patience:
                    try:
                        self._start_thread()
                    except RuntimeError as error:  # no more threads: tried again at the next look
                        event(log, logging.WARNING, "no thread can be started", reason=str(error))
                        return
                    job.hanging = True

    def hanging(self, camera: str, now: float) -> Hanging | None:
        """Tell whether jobs of a camera hang."""
        with self._changed:
            since = [job.since for job in self._running.get(camera, ()) if job.hanging]
        return Hanging(len(since), now - min(since)) if since else None

    def close(self, finish: Callable[[Urgency], bool]) -> None:
        """Drop waiting jobs that `finish` does not want; the threads end after the rest."""
        with self._changed:
            for camera, jobs in self._waiting.items():
                self._waiting[camera] = sorted(job for job in jobs if finish(job.urgency))
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the threads of a closed pool; False if `timeout` seconds were not enough."""
        deadline = time.monotonic() + timeout
        threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    # -- the threads ------------------------------------------------------------------------

    def _start_thread(self) -> None:
        name = f"worker-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.run()
            # The one boundary of this thread: an unforeseen error costs one job, not the worker.
            except Exception as error:  # noqa: BLE001
                self.crashes += 1
                failure(log, "job crashed", error)
                job.crashed(error)
            finally:
                with self._changed:
                    self._running[job.camera].remove(job)
                    self._changed.notify_all()
            if job.hanging:
                # Another thread has taken this one's place.
                return

    def _next(self) -> _Job | None:
        """Wait for the most urgent job that may begin; None once there is nothing more to do."""
        with self._changed:
            while True:
                jobs = self._most_urgent()
                if jobs is not None:
                    job = heapq.heappop(jobs)
                    job.since = time.monotonic()
                    self._running.setdefault(job.camera, []).append(job)
                    return job
                if self._closed and not any(self._waiting.values()):
                    self._changed.notify_all()
                    return None
                self._changed.wait()

    def _most_urgent(self) -> list[_Job] | None:
        """Find the camera whose first job goes first, of those that may have one more in work."""
        may = [
            jobs
            for camera, jobs in self._waiting.items()
            if jobs and len(self._running.get(camera, ())) < self.most_of_one
        ]
        return min(may, key=lambda jobs: jobs[0], default=None)


def _count(jobs: dict[str, list[_Job]]) -> int:
    return sum(map(len, jobs.values()))
