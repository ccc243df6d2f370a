"""Which brackets go first, and how many files are asked to be read at a time: pure decisions."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from asi_watch.config.model import Order

Signature = tuple[int, int]

_EPOCH = datetime(1970, 1, 1)
# So many slots before the newest are live as well: files come out of order.
_LIVE_SLOTS = 2
# A newest slot that nothing has been near for so many slots (and seconds) was a clock's mistake.
_FORGET_SLOTS = 4
_FORGET_SECONDS = 120.0


class LiveEdge:
    """Tells the bracket that is being taken now from those of a backlog.

    The newest slot seen is the edge. The camera's clock may be wrong, and be set right: an edge
    that no file has been near for two minutes gives way to what does arrive.

    Parameters
    ----------
    round_to : timedelta
        Length of a slot.
    """

    def __init__(self, round_to: timedelta) -> None:
        self._round_to = round_to
        self._near = _LIVE_SLOTS * round_to
        self._forget = max(_FORGET_SLOTS * round_to.total_seconds(), _FORGET_SECONDS)
        self._newest: datetime | None = None
        self._at = float("-inf")

    @property
    def newest(self) -> datetime:
        """The newest slot seen; the beginning of time before the first."""
        return self._newest or _EPOCH

    def is_live(self, slot: datetime) -> bool:
        """Tell whether a bracket is one being taken now."""
        return self._newest is None or slot >= self._newest - self._near

    def live_slots(self) -> list[datetime]:
        """Name the slots that are being taken now, the newest first."""
        if self._newest is None:
            return []
        return [self._newest - n * self._round_to for n in range(_LIVE_SLOTS + 1)]

    def seen(self, slot: datetime, now: float) -> bool:
        """Take note of a file's slot at monotonic time `now`; tell whether it is live."""
        if self._newest is None or slot > self._newest or now - self._at > self._forget:
            self._newest = slot
        live = self.is_live(slot)
        if live:
            self._at = now
        return live


def urgency_key(slot: datetime, order: Order) -> float:
    """Give the number by which brackets of one class are sorted, the smallest first."""
    seconds = (slot - _EPOCH).total_seconds()
    return -seconds if order == "newest" else seconds


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """A file seen by a scan whose turn has not come; see `Collector.found`."""

    path: str
    signature: Signature | None
    settled: bool
    at: float


class Backlog:
    """Files that wait until fewer are being read, bracket by bracket in the order configured.

    Parameters
    ----------
    order : {"newest", "oldest"}
    """

    def __init__(self, order: Order) -> None:
        self._order: Order = order
        self._files: dict[datetime, list[WaitingFile]] = {}
        self._slots: list[tuple[float, int, datetime]] = []
        self._count = itertools.count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, slot: datetime, file: WaitingFile) -> None:
        """Keep a file for later."""
        files = self._files.get(slot)
        if files is None:
            files = self._files[slot] = []
            heapq.heappush(self._slots, (urgency_key(slot, self._order), next(self._count), slot))
        files.append(file)
        self._size += 1

    def slots(self) -> list[datetime]:
        """Slots of the brackets that wait."""
        return list(self._files)

    def take(self, slot: datetime) -> list[WaitingFile]:
        """Take out the files of one bracket, whose turn has come by other ways."""
        files = self._files.pop(slot, [])
        self._size -= len(files)
        return files

    def next_brackets(self) -> Iterator[list[WaitingFile]]:
        """Take out bracket after bracket, for as long as the caller goes on."""
        while self._slots:
            _, _, slot = heapq.heappop(self._slots)
            files = self.take(slot)
            if files:
                yield files
