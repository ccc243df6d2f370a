"""Messages into the owner thread, the commands that follow from them, and the inbox between.

Everything here is a plain value except `Inbox`, the one bounded queue that observers, workers and
calibrations write to and the owner thread alone reads.
"""

import queue
import threading
from dataclasses import dataclass
from datetime import datetime

from asi_watch.brackets import Exposure
from asi_watch.live.curves.gate import CalibrationVerdict
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.merge_bracket import Bracket, Failed, Published

Signature = tuple[int, int]
"""Size and modification time (ns) of a file."""


@dataclass(frozen=True, slots=True)
class ReadOk:
    """The file decoded strictly."""

    exposure: Exposure


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The file is still what it was when it was last read."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The file is gone."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """The file cannot be used; with `may_recover` it may still be growing."""

    reason: str
    may_recover: bool
    signature: Signature | None


ReadOutcome = ReadOk | Unchanged | Vanished | Unusable


@dataclass(frozen=True, slots=True)
class ProductKept:
    """Nothing was merged: the published product is better. `record` is its row, `why` says how."""

    record: BracketRecord
    why: str = "the product that stands has more exposures"


MergeOutcome = Published | ProductKept | Failed


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Read and check this file; hold its frame for the merge if `absorb`."""

    slot: datetime
    path: str
    timestamp: datetime
    exposure_us: float  # what the name says, 0 if nothing
    known: Signature | None
    absorb: bool


@dataclass(frozen=True, slots=True)
class MergeBracket(Bracket):
    """Merge this bracket and publish the products."""

    arrived: float = 0.0  # monotonic time at which the last input was seen
    seen_by_event: bool = False
    """An event reported the last input as it came; otherwise it may have come long before."""


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Put this row into the ledger; a failed merge is retried in `next_try` seconds, or never.

    `amended`: the bracket stays as it was, the row lists more of its files.
    """

    record: BracketRecord
    next_try: float | None = None
    amended: bool = False


@dataclass(frozen=True, slots=True)
class DropWork:
    """Nothing more comes of what was kept for this slot."""

    slot: datetime


Command = ReadFile | MergeBracket | WriteRecord | DropWork
Commands = list[Command]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file seen by an event (`signature` None) or by a scan."""

    path: str
    signature: Signature | None
    settled: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Files of one camera, seen at the monotonic time `at`."""

    camera: str
    files: tuple[FoundFile, ...]
    at: float


@dataclass(frozen=True, slots=True)
class FolderRead:
    """A folder has been read whole; its files went ahead in `Found` messages."""

    camera: str
    folder: str  # relative to the watch folder
    mtime_ns: int  # as it was before the folder was read
    skipped: bool = False  # it is older than the look-back of a first start, and was not read


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
    # Files of other kinds, and one of them, where there are no exposures at all.
    not_taken: int = 0
    example: str = ""


@dataclass(frozen=True, slots=True)
class CalibrationDone:
    """A calibration has ended; without a verdict it failed for the `reason`."""

    camera: str
    verdict: CalibrationVerdict | None
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the daemon."""

    signal: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Read the configuration again."""


Message = Found | FolderRead | ReadDone | MergeDone | ScanDone | CalibrationDone | Stop | Reload


class Inbox:
    """Queue into the owner thread; of events beyond `max_events` a scan finds the files.

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
        """Hand over what an event said; only counted when the queue is full.

        Parameters
        ----------
        camera : str
        path : str
            Relative to the watch folder.
        settled : bool
            Its writer has closed it or moved it in.
        at : float
            Monotonic time.
        """
        with self._lock:
            if self._events >= self._max_events:
                self._dropped[camera] = self._dropped.get(camera, 0) + 1
                return
            self._events += 1
        self._queue.put(Found(camera, (FoundFile(path, None, settled),), at))

    def get(self, timeout: float | None) -> Message | None:
        """Take the next message; None when `timeout` seconds passed without one.

        Parameters
        ----------
        timeout : float or None
            Seconds; None: for ever.
        """
        try:
            message = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        match message:
            case Found(files=(FoundFile(signature=None),)):
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
