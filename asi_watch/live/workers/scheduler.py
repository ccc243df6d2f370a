"""What of one camera is read and merged next: live files at once, a backlog bit by bit.

Owner thread only; the jobs it hands to the pool run in worker threads, and what comes of them goes
to the inbox.
"""

import heapq
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from asi_watch.config.model import CameraConfig, Order
from asi_watch.live import messages as msg
from asi_watch.live.collecting.collector import Collector
from asi_watch.live.workers.merger import Merger
from asi_watch.live.workers.pool import BACKLOG, LIVE, MERGE, READ, JobPool, Urgency
from asi_watch.live.workers.quarantine import Quarantine, task_of
from asi_watch.merge_bracket import Failed

MOST_READS = 400
"""Files of a backlog being read at a time; of live brackets twice as many, since a whole archive
copied into the watch folder in the order of time looks live."""

_EPOCH = datetime(1970, 1, 1)
# Brackets handed on in one go: most of a backlog may be known already, and cost a look each.
_BRACKETS_AT_ONCE = 200
# So many slots before the newest are live as well: files come out of order.
_LIVE_SLOTS = 2
# A newest slot that nothing has been near for so many slots (and seconds) was a clock's mistake.
_FORGET_SLOTS = 4
_FORGET_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """A file that was found and whose turn has not come; see `Collector.found`."""

    path: str
    signature: msg.Signature | None
    settled: bool
    at: float


class _LiveEdge:
    """Tells the brackets being taken now from those of a backlog.

    The newest slot seen is the edge. The camera's clock may be wrong, and be corrected: an edge
    that no file has been near for two minutes gives way to what does arrive.
    """

    def __init__(self, round_to: timedelta) -> None:
        self._round_to = round_to
        self._near = _LIVE_SLOTS * round_to
        self._forget = max(_FORGET_SLOTS * round_to.total_seconds(), _FORGET_SECONDS)
        self._newest: datetime | None = None
        self._at = float("-inf")

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


class _Backlog:
    """Files that wait until fewer are being read, bracket by bracket in the order configured."""

    def __init__(self, order: Order) -> None:
        self._order: Order = order
        self._files: dict[datetime, list[WaitingFile]] = {}
        self._slots: list[tuple[float, int, datetime]] = []
        self._count = itertools.count()
        self._folders: Counter[str] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def folders(self) -> set[str]:
        """Folders of the files that wait."""
        return set(self._folders)

    def add(self, slot: datetime, file: WaitingFile) -> None:
        """Keep a file for later."""
        files = self._files.get(slot)
        if files is None:
            files = self._files[slot] = []
            heapq.heappush(self._slots, (_place(slot, self._order), next(self._count), slot))
        files.append(file)
        self._folders[_folder(file)] += 1
        self._size += 1

    def take(self, slot: datetime) -> list[WaitingFile]:
        """Take out the files of one bracket."""
        files = self._files.pop(slot, [])
        for file in files:
            folder = _folder(file)
            self._folders[folder] -= 1
            if not self._folders[folder]:
                del self._folders[folder]
        self._size -= len(files)
        return files

    def next_brackets(self) -> Iterator[list[WaitingFile]]:
        """Take out bracket after bracket, for as long as the caller goes on."""
        while self._slots:
            _, _, slot = heapq.heappop(self._slots)
            files = self.take(slot)
            if files:
                yield files


class Scheduler:
    """Decides which files of one camera go to the collector now; has them read and merged.

    Parameters
    ----------
    config : CameraConfig
    order : {"newest", "oldest"}
        Which brackets of a backlog go first.
    worker : Merger
    pool : JobPool
    quarantine : Quarantine
    inbox : Inbox
    """

    def __init__(
        self,
        config: CameraConfig,
        order: Order,
        worker: Merger,
        pool: JobPool,
        quarantine: Quarantine,
        inbox: msg.Inbox,
    ) -> None:
        self._camera, self._root = config.name, str(config.watch)
        self._order: Order = order
        self._worker, self._pool = worker, pool
        self._quarantine, self._inbox = quarantine, inbox
        self._edge = _LiveEdge(config.bracket.round_to)
        self._backlog = _Backlog(order)
        self._reading = 0

    @property
    def backlog(self) -> int:
        """How many files of a backlog wait."""
        return len(self._backlog)

    @property
    def backlog_folders(self) -> set[str]:
        """Folders of these files."""
        return self._backlog.folders

    @property
    def may_read(self) -> bool:
        """True while more files of a backlog may be asked to be read."""
        return self._reading < MOST_READS

    def arrived(self, message: msg.Found, brackets: Collector) -> Iterator[WaitingFile]:
        """Give those of the files found that go to the collector now; others wait.

        Parameters
        ----------
        message : Found
        brackets : Collector
            Is asked about each file when it is its turn, after those before it were taken.
        """
        named = [(file, brackets.slot_of_name(file.path)) for file in message.files]
        slots = [slot for _, slot in named if slot is not None]
        if slots:
            self._edge.seen(max(slots), message.at)
        for file, slot in named:
            waiting = WaitingFile(file.path, file.signature, file.settled, message.at)
            if slot is not None:
                live = self._edge.seen(slot, message.at)
                most = 2 * MOST_READS if live else MOST_READS
                if self._reading >= most and not brackets.is_open(slot):
                    self._backlog.add(slot, waiting)
                    continue
                yield from self._backlog.take(slot)
            yield waiting

    def next_files(self) -> Iterator[WaitingFile]:
        """Give what has waited, if few enough files are being read."""
        if self._backlog and self._reading < 2 * MOST_READS:
            for slot in self._edge.live_slots():
                yield from self._backlog.take(slot)
        if not self._backlog or self._reading >= MOST_READS // 2:
            return
        for count, files in enumerate(self._backlog.next_brackets(), 1):
            yield from files
            if not self.may_read or count >= _BRACKETS_AT_ONCE:
                break

    def read(self, command: msg.ReadFile) -> None:
        """Have a file read.

        Parameters
        ----------
        command : ReadFile
        """
        self._reading += 1
        self._submit(command, READ)

    def read_ended(self) -> None:
        """Take note that a read has ended."""
        self._reading -= 1

    def merge(self, command: msg.MergeBracket) -> None:
        """Have a bracket merged."""
        self._submit(command, MERGE)

    def _submit(self, command: msg.ReadFile | msg.MergeBracket, step: int) -> None:
        # Live: the newest first, should a whole backlog arrive file by file as if it were live.
        live = self._edge.is_live(command.slot)
        place = _place(command.slot, "newest" if live else self._order)
        urgency = (LIVE if live else BACKLOG, step, place)
        self._pool.submit(_Job(self, self._camera, urgency, command))

    def _run(self, command: msg.ReadFile | msg.MergeBracket) -> None:
        if isinstance(command, msg.ReadFile):
            self._report(command, self._read(command))
        else:
            self._inbox.put(msg.MergeDone(self._camera, command.slot, self._merge(command)))

    def _crashed(self, command: msg.ReadFile | msg.MergeBracket, error: Exception) -> None:
        if isinstance(command, msg.ReadFile):
            self._report(command, msg.Unusable(f"reading it crashed: {error!r}", True, None))
        else:
            failed = Failed("retry", f"merging crashed: {error!r}")
            self._inbox.put(msg.MergeDone(self._camera, command.slot, failed))

    def _read(self, command: msg.ReadFile) -> msg.ReadOutcome:
        try:
            status = os.lstat(f"{self._root}/{command.path}")
        except OSError:
            return self._worker.read(command)
        found = (status.st_size, status.st_mtime_ns)
        task = task_of(self._camera, command.slot, f"reading {command.path}", [found])
        if reason := self._quarantine.refusal(task):
            return msg.Unusable(reason, False, found)
        with self._quarantine.running(task):
            return self._worker.read(command)

    def _merge(self, command: msg.MergeBracket) -> msg.MergeOutcome:
        inputs = [(e.path, e.signature) for e in command.exposures]
        task = task_of(self._camera, command.slot, "merging", inputs)
        if reason := self._quarantine.refusal(task):
            return Failed("permanent", reason)
        with self._quarantine.running(task):
            return self._worker.merge(command, time.monotonic())

    def _report(self, command: msg.ReadFile, outcome: msg.ReadOutcome) -> None:
        self._inbox.put(msg.ReadDone(self._camera, command.slot, command.path, outcome))


@dataclass(slots=True)
class _Job:
    """A command on its way through the pool; run in a worker thread."""

    scheduler: Scheduler
    camera: str
    urgency: Urgency
    command: msg.ReadFile | msg.MergeBracket

    def run(self) -> None:
        self.scheduler._run(self.command)

    def crashed(self, error: Exception) -> None:
        self.scheduler._crashed(self.command, error)


def _place(slot: datetime, order: Order) -> float:
    """The number by which brackets of one class are sorted, the smallest first."""
    seconds = (slot - _EPOCH).total_seconds()
    return -seconds if order == "newest" else seconds


def _folder(file: WaitingFile) -> str:
    return file.path.rpartition("/")[0]
