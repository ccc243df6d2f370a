"""What a file that has been read does to its bracket: an input, refused, gone, or late."""

from __future__ import annotations

from collections.abc import Iterator

from asi_watch.brackets import Exposure
from asi_watch.live.collecting.bracket_state import Arrival, OpenBracket
from asi_watch.live.collecting.late import LateFiles
from asi_watch.live.counters import Counters
from asi_watch.live.messages import (
    Command,
    ReadOk,
    ReadOutcome,
    Unchanged,
    Unusable,
    Vanished,
)


class TakingIn:
    """Takes what workers read into brackets that are not being merged. Owner thread only.

    Parameters
    ----------
    late : LateFiles
        Where files go whose bracket is over already.
    counters : Counters
    """

    def __init__(self, late: LateFiles, counters: Counters) -> None:
        self._late = late
        self._counters = counters

    def take(
        self, bracket: OpenBracket, arrival: Arrival, outcome: ReadOutcome
    ) -> Iterator[Command]:
        """Take in one file."""
        match outcome:
            case ReadOk(exposure):
                self._counters.exposures_read += 1
                yield from self._admit(bracket, exposure)
            case Unusable():
                self._counters.files_unusable += 1
                yield from self._refuse(bracket, arrival, outcome)
            case Vanished():
                self._counters.files_vanished += 1
                bracket.drop(arrival.path)
                yield from self._late.input_is_gone(bracket, arrival.path, "has vanished")
            case Unchanged():
                pass

    def take_heard(self, bracket: OpenBracket, whose: OpenBracket) -> list[Command]:
        """Take in what was read while `whose` was being merged."""
        heard, whose.heard_meanwhile = whose.heard_meanwhile, []
        return [c for arrival, outcome in heard for c in self.take(bracket, arrival, outcome)]

    def _admit(self, bracket: OpenBracket, exposure: Exposure) -> Iterator[Command]:
        if bracket.probing:
            yield from self._late.usable(bracket, exposure)
            return
        before = bracket.duplicates
        bracket.admit(exposure)
        self._counters.duplicates += bracket.duplicates - before

    def _refuse(
        self, bracket: OpenBracket, arrival: Arrival, outcome: Unusable
    ) -> Iterator[Command]:
        if bracket.probing:
            yield from self._late.unusable(bracket, arrival, outcome)
            return
        bracket.refuse(arrival, outcome)
        yield from self._late.input_is_gone(bracket, arrival.path, "cannot be used any more")
