"""Worker threads that take the most urgent job first; no camera can keep them all for ever.

Live jobs and those of a backlog have threads of their own, as many each as workers are configured.
A live job begins at once, whatever the backlog is at; a job of the backlog begins only while fewer
jobs than workers are in work, and its threads have a lower priority. So a backlog takes what the
cores have left, and a live bracket does not wait for it.

A call to a dead network share may not return as long as its server is away, and cannot be broken
off. So a job that has run for longer than `PATIENCE` counts as hanging: a thread more is started
in its place, which ends when the job does. No camera has more than `most_of_one` jobs of a kind in
work, hanging ones included; what it asks for beyond that waits. So at any time as many workers as
configured are free of hanging jobs, save for the seconds until these are told; and there are never
more threads than `most_jobs`.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from asi_watch.logs import event, failure

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds after which a job counts as hanging."""
# On top of the daemon's own: a tenth of the time that a live job gets beside it on one core.
_NICE_OF_BACKLOG = 10

LIVE, BACKLOG = 0, 1
MERGE, READ = 0, 1
Urgency = tuple[int, int, float]
"""Kind (`LIVE` or `BACKLOG`), step (`MERGE` or `READ`), place of the slot: the smallest goes first.

A merge goes before all that is to be read: it gives back the memory of a bracket's frames. Waiting
behind newer exposures, it would leave these no room, and they would be decoded twice.
"""


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


class _Queue:
    """Jobs of one kind, waiting and in work. Every call is made with the pool's lock held.

    Parameters
    ----------
    lock : Lock
        The pool's.
    most_of_one : int
        Jobs of one camera in work at a time.
    """

    def __init__(self, lock: threading.Lock, most_of_one: int) -> None:
        self.changed = threading.Condition(lock)
        self._most_of_one = most_of_one
        self._waiting: dict[str, list[_Job]] = {}
        self._running: dict[str, list[_Job]] = {}

    def add(self, job: _Job) -> None:
        """Let a job wait for a thread."""
        heapq.heappush(self._waiting.setdefault(job.camera, []), job)
        self.changed.notify()

    def begin(self) -> _Job | None:
        """Take the most urgent job that may begin; None if there is none."""
        first = min(self._that_may(), key=lambda jobs: jobs[0], default=None)
        if first is None:
            return None
        job = heapq.heappop(first)
        job.since = time.monotonic()
        self._running.setdefault(job.camera, []).append(job)
        return job

    @property
    def has_ready(self) -> bool:
        """True while a job waits for nothing but a thread."""
        return bool(self._that_may())

    def _that_may(self) -> list[list[_Job]]:
        """Waiting jobs of the cameras that may have one more in work."""
        return [
            jobs
            for camera, jobs in self._waiting.items()
            if jobs and len(self._running.get(camera, ())) < self._most_of_one
        ]

    def end(self, job: _Job) -> None:
        """Take note that a job is over."""
        self._running[job.camera].remove(job)

    def keep(self, wanted: Callable[[Urgency], bool]) -> None:
        """Drop the waiting jobs that are not wanted."""
        for camera, jobs in self._waiting.items():
            self._waiting[camera] = sorted(job for job in jobs if wanted(job.urgency))

    def running(self, camera: str | None = None) -> list[_Job]:
        """Jobs in work, of one camera or of all."""
        return [
            job for name, jobs in self._running.items() if camera in (None, name) for job in jobs
        ]

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def in_work(self) -> int:
        """How many jobs are in work and do not hang."""
        return sum(not job.hanging for job in self.running())


class JobPool:
    """Worker threads over the jobs of all cameras.

    Parameters
    ----------
    workers : int
        Number of jobs in work, those that hang not counted; as many live ones again may begin
        while jobs of a backlog end.
    patience : float
        Seconds after which a job counts as hanging.
    """

    def __init__(self, workers: int, patience: float = PATIENCE) -> None:
        self.crashes = 0
        self.most_of_one = max(workers, 2)
        self._workers = workers
        self._patience = patience
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._live = _Queue(self._lock, self.most_of_one)
        self._behind = _Queue(self._lock, self.most_of_one)
        self._closed = False
        self._threads: list[threading.Thread] = []

    def most_jobs(self, cameras: int) -> int:
        """How many jobs may be in work at once, if every camera's share were dead."""
        return 2 * (self._workers + cameras * self.most_of_one)

    def start(self) -> None:
        """Start the threads."""
        for _ in range(self._workers):
            self._start_thread(self._live)
            self._start_thread(self._behind)

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
        with self._lock:
            (self._behind if urgency[0] >= BACKLOG else self._live).add(queued)

    def busy(self) -> tuple[int, int]:
        """Return how many jobs run and how many wait."""
        with self._lock:
            queues = (self._live, self._behind)
            return sum(len(q.running()) for q in queues), sum(q.waiting for q in queues)

    def look_after(self, now: float) -> None:
        """Start a thread in place of every job that hangs; called every now and then.

        Parameters
        ----------
        now : float
            Monotonic time.
        """
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            for queue in (self._live, self._behind):
                for job in queue.running():
                    if job.hanging or now - job.since <= self._patience:
                        continue
                    try:
                        self._start_thread(queue)
                    except RuntimeError as error:  # no more threads: tried again at the next look
                        event(log, logging.WARNING, "no thread can be started", reason=str(error))
                        return
                    job.hanging = True
                    self._behind.changed.notify_all()

    def hanging(self, camera: str, now: float) -> Hanging | None:
        """Tell whether jobs of a camera hang."""
        with self._lock:
            jobs = self._live.running(camera) + self._behind.running(camera)
            since = [job.since for job in jobs if job.hanging]
        return Hanging(len(since), now - min(since)) if since else None

    def close(self, finish: Callable[[Urgency], bool]) -> None:
        """Drop waiting jobs that `finish` does not want; the threads end after the rest."""
        with self._lock:
            self._closed = True
            for queue in (self._live, self._behind):
                queue.keep(finish)
                queue.changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the threads of a closed pool; False if `timeout` seconds were not enough."""
        deadline = time.monotonic() + timeout
        threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    # -- the threads ------------------------------------------------------------------------

    def _start_thread(self, queue: _Queue) -> None:
        kind = "live" if queue is self._live else "backlog"
        name = f"worker-{kind}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, args=(queue,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self, queue: _Queue) -> None:
        if queue is self._behind:
            _step_back()
        while (job := self._next(queue)) is not None:
            try:
                job.run()
            # The one boundary of this thread: an unforeseen error costs one job, not the worker.
            except Exception as error:  # noqa: BLE001
                self.crashes += 1
                failure(log, "job crashed", error)
                job.crashed(error)
            finally:
                with self._lock:
                    queue.end(job)
                    self._live.changed.notify_all()
                    self._behind.changed.notify_all()
            if job.hanging:
                # Another thread has taken this one's place.
                return

    def _next(self, queue: _Queue) -> _Job | None:
        """Wait for the most urgent job that may begin; None once there is nothing more to do."""
        with self._lock:
            while True:
                if self._may_begin(queue) and (job := queue.begin()) is not None:
                    self._behind.changed.notify()
                    return job
                if self._closed and not queue.waiting:
                    queue.changed.notify_all()
                    return None
                queue.changed.wait()

    def _may_begin(self, queue: _Queue) -> bool:
        if queue is self._live:
            return True
        in_work = self._live.in_work + self._behind.in_work
        return in_work < self._workers and not self._live.has_ready


def _step_back() -> None:
    """Leave the cores to live work: a thread has a priority of its own under Linux."""
    me = threading.get_native_id()
    try:
        nice = os.getpriority(os.PRIO_PROCESS, me) + _NICE_OF_BACKLOG
        os.setpriority(os.PRIO_PROCESS, me, min(nice, 19))
    except OSError as error:
        event(log, logging.DEBUG, "a backlog has the priority of live work", reason=str(error))
