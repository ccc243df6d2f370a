"""One camera's reads and merges on their way to the workers, and merges that may not begin yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from asi_watch.live.messages import (
    Inbox,
    MergeBracket,
    MergeDone,
    MergeFailed,
    MergeOutcome,
    ReadDone,
    ReadFile,
    Unusable,
)
from asi_watch.live.workers.arrivals import Arrivals
from asi_watch.live.workers.at_work import CarefulWork
from asi_watch.live.workers.pool import MERGE, READ, JobPool

# So many merges in a row that found no place for their products: from then on only one is tried at
# a time. After a day without the output folder, thousands would be made every few minutes in vain.
_BLOCKED_IN_A_ROW = 20
_TRY_EVERY = 10.0
MOST_HELD = 200
"""So many merges wait in memory, about 3 KB each; the others wait in the ledger."""


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
    spare : callable
        Gives back a merge of those that wait for a curve, if they are too many.
    put_off : callable
        Leaves a merge to the ledger, with the reason; tells whether that was possible.
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
        spare: Callable[[], MergeBracket | None],
        put_off: Callable[[MergeBracket, str], bool],
        drop: Callable[[datetime], None],
    ) -> None:
        self._camera = camera
        self._work = work
        self._arrivals = arrivals
        self._pool = pool
        self._inbox = inbox
        self._paused = paused
        self._needs_curve = needs_curve
        self._spare = spare
        self._put_off = put_off
        self._drop = drop
        self._held: dict[datetime, MergeBracket] = {}
        self._owed_look = False
        self._blocked = 0
        self._try_at = float("-inf")

    @property
    def held(self) -> int:
        """How many merges wait until something may be published again."""
        return len(self._held)

    @property
    def has_room(self) -> bool:
        """True while more merges may come to wait in memory."""
        return len(self._held) < MOST_HELD

    @property
    def is_blocked(self) -> bool:
        """True while products find no place."""
        return self._blocked >= _BLOCKED_IN_A_ROW

    def read(self, command: ReadFile) -> None:
        """Have a file read."""

        def job() -> None:
            outcome = self._work.read(command)
            self._inbox.put(ReadDone(self._camera, command.slot, command.path, outcome))

        def crashed(error: Exception) -> None:
            outcome = Unusable(f"reading it crashed: {error!r}", True, None)
            self._inbox.put(ReadDone(self._camera, command.slot, command.path, outcome))

        self._arrivals.reading += 1
        self._pool.submit(self._camera, self._arrivals.urgency(command.slot, READ), job, crashed)

    def merge(self, command: MergeBracket) -> None:
        """Have a bracket merged, as soon as that may be."""
        if self.is_blocked or self._paused() is not None:
            self._hold(command)
        elif self._needs_curve(command):
            # What is begun without a curve is begun again.
            self._drop(command.slot)
            oldest = self._spare()
            if oldest is not None and not self._put_off(oldest, "for a response curve"):
                self._needs_curve(oldest)
        else:
            self._submit_merge(command)

    def _hold(self, command: MergeBracket) -> None:
        self._held[command.slot] = command
        # What is read again when there is room need not be kept in memory meanwhile.
        self._drop(command.slot)
        if len(self._held) > MOST_HELD:
            oldest = self._held.pop(min(self._held))
            if self._put_off(oldest, self._paused() or "products find no place"):
                self._owed_look = True
            else:
                self._held[oldest.slot] = oldest

    def merge_ended(self, outcome: MergeOutcome) -> None:
        """Take note of whether products find a place."""
        blocked = isinstance(outcome, MergeFailed) and outcome.blocked
        self._blocked = self._blocked + 1 if blocked else 0

    def release(self, now: float) -> bool:
        """Go on with the merges that were held; with the newest alone while that may be in vain.

        Returns
        -------
        bool
            True if those may go on, too, that wait in the ledger.
        """
        if not self.is_blocked:
            held, self._held = self._held, {}
            for slot in sorted(held):
                self.merge(held[slot])
            owed, self._owed_look = self._owed_look, False
            return owed
        if self._held and now >= self._try_at:
            self._try_at = now + _TRY_EVERY
            command = self._held.pop(max(self._held))
            if not self._needs_curve(command):
                self._submit_merge(command)
        return False

    def _submit_merge(self, command: MergeBracket) -> None:
        def job() -> None:
            outcome = self._work.merge(command, time.monotonic())
            self._inbox.put(MergeDone(self._camera, command.slot, outcome))

        def crashed(error: Exception) -> None:
            outcome = MergeFailed(f"merging crashed: {error!r}")
            self._inbox.put(MergeDone(self._camera, command.slot, outcome))

        self._pool.submit(self._camera, self._arrivals.urgency(command.slot, MERGE), job, crashed)
