"""One kind of files of one camera: what is left of its brackets, and what is too much.

See `asi_watch.live.storage.retention` for the rules.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Literal

from asi_watch.config.model import CameraConfig, LimitsConfig
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.messages import Signature
from asi_watch.live.records import BracketRecord
from asi_watch.live.storage.deleting import Tree
from asi_watch.live.storage.published import Witness
from asi_watch.naming import is_product_name, slot_stem

Kind = Literal["exposures", "products"]

# Late exposures, calibrations and people still want what is younger.
_YOUNGEST = 3600.0
# A folder that was written to so lately may be written to again before the camera makes it anew.
_FOLDER_IN_USE = 2 * 86_400.0
# Later than now by more than this is the mistake of a clock.
_FUTURE = 3600.0
_NAMES_BEHIND = timedelta(days=2)
_PAGE = 100
_MOST_FAILURES = 20
_HOPELESS = {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV}


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
    more: bool = False
    """The run was cut short: there is more to delete."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that is left of a bracket."""

    path: str
    signature: Signature
    frees: int
    """Bytes; none while another name holds the file."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """The files of one kind that are left of a bracket: they go together."""

    record: BracketRecord
    since: float
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.signature[0] for file in self.files)

    @property
    def frees(self) -> int:
        """Bytes that come free when the files are deleted."""
        return sum(file.frees for file in self.files)


class Shelf:
    """One kind of files of one camera."""

    def __init__(
        self,
        camera: CameraConfig,
        kind: Kind,
        witness: Witness,
        ledger: Ledger,
        now: float,
        freed: dict[int, int],
    ) -> None:
        self.camera = camera
        self.kind: Kind = kind
        self.outcome = Outcome(camera.name, kind)
        self.root = camera.watch if kind == "exposures" else camera.output
        self.limits: LimitsConfig = getattr(camera.retention, kind)
        self.tree = Tree(self.root)
        self.done: datetime | None = None
        """See `Memory`."""
        self.clear = True
        """False once something is left that may be deleted some day: `done` goes no further."""
        self._before = float("-inf")
        self._goal = 0
        """Bytes that are to be freed on the device."""
        self._freed = freed
        """Bytes freed so far, by device: shelves may share one."""
        self._device = _device(self.root)
        self._given_up = False
        self._witness = witness
        self._ledger = ledger
        self._now = now

    # -- what is too much -------------------------------------------------------------------

    def measure(self, free: Callable[[Path], int], *, trust_clock: bool) -> None:
        """See what is too much."""
        limits = self.limits
        if limits.max_age is not None and trust_clock:
            self._before = self._now - limits.max_age.total_seconds()
        if limits.keep_free is not None:
            with suppress(OSError):
                self._goal = limits.keep_free - free(self.root)

    def wants(self, bracket: Bracket) -> bool:
        """Tell whether a bracket is to go."""
        if self._now - bracket.since < _YOUNGEST:
            return False
        helps = self._is_short and bracket.frees > 0
        return bracket.since < self._before or helps

    @property
    def _is_short(self) -> bool:
        return self._goal > self._freed.get(self._device, 0)

    # -- what there is ----------------------------------------------------------------------

    def brackets(
        self, stop: Callable[[], bool], *, thorough: bool
    ) -> Iterator[tuple[datetime, str, Shelf, Bracket]]:
        """Brackets of which something may be left, in the order of their slots."""
        for page in self._pages():
            by_age = not self._is_short
            if by_age and self._before == float("-inf"):
                return
            for record in page:
                since = self._since(record)
                if by_age and (since is None or since >= self._before):
                    self.clear = False
                    continue
                bracket = self._bracket(record)
                if bracket is not None:
                    yield record.slot, self.camera.name, self, bracket
                if self._given_up or self.outcome.more:
                    return
                if self.clear and not self.outcome.failed:
                    self.done = record.slot
            if stop() or (by_age and not thorough and self._past(page)):
                return

    def _pages(self) -> Iterator[list[BracketRecord]]:
        after = self.done
        while page := self._ledger.finished(self.camera.name, after=after, limit=_PAGE):
            yield [record for record in page if record.state == "published"]
            after = page[-1].slot

    def _past(self, page: list[BracketRecord]) -> bool:
        """Tell that later rows are too young as well: names and rows are of one time."""
        # Both sides near enough to UTC; a camera whose clock is far off ends no run.
        edge = datetime.fromtimestamp(self._before, UTC).replace(tzinfo=None) - _NAMES_BEHIND
        return all(
            record.slot > edge and (since is None or since >= self._before)
            for record in page
            for since in [self._since(record)]
        )

    def _since(self, record: BracketRecord) -> float | None:
        """From when the age of a bracket's files counts; None: no clock knows."""
        times = [_changed(record)]
        if self.kind == "exposures":
            times += [exposure.mtime_ns / 1e9 for exposure in record.inputs]
        known = [t for t in times if t <= self._now + _FUTURE]
        return max(known, default=None)

    def _bracket(self, record: BracketRecord) -> Bracket | None:
        since = self._since(record)
        files = tuple(self._files(record))
        return None if since is None or not files else Bracket(record, since, files)

    def _files(self, record: BracketRecord) -> Iterator[File]:
        if self.kind == "exposures":
            recorded = {e.path: e.signature for e in record.inputs}
        else:
            stem = slot_stem(record.slot)
            names = {path: PurePosixPath(path).name for path in record.products}
            recorded = {
                path: (-1, -1)
                for path, name in names.items()
                if name.startswith(stem) and is_product_name(name)
            }
        for path, signature in recorded.items():
            status = self.tree.status(path)
            if status is None:
                continue
            found = (status.st_size, status.st_mtime_ns)
            if self.kind == "products" or found == signature:
                yield File(path, found, status.st_size if status.st_nlink == 1 else 0)

    # -- deleting ---------------------------------------------------------------------------

    def consider(self, bracket: Bracket, *, apply: bool, most: int | None) -> None:
        """Delete a bracket's files, or only count them, if it is to go."""
        if not self.wants(bracket):
            self.clear = False
        elif most is not None and self.outcome.files >= most:
            self.outcome.more, self.clear = True, False
        else:
            self._take(bracket, apply=apply)

    def _take(self, bracket: Bracket, *, apply: bool) -> None:
        files = self._permitted(bracket)
        gone = [file for file in files if not apply or self._remove(file)]
        if not gone:
            return
        outcome, slot = self.outcome, bracket.record.slot
        size = sum(file.signature[0] for file in gone)
        outcome.files += len(gone)
        outcome.size += size
        outcome.oldest = min(outcome.oldest or slot, slot)
        outcome.newest = max(outcome.newest or slot, slot)
        self._freed[self._device] = self._freed.get(self._device, 0) + sum(f.frees for f in gone)
        if apply and self._now - bracket.since > _FOLDER_IN_USE:
            for folder in {PurePosixPath(file.path).parent for file in gone}:
                self.tree.remove_empty_date_folders(folder, slot)

    def _permitted(self, bracket: Bracket) -> Sequence[File]:
        record, witness = bracket.record, self._witness
        if self.kind == "products":
            return [f for f in bracket.files if witness.is_product_of(record, f.path)]
        if self.camera.retention.require_product and not witness.products_stand(record):
            self.outcome.kept += 1
            return ()
        return [f for f in bracket.files if not witness.others_want(f.path, f.signature)]

    def _remove(self, file: File) -> bool:
        if self._given_up:
            return False
        try:
            return self.tree.remove(file.path, file.signature)
        except OSError as error:
            self.outcome.failed += 1
            self.outcome.reason = self.outcome.reason or f"{file.path}: {error.strerror or error}"
            # A folder that is not ours costs a few tries, a disk that fails only one.
            self._given_up = error.errno in _HOPELESS or self.outcome.failed >= _MOST_FAILURES
            return False


def _device(folder: Path) -> int:
    try:
        return folder.stat().st_dev
    except OSError:
        return -1


def _changed(record: BracketRecord) -> float:
    try:
        moment = datetime.fromisoformat(record.updated_utc)
    except ValueError:
        return float("inf")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
