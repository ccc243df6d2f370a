"""Slots whose edges move: which offset holds from which timestamp on. Pure code.

A camera that takes its bracket from 11:59:58 to 12:00:03 would have it cut at the edge of a slot.
`bracket.offset: auto` moves the edge into the pause between brackets (`phase_learning`). What is
learned holds from a timestamp on, and is kept: the same file belongs to the same slot whenever it
is looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from asi_watch.brackets import slot_of

_EPOCH = datetime(1970, 1, 1)
_ZERO = timedelta(0)


@dataclass(frozen=True, slots=True)
class OffsetChange:
    """An offset that holds from `since`; from `until`, if given, what held before goes on."""

    since: datetime
    offset: timedelta
    until: datetime | None = None


class Slots:
    """Slot of every timestamp of one camera, with an offset that is fixed or learned.

    Parameters
    ----------
    round_to : timedelta
        Length of a slot.
    offset : timedelta
        Holds before anything is learned.
    history : sequence of (datetime, timedelta)
        What was learned earlier: offsets, each with the timestamp that it holds from.
    """

    def __init__(
        self,
        round_to: timedelta,
        offset: timedelta = _ZERO,
        history: Sequence[tuple[datetime, timedelta]] = (),
    ) -> None:
        self._round_to = round_to
        self._first = offset
        self._since = [since for since, _ in sorted(history)]
        self._offsets = [learned for _, learned in sorted(history)]

    def offset_at(self, timestamp: datetime) -> timedelta:
        """Return the offset that holds for a timestamp."""
        index = bisect_right(self._since, timestamp)
        return self._offsets[index - 1] if index else self._first

    def slot(self, timestamp: datetime) -> datetime:
        """Return the slot of a timestamp."""
        if not self._since:
            return slot_of(timestamp, self._round_to, self._first)
        return slot_of(timestamp, self._round_to, self.offset_at(timestamp))

    def change(
        self,
        newest: datetime,
        offset: timedelta,
        first_known: Callable[[datetime], datetime | None],
    ) -> OffsetChange | None:
        """Find from when a better offset may hold.

        Slots follow one another through the change: none holds pieces of two that were apart.

        Parameters
        ----------
        newest : datetime
            Timestamp after which it should hold.
        offset : timedelta
        first_known : callable
            Slot → the first slot not before it of which anything is known; None if there is none.
            What is known keeps its slot: a camera's clock may have been set back before it, or
            have been in the future for a while.

        Returns
        -------
        OffsetChange or None
            None while what comes next is known already.
        """
        present = self.offset_at(newest)
        # Up to an edge of the earlier of both, so that no slot is given to two brackets.
        earlier = min(present, offset)
        edge = slot_of(newest, self._round_to, earlier) + earlier + self._round_to
        for since in (edge, edge + self._round_to):
            if self.offset_at(since) != present:
                return None
            slot = slot_of(since, self._round_to, present)
            known = first_known(slot)
            if known is None:
                return OffsetChange(since, offset)
            if known > slot and known + earlier > since:
                until, following = known + earlier, self._next_change(since)
                ends_anyway = following is not None and following <= until
                return OffsetChange(since, offset, None if ends_anyway else until)
        return None

    def learned(self, change: OffsetChange) -> None:
        """Let an offset hold, up to where the next one known begins."""
        present = self.offset_at(change.since)
        if change.until is not None:
            self._insert(change.until, present)
        self._insert(change.since, change.offset)

    def _next_change(self, timestamp: datetime) -> datetime | None:
        index = bisect_right(self._since, timestamp)
        return self._since[index] if index < len(self._since) else None

    def _insert(self, since: datetime, offset: timedelta) -> None:
        index = bisect_right(self._since, since)
        if index and self._since[index - 1] == since:
            self._offsets[index - 1] = offset
            return
        self._since.insert(index, since)
        self._offsets.insert(index, offset)

    @property
    def history(self) -> list[tuple[datetime, timedelta]]:
        """What was learned: offsets, each with the timestamp that it holds from."""
        return list(zip(self._since, self._offsets, strict=True))


def offsets_from_brackets(
    brackets: Iterable[tuple[datetime, Sequence[datetime]]], round_to: timedelta
) -> list[tuple[datetime, timedelta]]:
    """Find the offsets that earlier brackets were grouped by, from their slots and timestamps.

    Parameters
    ----------
    brackets : iterable of (datetime, sequence of datetime)
        Slot and timestamps of each.
    round_to : timedelta

    Returns
    -------
    list of (datetime, timedelta)
        As few as explain all, each with the timestamp it holds from. Empty when 0 explains all.
    """
    found: list[tuple[datetime, timedelta]] = []
    since: datetime | None = None
    low, high = -round_to, round_to
    for slot, times in sorted((s, t) for s, t in brackets if t):
        # slot <= t - offset < slot + round_to, for every t.
        least, most = max(times) - slot - round_to, min(times) - slot
        if since is None or max(low, least) >= min(high, most):
            if since is not None:
                found.append((since, _within(low, high)))
            since, low, high = min(times), least, most
        else:
            low, high = max(low, least), min(high, most)
    if since is not None:
        found.append((since, _within(low, high)))
    return [] if all(offset == _ZERO for _, offset in found) else found


def _within(low: timedelta, high: timedelta) -> timedelta:
    return _ZERO if low < _ZERO <= high else (low + high) / 2
