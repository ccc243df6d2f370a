"""The ledger made up for by what the products say of themselves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from asi_watch.config.model import CameraConfig
from asi_watch.errors import ResponseFileError
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.product_rows import FoundProducts, products_of, reconciled
from asi_watch.live.records import BracketRecord, CurveDecision
from asi_watch.logs import event
from asi_watch.response_files import load_curve

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 500
# So many brackets in a row that the ledger knows well, and it knows the older ones too.
_WELL_KNOWN = 100
_TELL_EVERY = 10.0


@dataclass(frozen=True)
class Asking:
    """How products are to be asked.

    Parameters
    ----------
    state_dir : Path
        Where the curves are.
    everything : bool
        All products; otherwise the newest, until the ledger knows them well.
    deadline : float
        Monotonic time; after it only what is as young as the look-back is read.
    stopping, alive : callable
        As for `open_ledger`.
    """

    state_dir: Path
    everything: bool
    deadline: float
    stopping: Callable[[], bool]
    alive: Callable[[], None]


@dataclass
class _News:
    """What the products of a camera said that the ledger did not know."""

    rows: int = 0
    newest: BracketRecord | None = None
    """Slot and timestamps, where slots are learned."""
    waiting: dict[datetime, BracketRecord] = field(default_factory=dict)


def ask_products(ledger: Ledger, camera: CameraConfig, asking: Asking) -> int:
    """Write the rows that the products of a camera give and the ledger lacks.

    Returns
    -------
    int
        How many rows were written.

    Raises
    ------
    LedgerError
        If the ledger cannot be read or written.
    """
    news = _News()
    for found in _worth_asking(camera, asking, news):
        record = found.record
        if record is None:
            continue
        if news.newest is None or record.slot > news.newest.slot:
            news.newest = record
        present = news.waiting.get(record.slot) or ledger.get(camera.name, record.slot)
        better = reconciled(present, found)
        if better is None and not asking.everything:
            continue
        if better is not None:
            news.waiting[record.slot] = better
        if len(news.waiting) >= _ROWS_AT_ONCE:
            _write(ledger, news)
    _write(ledger, news)
    if asking.everything and news.newest is not None:
        _remember_curve(ledger, asking.state_dir, camera, news.newest)
    elif news.rows:
        event(
            log,
            logging.WARNING,
            "products adopted that the ledger did not know",
            camera=camera.name,
            rows=news.rows,
        )
    return news.rows


def _worth_asking(camera: CameraConfig, asking: Asking, news: _News) -> Iterator[FoundProducts]:
    """Give the products of a camera as far as they are to be read."""
    known = before = 0
    youngest = float("-inf")
    told = time.monotonic()
    for seen, found in enumerate(products_of(camera), 1):
        yield found
        asking.alive()
        unknown = news.rows + len(news.waiting)
        known = known + 1 if unknown == before else 0
        before = unknown
        youngest = max(youngest, found.changed)
        now = time.monotonic()
        if asking.stopping():
            return
        if not asking.everything and known >= _WELL_KNOWN:
            return
        if (
            now > asking.deadline
            and found.changed < youngest - camera.scan.lookback.total_seconds()
        ):
            event(log, logging.WARNING, "older products not read", camera=camera.name)
            return
        if now - told >= _TELL_EVERY:
            told = now
            event(
                log,
                logging.INFO,
                "reading products",
                camera=camera.name,
                brackets=seen,
                rows=unknown,
            )


def _write(ledger: Ledger, news: _News) -> None:
    ledger.record_all(news.waiting.values())
    news.rows += len(news.waiting)
    news.waiting.clear()


def _remember_curve(
    ledger: Ledger, state_dir: Path, camera: CameraConfig, newest: BracketRecord
) -> None:
    """The curve of the newest product stays in use, if it is one the daemon had adopted."""
    path = state_dir / "curves" / camera.name / f"{newest.curve_id}.npz"
    known = ledger.adopted_curve(camera.name)
    if newest.curve_id is None or not path.exists():
        return
    if known is not None and known.curve_id == newest.curve_id:
        return
    base_id = None
    if camera.response is not None:
        try:
            base_id = load_curve(camera.response).curve_id
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
