"""Which files of a camera have been kept long enough, and a check that the newest products stand.

The ledger says what may go: exposures that were merged, as long as their products stand and the
file is still what the row recorded; and products that say themselves which bracket they are of.
What was not published is never a candidate: brackets that wait, failed or were skipped, exposures
that came too late or were left out. Everything is reached below a held folder, and no link is
followed. Ages count from the newest slot of a camera where the computer's clock is ahead of it: a
clock that jumps deletes nothing, and a camera that has stopped keeps its last pictures.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from asi_watch.config.model import CameraConfig
from asi_watch.files import HeldFolder
from asi_watch.images import looks_complete
from asi_watch.live.disk import free_bytes
from asi_watch.live.ledger.ledger import Ledger, LedgerError
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.live.messages import Signature
from asi_watch.logs import event, failure
from asi_watch.products import Provenance, ProvenanceError, read_provenance
from asi_watch.products.provenance import is_product_of

log = logging.getLogger(__name__)

Kind = Literal["exposures", "products"]
KINDS: tuple[Kind, ...] = ("exposures", "products")

_HOUR, _DAY = 3600.0, 86_400.0
# Late exposures, calibrations and people still want what is younger.
_YOUNGEST = _HOUR
# A folder that was written to so lately may be written to again before the camera makes it again.
_FOLDER_IN_USE = 2 * _DAY
# Later than now by more than this is the mistake of a clock.
_FUTURE = _HOUR
# Names may be of another time zone than the computer's clock.
_NAMES_AHEAD = timedelta(days=2)
_PAGE = 100
_MOST_FAILURES = 20
_FIRST_AFTER, _EVERY, _MORE_AFTER, _LOOK_EVERY, _SEARCH_EVERY = 600.0, _HOUR, 60.0, 5.0, 600.0
_CHECKED = 50
# Between pages: whoever waits for a processor while it holds the interpreter's lock makes all
# others wait.
_BREATH = 0.1
_DATE_FOLDER = re.compile(r"\d[\d_.\-]*")


@dataclass(slots=True)
class Outcome:
    """What was deleted of one kind of files of one camera, or would be."""

    camera: str
    kind: Kind
    files: int = 0
    size: int = 0  # bytes
    failed: int = 0
    reason: str | None = None  # why the first of those that failed could not be deleted
    kept: int = 0  # brackets that stay, since their product is not as it was published
    oldest: datetime | None = None
    newest: datetime | None = None


def retain(
    cameras: Iterable[CameraConfig],
    ledger: Ledger,
    now: float,
    *,
    apply: bool,
    done: dict[tuple[str, Kind], datetime] | None = None,
    free: Callable[[Path], int] = free_bytes,
    stopping: threading.Event | None = None,
) -> list[Outcome]:
    """Delete what has been kept long enough: all exposures first, then products, oldest slot first.

    Parameters
    ----------
    cameras : iterable of CameraConfig
        Those whose files may be deleted, if they have limits.
    ledger : Ledger
        Only read; LedgerError if that fails.
    now : float
        Unix time.
    apply : bool
        Delete; otherwise only count, to the same numbers.
    done : dict, optional
        By camera and kind, the slot up to which nothing is left to delete; kept between runs. What
        has no entry is looked through whole.
    free : callable
        Folder → free bytes.
    stopping : threading.Event, optional
        Ends the run after the page of rows at hand.

    Returns
    -------
    list of Outcome
        One for each camera and kind that has limits.
    """
    done, room = {} if done is None else done, dict[int, float]()
    with ExitStack() as stack:
        # All file systems are measured before the first file goes: cameras may share one.
        candidates = [
            _Candidates(camera, kind, ledger, now, room, free, stack)
            for kind in KINDS
            for camera in tuple(cameras)
            if getattr(camera.retention, kind).any
        ]
        for kind in KINDS:
            streams = [
                one.brackets(done.get((one.camera.name, kind)), stopping)
                for one in candidates
                if one.kind == kind
            ]
            for _, _, one, record, since in heapq.merge(*streams, key=lambda item: item[:2]):
                one.consider(record, since, apply=apply)
    if apply:
        done |= {(c.camera.name, c.kind): c.done for c in candidates if c.done is not None}
    return [candidate.outcome for candidate in candidates]


class _Candidates:
    """One kind of files of one camera: what is left of its brackets, and what is too much."""

    def __init__(
        self,
        camera: CameraConfig,
        kind: Kind,
        ledger: Ledger,
        now: float,
        room: dict[int, float],
        free: Callable[[Path], int],
        stack: ExitStack,
    ) -> None:
        self.camera, self.kind, self.outcome = camera, kind, Outcome(camera.name, kind)
        self.done: datetime | None = None
        self._ledger, self._now = ledger, now
        limits = getattr(camera.retention, kind)
        self._before = _too_old_before(camera, ledger, now, limits.max_age)
        self._keep_free = limits.keep_free or 0
        self._room, self._device = room, -1
        self._unfinished = False
        # By path; room is made on the file system of the first.
        self._held: dict[Path, HeldFolder] = {}
        for root in (camera.watch,) if kind == "exposures" else camera.outputs:
            with suppress(OSError):
                held = self._held[root] = stack.enter_context(HeldFolder(root))
                device = held.identity[0]
                if device not in room:
                    room[device] = free(root)
                self._device = device if self._device < 0 else self._device
        room.setdefault(self._device, float("inf"))

    @property
    def _is_short(self) -> bool:
        return self._keep_free > self._room[self._device]

    def brackets(
        self, after: datetime | None, stopping: threading.Event | None
    ) -> Iterator[tuple[datetime, str, _Candidates, BracketRecord, float]]:
        """Yield brackets of which something may go, and since when it is kept, by their slots."""
        name, searching = self.camera.name, after is None
        self.done = after
        while self._held and (self._is_short or self._before > float("-inf")):
            edge = None
            if not (searching or self._is_short):
                # Later slots are too young as well, but for clocks that were wrong.
                edge = datetime.fromtimestamp(self._before, UTC).replace(tzinfo=None) + _NAMES_AHEAD
            page = self._ledger.published(name, after=after, before=edge, limit=_PAGE)
            for record in page:
                after, since = record.slot, self._since(record)
                if since is None or not (self._is_short or since < self._before):
                    self._unfinished = True
                    continue
                yield record.slot, name, self, record, since
                if self.outcome.failed >= _MOST_FAILURES:
                    return
                if not (self._unfinished or self.outcome.failed):
                    self.done = record.slot
            if len(page) < _PAGE or (stopping is not None and stopping.wait(_BREATH)):
                return

    def _since(self, record: BracketRecord) -> float | None:
        """From when the age of a bracket's files counts; None: no clock knows."""
        times = [datetime.fromisoformat(record.updated_utc).timestamp()]
        if self.kind == "exposures":
            times += [exposure.mtime_ns / 1e9 for exposure in record.inputs]
        return max((t for t in times if t <= self._now + _FUTURE), default=None)

    def consider(self, record: BracketRecord, since: float, *, apply: bool) -> None:
        """Delete what is left of a bracket's files, or only count them, if they are to go."""
        if not (files := self._files(record)):
            return
        outcome, age, slot = self.outcome, self._now - since, record.slot
        helps = self._is_short and any(_frees(status, self._device) for status in files.values())
        if age < _YOUNGEST or not (since < self._before or helps):
            self._unfinished = True
            return
        permitted = self._permitted(record, files)
        gone = [path for path in permitted if not apply or self._remove(path, files[path])]
        if not gone:
            return
        outcome.files += len(gone)
        outcome.size += sum(files[path].st_size for path in gone)
        outcome.oldest = min(outcome.oldest or slot, slot)
        outcome.newest = max(outcome.newest or slot, slot)
        self._room[self._device] += sum(_frees(files[path], self._device) for path in gone)
        if apply and age > _FOLDER_IN_USE:
            for folder in {str(PurePosixPath(path).parent) for path in gone}:
                self._remove_empty_date_folders(folder, slot)

    def _files(self, record: BracketRecord) -> dict[str, os.stat_result]:
        """Those of a bracket that are there; they go together."""
        recorded: dict[str, Signature | None] = dict.fromkeys(record.products)
        if self.kind == "exposures":
            recorded = {e.path: e.signature for e in record.inputs}
        found = {path: self._status(path) for path in recorded}
        return {
            path: status
            for path, status in found.items()
            if status is not None and recorded[path] in (None, _signature(status))
        }

    @contextmanager
    def _folder_of(self, path: str) -> Iterator[tuple[int, str]]:
        """Give the open folder that a file lies in, and its name there; OSError if it is none.

        Opened again each time: a folder that was moved away meanwhile is not ours any more.
        """
        root, where = self.camera.watch, PurePosixPath(path)
        if self.kind == "products":
            root, where = self.camera.place_of(path)
        if root not in self._held:
            raise NotADirectoryError(errno.ENOTDIR, "is in no folder of this camera", path)
        with self._held[root].folder(where.parent) as folder:
            yield folder, where.name

    def _status(self, path: str) -> os.stat_result | None:
        try:
            with self._folder_of(path) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (OSError, ValueError):
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def _permitted(self, record: BracketRecord, files: Iterable[str]) -> list[str]:
        if self.kind == "products":
            return [path for path in files if _provenance(self.camera, record, path)]
        if self.camera.retention.require_product and product_fault(self.camera, record):
            self.outcome.kept += 1
            return []
        return list(files)

    def _remove(self, path: str, seen: os.stat_result) -> bool:
        if self.outcome.failed >= _MOST_FAILURES:
            return False
        now = self._status(path)
        if now is None or _signature(now) != _signature(seen):
            return False
        try:
            with self._folder_of(path) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self.outcome.failed += 1
                self.outcome.reason = self.outcome.reason or f"{path}: {error.strerror or error}"
            return False
        return True

    def _remove_empty_date_folders(self, folder: str, slot: datetime) -> None:
        """Remove folders that are empty and named by the date of a slot, from below.

        A folder that a camera does not make again every day stays: its next upload would fail.
        """
        while _is_of_date(PurePosixPath(folder), slot):
            try:
                with self._folder_of(folder) as (parent, name):
                    os.rmdir(name, dir_fd=parent)
            except OSError:  # not empty, mostly
                return
            folder = str(PurePosixPath(folder).parent)


def _too_old_before(
    camera: CameraConfig, ledger: Ledger, now: float, max_age: timedelta | None
) -> float:
    """Unix time before which files are too old."""
    newest = ledger.history(camera=camera.name, limit=1)
    if max_age is None or not newest:
        return float("-inf")
    slot = camera.pattern.to_utc(newest[0].slot).timestamp()
    return min(now, slot) - max_age.total_seconds()


def _signature(status: os.stat_result) -> Signature:
    return status.st_size, status.st_mtime_ns


def _frees(status: os.stat_result, device: int) -> int:
    """Bytes that deleting frees on a device: none while another name holds the file."""
    return status.st_size if status.st_nlink == 1 and status.st_dev == device else 0


def _is_of_date(folder: PurePosixPath, slot: datetime) -> bool:
    """Tell whether the last names of a path are the date of a slot, or its beginning."""
    names = [*takewhile(_DATE_FOLDER.fullmatch, reversed(folder.parts))]
    digits = re.sub(r"\D", "", "".join(reversed(names)))
    # Folders may be named in another time zone than files, or by the evening before.
    hours = (slot + timedelta(hours=n) for n in range(-36, 37))
    return any(
        len(digits) >= least and f"{hour:{form}}".startswith(digits)
        for hour in hours
        for form, least in (("%Y%m%d%H", 4), ("%Y%j%H", 4), ("%y%m%d%H", 6))
    )


def product_fault(camera: CameraConfig, record: BracketRecord) -> str | None:
    """Say what is wrong with the products of a bracket, such as ``PATH: missing``; None if nothing.

    Parameters
    ----------
    camera : CameraConfig
    record : BracketRecord
        Of a published bracket.
    """
    for path in record.products:
        if not os.path.lexists(camera.output / path):
            return f"{path}: missing"
        provenance = _provenance(camera, record, path)
        if provenance is None:
            return f"{path}: damaged, or of another bracket"
        if not looks_complete(camera.output / path):
            return f"{path}: cut"
        excluded = {u.path for u in provenance.excluded_of(record.inputs)}
        inputs = {(e.path, e.size, e.mtime_ns) for e in record.inputs if e.path not in excluded}
        if not inputs <= {(s.path, s.size, s.mtime_ns) for s in provenance.sources}:
            return f"{path}: not made of the exposures in its row"
    return None if record.products else "no product in its row"


def _provenance(camera: CameraConfig, record: BracketRecord, path: str) -> Provenance | None:
    try:
        found = read_provenance(camera.output / path)
    except (OSError, ProvenanceError):
        return None
    ours = is_product_of(found, record.camera, record.slot, record.inputs)
    return found if ours else None


class RetentionThread:
    """Deletes hourly, sooner when a disk is full, in bounded steps; and checks the newest products.

    Parameters
    ----------
    state_dir : Path
        Where the ledger is, which is only read.
    cameras : iterable of CameraConfig
    is_full : callable
        Tells that a disk is so full that writing pauses: then nothing waits for the hour.
    clock : callable
        Unix time.
    """

    def __init__(
        self,
        state_dir: Path,
        cameras: Iterable[CameraConfig],
        is_full: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state_dir, self._cameras, self._is_full = state_dir, tuple(cameras), is_full
        self._clock = clock
        self._done: dict[tuple[str, Kind], datetime] = {}
        self._status: dict[str, dict[str, Any]] = {
            c.name: {"deleted_files": 0, "deleted_bytes": 0, "products": None}
            for c in self._cameras
        }
        self._searched_at = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the file at hand."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def snapshot(self, camera: str) -> dict[str, Any]:
        """Return what `status` shows: deleted since the start, and how the newest products are."""
        return self._status[camera].copy()

    def _run(self) -> None:
        due, due_if_full = time.monotonic() + _FIRST_AFTER, time.monotonic() + _MORE_AFTER
        while not self._stopping.wait(_LOOK_EVERY):
            now = time.monotonic()
            hourly = now >= due
            if not (hourly or (now >= due_if_full and self._is_full())):
                continue
            due = now + _EVERY if hourly else due
            try:
                self.run_once()
                if hourly:
                    self.check_products()
            except LedgerError as error:
                event(log, logging.WARNING, "retention postponed", reason=str(error))
            # The one boundary of this thread: retention is not worth more than the daemon.
            except Exception as error:  # noqa: BLE001
                failure(log, "retention crashed", error)
            due_if_full = time.monotonic() + _MORE_AFTER

    def run_once(self) -> None:
        """Go through all cameras; once a day, and now and then on a full disk, through all rows.

        What a backlog published behind an earlier run makes room as well. Only then it is logged
        what `dry_run` would delete. LedgerError if the ledger cannot be read.
        """
        period = _SEARCH_EVERY if self._is_full() else _DAY
        searching = time.monotonic() - self._searched_at >= period
        if searching:
            self._done.clear()
        with Ledger(self._state_dir, read_only=True) as ledger:
            for dry in (False, True) if searching else (False,):
                cameras = [camera for camera in self._cameras if camera.retention.dry_run == dry]
                now, done = self._clock(), self._done
                for outcome in retain(
                    cameras, ledger, now, apply=not dry, done=done, stopping=self._stopping
                ):
                    self._note(outcome, dry)
        if searching:
            self._searched_at = time.monotonic()

    def _note(self, outcome: Outcome, dry_run: bool) -> None:
        if not dry_run:
            self._status[outcome.camera]["deleted_files"] += outcome.files
            self._status[outcome.camera]["deleted_bytes"] += outcome.size
        if outcome.files or outcome.failed or outcome.kept:
            level = logging.WARNING if outcome.failed else logging.INFO
            text = "retention would delete" if dry_run else "retention deleted"
            facts = {name: value for name, value in asdict(outcome).items() if value}
            event(log, level, text, **facts)

    def check_products(self) -> None:
        """Look whether the newest products stand as published; LedgerError if the ledger fails."""
        for camera in self._cameras:
            with Ledger(self._state_dir, read_only=True) as ledger:
                newest = ledger.history(camera=camera.name, limit=_CHECKED)
            published = [record for record in newest if record.state == "published"]
            faults = [f for record in published if (f := product_fault(camera, record))]
            missing = sum(fault.endswith(": missing") for fault in faults)
            damaged, example = len(faults) - missing, faults[-1] if faults else None
            found = {"missing": missing, "damaged": damaged, "example": example}
            self._status[camera.name]["products"] = {"checked": len(published), **found}
            if faults:
                level = logging.ERROR if damaged else logging.WARNING
                text = "products do not stand as they were published"
                remedy = (
                    "asi-watch history --verify lists them, asi-watch retry --published merges them"
                    " again"
                )
                facts = {"camera": camera.name, **found, "of": len(published), "remedy": remedy}
                event(log, level, text, **facts)
