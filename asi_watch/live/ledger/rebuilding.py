"""Opening the ledger, whatever became of it: sound, damaged, lost, or out of date.

A ledger that is damaged is moved aside, never changed. A new one takes over the rows that can
still be read in it, and then hears from the products themselves; they win where they disagree.
Of a sound ledger the newest products are asked as well: it may come from a backup, or lack rows
that could not be written.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asi_watch.config.model import CameraConfig
from asi_watch.live.ledger.asking_products import Asking, ask_products
from asi_watch.live.ledger.ledger import FILE_NAME
from asi_watch.live.ledger.ledger_schema import (
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
)
from asi_watch.live.ledger.owed_rows import OwingLedger
from asi_watch.live.ledger.salvage import salvage
from asi_watch.logs import event
from asi_watch.patience import answered

log = logging.getLogger(__name__)

# The newest products come first: what is left out at the end is history only, and is adopted
# should its exposures be found again.
_TIME_LIMIT = 60.0
_PATIENCE = 5.0
_ASIDE = re.compile(re.escape(FILE_NAME) + r"\.damaged-(\d+)")
_MOST_ASIDE = 5
_PARTS = ("-wal", "-shm", "")


@dataclass(frozen=True, slots=True)
class OpenedLedger:
    """A ledger ready for use, and how many rows had to be made anew (None: it was sound)."""

    ledger: OwingLedger
    rebuilt: int | None
    moved_to: Path | None


def open_ledger(
    state_dir: Path,
    cameras: tuple[CameraConfig, ...],
    *,
    stopping: Callable[[], bool] = lambda: False,
    alive: Callable[[], None] = lambda: None,
    distrusted: bool = False,
    time_limit: float = _TIME_LIMIT,
) -> OpenedLedger:
    """Open the ledger; move it aside if it is damaged, and make it anew as far as that goes.

    Parameters
    ----------
    state_dir : Path
    cameras : tuple of CameraConfig
        Whose products are read.
    stopping : callable
        Tells that there is no more time for it; the next start goes on.
    alive : callable
        Called again and again while this takes long.
    distrusted : bool
        The ledger was found damaged while in use: believe that, however sound it looks.
    time_limit : float
        Seconds that reading the products of a new ledger may take; those as young as the
        look-back of a start are read in any case.

    Raises
    ------
    LedgerError
        If the ledger cannot be opened for another reason: no permission, a newer version.
    """
    moved_to = None
    reason = "found damaged in use" if distrusted else _lost_its_file(state_dir)
    try:
        if reason is not None:
            raise LedgerDamagedError(f"{state_dir / FILE_NAME}: {reason}")
        ledger = _opened(state_dir)
    except LedgerDamagedError as error:
        moved_to = move_aside(state_dir)
        event(log, logging.ERROR, "ledger damaged, moved aside", file=moved_to, reason=str(error))
        ledger = _opened(state_dir)
    try:
        asking = Asking(
            state_dir,
            ledger.unfinished,
            time.monotonic() + time_limit,
            stopping,
            _every_second(alive),
        )
        rebuilt = _complete(ledger, cameras, moved_to, asking)
    except LedgerFullError as error:
        # What lacks is found again with its exposures; the next start tries again.
        event(log, logging.ERROR, "ledger not made up for", reason=str(error))
        rebuilt = 0 if moved_to else None
    except LedgerError:
        ledger.close()
        raise
    return OpenedLedger(ledger, rebuilt, moved_to)


def _opened(state_dir: Path) -> OwingLedger:
    ledger = OwingLedger(state_dir)
    try:
        ledger.check_newest()
    except LedgerError:
        ledger.close()
        raise
    return ledger


def _lost_its_file(state_dir: Path) -> str | None:
    """Say if rows lie in a journal whose database is gone: SQLite would delete it."""
    file, journal = state_dir / FILE_NAME, state_dir / f"{FILE_NAME}-wal"
    try:
        without = not file.exists() or (file.is_file() and file.stat().st_size == 0)
        if without and journal.is_file() and journal.stat().st_size > 0:
            return "only its journal is left"
    except OSError:
        return None
    return None


def _complete(
    ledger: OwingLedger,
    cameras: tuple[CameraConfig, ...],
    moved_to: Path | None,
    asking: Asking,
) -> int | None:
    rows = 0
    damaged = _newest_aside(asking.state_dir) if asking.everything else None
    if damaged is not None:
        # Also where an earlier start was cut short after moving it.
        rows += _salvage(damaged, ledger, asking.alive)
    answering = [camera for camera in cameras if _answers(camera.output)]
    rows += sum(ask_products(ledger, camera, asking) for camera in answering)
    if not asking.everything:
        return None
    if not asking.stopping() and len(answering) == len(cameras):
        ledger.finish()
        _drop_oldest_aside(asking.state_dir)
    if rows or moved_to:
        event(log, logging.WARNING, "ledger rebuilt from the products", rows=rows)
    return rows


def _answers(folder: Path) -> bool:
    """Tell whether a folder can be asked: a dead share must keep no other camera waiting."""
    (there,) = answered(_PATIENCE, lambda: folder.is_dir() or True)
    if not there:
        event(log, logging.ERROR, "products not read: no answer", folder=folder)
    return bool(there)


def _every_second(call: Callable[[], None]) -> Callable[[], None]:
    last = float("-inf")

    def seldom() -> None:
        nonlocal last
        if time.monotonic() - last >= 1.0:
            last = time.monotonic()
            call()

    return seldom


def _salvage(damaged: Path, ledger: OwingLedger, alive: Callable[[], None]) -> int:
    try:
        rows = salvage(damaged, ledger, alive)
    except OSError as error:
        event(log, logging.ERROR, "damaged ledger not read", file=damaged, reason=str(error))
        return 0
    event(log, logging.WARNING, "rows salvaged from the damaged ledger", file=damaged, rows=rows)
    return rows


# -- damaged files --------------------------------------------------------------------------


def move_aside(state_dir: Path) -> Path:
    """Rename a damaged ledger, with its journal, to a name that is free.

    Raises
    ------
    LedgerError
        If that is not allowed.
    """
    name = f"{FILE_NAME}.damaged-{max(_numbers(state_dir), default=0) + 1}"
    try:
        # The journal first: a new ledger beside an old journal would be damaged again.
        for suffix in _PARTS:
            part = state_dir / f"{FILE_NAME}{suffix}"
            if part.exists():
                part.rename(state_dir / f"{name}{suffix}")
        # Where only a journal was left: what is read is the file of this name.
        (state_dir / name).touch()
    except OSError as error:
        raise LedgerError(
            f"{state_dir / FILE_NAME}: damaged, and cannot be moved aside: {error}"
        ) from error
    return state_dir / name


def _numbers(state_dir: Path) -> list[int]:
    return [int(m[1]) for p in state_dir.iterdir() if (m := _ASIDE.fullmatch(p.name))]


def _newest_aside(state_dir: Path) -> Path | None:
    numbers = _numbers(state_dir)
    return state_dir / f"{FILE_NAME}.damaged-{max(numbers)}" if numbers else None


def _drop_oldest_aside(state_dir: Path) -> None:
    """Keep the newest few damaged files: a failing disk must not be filled with them."""
    for number in sorted(_numbers(state_dir))[:-_MOST_ASIDE]:
        for suffix in _PARTS:
            (state_dir / f"{FILE_NAME}.damaged-{number}{suffix}").unlink(missing_ok=True)
