"""Quarantine of files and brackets that the process died of.

A decoder that crashes, or a merge that the kernel kills for its memory, takes the whole daemon
along, and would again after every restart. So the tasks of the workers are noted on disk while they
run. Tasks that were running when the process died are *suspects*: each of them runs alone from
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
from typing import Any

from pydantic import TypeAdapter

from asi_watch.files import shown
from asi_watch.logs import event

log = logging.getLogger(__name__)

SOLITARY_FAILURES = 2
"""With so many a task is quarantined."""
EXPIRES = 86_400.0
"""Seconds after which a quarantined task is tried again."""
JOURNAL_NAME, SUSPECTS_NAME = "at-work", "deaths.json"

_LARGEST = 1 << 20
# Room that is there already cannot run out when the disk is full.
_ROOM = 32 << 10
_OWN = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
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


_TASKS = TypeAdapter(list[Task])
_OTHER_WORK = Task("", "", "", "writing a row")


def task_of(camera: str, slot: datetime, what: str, files: Sequence[object]) -> Task:
    """Return the task of doing something with these files (paths and signatures) of a bracket."""
    text = repr((camera, slot, what, files)).encode("utf-8", "backslashreplace")
    return Task(hashlib.sha256(text).hexdigest(), camera, slot.isoformat(), shown(what[:120]))


class Quarantine:
    """The running tasks and the suspects of one daemon; may be called from any thread.

    Parameters
    ----------
    state_dir : Path
    patience : float
        Seconds that a task waits at most to run alone, and after which a running one is no longer
        waited for: what hangs must not stop the others for ever.
    """

    def __init__(self, state_dir: Path, patience: float = 60.0) -> None:
        self._suspects_file = state_dir / SUSPECTS_NAME
        self._patience = patience
        self._changed = threading.Condition()
        self._suspects = {task.key: task for task in _read(self._suspects_file)}
        self._running: dict[object, tuple[Task, bool, float]] = {}
        self._want_alone = 0
        self._journal: int | None = None
        try:
            self._open(state_dir / JOURNAL_NAME)
        except OSError as error:
            # Without a journal a crash is charged to nothing; that is no reason not to work.
            event(log, logging.WARNING, "running tasks are not noted", reason=str(error))

    def close(self) -> None:
        """End in order: tasks that still run then are not suspects."""
        with self._changed:
            if self._journal is not None:
                with suppress(OSError):
                    os.ftruncate(self._journal, 0)
                os.close(self._journal)
            self._journal = None

    def refusal(self, task: Task) -> str | None:
        """Return why a task must not run, None if it may.

        Parameters
        ----------
        task : Task
        """
        with self._changed:
            suspect = self._suspects.get(task.key)
        if suspect is None or suspect.deaths < SOLITARY_FAILURES:
            return None
        kind = task.what.partition(" ")[0]
        return f"quarantined: the daemon died while {kind} it, alone; tried again after a day"

    def take_expired(self) -> list[tuple[str, datetime]]:
        """Return camera and slot of tasks whose quarantine is over; each is tried alone again."""
        now, expired = time.time(), []
        with self._changed:
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
        with self._changed:
            for key, one in list(self._suspects.items()):
                if (one.camera, one.slot) == (camera, slot.isoformat()):
                    del self._suspects[key]
            self._save()

    @contextmanager
    def running(self, task: Task) -> Iterator[None]:
        """Note a task for as long as it runs; a suspect waits until it can run alone.

        Parameters
        ----------
        task : Task
        """
        with self._changed:
            alone = task.key in self._suspects
            if alone:
                # It goes before tasks that need not be alone.
                self._want_alone += 1
                self._wait_until(lambda: not self._beside())
                self._want_alone -= 1
            else:
                self._wait_until(lambda: not (self._want_alone or any(self._beside())))
            claim = self._begin(task, alone)
        try:
            yield
        finally:
            self._end(claim)
        with self._changed:
            if alone and self._suspects.pop(task.key, None) is not None:
                self._save()

    @contextmanager
    def other_work(self) -> Iterator[None]:
        """Note that the owner thread works too: a death meanwhile may be that of its work."""
        claim = self._begin(_OTHER_WORK, alone=False)
        try:
            yield
        finally:
            self._end(claim)

    def _begin(self, task: Task, alone: bool) -> object:
        claim = object()
        with self._changed:
            self._running[claim] = task, alone, time.monotonic()
            self._note()
        return claim

    def _end(self, claim: object) -> None:
        with self._changed:
            del self._running[claim]
            self._note()
            self._changed.notify_all()

    def _beside(self) -> list[bool]:
        """Whether they run alone, of all tasks that run and do not hang."""
        oldest = time.monotonic() - self._patience
        return [alone for _, alone, since in self._running.values() if since > oldest]

    def _wait_until(self, free: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience
        while not free() and (left := deadline - time.monotonic()) > 0:
            # Nobody notifies when the patience with a hanging task ends.
            self._changed.wait(min(left, 1.0))

    def _open(self, path: Path) -> None:
        """Charge the death of the last process to what was running, and begin a new journal."""
        journal = os.open(path, os.O_RDWR | _OWN, 0o600)
        boot = _boot_id()
        earlier, _, tasks = os.pread(journal, _LARGEST, 0).partition(b"\n")
        if earlier == boot:
            self._charge(_parsed(tasks.partition(b"\0")[0]))
        os.ftruncate(journal, 0)
        os.pwrite(journal, (boot + b"\n").ljust(_ROOM, b"\0"), 0)
        self._journal, self._place = journal, len(boot) + 1

    def _charge(self, running: list[Task]) -> None:
        for found in (task for task in running if task.key):
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

    def _note(self) -> None:
        """Write down what runs; not forced to the disk: it has to outlive the process alone."""
        if self._journal is not None:
            text = _as_json(task for task, _, _ in self._running.values())
            with suppress(OSError):
                os.pwrite(self._journal, text + b"\0", self._place)

    def _save(self) -> None:
        new = self._suspects_file.with_name(f".{SUSPECTS_NAME}.new")
        # If this fails, only a failure more is needed before the task is quarantined.
        with suppress(OSError):
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_TRUNC | _OWN, 0o600), "wb") as file:
                file.write(_as_json(self._suspects.values()))
            new.replace(self._suspects_file)


def _boot_id() -> bytes:
    try:
        return _BOOT_ID.read_bytes().strip()[:64]
    except OSError:
        return b"unknown"


def _as_json(tasks: Any) -> bytes:
    return json.dumps([asdict(task) for task in tasks]).encode("ascii")


def _parsed(text: bytes) -> list[Task]:
    """Tasks as `_as_json` writes them; none where the text makes no sense."""
    with suppress(ValueError):
        return _TASKS.validate_json(text, strict=True)
    return []


def _read(path: Path) -> list[Task]:
    with suppress(OSError), path.open("rb") as file:
        return _parsed(file.read(_LARGEST))
    return []
