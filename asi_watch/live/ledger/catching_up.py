"""How far back the folder must be read at the next start: until when everything found has a row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from asi_watch.live.ledger.ledger import LedgerFullError
from asi_watch.live.ledger.owed_rows import OwingLedger

_EVERY = 60.0
# Files are written before they are found; clocks are set by less than this without a word.
_SLACK = timedelta(hours=1)
_CLOCK_WAS_WRONG = timedelta(days=1)
_EVERYTHING = 100 * 365.25 * 86_400.0


class CatchingUp:
    """Notes in the ledger, about once a minute, up to when a camera is caught up with.

    The time of the last row would not do: a backlog of days is worked off in any order, beside
    live brackets, and may be interrupted at any moment. Owner thread only.

    Parameters
    ----------
    camera : str
    ledger : OwingLedger
    wall : callable
        The time, in UTC.
    """

    def __init__(
        self,
        camera: str,
        ledger: OwingLedger,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._camera = camera
        self._ledger = ledger
        self._wall = wall
        self._next = float("-inf")
        self._moment: datetime | None = None
        self._open: set[datetime] = set()

    def tick(self, now: float, taken_in: bool, unrecorded: Callable[[], set[datetime]]) -> None:
        """Note the time once all that had been found by then has a row.

        Parameters
        ----------
        now : float
            Monotonic time.
        taken_in : bool
            True when all that lies in the folder has been found, and asked to be read.
        unrecorded : callable
            Slots of which files are being read, or wait for others or to be merged.
        """
        if self._moment is None:
            if not taken_in or now < self._next:
                return
            self._moment, self._open = self._wall(), unrecorded()
        self._open &= unrecorded()
        if self._open or self._ledger.owed:
            return
        moment, self._moment = self._moment, None
        self._next = now + _EVERY
        # Without room in the ledger the next start reads a little more.
        with suppress(LedgerFullError):
            self._ledger.record_caught_up(self._camera, moment)


def lookback_at_start(
    ledger: OwingLedger, camera: str, lookback: float, now: datetime | None = None
) -> float:
    """Stretch the first scan's look-back to when the camera was last caught up with.

    Parameters
    ----------
    ledger : OwingLedger
    camera : str
    lookback : float
        Seconds, as configured.
    now : datetime, optional
        In UTC.

    Returns
    -------
    float
        Seconds. Everything, if the time noted lies in the future: then a clock was wrong.
    """
    since = ledger.caught_up(camera) or ledger.last_change(camera)
    if since is None:
        return lookback
    away = (now or datetime.now(UTC)) - since
    if away < -_CLOCK_WAS_WRONG:
        return _EVERYTHING
    return max(lookback, (away + _SLACK).total_seconds())
