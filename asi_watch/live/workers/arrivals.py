"""Files of one camera on their way to the collector: live ones at once, a backlog bit by bit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from asi_watch.config.model import CameraConfig, Order
from asi_watch.live.messages import Found
from asi_watch.live.workers.backlog import (
    Backlog,
    LiveEdge,
    WaitingFile,
    urgency_key,
)
from asi_watch.live.workers.pool import BACKLOG, LIVE, Urgency

log = logging.getLogger(__name__)

# Files of a backlog being read at a time; live brackets come on top, up to twice as many: a whole
# archive copied into the watch folder in the order of time looks live.
MOST_READS = 400
# Brackets handed on in one go: most of a backlog may be known already, and cost a look each.
_BRACKETS_AT_ONCE = 200
_MOMENT = timedelta(microseconds=1)
_ANY_ATTEMPTS = 1 << 30


class Brackets(Protocol):
    """What is asked of the collector here."""

    def slot_of_name(self, path: str) -> datetime | None:
        """Return the slot of a file by its name, None if it is no exposure's."""

    def is_open(self, slot: datetime) -> bool:
        """Tell whether a bracket has begun and is not over."""

    def open_slots(self) -> list[datetime]:
        """Slots of the brackets that are not over."""


class Arrivals:
    """Decides which files go to the collector now, and which wait. Owner thread only.

    Parameters
    ----------
    settings : CameraConfig
    order : {"newest", "oldest"}
        Which brackets of a backlog go first.
    admit : callable
        Takes a file to the collector.
    """

    def __init__(
        self,
        settings: CameraConfig,
        order: Order,
        admit: Callable[[WaitingFile], None],
    ) -> None:
        rules = settings.bracket
        self._camera = settings.name
        self._order: Order = order
        self._admit = admit
        self._edge = LiveEdge(rules.round_to)
        self._backlog = Backlog(order)
        self._held_back = False
        self._missed = 0
        self.reading = 0
        """Files asked to be read and not yet read; the camera counts them here."""

    @property
    def waiting(self) -> int:
        """How many files of a backlog wait."""
        return len(self._backlog)

    @property
    def has_room(self) -> bool:
        """True while more files may be asked to be read."""
        return self.reading < MOST_READS

    def hold_back(self, held_back: bool) -> int:
        """Take in nothing more, or go on; returns how many events were passed over meanwhile."""
        self._held_back = held_back
        if held_back:
            return 0
        missed, self._missed = self._missed, 0
        return missed

    def found(self, message: Found, brackets: Brackets) -> None:
        """Files were seen."""
        if self._held_back and all(file.signature is None for file in message.files):
            # The files are there. What a scan told of would not be told again.
            self._missed += len(message.files)
            return
        named = [(file, brackets.slot_of_name(file.path)) for file in message.files]
        slots = [slot for _, slot in named if slot is not None]
        if slots:
            self._edge.seen(max(slots), message.at)
        for file, slot in named:
            waiting = WaitingFile(file.path, file.signature, file.settled, message.at)
            if slot is not None:
                live = self._edge.seen(slot, message.at)
                most = 2 * MOST_READS if live else MOST_READS
                if self.reading >= most and not brackets.is_open(slot):
                    self._backlog.add(slot, waiting)
                    continue
                for earlier in self._backlog.take(slot):
                    self._admit(earlier)
            self._admit(waiting)

    def feed(self) -> None:
        """Hand on what has waited, if few enough files are being read."""
        if self._held_back:
            return
        if self._backlog and self.reading < 2 * MOST_READS:
            for slot in self._edge.live_slots():
                for file in self._backlog.take(slot):
                    self._admit(file)
        if not self._backlog or self.reading >= MOST_READS // 2:
            return
        for count, files in enumerate(self._backlog.next_brackets(), 1):
            for file in files:
                self._admit(file)
            if not self.has_room or count >= _BRACKETS_AT_ONCE:
                break

    def urgency(self, slot: datetime, step: int) -> Urgency:
        """Give the place of a bracket's job in the queue."""
        if self._edge.is_live(slot):
            # The newest first, should a whole backlog arrive file by file as if it were live.
            return (LIVE, step, urgency_key(slot, "newest"))
        return (BACKLOG, step, urgency_key(slot, self._order))
