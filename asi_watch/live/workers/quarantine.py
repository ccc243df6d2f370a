"""Quarantine of files and brackets that the process died of.

A decoder that crashes, or a merge that the kernel kills for its memory, takes the whole daemon
along, and would again after every restart. So every task of a worker is noted on disk while it
runs. Tasks that were running when the process died are *suspects*: each of them runs alone from
then on, and one that the process dies of again while nothing else ran has a *solitary failure*.
With two of these it is quarantined: refused with the reason, and tried again after a day or when
an operator asks for it. A task that ends is no suspect any more, so that a process killed from
outside leaves no trace; nor does a power cut, after which the machine's boot id is another.
"""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from asi_watch.logs import event

log = logging.getLogger(__name__)

SOLITARY_FAILURES = 2
"""With so many a task is quarantined."""
EXPIRES = 86_400.0
"""Seconds after which a quarantined task is tried again."""
NOTES_NAME, SUSPECTS_NAME = "at-work", "deaths.json"
PATIENCE = 60.0
"""Seconds after which a task that hangs is no longer waited for."""

_RECORDING = "recording"
_RECORD = 2048
_MOST_RECORDS = 1024
_LONGEST_FILE = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Task:
    """Something a worker does. Equal keys are the same work on the same files."""

    key: str
    camera: str  # for the log
    slot: str
    what: str
    deaths: int = 0  # solitary failures; 0 for a suspect
    at: float = 0.0  # seconds since 1970 of the last death


def task_of(camera: str, slot: datetime, what: str, files: Sequence[object]) -> Task:
    """Return the task of doing something with these files (paths and signatures) of a bracket."""
    text = repr((camera, slot, what, files)).encode("utf-8", "backslashreplace")
    return Task(hashlib.sha256(text).hexdigest(), camera, slot.isoformat(), what)


class Quarantine:
    """The running tasks and the suspects of one daemon; may be called from any thread.

    Parameters
    ----------
    state_dir : Path
    most_tasks : int
        So many tasks may run at once.
    """

    def __init__(self, state_dir: Path, most_tasks: int) -> None:
        self._suspects_file = state_dir / SUSPECTS_NAME
        self._lock = threading.Lock()
        self._turns = Turns()
        # One place more than tasks: rows are written beside them.
        self._free = list(range(min(most_tasks + 1, _MOST_RECORDS)))
        self._suspects = _read_suspects(self._suspects_file)
        self._notes: int | None = None
        try:
            self._open(state_dir / NOTES_NAME)
        except OSError as error:
            # Without notes a crash is charged to nothing; that is no reason not to work.
            event(log, logging.WARNING, "running tasks are not noted", reason=str(error))

    def close(self) -> None:
        """End in order: tasks that still run then are not suspects."""
        with self._lock:
            if self._notes is not None:
                with suppress(OSError):
                    os.ftruncate(self._notes, 0)
                os.close(self._notes)
            self._notes = None

    def refusal(self, task: Task) -> str | None:
        """Return why a task must not run, None if it may.

        Parameters
        ----------
        task : Task
        """
        with self._lock:
            suspect = self._suspects.get(task.key)
        if suspect is None or suspect.deaths < SOLITARY_FAILURES:
            return None
        kind = task.what.partition(" ")[0]
        return f"quarantined: the daemon died while {kind} it, alone; tried again after a day"

    def is_suspect(self, task: Task) -> bool:
        """Tell whether the process died while this task ran."""
        with self._lock:
            return task.key in self._suspects

    def take_expired(self) -> list[tuple[str, datetime]]:
        """Return camera and slot of tasks whose quarantine is over; each is tried alone again."""
        now, expired = time.time(), []
        with self._lock:
            for key, one in list(self._suspects.items()):
                # A clock that was set back must not keep them for ever.
                if one.deaths >= SOLITARY_FAILURES and not 0 <= now - one.at < EXPIRES:
                    self._suspects[key] = replace(one, deaths=SOLITARY_FAILURES - 1)
                    with suppress(ValueError):
                        expired.append((one.camera, datetime.fromisoformat(one.slot)))
            if expired:
                self._save()
        return expired

    def forgive(self, camera: str, slot: datetime) -> None:
        """Forget the deaths of a bracket: an operator wants it tried again.

        Parameters
        ----------
        camera : str
        slot : datetime
        """
        with self._lock:
            bracket = (camera, slot.isoformat())
            kept = {k: t for k, t in self._suspects.items() if (t.camera, t.slot) != bracket}
            if len(kept) < len(self._suspects):
                self._suspects = kept
                self._save()

    @contextmanager
    def recording(self, camera: str, slot: datetime) -> Iterator[None]:
        """Note that a row is being written: a death meanwhile may not be a worker's fault.

        Parameters
        ----------
        camera : str
        slot : datetime
        """
        with self._noted(Task(_RECORDING, camera, slot.isoformat(), _RECORDING)):
            yield

    @contextmanager
    def running(self, task: Task) -> Iterator[None]:
        """Note a task for as long as it runs; a suspect waits until it can run alone.

        Parameters
        ----------
        task : Task
        """
        suspect = self.is_suspect(task)
        with self._turns.alone() if suspect else self._turns.beside_others(), self._noted(task):
            yield
        if suspect:
            with self._lock:
                if self._suspects.pop(task.key, None) is not None:
                    self._save()

    # -- notes on disk ----------------------------------------------------------------------

    @contextmanager
    def _noted(self, task: Task) -> Iterator[None]:
        with self._lock:
            place = self._free.pop() if self._free and self._notes is not None else None
            if place is not None:
                self._write(place, _as_record(task))
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
        notes = os.open(path, flags, 0o600)
        try:
            boot = _boot_id()
            earlier = os.pread(notes, (_MOST_RECORDS + 1) * _RECORD, 0)
            if earlier[:_RECORD].rstrip(b"\0").partition(b"\n")[0] == boot:
                self._charge(earlier[_RECORD:])
            os.ftruncate(notes, 0)
            # Room that is there already cannot run out later.
            os.pwrite(notes, boot.ljust((1 + len(self._free)) * _RECORD, b"\0"), 0)
        except OSError:
            os.close(notes)
            raise
        self._notes = notes

    def _charge(self, notes: bytes) -> None:
        """Charge the death of the last process to what was running."""
        records = (
            notes[n : n + _RECORD].partition(b"\0")[0] for n in range(0, len(notes), _RECORD)
        )
        running = [task for task in map(_from_record, records) if task is not None]
        for found in (task for task in running if task.key != _RECORDING):
            before = self._suspects.get(found.key)
            # Only what ran alone is surely at fault; a first time may be anybody's kill.
            deaths = before.deaths + (len(running) == 1) if before else 0
            task = self._suspects[found.key] = replace(found, deaths=deaths, at=time.time())
            quarantined = deaths >= SOLITARY_FAILURES
            event(
                log,
                logging.ERROR if quarantined else logging.WARNING,
                "the last process died during this task",
                camera=task.camera,
                slot=task.slot,
                what=task.what,
                solitary_failures=task.deaths,
                quarantined="for a day, or until: asi-watch retry" if quarantined else None,
            )
        if running:
            self._save()

    def _save(self) -> None:
        text = json.dumps([asdict(task) for task in self._suspects.values()])
        new = self._suspects_file.with_name(f".{SUSPECTS_NAME}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        # If this fails, only a failure more is needed before the task is quarantined.
        with suppress(OSError):
            with os.fdopen(os.open(new, flags, 0o600), "w") as file:
                file.write(text)
            new.replace(self._suspects_file)


def _boot_id() -> bytes:
    try:
        return _BOOT_ID.read_bytes().strip()[:64]
    except OSError:
        return b"unknown"


def _as_record(task: Task) -> bytes:
    # Names are bounded, paths are not: the key alone tells tasks apart.
    short = replace(task, what=task.what[:120])
    return json.dumps(asdict(short)).encode("ascii")[: _RECORD - 1].ljust(_RECORD, b"\0")


def _from_record(text: bytes) -> Task | None:
    if not text:
        return None
    try:
        task = Task(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (task.key, task.camera, task.slot, task.what)
    sound = all(isinstance(text, str) for text in texts) and type(task.deaths) is int
    return task if sound and isinstance(task.at, int | float) else None


def _read_suspects(path: Path) -> dict[str, Task]:
    try:
        with path.open("rb") as file:
            listed = json.loads(file.read(_LONGEST_FILE))
        tasks = [_from_record(json.dumps(one).encode()) for one in listed]
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    return {task.key: task for task in tasks if task is not None}


class Turns:
    """A lock for many or for one; a task that must run alone goes first.

    Parameters
    ----------
    patience : float
        Seconds that a task waits at most, and after which a running one is no longer waited for:
        what hangs must not stop the others for ever.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._beside: dict[object, float] = {}
        self._alone: dict[object, float] = {}
        self._want_alone = 0

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Run while others do, but not while one runs alone or waits to."""
        with self._changed:
            self._wait_until(lambda: not (self._in(self._alone) or self._want_alone))
            turn = self._begin(self._beside)
        try:
            yield
        finally:
            self._end(self._beside, turn)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run while no other task does."""
        with self._changed:
            self._want_alone += 1
            self._wait_until(lambda: not (self._in(self._alone) or self._in(self._beside)))
            self._want_alone -= 1
            turn = self._begin(self._alone)
        try:
            yield
        finally:
            self._end(self._alone, turn)

    def _in(self, turns: dict[object, float]) -> bool:
        oldest = time.monotonic() - self._patience
        return any(since > oldest for since in turns.values())

    @staticmethod
    def _begin(turns: dict[object, float]) -> object:
        turn = object()
        turns[turn] = time.monotonic()
        return turn

    def _end(self, turns: dict[object, float], turn: object) -> None:
        with self._changed:
            del turns[turn]
            self._changed.notify_all()

    def _wait_until(self, free: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience
        while not free() and (left := deadline - time.monotonic()) > 0:
            # Nobody notifies when the patience with a hanging task ends.
            self._changed.wait(min(left, 1.0))
