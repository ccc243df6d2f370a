"""Which files of a camera have been kept long enough, and a check that the newest products stand.

The ledger says what may go: exposures that were merged, as long as their products stand and the
file is still what the row recorded; and products that say themselves which bracket they are of.
What was not published is never a candidate: brackets that wait, failed or were skipped, exposures
that came too late or were left out. Everything is reached below a held folder, and no link is
followed.
"""

from __future__ import annotations

import errno
import heapq
import json
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
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
from asi_watch.naming import is_product_name, slot_stem
from asi_watch.products import Provenance, ProvenanceError, read_provenance
from asi_watch.products.provenance import is_product_of

__all__ = ["KINDS", "ClockTrust", "Kind", "Outcome", "RetentionThread", "product_fault", "retain"]

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
# Between pages: who waits for a processor while it holds the interpreter's lock makes all others
# wait.
_BREATH = 0.1
_DATE_FOLDER = re.compile(r"\d[\d_.\-]*")


@dataclass(slots=True)
class Outcome:
    """What was deleted of one kind of files of one camera, or would be."""

    camera: str
    kind: Kind
    files: int = 0
    size: int = 0
    failed: int = 0
    reason: str | None = None
    """Why the first of those that failed could not be deleted."""
    kept: int = 0
    """Brackets that were to go and stay, since their product is not as it was published."""
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
    trust_clock: bool = True,
    thorough: bool = True,
    pause: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Delete what has been kept long enough: all exposures first, then products, oldest slot first.

    Parameters
    ----------
    cameras : iterable of CameraConfig
        Those whose files may be deleted, if they have limits.
    ledger : Ledger
        Only read.
    now : float
        Unix time.
    apply : bool
        Delete; otherwise only count, to the same numbers.
    done : dict, optional
        By camera and kind, the slot up to which nothing is left to delete; kept between runs.
    free : callable
        Folder → free bytes.
    trust_clock : bool
        False: nothing goes by its age.
    thorough : bool
        Look at all rows, also where `done` says that nothing is left, or the slot that it is young.
    pause : callable
        Called after every page of rows; True ends the run.

    Returns
    -------
    list of Outcome
        One for each camera and kind that has limits.

    Raises
    ------
    LedgerError
        If the ledger cannot be read.
    """
    cameras, done, freed = tuple(cameras), {} if done is None else done, dict[int, int]()
    with ExitStack() as stack:
        # All are measured before the first is deleted: what one frees counts for all.
        candidates = [
            _Candidates(
                camera,
                kind,
                stack,
                now=now,
                max_age=limits.max_age if trust_clock else None,
                short_of=_missing(limits.keep_free, _root(camera, kind), free),
                after=None if thorough else done.get((camera.name, kind)),
                freed=freed,
            )
            for kind in KINDS
            for camera in cameras
            if (limits := getattr(camera.retention, kind)).any
        ]
        for kind in KINDS:
            streams = [c.brackets(ledger, pause, thorough) for c in candidates if c.kind == kind]
            for _, _, one, bracket in heapq.merge(*streams, key=lambda item: item[:2]):
                one.consider(bracket, apply=apply)
    if apply:
        done |= {(c.camera.name, c.kind): c.done for c in candidates if c.done is not None}
    return [candidate.outcome for candidate in candidates]


def _root(camera: CameraConfig, kind: Kind) -> Path:
    return camera.watch if kind == "exposures" else camera.output


def _missing(keep_free: int | None, folder: Path, free: Callable[[Path], int]) -> int:
    with suppress(OSError):
        return 0 if keep_free is None else keep_free - free(folder)
    return 0


@dataclass(frozen=True, slots=True)
class _File:
    """A file that is left of a bracket; `frees` bytes, none while another name holds the file."""

    path: PurePosixPath
    signature: Signature
    frees: int


@dataclass(frozen=True, slots=True)
class _Bracket:
    """The files of one kind that are left of a bracket: they go together."""

    record: BracketRecord
    since: float
    files: list[_File]


class _Candidates:
    """One kind of files of one camera: what is left of its brackets, and what is too much."""

    def __init__(
        self,
        camera: CameraConfig,
        kind: Kind,
        stack: ExitStack,
        *,
        now: float,
        max_age: timedelta | None,
        short_of: int,
        after: datetime | None,
        freed: dict[int, int],
    ) -> None:
        self.camera, self.kind, self.outcome = camera, kind, Outcome(camera.name, kind)
        self.done = after
        self._now = now
        self._before = float("-inf") if max_age is None else now - max_age.total_seconds()
        self._short_of = short_of
        # Bytes freed so far, by device: cameras may share one.
        self._freed, self._device = freed, -1
        self._held: HeldFolder | None = None
        self._unfinished = False
        with suppress(OSError):
            self._held = HeldFolder(_root(camera, kind))
            stack.callback(self._held.close)
            self._device = self._held.identity[0]

    @property
    def _is_short(self) -> bool:
        return self._short_of > self._freed.get(self._device, 0)

    # -- what there is --------------------------------------------------------------------------

    def brackets(
        self, ledger: Ledger, pause: Callable[[], bool], thorough: bool
    ) -> Iterator[tuple[datetime, str, _Candidates, _Bracket]]:
        """Yield brackets of which something may be left, in the order of their slots."""
        after, name = self.done, self.camera.name
        while self._held is not None and (self._is_short or self._before > float("-inf")):
            edge = None
            if not (thorough or self._is_short):
                # Later slots are too young as well, but for clocks that were wrong.
                edge = datetime.fromtimestamp(self._before, UTC).replace(tzinfo=None) + _NAMES_AHEAD
            page = ledger.published(name, after=after, before=edge, limit=_PAGE)
            for record in page:
                after = record.slot
                since = self._since(record)
                if since is None or not (self._is_short or since < self._before):
                    self._unfinished = True
                    continue
                if files := list(self._files(record)):
                    yield record.slot, name, self, _Bracket(record, since, files)
                if self.outcome.failed >= _MOST_FAILURES:
                    return
                if not (self._unfinished or self.outcome.failed):
                    self.done = record.slot
            if len(page) < _PAGE or pause():
                return

    def _since(self, record: BracketRecord) -> float | None:
        """From when the age of a bracket's files counts; None: no clock knows."""
        times = [datetime.fromisoformat(record.updated_utc).timestamp()]
        if self.kind == "exposures":
            times += [exposure.mtime_ns / 1e9 for exposure in record.inputs]
        return max((t for t in times if t <= self._now + _FUTURE), default=None)

    def _files(self, record: BracketRecord) -> Iterator[_File]:
        recorded: dict[str, Signature | None] = {e.path: e.signature for e in record.inputs}
        if self.kind == "products":
            stem = slot_stem(record.slot)
            names = {path: PurePosixPath(path).name for path in record.products}
            recorded = {
                p: None for p, n in names.items() if n.startswith(stem) and is_product_name(n)
            }
        for path, signature in recorded.items():
            if (status := self._status(path)) is None:
                continue
            found = (status.st_size, status.st_mtime_ns)
            if signature in (None, found):
                frees = status.st_size if status.st_nlink == 1 else 0
                yield _File(PurePosixPath(path), found, frees)

    def _status(self, path: str) -> os.stat_result | None:
        assert self._held is not None
        where = PurePosixPath(path)
        try:
            with self._held.folder(where.parent) as folder:
                found = os.stat(where.name, dir_fd=folder, follow_symlinks=False)
        except (OSError, ValueError):
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    # -- deleting -------------------------------------------------------------------------------

    def consider(self, bracket: _Bracket, *, apply: bool) -> None:
        """Delete a bracket's files, or only count them, if it is to go."""
        outcome, age = self.outcome, self._now - bracket.since
        helps = self._is_short and any(file.frees for file in bracket.files)
        if age < _YOUNGEST or not (bracket.since < self._before or helps):
            self._unfinished = True
            return
        gone = [f for f in self._permitted(bracket) if not apply or self._remove(f)]
        if not gone:
            return
        slot = bracket.record.slot
        outcome.files += len(gone)
        outcome.size += sum(file.signature[0] for file in gone)
        outcome.oldest = min(outcome.oldest or slot, slot)
        outcome.newest = max(outcome.newest or slot, slot)
        self._freed[self._device] = self._freed.get(self._device, 0) + sum(f.frees for f in gone)
        if apply and age > _FOLDER_IN_USE:
            for folder in {file.path.parent for file in gone}:
                self._remove_empty_date_folders(folder, slot)

    def _permitted(self, bracket: _Bracket) -> list[_File]:
        record = bracket.record
        if self.kind == "products":
            return [f for f in bracket.files if _provenance(self.camera, record, str(f.path))]
        if self.camera.retention.require_product and product_fault(self.camera, record):
            self.outcome.kept += 1
            return []
        return bracket.files

    def _remove(self, file: _File) -> bool:
        if self._held is None or self.outcome.failed >= _MOST_FAILURES:
            return False
        try:
            # Opened again: a folder that was moved away meanwhile is not ours any more.
            with self._held.folder(file.path.parent) as folder:
                found = os.stat(file.path.name, dir_fd=folder, follow_symlinks=False)
                same = (found.st_size, found.st_mtime_ns) == file.signature
                if same and stat.S_ISREG(found.st_mode):
                    os.unlink(file.path.name, dir_fd=folder)
                    return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno == errno.ELOOP:
                return False
            self.outcome.failed += 1
            self.outcome.reason = self.outcome.reason or f"{file.path}: {error.strerror or error}"
        return False

    def _remove_empty_date_folders(self, folder: PurePosixPath, slot: datetime) -> None:
        """Remove folders that are empty and named by the date of a slot, from below.

        A folder that a camera does not make again every day stays: its next upload would fail.
        """
        assert self._held is not None
        while _is_of_date(folder, slot):
            try:
                with self._held.folder(folder.parent) as parent:
                    os.rmdir(folder.name, dir_fd=parent)
            except OSError:  # not empty, mostly
                return
            folder = folder.parent


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


# -- do products stand? -----------------------------------------------------------------------


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


# -- in the daemon ----------------------------------------------------------------------------


class ClockTrust:
    """Tells whether the computer's clock has run evenly of late, also over restarts.

    Parameters
    ----------
    path : Path or None
        Where it is remembered.
    wall, boottime : callable
        The two clocks, in seconds.
    """

    _JUMP = _HOUR
    _TRUST_AFTER = _DAY
    # A machine that was off for longer, or whose clock says so, is not believed at once.
    _OFF_FOR = _DAY
    _BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

    def __init__(
        self,
        path: Path | None = None,
        wall: Callable[[], float] = time.time,
        boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._path, self._wall, self._boottime = path, wall, boottime
        self._difference: float | None = None
        self._doubted_at = float("-inf")
        self._boot = ""
        with suppress(OSError, ValueError, KeyError, TypeError):
            self._boot = self._BOOT_ID.read_text().strip()
            kept = json.loads(path.read_text()) if path is not None else {}
            if kept["boot"] == self._boot:
                self._difference, self._doubted_at = kept["difference"], kept["doubted_at"]

    def look(self, last_change: float | None) -> tuple[float, bool]:
        """Return the Unix time, and whether it is trusted: not for a day after a jump of an hour.

        Parameters
        ----------
        last_change : float or None
            Unix time at which the ledger was last written; the first look after a boot compares
            with it: a machine may have started with a clock that is years ahead.
        """
        now, since_boot = self._wall(), self._boottime()
        before, self._difference = self._difference, now - since_boot
        if before is not None:
            jumped = abs(self._difference - before) > self._JUMP
        else:
            off = 0.0 if last_change is None else now - last_change
            jumped = not -self._JUMP <= off <= self._OFF_FOR
        if jumped:
            self._doubted_at = since_boot
        if self._path is not None:
            kept = {"boot": self._boot, "difference": self._difference}
            with suppress(OSError):
                self._path.write_text(json.dumps(kept | {"doubted_at": self._doubted_at}))
        return now, since_boot - self._doubted_at >= self._TRUST_AFTER


class RetentionThread:
    """Deletes hourly, sooner when a disk is full, in bounded steps; and checks the newest products.

    Parameters
    ----------
    state_dir : Path
        Where the ledger is, which is only read.
    cameras : iterable of CameraConfig
    is_full : callable
        Tells that a disk is so full that writing pauses: then nothing waits for the hour.
    clock : ClockTrust, optional
    """

    def __init__(
        self,
        state_dir: Path,
        cameras: Iterable[CameraConfig],
        is_full: Callable[[], bool] = lambda: False,
        clock: ClockTrust | None = None,
    ) -> None:
        self._state_dir, self._cameras, self._is_full = state_dir, tuple(cameras), is_full
        self._clock = clock or ClockTrust(state_dir / "clock.json")
        self._done: dict[tuple[str, Kind], datetime] = {}
        self._status: dict[str, dict[str, Any]] = {
            c.name: {"deleted_files": 0, "deleted_bytes": 0, "products": None}
            for c in self._cameras
        }
        self._daily_at = self._thorough_at = float("-inf")
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
        due = time.monotonic() + _FIRST_AFTER
        due_if_full = time.monotonic() + _MORE_AFTER
        while not self._stopping.wait(_LOOK_EVERY):
            now = time.monotonic()
            hourly = now >= due
            if not hourly and (now < due_if_full or not self._is_full()):
                continue
            if hourly:
                due = now + _EVERY
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
        """Go through all cameras once; thoroughly once a day, and now and then on a full disk.

        A backlog is published in no order: what came behind an earlier run makes room as well.

        Raises
        ------
        LedgerError
            If the ledger cannot be read.
        """
        began = time.monotonic()
        daily = began - self._daily_at >= _DAY
        thorough = daily or (self._is_full() and began - self._thorough_at >= _SEARCH_EVERY)
        with Ledger(self._state_dir, read_only=True) as ledger:
            changes = [ledger.last_change(camera.name) for camera in self._cameras]
            last = max((change.timestamp() for change in changes if change), default=None)
            now, trusted = self._clock.look(last)
            # What would be deleted is logged once a day.
            for dry in (False, True) if daily else (False,):
                outcomes = retain(
                    [camera for camera in self._cameras if camera.retention.dry_run == dry],
                    ledger,
                    now,
                    apply=not dry,
                    done=self._done,
                    trust_clock=trusted,
                    thorough=thorough,
                    pause=lambda: self._stopping.wait(_BREATH),
                )
                for outcome in outcomes:
                    self._note(outcome, dry)
        if thorough:
            self._thorough_at = time.monotonic()
        if daily:
            self._daily_at = self._thorough_at

    def _note(self, outcome: Outcome, dry_run: bool) -> None:
        if not dry_run:
            self._status[outcome.camera]["deleted_files"] += outcome.files
            self._status[outcome.camera]["deleted_bytes"] += outcome.size
        if not (outcome.files or outcome.failed or outcome.kept):
            return
        event(
            log,
            logging.WARNING if outcome.failed else logging.INFO,
            "retention would delete" if dry_run else "retention deleted",
            camera=outcome.camera,
            kind=outcome.kind,
            files=outcome.files,
            megabytes=outcome.size // 1_000_000,
            oldest=outcome.oldest,
            newest=outcome.newest,
            kept_without_product=outcome.kept or None,
            failed=outcome.failed or None,
            reason=outcome.reason,
        )

    def check_products(self) -> None:
        """Look whether the newest products of every camera stand as they were published.

        Raises
        ------
        LedgerError
            If the ledger cannot be read.
        """
        for camera in self._cameras:
            with Ledger(self._state_dir, read_only=True) as ledger:
                newest = ledger.history(camera=camera.name, limit=_CHECKED)
            published = [record for record in newest if record.state == "published"]
            faults = [f for record in published if (f := product_fault(camera, record))]
            missing = sum(fault.endswith(": missing") for fault in faults)
            found = {"missing": missing, "damaged": len(faults) - missing}
            example = faults[-1] if faults else None
            self._status[camera.name]["products"] = {
                "checked": len(published),
                **found,
                "example": example,
            }
            if faults:
                event(
                    log,
                    logging.WARNING if missing == len(faults) else logging.ERROR,
                    "products do not stand as they were published",
                    camera=camera.name,
                    **found,
                    of=len(published),
                    example=example,
                    remedy="asi-watch history --verify lists them, asi-watch retry --published"
                    " merges them again",
                )
