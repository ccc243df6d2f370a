"""What every worker is at, noted on the disk: so that the next life knows what this one died of.

A decoder that crashes, or a merge that the kernel ends for its memory, takes the whole daemon
along, and would again after every restart. Whatever was in work when the process died is suspect;
suspects are worked on alone, and after `MOST_DEATHS` deaths not again. Whatever is got
through is suspect no more, so that a process killed from outside leaves no trace; nor does a
power cut, which is told by the machine having started anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from asi_watch.errors import PublishError
from asi_watch.live.messages import (
    MergeBracket,
    MergeFailed,
    MergeOutcome,
    ReadFile,
    ReadOutcome,
    Unusable,
)
from asi_watch.live.workers.turns import Turns
from asi_watch.logs import event
from asi_watch.products import publish

log = logging.getLogger(__name__)

MOST_DEATHS = 3
NOTES_NAME, DEATHS_NAME = "at-work", "deaths.json"
_RECORDING = "recording"
_RECORD = 2048
_MOST_RECORDS = 1024
_LONGEST_DEATHS = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Task:
    """Something a worker does; equal keys are the same work on the same files."""

    key: str
    camera: str
    slot: str
    what: str
    deaths: int = 0


class AtWork:
    """The notes of one daemon.

    Parameters
    ----------
    state_dir : Path
    workers : int
        How many tasks are in work at once.
    """

    def __init__(self, state_dir: Path, workers: int) -> None:
        self._deaths_file = state_dir / DEATHS_NAME
        self._lock = threading.Lock()
        self._turns = Turns()
        # One place more than workers: rows are written beside them.
        self._free = list(range(min(workers + 1, _MOST_RECORDS)))
        self._suspects = _read_deaths(self._deaths_file)
        self._notes: int | None = None
        try:
            self._open(state_dir / NOTES_NAME)
        except OSError as error:
            # Without notes a crash is blamed on nothing; that is no reason not to work.
            event(log, logging.WARNING, "work is not noted", reason=str(error))

    def close(self) -> None:
        """End in order: what is still in work then is not to blame for it."""
        with self._lock:
            if self._notes is not None:
                with suppress(OSError):
                    os.ftruncate(self._notes, 0)
                os.close(self._notes)
            self._notes = None

    def deaths(self, key: str) -> int:
        """Tell how often the process has died at this work without having got through it."""
        with self._lock:
            return self._suspects[key].deaths if key in self._suspects else 0

    def forgive(self, camera: str, slot: datetime) -> None:
        """Forget the deaths of a bracket: somebody wants it tried again."""
        with self._lock:
            guilty = [
                key
                for key, task in self._suspects.items()
                if (task.camera, task.slot) == (camera, slot.isoformat())
            ]
            for key in guilty:
                del self._suspects[key]
            if guilty:
                self._save()

    @contextmanager
    def recording(self, camera: str, slot: datetime) -> Iterator[None]:
        """Note that a row is being written: what dies of that is no worker's fault."""
        with self._noted(Task(_RECORDING, camera, slot.isoformat(), _RECORDING)):
            yield

    @contextmanager
    def doing(self, task: Task) -> Iterator[None]:
        """Note a task for as long as it takes."""
        if not self.deaths(task.key):
            with self._turns.beside_others(), self._noted(task):
                yield
            return
        # Of several suspects one is guilty, if any is: nobody else is to be there when it strikes
        # again, nor is it to be blamed for what others do.
        with self._turns.alone(), self._noted(task):
            yield
        with self._lock:
            if self._suspects.pop(task.key, None) is not None:
                self._save()

    # -- within -----------------------------------------------------------------------------

    @contextmanager
    def _noted(self, task: Task) -> Iterator[None]:
        with self._lock:
            place = self._free.pop() if self._free and self._notes is not None else None
            if place is not None:
                self._write(place, _record(task))
        try:
            yield
        finally:
            if place is not None:
                with self._lock:
                    self._write(place, b"\0")
                    self._free.append(place)

    def _write(self, place: int, note: bytes) -> None:
        if self._notes is not None:
            # Not forced to the disk: it has to outlive the process, not the machine.
            with suppress(OSError):
                os.pwrite(self._notes, note, (1 + place) * _RECORD)

    def _open(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        notes = os.open(path, flags, 0o640)
        try:
            boot, earlier = _boot(), os.pread(notes, (_MOST_RECORDS + 1) * _RECORD, 0)
            if earlier[:_RECORD] == boot:
                self._blame(earlier[_RECORD:])
            os.ftruncate(notes, 0)
            # Room that is there already cannot run out later.
            os.pwrite(notes, boot + bytes(len(self._free) * _RECORD), 0)
        except OSError:
            os.close(notes)
            raise
        self._notes = notes

    def _blame(self, notes: bytes) -> None:
        records = (
            notes[n : n + _RECORD].partition(b"\0")[0] for n in range(0, len(notes), _RECORD)
        )
        in_work = [task for task in map(_task, records) if task is not None]
        for found in (task for task in in_work if task.key != _RECORDING):
            before = self._suspects.get(found.key, found).deaths
            # Beside others it is suspect, but only what was alone is surely to blame.
            deaths = before + 1 if len(in_work) == 1 else max(before, 1)
            task = self._suspects[found.key] = replace(found, deaths=deaths)
            event(
                log,
                logging.ERROR if task.deaths >= MOST_DEATHS else logging.WARNING,
                "the last process died at this work",
                camera=task.camera,
                slot=task.slot,
                what=task.what,
                deaths=task.deaths,
                given_up=True if task.deaths >= MOST_DEATHS else None,
            )
        if notes.strip(b"\0"):
            self._save()

    def _save(self) -> None:
        # Only what would be lost with it is lost: a death more, before the work is given up.
        text = json.dumps([asdict(task) for task in self._suspects.values()])
        with suppress(PublishError):
            publish(text.encode(), self._deaths_file, root=self._deaths_file.parent)


class CarefulWork:
    """Reads and merges for one camera, except what the daemon has died of again and again.

    Parameters
    ----------
    camera : str
    root : Path
        The watch folder.
    at_work : AtWork
    read, merge : callable
        What is done: `Merger.read`, `Merger.merge`.
    """

    def __init__(
        self,
        camera: str,
        root: Path,
        at_work: AtWork,
        read: Callable[[ReadFile], ReadOutcome],
        merge: Callable[[MergeBracket, float], MergeOutcome],
    ) -> None:
        self._camera = camera
        self._root = root
        self._at_work = at_work
        self._read = read
        self._merge = merge

    def read(self, command: ReadFile) -> ReadOutcome:
        """Read an exposure; see `Merger.read`."""
        try:
            status = os.lstat(self._root / command.path)
        except OSError:
            return self._read(command)
        found = (status.st_size, status.st_mtime_ns)
        task = self._task(command.slot, f"reading {command.path}", [found])
        deaths = self._at_work.deaths(task.key)
        if deaths >= MOST_DEATHS:
            return Unusable(f"the daemon died {deaths} times while reading it", False, found)
        with self._at_work.doing(task):
            return self._read(command)

    def merge(self, command: MergeBracket, now: float) -> MergeOutcome:
        """Merge a bracket; see `Merger.merge`."""
        inputs = [(e.path, e.signature) for e in command.exposures]
        task = self._task(command.slot, "merging", inputs)
        deaths = self._at_work.deaths(task.key)
        if deaths >= MOST_DEATHS:
            reason = f"the daemon died {deaths} times while merging it"
            return MergeFailed(reason, permanent=True)
        with self._at_work.doing(task):
            return self._merge(command, now)

    def forgive(self, slot: datetime) -> None:
        """See `AtWork.forgive`."""
        self._at_work.forgive(self._camera, slot)

    def _task(self, slot: datetime, what: str, files: Sequence[object]) -> Task:
        text = repr((self._camera, slot, what, files)).encode("utf-8", "backslashreplace")
        return Task(hashlib.sha256(text).hexdigest(), self._camera, slot.isoformat(), what)


def _boot() -> bytes:
    """Which start of the machine this is: the notes' first record."""
    try:
        boot = _BOOT_ID.read_bytes().strip()
    except OSError:
        boot = b"unknown"
    return boot[: _RECORD - 1].ljust(_RECORD, b"\0")


def _record(task: Task) -> bytes:
    # Names are bounded, paths are not: the key alone tells tasks apart.
    short = replace(task, what=task.what[:120])
    return json.dumps(asdict(short)).encode("ascii")[: _RECORD - 1].ljust(_RECORD, b"\0")


def _task(text: bytes) -> Task | None:
    if not text:
        return None
    try:
        task = Task(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (task.key, task.camera, task.slot, task.what)
    sound = all(isinstance(text, str) for text in texts) and type(task.deaths) is int
    return task if sound else None


def _read_deaths(path: Path) -> dict[str, Task]:
    try:
        with path.open("rb") as file:
            listed = json.loads(file.read(_LONGEST_DEATHS))
    except (OSError, ValueError, RecursionError):
        return {}
    tasks = [_task(json.dumps(one).encode()) for one in listed] if isinstance(listed, list) else []
    return {task.key: task for task in tasks if task is not None}
