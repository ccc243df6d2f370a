"""Opening the ledger at start, its daily backups, and its rebuild from backup and products.

A damaged ledger is moved aside, never changed. The new one begins as a copy of the newest sound
backup; then the products' provenance adds what was published since. It takes its place only when
it is whole, so that a rebuild which is interrupted starts again.
"""

import logging
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path, PurePosixPath

from asi_watch.brackets import Exposure
from asi_watch.config.model import CameraConfig
from asi_watch.files import answered
from asi_watch.live.ledger.ledger import FILE_NAME, SUSPECT_NAME, Ledger
from asi_watch.live.ledger.records import WITHOUT_CURVE, BracketRecord, RejectedFile
from asi_watch.live.ledger.schema import LedgerDamagedError, LedgerError, _quick_check
from asi_watch.logs import event, failure
from asi_watch.naming import ProductName
from asi_watch.products import Provenance, ProvenanceError, read_provenance

__all__ = ["BACKUP_DIR", "Backups", "open_ledger", "products_of", "row_of_products"]

log = logging.getLogger(__name__)

BACKUP_DIR = "backup"
_REBUILD_DIR = "rebuild"
# The newest products come first: what is left out at the end is history only.
_TIME_LIMIT = 30.0
_PATIENCE = 5.0
_ROWS_AT_ONCE = 200
_MAX_DEPTH = 32
_ASIDE = re.compile(rf"{re.escape(FILE_NAME)}\.damaged-(\d+)(?:-wal|-shm)?")
_MOST_ASIDE = 5


def open_ledger(
    state_dir: Path,
    cameras: Iterable[CameraConfig],
    *,
    alive: Callable[[], object] = lambda: None,
    time_limit: float = _TIME_LIMIT,
) -> Ledger:
    """Open the ledger; rebuild it where it is damaged or missing.

    LedgerError if it cannot be opened for another reason: no permission, a newer version.

    Parameters
    ----------
    state_dir : Path
        Held by this process alone.
    cameras : iterable of CameraConfig
        Whose products are read when it is rebuilt.
    alive : callable
        Called again and again while that takes long.
    time_limit : float
        Seconds that reading the products may take.
    """
    path = state_dir / FILE_NAME
    reason = _suspicion(state_dir)
    if reason is None and path.exists() and (not path.is_file() or path.stat().st_size):
        try:
            return Ledger(state_dir)
        except LedgerDamagedError as error:
            reason = str(error)
    try:
        if reason is not None:
            moved_to = _move_aside(state_dir)
            event(log, logging.ERROR, "ledger damaged, moved aside", file=moved_to, reason=reason)
        rows, backup = _rebuild(state_dir, tuple(cameras), alive, time.monotonic() + time_limit)
    except OSError as error:
        raise LedgerError(f"{path}: the ledger cannot be rebuilt: {error}") from error
    ledger = Ledger(state_dir)
    if reason is not None or backup is not None or rows:
        ledger.rebuilt = True
        event(log, logging.WARNING, "ledger rebuilt", backup=backup, rows_of_products=rows)
    return ledger


def _suspicion(state_dir: Path) -> str | None:
    """Say what is known against the ledger before it is opened."""
    path, journal = state_dir / FILE_NAME, state_dir / f"{FILE_NAME}-wal"
    try:
        with suppress(FileNotFoundError):
            return (state_dir / SUSPECT_NAME).read_text(errors="replace").strip()[:500]
        lost = not path.exists() or (path.is_file() and path.stat().st_size == 0)
        # SQLite would delete a journal without its database, and the rows in it.
        if lost and journal.is_file() and journal.stat().st_size > 0:
            return f"{path}: only its journal is left"
    except OSError as error:
        raise LedgerError(f"{error.filename or path}: {error.strerror or error}") from error
    return None


def _rebuild(
    state_dir: Path, cameras: tuple[CameraConfig, ...], alive: Callable[[], object], deadline: float
) -> tuple[int, Path | None]:
    """Put a new ledger in its place; return how many rows came from products, and the backup."""
    folder = state_dir / _REBUILD_DIR
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    backup, ledger = _from_newest_backup(state_dir, folder)
    with ledger:
        rows = sum(_adopt_products(ledger, camera, alive, deadline) for camera in cameras)
    _force_to_disk(folder / FILE_NAME)
    (folder / FILE_NAME).replace(state_dir / FILE_NAME)
    (state_dir / SUSPECT_NAME).unlink(missing_ok=True)
    _force_to_disk(state_dir)
    shutil.rmtree(folder, ignore_errors=True)
    return rows, backup


def _from_newest_backup(state_dir: Path, folder: Path) -> tuple[Path | None, Ledger]:
    for backup in _backups(state_dir):
        shutil.copyfile(backup, folder / FILE_NAME)
        try:
            return backup, Ledger(folder)
        except LedgerDamagedError as error:
            event(log, logging.ERROR, "backup damaged, not used", file=backup, reason=str(error))
    (folder / FILE_NAME).unlink(missing_ok=True)
    return None, Ledger(folder)


def _move_aside(state_dir: Path) -> Path:
    """Rename a damaged ledger to the next free number; only the newest few are kept."""
    found = (_ASIDE.fullmatch(path.name) for path in state_dir.iterdir())
    aside = sorted({int(match[1]) for match in found if match})
    name = f"{FILE_NAME}.damaged-{max(aside, default=0) + 1}"
    # The journal first: a new ledger beside an old journal would be damaged again.
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            (state_dir / f"{FILE_NAME}{suffix}").rename(state_dir / f"{name}{suffix}")
        for number in aside[: 1 - _MOST_ASIDE]:
            (state_dir / f"{FILE_NAME}.damaged-{number}{suffix}").unlink(missing_ok=True)
    return state_dir / name


def _force_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Backups:
    """Copies the ledger once a day, checks the copy, and keeps two.

    In a thread with a connection of its own, in small steps from one snapshot: the owner goes on
    writing meanwhile.

    Parameters
    ----------
    state_dir : Path
    every : float
        Seconds.
    """

    _KEPT = 2
    _PAGES = 512
    _PAUSE = 0.02
    _RETRY_AFTER = 3600.0

    def __init__(self, state_dir: Path, every: float = 86_400.0) -> None:
        self._state_dir, self._every = state_dir, every
        self._due = float("-inf")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def tick(self, now: float) -> None:
        """Start a backup if one is due; owner thread only.

        Parameters
        ----------
        now : float
            Monotonic time.
        """
        if now < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        age = float("inf")
        with suppress(OSError, IndexError):
            age = time.time() - _backups(self._state_dir)[0].stat().st_mtime
        if 0 <= age < self._every:
            self._due = now + self._every - age
            return
        self._due = now + self._RETRY_AFTER
        self._thread = threading.Thread(target=self._run, name="ledger backup", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Break off a backup under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        try:
            self.make()
        except (OSError, sqlite3.Error, LedgerError) as error:
            if not self._stopping.is_set():
                event(log, logging.ERROR, "no backup of the ledger made", reason=str(error))
        # The one boundary of this thread.
        except Exception as error:  # noqa: BLE001
            failure(log, "backup of the ledger crashed", error)

    def make(self) -> Path:
        """Make a backup now; return its path.

        Raises
        ------
        LedgerDamagedError
            If the ledger itself proves damaged: the next start rebuilds it.
        OSError, sqlite3.Error
            If the copy cannot be written; earlier ones stay.
        """
        source, folder = self._state_dir / FILE_NAME, self._state_dir / BACKUP_DIR
        folder.mkdir(mode=0o700, exist_ok=True)
        if shutil.disk_usage(folder).free < 2 * source.stat().st_size:
            raise OSError("too little space for another copy")
        unfinished = folder / "unfinished.sqlite3"
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            self._copy(source, unfinished)
            _force_to_disk(unfinished)
            made = folder / f"ledger-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sqlite3"
            unfinished.replace(made)
            _force_to_disk(folder)
        finally:
            unfinished.unlink(missing_ok=True)
        for old in _backups(self._state_dir)[self._KEPT :]:
            old.unlink(missing_ok=True)
        return made

    def _copy(self, source: Path, target: Path) -> None:
        with (
            closing(sqlite3.connect(source, isolation_level=None)) as db,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            # One snapshot for all steps: else every row written meanwhile would start it again.
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            db.backup(copy, pages=self._PAGES, progress=self._pause)
            db.execute("ROLLBACK")
            # A single file, which needs no journal to be read.
            copy.execute("PRAGMA journal_mode = DELETE")
            if not (finding := _quick_check(copy, float("inf"))):
                return
            if damage := _quick_check(db, float("inf")):
                (self._state_dir / SUSPECT_NAME).write_text(f"{source}: {damage}")
                raise LedgerDamagedError(
                    f"{source}: {damage}; restart the daemon, which rebuilds it"
                )
            raise OSError(f"the copy is damaged: {finding}")

    def _pause(self, *_: object) -> None:
        if self._stopping.wait(self._PAUSE):
            raise InterruptedError("the daemon stops")


def _backups(state_dir: Path) -> list[Path]:
    """Return the backups, newest first."""
    return sorted((state_dir / BACKUP_DIR).glob("ledger-*.sqlite3"), reverse=True)


def _adopt_products(
    ledger: Ledger, camera: CameraConfig, alive: Callable[[], object], deadline: float
) -> int:
    """Write the rows that a camera's products give and the ledger lacks; return how many."""
    # A dead share must keep no other camera waiting.
    if not answered(_PATIENCE, lambda: camera.output.is_dir() or True)[0]:
        event(log, logging.ERROR, "products not read: no answer", folder=camera.output)
        return 0
    products, written = products_of(camera), 0
    while some := list(islice(products, _ROWS_AT_ONCE)):
        alive()
        rows: dict[datetime, BracketRecord] = {}
        for product in some:
            present = rows.get(product.slot) or ledger.get(camera.name, product.slot)
            if row := _reconciled(present, product):
                rows[row.slot] = row
        ledger.record_all(rows.values())
        written += len(rows)
        if time.monotonic() > deadline:
            event(log, logging.WARNING, "older products not read", camera=camera.name)
            break
    return written


def _reconciled(present: BracketRecord | None, product: BracketRecord) -> BracketRecord | None:
    """Return the row a bracket should have now that a product of it was found; None: as it is."""
    if present is None:
        return product
    # A failed row names the revision that was tried, a skipped one what was there before.
    least = present.revision + (present.state != "failed")
    if product.revision < least:
        return None
    merged = {e.path for e in product.inputs}
    rejected = {r.path: r for r in (*product.rejected, *present.rejected) if r.path not in merged}
    return replace(
        product,
        rejected=tuple(rejected.values()),
        duplicates=present.duplicates,
        late=max(present.late, product.late),
        latency=present.latency,
        unlisted=present.unlisted,
    )


def products_of(camera: CameraConfig) -> Iterator[BracketRecord]:
    """Read the products of a camera as rows, newest folder and name first.

    A bracket gives no row while a product that is asked for is missing and can still be made, or
    while its products are of different revisions: it is merged again when its files are found.
    """
    seen: set[tuple[str, datetime]] = set()
    for root in camera.outputs:
        for folder, name, names in _product_names(camera, os.path.realpath(root)):
            own = "" if root == camera.output else root
            target = str(PurePosixPath(own, folder, name))
            first = _provenance_of(camera, target)
            if first is None or (folder, first.slot) in seen:
                continue
            seen.add((folder, first.slot))
            wanted = _targets(camera, folder, first)
            # Also those that lie beside it under an earlier name.
            stem = target.rpartition(".")[0]
            beside = (f"{stem}.{other.rpartition('.')[2]}" for other in names if other != name)
            found = {target: first}
            for one in {*wanted, *beside} - {target}:
                if (provenance := _provenance_of(camera, one)) and provenance.slot == first.slot:
                    found[one] = provenance
            if not set(wanted) <= set(found) and _sources_are_there(camera, first):
                continue
            if set(wanted) <= set(found):
                found = {one: found[one] for one in wanted}
            if row := row_of_products(camera, found):
                yield row


def _product_names(camera: CameraConfig, root: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield folder (below `root`) and name of each file named like a product, and what is alike."""
    for path, subfolders, names in os.walk(root):
        # Texts, not paths: of an archive of 100,000 products these take a third of the time.
        folder = os.path.relpath(path, root)
        subfolders[:] = sorted((n for n in subfolders if not n.startswith(".")), reverse=True)
        if folder.count("/") >= _MAX_DEPTH:
            subfolders.clear()
        products = sorted(filter(camera.is_product, names), reverse=True)
        for _, group in groupby(products, key=lambda name: name.rpartition(".")[0]):
            alike = sorted(group)
            for name in alike:
                yield folder, name, alike


def _provenance_of(camera: CameraConfig, target: str) -> Provenance | None:
    with suppress(OSError, ProvenanceError):
        return read_provenance(camera.output / target)
    return None


def _targets(camera: CameraConfig, folder: str, one: Provenance) -> list[str]:
    """Where the products of a bracket lie, in the order of the configuration."""
    specs = (product.spec for product in camera.products)
    return [
        spec.target(camera.name, folder, one.slot, one.slot_utc)
        for spec in specs
        if spec.made_by(one.algorithm)
    ]


def row_of_products(camera: CameraConfig, found: dict[str, Provenance]) -> BracketRecord | None:
    """Return the row that the products of one bracket make.

    None if they are not of this camera, not of one revision, or copies that lie elsewhere.

    Parameters
    ----------
    camera : CameraConfig
    found : dict
        Provenance by path, as the ledger has it.
    """
    newest = max(found.values(), key=lambda one: one.revision)
    places = [camera.place_of(target)[1] for target in found]
    changed = max(_changed(camera.output / target) for target in found)
    folder = str(places[0].parent)
    order = _targets(camera, folder, newest)
    stems = {PurePosixPath(target).stem for target in order} | {ProductName().stem(newest.slot)}
    ours = newest.camera == camera.name and all(place.stem in stems for place in places)
    alike = all(one.revision == newest.revision for one in found.values())
    # A name is turned into a path: none that leads out of the watch folder.
    safe = newest.sources and all(_is_inside(s.path) for s in newest.sources)
    if not (ours and alike and safe) or len({place.parent for place in places}) > 1:
        return None
    if places[0].parent not in {PurePosixPath(s.path).parent for s in newest.sources}:
        return None
    fallback = newest.algorithm == "mertens" != camera.merge.algorithm
    return BracketRecord(
        camera=camera.name,
        slot=newest.slot,
        state="published",
        revision=newest.revision,
        expected=newest.expected,
        complete=newest.complete,
        inputs=tuple(
            Exposure(s.path, s.timestamp, s.exposure_us, s.size, s.mtime_ns, 0, s.nominal_us or 0.0)
            for s in newest.sources
        ),
        # Without their signatures files are looked at again when they are found; what the merge
        # left out has one, else the same exposures would be merged again.
        rejected=tuple(
            RejectedFile(one.path, one.size or 0, one.mtime_ns or 0, one.reason)
            for one in newest.unusable
            if _is_inside(one.path)
        ),
        products=tuple(sorted(found, key=lambda t: order.index(t) if t in order else len(order))),
        curve_id=newest.curve_id,
        algorithm=newest.algorithm,
        reason=WITHOUT_CURVE if fallback else None,
        # Every revision had an exposure that came late.
        late=newest.revision - 1,
        updated_utc=datetime.fromtimestamp(changed, UTC).isoformat(timespec="milliseconds"),
    )


def _sources_are_there(camera: CameraConfig, one: Provenance) -> bool:
    try:
        there = [os.lstat(camera.watch / source.path) for source in one.sources]
    except (OSError, ValueError):
        return False
    return [(s.st_size, s.st_mtime_ns) for s in there] == [
        (s.size, s.mtime_ns) for s in one.sources
    ]


def _is_inside(path: str) -> bool:
    return path != "" and path[0] != "/" and ".." not in path.split("/")


def _changed(path: Path) -> float:
    """Return when a file was last changed; a file system's clock may say any year."""
    try:
        return min(max(os.lstat(path).st_mtime, 0.0), 4e9)
    except OSError:
        return 0.0
