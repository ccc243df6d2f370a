"""Which files of a camera have been kept long enough, and deleting them without being led astray.

The ledger says what may go: exposures of brackets that are published or skipped, as long as the
file is still what the row recorded, and products of rows. Nothing else is ever a candidate.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from asi_watch.live.disk import free_bytes
from asi_watch.live.ledger import Ledger
from asi_watch.live.records import BracketRecord
from asi_watch.live.settings import CameraSettings, RetentionLimits
from asi_watch.naming import is_product_name, slot_stem

Kind = Literal["exposures", "products"]
KINDS: tuple[Kind, ...] = ("exposures", "products")

# Late exposures, calibrations and people still want what is younger.
_YOUNGEST = 3600.0
_PAGE = 100
_DATE_FOLDER = re.compile(r"\d[\d_.\-]*")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be deleted."""

    path: str
    """Relative to the folder of its kind."""
    size: int
    since: float
    """Unix time from which its age counts."""
    slot: datetime


@dataclass(slots=True)
class Outcome:
    """What was deleted, or would be."""

    camera: str
    kind: Kind
    files: int = 0
    size: int = 0
    failed: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    more: bool = False
    """The run was cut short: there is more to delete."""


@dataclass(slots=True)
class _Need:
    """What is too much still."""

    before: float
    surplus: int
    missing: int

    def wants(self, candidate: Candidate) -> bool:
        return candidate.since < self.before or self.surplus > 0 or self.missing > 0

    def gone(self, candidate: Candidate) -> None:
        self.surplus -= candidate.size
        self.missing -= candidate.size


class Retention:
    """Retention of one kind of files of one camera.

    Parameters
    ----------
    camera : CameraSettings
    kind : {"exposures", "products"}
    free : callable
        Folder → free bytes.
    """

    def __init__(
        self,
        camera: CameraSettings,
        kind: Kind,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._camera = camera
        self._kind: Kind = kind
        self._free = free
        self._root = camera.intake.root if kind == "exposures" else camera.output
        self._limits: RetentionLimits = getattr(camera.retention, kind)
        self._done: datetime | None = None
        """All rows up to this slot have nothing left to delete."""

    def run(
        self,
        ledger: Ledger,
        now: float,
        *,
        apply: bool,
        trust_clock: bool = True,
        most: int | None = None,
        pause: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Delete what has been kept long enough, oldest slot first.

        Parameters
        ----------
        ledger : Ledger
            Only read.
        now : float
            Unix time.
        apply : bool
            Delete; otherwise only count.
        trust_clock : bool
            False: nothing goes by its age.
        most : int or None
            At most so many files.
        pause : callable
            Called after every page of rows; True ends the run.

        Raises
        ------
        LedgerError
            If the ledger cannot be read.
        """
        outcome = Outcome(self._camera.name, self._kind)
        if not self._limits.any:
            return outcome
        need = self._need(ledger, now, trust_clock)
        clear = True
        for page in self._pages(ledger):
            for record in page:
                for candidate in self._candidates(record):
                    if now - candidate.since < _YOUNGEST or not need.wants(candidate):
                        clear = False
                    elif most is not None and outcome.files >= most:
                        outcome.more = True
                        return outcome
                    else:
                        need.gone(candidate)
                        self._take(candidate, outcome, apply)
                if clear and apply and outcome.failed == 0:
                    self._done = record.slot
            if _past_all(page, need) or pause():
                break
        return outcome

    # -- what is too much -------------------------------------------------------------------

    def _need(self, ledger: Ledger, now: float, trust_clock: bool) -> _Need:
        limits = self._limits
        need = _Need(before=float("-inf"), surplus=0, missing=0)
        if limits.max_age is not None and trust_clock:
            need.before = now - limits.max_age
        if limits.keep_free is not None:
            try:
                need.missing = limits.keep_free - self._free(self._root)
            except OSError:
                need.missing = 0
        if limits.max_size is not None:
            kept = sum(
                candidate.size
                for page in self._pages(ledger)
                for record in page
                for candidate in self._candidates(record)
            )
            need.surplus = kept - limits.max_size
        return need

    # -- candidates -------------------------------------------------------------------------

    def _pages(self, ledger: Ledger) -> Iterator[list[BracketRecord]]:
        after = self._done
        while page := ledger.finished(self._camera.name, after=after, limit=_PAGE):
            yield page
            after = page[-1].slot

    def _candidates(self, record: BracketRecord) -> Iterator[Candidate]:
        if self._kind == "exposures":
            wanted = [(e.path, e.signature) for e in record.inputs]
            wanted += [(r.path, r.signature) for r in record.rejected]
            for path, signature in dict(wanted).items():
                status = self._status(path)
                if status and (status.st_size, status.st_mtime_ns) == signature:
                    yield self._candidate(path, status, record)
            return
        for path in record.products:
            name = PurePosixPath(path).name
            status = self._status(path) if name.startswith(slot_stem(record.slot)) else None
            if status and is_product_name(name):
                yield self._candidate(path, status, record)

    def _candidate(self, path: str, status: os.stat_result, record: BracketRecord) -> Candidate:
        return Candidate(path, status.st_size, max(status.st_mtime, _changed(record)), record.slot)

    def _status(self, path: str) -> os.stat_result | None:
        try:
            with _Parent(self._root, path) as (folder, name):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    # -- deleting ---------------------------------------------------------------------------

    def _take(self, candidate: Candidate, outcome: Outcome, apply: bool) -> None:
        if apply and not self._delete(candidate.path):
            outcome.failed += 1
            return
        outcome.files += 1
        outcome.size += candidate.size
        outcome.oldest = min(outcome.oldest or candidate.slot, candidate.slot)
        outcome.newest = max(outcome.newest or candidate.slot, candidate.slot)

    def _delete(self, path: str) -> bool:
        try:
            with _Parent(self._root, path) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except OSError:
            return False
        self._remove_empty_folders(PurePosixPath(path).parent)
        return True

    def _remove_empty_folders(self, folder: PurePosixPath) -> None:
        while _DATE_FOLDER.fullmatch(folder.name):
            try:
                with _Parent(self._root, str(folder)) as (parent, name):
                    os.rmdir(name, dir_fd=parent)
            except OSError:  # not empty, mostly
                return
            folder = folder.parent


class _Parent:
    """The open folder of a relative path, and the path's last part; no link is followed."""

    def __init__(self, root: Path, path: str) -> None:
        self._root = root
        self._parts = PurePosixPath(path).parts
        if not self._parts or ".." in self._parts or self._parts[0] == "/":
            raise OSError(f"{path!r} leads out of its folder")

    def __enter__(self) -> tuple[int, str]:
        # The root itself may be a link: it is what the operator wrote.
        self._folder = os.open(self._root, _FOLDER & ~os.O_NOFOLLOW)
        try:
            for part in self._parts[:-1]:
                inner = os.open(part, _FOLDER, dir_fd=self._folder)
                os.close(self._folder)
                self._folder = inner
        except OSError:
            os.close(self._folder)
            raise
        return self._folder, self._parts[-1]

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)


def _past_all(page: list[BracketRecord], need: _Need) -> bool:
    """Tell that later rows have nothing to delete either: they were written later, mostly."""
    if need.surplus > 0 or need.missing > 0:
        return False
    return all(_changed(record) >= need.before for record in page)


def _changed(record: BracketRecord) -> float:
    try:
        moment = datetime.fromisoformat(record.updated_utc)
    except ValueError:
        return time.time()
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
