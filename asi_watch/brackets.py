"""Exposures, time-rounded slots, and when a bracket is complete: pure code, for live and batch."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)

# How many closed brackets `exposures: auto` looks back on, and how many must agree.
_RECENT_BRACKETS = 7
_AGREEING_BRACKETS = 2


@dataclass(frozen=True, slots=True)
class Exposure:
    """One frame of a bracket.

    Parameters
    ----------
    path : str
        The file, relative to the camera's watch folder (undecodable bytes as surrogates).
    timestamp : datetime
        Naive, in the clock of the file name.
    exposure_us : float
        Exposure time in microseconds.
    size, mtime_ns, inode : int
        What told this state of the file from any other when it was read.
    """

    path: str
    timestamp: datetime
    exposure_us: float
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0

    @property
    def signature(self) -> tuple[int, int]:
        """Size and modification time: what tells one state of a file from another.

        The inode stays out: a restored or moved archive keeps the first two only.
        """
        return (self.size, self.mtime_ns)

    def newer_than(self, other: Exposure) -> bool:
        """Tell which of two files of the same exposure wins: the one written later."""
        return self._age_key() > other._age_key()

    def _age_key(self) -> tuple[int, datetime, str]:
        return (self.mtime_ns, self.timestamp, self.path)


def slot_of(timestamp: datetime, round_to: timedelta, offset: timedelta = timedelta(0)) -> datetime:
    """Time-rounded slot of a timestamp.

    Parameters
    ----------
    timestamp : datetime
        Naive time of the file name.
    round_to : timedelta
        Length of a slot, positive.
    offset : timedelta
        Taken off the timestamp first, for cameras whose brackets straddle the slot's edge.

    Returns
    -------
    datetime
        `timestamp - offset` floored to a multiple of `round_to` since 1970-01-01, as
        `pandas.Timestamp.floor` does.
    """
    ticks = (timestamp - offset - _EPOCH) // _MICROSECOND
    step = round_to // _MICROSECOND
    return _EPOCH + (ticks - ticks % step) * _MICROSECOND


@dataclass(slots=True)
class ExpectedExposures:
    """What a complete bracket of one camera holds; learns it where the rules say ``auto``."""

    rule: tuple[float, ...] | int | Literal["auto"]
    _recent: deque[frozenset[float]] = field(
        default_factory=lambda: deque(maxlen=_RECENT_BRACKETS), init=False
    )

    def observe(self, exposures: Iterable[float]) -> None:
        """Learn from a bracket that is over; one without any usable exposure teaches nothing."""
        present = frozenset(exposures)
        if present:
            self._recent.append(present)

    def expected(self) -> frozenset[float] | None:
        """Return the expected exposure times, or None where only a count is, or nothing yet."""
        if isinstance(self.rule, tuple):
            return frozenset(self.rule)
        if self.rule == "auto":
            return self._learned()
        return None

    def count(self) -> int | None:
        """Return how many exposures a complete bracket has; None while that is unknown."""
        if isinstance(self.rule, int):
            return self.rule
        expected = self.expected()
        return None if expected is None else len(expected)

    def is_complete(self, exposures: Iterable[float]) -> bool:
        """Tell whether these exposure times make a complete bracket."""
        present = frozenset(exposures)
        if isinstance(self.rule, int):
            return len(present) >= self.rule
        expected = self.expected()
        return expected is not None and expected <= present

    def _learned(self) -> frozenset[float] | None:
        # The commonest set wins, among equals the newest: a camera that changes its exposures at
        # dusk is followed after four brackets, which wait for their grace. If it was part of a
        # larger one twice, that is waited for: closing too early costs a second merge.
        counts = Counter(self._recent)
        agreeing = [s for s in reversed(self._recent) if counts[s] >= _AGREEING_BRACKETS]
        if not agreeing:
            return None
        commonest = max(agreeing, key=lambda s: counts[s])
        return max((s for s in agreeing if s >= commonest), key=len)
