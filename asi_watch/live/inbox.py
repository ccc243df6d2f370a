"""The one queue into the owner thread, and the messages it carries."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from datetime import datetime

from asi_watch.live.commands import MergeOutcome, ReadOutcome, Signature


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file seen by an event (`signature` None) or by a scan.

    `new_name` is true when a scan did not know the name: an event should have told of it.
    """

    path: str
    signature: Signature | None
    settled: bool
    new_name: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Files of one camera, seen at the monotonic time `at`."""

    camera: str
    files: tuple[FoundFile, ...]
    at: float


@dataclass(frozen=True, slots=True)
class ReadDone:
    """A file has been read, or could not be."""

    camera: str
    slot: datetime
    path: str
    outcome: ReadOutcome


@dataclass(frozen=True, slots=True)
class MergeDone:
    """A merge has ended."""

    camera: str
    slot: datetime
    outcome: MergeOutcome


@dataclass(frozen=True, slots=True)
class ScanDone:
    """A camera's scan has ended."""

    camera: str
    seconds: float
    files: int
    first: bool


@dataclass(frozen=True, slots=True)
class CalibrationDone:
    """A calibration has ended; `report` is what the worker wrote, None if it failed."""

    camera: str
    report: dict[str, object] | None
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the daemon."""

    signal: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Read the configuration again."""


Message = Found | ReadDone | MergeDone | ScanDone | CalibrationDone | Stop | Reload


class Inbox:
    """Queue into the owner thread; events beyond `max_events` are dropped and owed as a scan.

    Everything else is bounded by what the owner itself has asked for, and never dropped.
    `put` may be called from a signal handler.
    """

    def __init__(self, max_events: int = 100_000) -> None:
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._max_events = max_events
        self._lock = threading.Lock()
        self._events = 0
        self._dropped: dict[str, int] = {}

    def put(self, message: Message) -> None:
        """Hand a message to the owner."""
        self._queue.put(message)

    def put_event(self, camera: str, path: str, settled: bool, at: float) -> None:
        """Hand over what an event said; only counted when the queue is full."""
        with self._lock:
            if self._events >= self._max_events:
                self._dropped[camera] = self._dropped.get(camera, 0) + 1
                return
            self._events += 1
        self._queue.put(Found(camera, (FoundFile(path, None, settled),), at))

    def get(self, timeout: float | None) -> Message | None:
        """Take the next message; None when `timeout` seconds passed without one."""
        try:
            message = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if (
            isinstance(message, Found)
            and len(message.files) == 1
            and not message.files[0].signature
        ):
            with self._lock:
                self._events -= 1
        return message

    def take_dropped(self) -> dict[str, int]:
        """Return how many events were dropped per camera since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, {}
        return dropped

    def __len__(self) -> int:
        return self._queue.qsize()
