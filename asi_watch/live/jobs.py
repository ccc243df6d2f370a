"""One camera's reads and merges on their way to the workers, and merges that may not begin yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from asi_watch.live.arrivals import Arrivals
from asi_watch.live.at_work import CarefulWork
from asi_watch.live.commands import MergeBracket, MergeFailed, ReadFile, Unusable
from asi_watch.live.inbox import Inbox, MergeDone, ReadDone
from asi_watch.live.pool import JobPool

READ, MERGE = 0, 1


class CameraJobs:
    """Submits what the collector asks for; what comes of it goes to the inbox. Owner thread only.

    Parameters
    ----------
    camera : str
    work : CarefulWork
        Does it, in the workers.
    arrivals : Arrivals
        Says what is urgent, and counts what is being read.
    pool : JobPool
    inbox : Inbox
    paused : callable
        Says why nothing may be published now; None if it may.
    needs_curve : callable
        Keeps a merge until there is a curve, if it needs one; tells whether it is kept.
    drop : callable
        Forgets what the workers keep of a bracket.
    """

    def __init__(
        self,
        camera: str,
        work: CarefulWork,
        arrivals: Arrivals,
        pool: JobPool,
        inbox: Inbox,
        paused: Callable[[], str | None],
        needs_curve: Callable[[MergeBracket], bool],
        drop: Callable[[datetime], None],
    ) -> None:
        self._camera = camera
        self._work = work
        self._arrivals = arrivals
        self._pool = pool
        self._inbox = inbox
        self._paused = paused
        self._needs_curve = needs_curve
        self._drop = drop
        self._held: dict[datetime, MergeBracket] = {}

    @property
    def held(self) -> int:
        """How many merges wait until something may be published again."""
        return len(self._held)

    def read(self, command: ReadFile) -> None:
        """Have a file read."""

        def job() -> None:
            outcome = self._work.read(command)
            self._inbox.put(ReadDone(self._camera, command.slot, command.path, outcome))

        def crashed(error: Exception) -> None:
            outcome = Unusable(f"reading it crashed: {error!r}", True, None)
            self._inbox.put(ReadDone(self._camera, command.slot, command.path, outcome))

        self._arrivals.reading += 1
        self._pool.submit(self._arrivals.urgency(command.slot, READ), job, crashed)

    def merge(self, command: MergeBracket) -> None:
        """Have a bracket merged, as soon as that may be."""
        if self._paused() is not None:
            self._held[command.slot] = command
            # What is read again when there is room need not be kept in memory meanwhile.
            self._drop(command.slot)
            return
        if self._needs_curve(command):
            return

        def job() -> None:
            outcome = self._work.merge(command, time.monotonic())
            self._inbox.put(MergeDone(self._camera, command.slot, outcome))

        def crashed(error: Exception) -> None:
            outcome = MergeFailed(f"merging crashed: {error!r}")
            self._inbox.put(MergeDone(self._camera, command.slot, outcome))

        self._pool.submit(self._arrivals.urgency(command.slot, MERGE), job, crashed)

    def release(self) -> None:
        """Go on with the merges that were held."""
        held, self._held = self._held, {}
        for slot in sorted(held):
            self.merge(held[slot])
