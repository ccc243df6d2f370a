"""Brackets of the ledger that are to be tried again: taken up a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Unpack

from asi_watch.live.ledger.ledger import Ledger, Which
from asi_watch.live.records import MAX_ATTEMPTS, BracketRecord

_AT_ONCE = 50


class TakingUp:
    """Goes through one camera's rows at start, and whenever an operator asks. Owner thread only.

    Parameters
    ----------
    camera : str
    ledger : Ledger
    resume : callable
        Told each row, and the monotonic time.
    """

    def __init__(
        self, camera: str, ledger: Ledger, resume: Callable[[BracketRecord, float], None]
    ) -> None:
        self._camera = camera
        self._ledger = ledger
        self._resume = resume
        self._more = True
        self._last: datetime | None = None

    def ask_again(self, slots: Sequence[datetime], **which: Unpack[Which]) -> list[datetime]:
        """Write down that brackets are to be tried again (see `Ledger`); returns their slots.

        Raises
        ------
        LedgerError
            If the wish cannot be written down.
        """
        asked = self._ledger.ask_again(self._camera, slots=slots, **which)
        self.look_again()
        return asked

    def look_again(self) -> None:
        """Go through the rows from the first one on: others are asked for now."""
        self._more, self._last = True, None

    def step(self, now: float) -> None:
        """Take up the next rows, if there are any."""
        if not self._more:
            return
        records = self._ledger.to_retry(
            self._camera, MAX_ATTEMPTS, after=self._last, limit=_AT_ONCE
        )
        for record in records:
            self._resume(record, now)
            self._last = record.slot
        self._more = len(records) == _AT_ONCE
