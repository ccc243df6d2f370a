"""A ledger that keeps going while its disk is full: rows that could not be written are owed."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

from asi_watch.live.ledger.ledger import CurveDecision, Ledger, LedgerFullError
from asi_watch.live.records import BracketRecord
from asi_watch.logs import event

log = logging.getLogger(__name__)

MOST_OWED = 1000
"""With so many rows owed, nothing more is published."""
_TRY_EVERY = 2.0


class OwingLedger(Ledger):
    """The daemon's ledger. Owner thread only.

    A row that cannot be written for want of room is kept, answered from memory, and written when
    possible. Should the daemon end before, the product itself tells what it is made of and is
    adopted at the next start: nothing is merged twice.

    Parameters
    ----------
    state_dir : Path
        See `Ledger`.
    """

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self._owed: dict[tuple[str, datetime], BracketRecord] = {}
        self._owed_curves: list[CurveDecision] = []
        self._tried = float("-inf")

    @property
    def owed(self) -> int:
        """How many rows wait to be written."""
        return len(self._owed) + len(self._owed_curves)

    def why_not(self) -> str | None:
        """Say why nothing should be published now, None if it may be."""
        return "the ledger cannot be written" if self.owed >= MOST_OWED else None

    def get(self, camera: str, slot: datetime) -> BracketRecord | None:
        """Look up a bracket, among the rows owed first."""
        return self._owed.get((camera, slot)) or super().get(camera, slot)

    def record(self, record: BracketRecord) -> None:
        """Write a row, or owe it."""
        try:
            super().record(record)
        except LedgerFullError as error:
            self._told(error)
            self._owed[record.camera, record.slot] = record
        else:
            self._owed.pop((record.camera, record.slot), None)

    def record_curve(self, decision: CurveDecision) -> None:
        """Write a decision, or owe it."""
        try:
            super().record_curve(decision)
        except LedgerFullError as error:
            self._told(error)
            self._owed_curves.append(decision)

    def try_offset(self, camera: str, since: datetime, offset: timedelta) -> bool:
        """Write a learned offset; False if that is not possible now: then it must not be used."""
        try:
            self.record_offset(camera, since, offset)
        except LedgerFullError as error:
            self._told(error)
            return False
        return True

    def settle(self, now: float) -> None:
        """Write what is owed, every few seconds."""
        if not self.owed or now - self._tried < _TRY_EVERY:
            return
        self._tried = now
        owed = self.owed
        try:
            # Each row is taken off once it is written: what fails stays owed.
            for key, record in list(self._owed.items()):
                super().record(record)
                del self._owed[key]
            while self._owed_curves:
                super().record_curve(self._owed_curves[0])
                del self._owed_curves[0]
        except LedgerFullError:
            return
        event(log, logging.WARNING, "ledger written again", rows=owed)

    def _told(self, error: LedgerFullError) -> None:
        if not self.owed:
            event(
                log,
                logging.ERROR,
                "ledger not written, its rows are kept in memory",
                reason=str(error),
            )
