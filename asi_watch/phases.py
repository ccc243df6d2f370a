"""Where the brackets of a camera lie within their slots, learned from its stream: pure code.

A camera that takes its bracket from 11:59:58 to 12:00:03 would have it cut at the edge of a slot.
`bracket.offset: auto` moves the edge into the pause between brackets. What is learned holds from
a timestamp on, and is kept: the same file belongs to the same slot whenever it is looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from asi_watch.brackets import slot_of

_EPOCH = datetime(1970, 1, 1)
_ZERO = timedelta(0)

_RECENT = 60
"""Timestamps looked back on."""
_ENOUGH = 20
"""Timestamps needed before anything is learned, and between two looks."""
_AGREEING = 2
"""Looks in a row that must find the present edge within brackets."""
_SMALLEST_PAUSE = 0.2
"""Smallest pause between brackets, in parts of a slot, that the edge is moved into."""
_CLEARANCE = 0.02
"""Distance from the edge to the next exposure, in parts of a slot, that is no reason to move."""
_BINS = 60


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

    @property
    def settled_until(self) -> datetime:
        """Timestamp from which the latest offset holds; nothing before it may change."""
        return self._since[-1] if self._since else _EPOCH

    def slot(self, timestamp: datetime) -> datetime:
        """Return the slot of a timestamp."""
        if not self._since:
            return slot_of(timestamp, self._round_to, self._first)
        return slot_of(timestamp, self._round_to, self.offset_at(timestamp))

    def learned(self, since: datetime, offset: timedelta) -> None:
        """Let an offset hold from `since` on, up to the next one known."""
        index = bisect_right(self._since, since)
        if index and self._since[index - 1] == since:
            self._offsets[index - 1] = offset
            return
        self._since.insert(index, since)
        self._offsets.insert(index, offset)


class PhaseLearner:
    """Finds out from a camera's timestamps where the edge of the slots should lie.

    The edge stays where it is while brackets are whole. Only when it keeps falling between the
    exposures of brackets is it moved, to the middle of the longest pause.

    Parameters
    ----------
    round_to : timedelta
    """

    def __init__(self, round_to: timedelta) -> None:
        self._round_to = round_to
        self._recent: deque[datetime] = deque(maxlen=_RECENT)
        self._unseen = 0
        self._cut = 0

    def observe(self, timestamp: datetime, present: timedelta) -> tuple[datetime, timedelta] | None:
        """Take in the timestamp of an exposure.

        Parameters
        ----------
        timestamp : datetime
        present : timedelta
            The offset that holds now.

        Returns
        -------
        since : datetime
            Timestamp, after all that were observed, from which a better offset should hold.
        offset : timedelta
            More than minus a half, at most half a slot.
        None
            If the present offset is good, or not enough is known.
        """
        self._recent.append(timestamp)
        self._unseen += 1
        if self._unseen < _ENOUGH:
            return None
        self._unseen = 0
        better = better_offset(self._recent, self._round_to, present)
        self._cut = 0 if better is None else self._cut + 1
        if better is None or self._cut < _AGREEING:
            return None
        self._cut = 0
        newest = max(self._recent)
        # The next edge under the new offset: it lies in a pause, so no bracket is cut by it.
        edge = slot_of(newest, self._round_to, better) + better + self._round_to
        self._recent.clear()
        return edge, better


def better_offset(
    timestamps: Iterable[datetime], round_to: timedelta, present: timedelta
) -> timedelta | None:
    """Find an offset that cuts no bracket, if the present one does.

    Parameters
    ----------
    timestamps : iterable of datetime
        Of recent exposures, in any order.
    round_to, present : timedelta

    Returns
    -------
    timedelta or None
        None when the present offset is as good as any: its edge lies in the longest pause, or
        there is no pause to speak of.
    """
    phases = _usual(((t - _EPOCH) % round_to for t in timestamps), round_to / _BINS)
    if not phases:
        return None
    following = [*phases[1:], phases[0] + round_to]
    pause, start = max((b - a, a) for a, b in zip(phases, following, strict=True))
    if pause < round_to * _SMALLEST_PAUSE:
        return None
    into = (present - start) % round_to
    clearance = round_to * _CLEARANCE
    # Exposures exactly on the edge belong to the bracket that begins there: no harm.
    if clearance <= into <= pause and (into <= pause - clearance or into == pause):
        return None
    middle = (start + pause / 2) % round_to
    return middle if middle <= round_to / 2 else middle - round_to


def _usual(phases: Iterable[timedelta], width: timedelta) -> list[timedelta]:
    """Sort the phases that come again; a straggler says nothing of the brackets."""
    found = list(phases)
    counts = Counter(phase // width for phase in found)
    return sorted({phase for phase in found if counts[phase // width] > 1})


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
