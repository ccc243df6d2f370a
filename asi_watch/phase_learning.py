"""Where the brackets of a camera lie within their slots, learned from its stream: pure code."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from asi_watch.brackets import slot_of

_EPOCH = datetime(1970, 1, 1)

_RECENT = 60
"""Timestamps looked back on."""
_ENOUGH = 20
"""Timestamps needed before anything is learned, and between two looks."""
_AGREEING = 2
"""Looks in a row that must find the present edge within brackets."""
_SMALLEST_PAUSE = 0.2
"""Smallest pause between brackets, in parts of a slot, that the edge is moved into."""
_AS_LONG = 0.7
"""A pause of so many parts of the longest may as well be the one between brackets."""
_CLEARANCE = 0.02
"""Distance from the edge to the next exposure, in parts of a slot, that is no reason to move."""
_BINS = 60
_HARMFUL = 2
"""Neighbours grouped wrongly, of those looked back on, that make the edge a harm."""
_SET_BACK = 4
"""Slots by which timestamps go back when a clock was set, not when files came out of order."""


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
        self.newest = _EPOCH
        """The newest timestamp since the camera's clock was last set back."""

    def observe(self, timestamp: datetime, present: timedelta) -> timedelta | None:
        """Take in the timestamp of an exposure.

        Parameters
        ----------
        timestamp : datetime
        present : timedelta
            The offset that holds now.

        Returns
        -------
        timedelta or None
            A better offset, more than minus a half, at most half a slot; None if the present one
            is good, or not enough is known.
        """
        if timestamp < self.newest - _SET_BACK * self._round_to:
            self._recent.clear()
            self._cut, self.newest = 0, timestamp
        self.newest = max(self.newest, timestamp)
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
        self._recent.clear()
        return better


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
        does no harm where it lies, or there is no pause to speak of.
    """
    times = sorted(set(timestamps))
    usual = _usual(((t - _EPOCH) % round_to for t in times), round_to / _BINS)
    if not usual:
        return None
    pauses = _pauses(sorted(usual), round_to)
    pause, start = max(pauses)
    if pause < round_to * _SMALLEST_PAUSE:
        return None
    long_enough = [p for p in pauses if p[0] >= pause * _AS_LONG]
    if any(_lies_in(present, *p, round_to) for p in long_enough):
        return None
    regular = [t for t in times if (t - _EPOCH) % round_to in usual]
    if _wrong_pairs(regular, pause, round_to, present) < _HARMFUL:
        return None
    middle = (start + pause / 2) % round_to
    return middle if middle <= round_to / 2 else middle - round_to


def _pauses(phases: Sequence[timedelta], round_to: timedelta) -> list[tuple[timedelta, timedelta]]:
    """Length of the pause after each phase, and the phase."""
    following = [*phases[1:], phases[0] + round_to]
    return [(b - a, a) for a, b in zip(phases, following, strict=True)]


def _lies_in(edge: timedelta, pause: timedelta, start: timedelta, round_to: timedelta) -> bool:
    into = (edge - start) % round_to
    clearance = round_to * _CLEARANCE
    # Exposures exactly on the edge belong to the bracket that begins there: no harm.
    return clearance <= into <= pause and (into <= pause - clearance or into == pause)


def _wrong_pairs(
    times: Sequence[datetime], pause: timedelta, round_to: timedelta, offset: timedelta
) -> int:
    """Count neighbours of one bracket in two slots, and of two brackets in one slot."""
    return sum(
        (after - before < pause)
        != (slot_of(before, round_to, offset) == slot_of(after, round_to, offset))
        for before, after in pairwise(times)
    )


def _usual(phases: Iterable[timedelta], width: timedelta) -> set[timedelta]:
    """Keep the phases that come again; a straggler says nothing of the brackets."""
    found = list(phases)
    counts = Counter(phase // width for phase in found)
    return {phase for phase in found if counts[phase // width] > 1}
