"""A ledger that is missing or damaged is made anew from what the products say of themselves."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from asi_watch.brackets import Exposure
from asi_watch.errors import ResponseFileError
from asi_watch.live.ledger import FILE_NAME, CurveDecision, LedgerDamagedError
from asi_watch.live.owed_rows import OwingLedger
from asi_watch.live.records import BracketRecord, RejectedFile
from asi_watch.live.settings import CameraSettings
from asi_watch.logs import event
from asi_watch.naming import is_product_name
from asi_watch.phases import offsets_from_brackets
from asi_watch.products import Provenance, ProvenanceError, read_provenance
from asi_watch.responses import load_curve

log = logging.getLogger(__name__)

# The newest products come first: what is left out at the end is history only, and is adopted
# should its exposures be found again.
_TIME_LIMIT = 30.0
_MAX_DEPTH = 32
_ROWS_AT_ONCE = 500
_ASIDE = re.compile(re.escape(FILE_NAME) + r"\.damaged-(\d+)")


@dataclass(frozen=True, slots=True)
class OpenedLedger:
    """A ledger ready for use, and how many rows had to be made anew (None: it was sound)."""

    ledger: OwingLedger
    rebuilt: int | None
    moved_to: Path | None


def open_ledger(
    state_dir: Path,
    cameras: tuple[CameraSettings, ...],
    *,
    stopping: Callable[[], bool] = lambda: False,
    time_limit: float = _TIME_LIMIT,
) -> OpenedLedger:
    """Open the ledger; if it is damaged move it aside, if it is missing rebuild it.

    Parameters
    ----------
    state_dir : Path
    cameras : tuple of CameraSettings
        Whose products are read.
    stopping : callable
        Tells that there is no more time for it.
    time_limit : float
        Seconds that reading products may take.

    Raises
    ------
    LedgerError
        If the ledger cannot be opened for another reason: no permission, a newer version.
    """
    moved_to = None
    missing = not (state_dir / FILE_NAME).exists()
    try:
        ledger = OwingLedger(state_dir)
    except LedgerDamagedError as error:
        moved_to = move_aside(state_dir)
        event(log, logging.ERROR, "ledger damaged, moved aside", file=moved_to, reason=str(error))
        ledger = OwingLedger(state_dir)
    if not missing and moved_to is None:
        return OpenedLedger(ledger, None, None)
    deadline = time.monotonic() + time_limit
    rows = sum(_rebuild(ledger, state_dir, c, deadline, stopping) for c in cameras)
    if rows or moved_to:
        event(log, logging.WARNING, "ledger rebuilt from the products", rows=rows)
    return OpenedLedger(ledger, rows, moved_to)


def move_aside(state_dir: Path) -> Path:
    """Rename a damaged ledger, with its journal, to a name that is free; nothing is deleted."""
    taken = [int(m[1]) for p in state_dir.iterdir() if (m := _ASIDE.fullmatch(p.name))]
    name = f"{FILE_NAME}.damaged-{max(taken, default=0) + 1}"
    # The journal first: a new ledger beside an old journal would be damaged again.
    for suffix in ("-wal", "-shm", ""):
        part = state_dir / f"{FILE_NAME}{suffix}"
        if part.exists():
            part.rename(state_dir / f"{name}{suffix}")
    return state_dir / name


def _rebuild(
    ledger: OwingLedger,
    state_dir: Path,
    camera: CameraSettings,
    deadline: float,
    stopping: Callable[[], bool],
) -> int:
    rows = 0
    newest: BracketRecord | None = None
    batch: list[BracketRecord] = []
    timely: list[BracketRecord] = []
    for record in products_of(camera):
        batch.append(record)
        if newest is None or record.slot > newest.slot:
            newest = record
        if camera.rules.learn_offset:
            timely.append(record)
        if len(batch) >= _ROWS_AT_ONCE:
            ledger.record_all(batch)
            rows += len(batch)
            batch = []
        if time.monotonic() > deadline or stopping():
            event(log, logging.WARNING, "older products not read", camera=camera.name)
            break
    ledger.record_all(batch)
    brackets = [(r.slot, [e.timestamp for e in r.inputs]) for r in timely]
    for since, offset in offsets_from_brackets(brackets, camera.rules.round_to):
        ledger.record_offset(camera.name, since, offset)
    if newest is not None:
        _remember_curve(ledger, state_dir, camera, newest)
    return rows + len(batch)


def _remember_curve(
    ledger: OwingLedger, state_dir: Path, camera: CameraSettings, newest: BracketRecord
) -> None:
    """The curve of the newest product stays in use, if it is one the daemon had adopted."""
    path = state_dir / "curves" / camera.name / f"{newest.curve_id}.npz"
    if newest.curve_id is None or not path.exists():
        return
    base_id = None
    if camera.curves.response is not None:
        try:
            base_id = load_curve(camera.curves.response).curve_id
        except (ResponseFileError, OSError):
            base_id = None
    if base_id == newest.curve_id:
        return
    reason = "in use when the ledger was lost"
    ledger.record_curve(
        CurveDecision(
            camera.name, newest.curve_id, str(path), base_id, "adopted", reason, None, None, 0
        )
    )


def products_of(camera: CameraSettings) -> Iterator[BracketRecord]:
    """Read the products of a camera as rows of the ledger, newest folder and name first.

    A bracket of which a product is missing (the daemon died between two formats) or of which
    the products are of different revisions gives no row: it is merged again when found.
    """
    root = os.path.realpath(camera.output)
    for folder, stem, names in _product_groups(root):
        found: dict[str, tuple[Provenance, float]] = {}
        for name in names:
            path = Path(root, folder, name)
            try:
                found[name] = read_provenance(path), path.stat().st_mtime
            except (OSError, ProvenanceError):
                continue
        record = _row(camera, folder, stem, found)
        if record is not None:
            yield record


def _product_groups(root: str) -> Iterator[tuple[str, str, list[str]]]:
    pending = [("", 0)]
    while pending:
        folder, depth = pending.pop()
        subfolders: list[str] = []
        groups: dict[str, list[str]] = {}
        try:
            with os.scandir(Path(root, folder)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        subfolders.append(str(Path(folder, entry.name)))
                    elif is_product_name(entry.name) and entry.is_file(follow_symlinks=False):
                        groups.setdefault(Path(entry.name).stem, []).append(entry.name)
        except OSError as error:
            event(log, logging.DEBUG, "folder not read", folder=folder, reason=str(error))
            continue
        for stem in sorted(groups, reverse=True):
            yield folder, stem, sorted(groups[stem])
        if depth < _MAX_DEPTH:
            pending += [(sub, depth + 1) for sub in sorted(subfolders)]


def _row(
    camera: CameraSettings, folder: str, stem: str, found: dict[str, tuple[Provenance, float]]
) -> BracketRecord | None:
    if not found:
        return None
    newest, changed = max(found.values(), key=lambda item: item[0].revision)
    wanted = {
        f"{stem}{spec.suffix}"
        for spec in camera.products
        if newest.algorithm != "mertens" or spec.kind != "radiance"
    }
    whole = all(n in found and found[n][0].revision == newest.revision for n in wanted)
    if newest.camera != camera.name or not whole:
        return None
    return BracketRecord(
        camera=camera.name,
        slot=newest.slot,
        state="published",
        revision=newest.revision,
        expected=newest.expected,
        complete=newest.complete,
        inputs=tuple(
            Exposure(s.path, s.timestamp, s.exposure_us, s.size, s.mtime_ns) for s in newest.sources
        ),
        rejected=tuple(RejectedFile(u.path, 0, 0, u.reason) for u in newest.unusable),
        products=tuple(
            str(Path(folder, f"{stem}{spec.suffix}"))
            for spec in camera.products
            if f"{stem}{spec.suffix}" in wanted
        ),
        curve_id=newest.curve_id,
        algorithm=newest.algorithm,
        updated_utc=datetime.fromtimestamp(changed, UTC).isoformat(timespec="milliseconds"),
    )
