"""Worker threads that take the most urgent job first; no camera can keep them all for ever.

Live jobs and those of a backlog have threads of their own, as many each as workers are configured.
A live job begins at once, whatever the backlog does; a job of the backlog begins only while fewer
jobs than workers are running, and its threads have a lower priority. Among jobs of one urgency the
cameras take turns, so that a flood of files in one folder does not hold up the others.

A call to a dead network share may not return as long as its server is away, and cannot be
interrupted. So a job that has run for longer than `PATIENCE` counts as hanging, and a thread more
is started to replace it, which ends when the job does. No camera has more than `most_of_one` jobs
of a kind running, hanging ones included, and there are never more than `MOST_REPLACED` threads
beside the configured ones.
"""

import heapq
import itertools
import logging
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from asi_watch.logs import event, failure

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds after which a job counts as hanging."""
MOST_REPLACED = 64
"""So many threads may be started to replace those of hanging jobs."""
# On top of the daemon's own: a tenth of the time that a live job gets beside it on one core.
_NICE_OF_BACKLOG = 10

LIVE, BACKLOG = 0, 1
MERGE, READ = 0, 1
Urgency = tuple[int, int, float]
"""Kind (`LIVE` or `BACKLOG`), step (`MERGE` or `READ`), place of the slot: the smallest goes first.

A merge goes before all reads: it gives back the memory of a bracket's frames. Waiting behind newer
exposures, it would leave these no room, and they would be decoded twice.
"""


class Job(Protocol):
    """Work for a thread of the pool."""

    camera: str
    urgency: Urgency

    def run(self) -> None:
        """Do the work, report its result and all foreseen failures."""

    def crashed(self, error: Exception) -> None:
        """Report an unforeseen error, so that whoever waits for the job is not left waiting."""


@dataclass(slots=True, order=True)
class _Queued:
    urgency: Urgency
    number: int
    job: Job = field(compare=False)
    since: float = field(compare=False, default=0.0)
    hanging: bool = field(compare=False, default=False)


@dataclass(frozen=True, slots=True)
class Hanging:
    """Jobs of one camera that hang: how many, and for how many seconds the oldest has run."""

    jobs: int
    seconds: float


class _Queue:
    """Jobs of one kind, waiting and running. Every call is made with the pool's lock held."""

    def __init__(self, lock: threading.Lock, most_of_one: int) -> None:
        self.changed = threading.Condition(lock)
        self.running: list[_Queued] = []
        self.waiting: dict[str, list[_Queued]] = {}
        self._most_of_one = most_of_one
        self._served: dict[str, int] = {}
        self._turn = itertools.count(1)

    def begin(self) -> _Queued | None:
        """Take the most urgent job that may begin; None if there is none."""
        if not (ready := self.ready()):
            return None
        # Of one kind and step, the camera that was served longest ago.
        camera = min(ready, key=lambda c: (self.waiting[c][0].urgency[:2], self._served.get(c, 0)))
        self._served[camera] = next(self._turn)
        queued = heapq.heappop(self.waiting[camera])
        queued.since = time.monotonic()
        self.running.append(queued)
        return queued

    def ready(self) -> list[str]:
        """Cameras with waiting jobs that may have one more running."""
        running = Counter(one.job.camera for one in self.running)
        waiting = (camera for camera, jobs in self.waiting.items() if jobs)
        return [camera for camera in waiting if running[camera] < self._most_of_one]

    @property
    def busy(self) -> int:
        """How many jobs run and do not hang."""
        return sum(not one.hanging for one in self.running)


class JobPool:
    """Worker threads over the jobs of all cameras.

    Parameters
    ----------
    workers : int
        Number of running jobs, those that hang not counted; as many live ones again may begin
        while jobs of a backlog end.
    patience : float
        Seconds after which a job counts as hanging.
    """

    def __init__(self, workers: int, patience: float = PATIENCE) -> None:
        self.crashes = 0
        self.most_of_one = max(workers, 2)
        self.most_running = 2 * workers + MOST_REPLACED
        self._workers = workers
        self._patience = patience
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._live = _Queue(self._lock, self.most_of_one)
        self._backlog = _Queue(self._lock, self.most_of_one)
        self._queues = (self._live, self._backlog)
        self._closed = False
        self._limit_logged = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        for _ in range(self._workers):
            self._start_thread(self._live)
            self._start_thread(self._backlog)

    def submit(self, job: Job) -> None:
        """Queue a job; jobs of one camera and of equal urgency run in the order they came.

        Parameters
        ----------
        job : Job
        """
        queued = _Queued(job.urgency, next(self._numbers), job)
        with self._lock:
            queue = self._backlog if job.urgency[0] >= BACKLOG else self._live
            heapq.heappush(queue.waiting.setdefault(job.camera, []), queued)
            queue.changed.notify()

    def busy(self) -> tuple[int, int]:
        """Return how many jobs run and how many wait."""
        with self._lock:
            queued = [jobs for q in self._queues for jobs in q.waiting.values()]
            return sum(len(q.running) for q in self._queues), sum(map(len, queued))

    def replace_hanging(self, now: float) -> None:
        """Start a thread more for every job that hangs; called every now and then.

        Parameters
        ----------
        now : float
            Monotonic time.
        """
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            for queue in self._queues:
                for one in queue.running:
                    if one.hanging or now - one.since <= self._patience:
                        continue
                    if not self._replace(queue):
                        return
                    one.hanging = True
                    self._backlog.changed.notify_all()

    def _replace(self, queue: _Queue) -> bool:
        try:
            if len(self._threads) >= self.most_running:
                raise RuntimeError(f"{len(self._threads)} threads are the most")
            self._start_thread(queue)
        except RuntimeError as error:
            if not self._limit_logged:
                event(log, logging.ERROR, "hanging workers are not replaced", reason=str(error))
            self._limit_logged = True
            return False
        self._limit_logged = False
        return True

    def hanging(self, camera: str, now: float) -> Hanging | None:
        """Tell whether jobs of a camera hang.

        Parameters
        ----------
        camera : str
        now : float
            Monotonic time.
        """
        with self._lock:
            running = (one for queue in self._queues for one in queue.running)
            since = [one.since for one in running if one.hanging and one.job.camera == camera]
        return Hanging(len(since), now - min(since)) if since else None

    def close(self) -> None:
        """Drop waiting jobs that are no merges; the threads end after the rest."""
        with self._lock:
            self._closed = True
            for queue in self._queues:
                for jobs in queue.waiting.values():
                    jobs[:] = sorted(one for one in jobs if one.urgency[1] == MERGE)
                queue.changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the threads of a closed pool; False if `timeout` seconds were not enough.

        Parameters
        ----------
        timeout : float
            Seconds.
        """
        deadline, threads = time.monotonic() + timeout, list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _start_thread(self, queue: _Queue) -> None:
        kind = "live" if queue is self._live else "backlog"
        name = f"worker-{kind}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, args=(queue,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self, queue: _Queue) -> None:
        if queue is self._backlog:
            _lower_priority()
        while (queued := self._next(queue)) is not None:
            try:
                queued.job.run()
            # The one boundary of this thread: an unforeseen error costs one job, not the worker.
            except Exception as error:  # noqa: BLE001
                self.crashes += 1
                failure(log, "job crashed", error)
                queued.job.crashed(error)
            finally:
                with self._lock:
                    queue.running.remove(queued)
                    self._live.changed.notify_all()
                    self._backlog.changed.notify_all()
            if queued.hanging:
                # Another thread has replaced this one.
                return

    def _next(self, queue: _Queue) -> _Queued | None:
        """Wait for the most urgent job that may begin; None once there is nothing more to do."""
        with self._lock:
            while True:
                if self._may_begin(queue) and (queued := queue.begin()) is not None:
                    self._backlog.changed.notify()
                    return queued
                if self._closed and not any(queue.waiting.values()):
                    queue.changed.notify_all()
                    return None
                queue.changed.wait()

    def _may_begin(self, queue: _Queue) -> bool:
        if queue is self._live:
            return True
        return self._live.busy + self._backlog.busy < self._workers and not self._live.ready()


def _lower_priority() -> None:
    """Leave the cores to live work: a thread has a priority of its own under Linux."""
    me = threading.get_native_id()
    try:
        nice = os.getpriority(os.PRIO_PROCESS, me) + _NICE_OF_BACKLOG
        os.setpriority(os.PRIO_PROCESS, me, min(nice, 19))
    except OSError as error:
        event(log, logging.DEBUG, "a backlog has the priority of live work", reason=str(error))
