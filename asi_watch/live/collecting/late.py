"""Files of brackets that are over already: what they change, and when the row stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol

from asi_watch.brackets import ExpectedExposures, Exposure
from asi_watch.config.model import BracketConfig
from asi_watch.live.collecting.bracket_state import Arrival, OpenBracket
from asi_watch.live.counters import Counters
from asi_watch.live.messages import Command, Unusable, WriteRecord
from asi_watch.live.records import WITHOUT_CURVE, BracketRecord, RejectedFile

_IGNORED = "late: ignored"


class ParsedName(Protocol):
    """What a file name says (see `asi_watch.naming`)."""

    @property
    def timestamp(self) -> datetime:
        """Naive time in the clock of the names."""

    @property
    def exposure_us(self) -> float:
        """Exposure time in microseconds."""


ParseName = Callable[[str], ParsedName | None]


class LateFiles:
    """Decides by the rules what a file does whose bracket has a row. Owner thread only.

    Parameters
    ----------
    rules : BracketConfig
    expected : ExpectedExposures
        Learns from what is ignored as well.
    counters : Counters
    parse : callable
        File name → `ParsedName`, or None for names that are no exposures.
    """

    def __init__(
        self,
        rules: BracketConfig,
        expected: ExpectedExposures,
        counters: Counters,
        parse: ParseName,
    ) -> None:
        self._counters = counters
        self._rules = rules
        self._expected = expected
        self._parse = parse

    def usable(self, bracket: OpenBracket, exposure: Exposure) -> Iterator[Command]:
        """Begin a revision for a usable late exposure, or note in the row that it is ignored."""
        record = bracket.previous
        assert record is not None
        if record.knows(exposure.path, exposure.signature):
            return
        if record.state == "published":
            self._counters.late += 1
            if self._rules.late == "ignore":
                yield from self._ignore(bracket, record, exposure)
                return
            bracket.late += 1
        yield from self.reopen(bracket, exposure.path)
        bracket.admit(exposure)

    def unusable(
        self, bracket: OpenBracket, arrival: Arrival, outcome: Unusable
    ) -> Iterator[Command]:
        """Note a late file in the row, so that it is not read again at every scan."""
        rejected = RejectedFile(
            arrival.path, *(outcome.signature or (0, 0)), f"late and unusable: {outcome.reason}"
        )
        yield from _amend(bracket, rejected)

    def reopen(self, bracket: OpenBracket, newly: str | None = None) -> Iterator[Command]:
        """Read all files of the row again, for the next revision; `newly` is its reason."""
        again = {arrival.path: arrival for arrival in bracket.reopen(newly)}
        # The others as well: what was older than an input may have to take its place.
        for rejected in bracket.previous.rejected if bracket.previous else ():
            parsed = self._parsed(rejected.path)
            if parsed is not None and rejected.path != newly:
                arrival = Arrival(rejected.path, parsed.timestamp, parsed.exposure_us)
                again.setdefault(rejected.path, arrival)
        for arrival in again.values():
            yield from bracket.look_at(arrival)

    def input_is_gone(self, bracket: OpenBracket, path: str, what: str) -> Iterator[Command]:
        """Give up a revision that lacks an input of the product that stands."""
        record = bracket.previous
        if record is None or record.state != "published" or bracket.probing:
            return
        if all(path != e.path for e in record.inputs):
            return
        # A revision with fewer inputs would be worse than the product that stands.
        self._counters.late_ignored += 1
        arrived = bracket.late - record.late
        left_out = bracket.give_up_revision(
            f"late: not merged, since the earlier input {path} {what}"
        )
        # A makeshift is final then: nobody need ask for it again.
        reason = None if record.reason == WITHOUT_CURVE else record.reason
        bracket.previous = replace(record, reason=reason)
        yield from _amend(bracket, *left_out, late=arrived)

    def _ignore(
        self, bracket: OpenBracket, record: BracketRecord, exposure: Exposure
    ) -> Iterator[Command]:
        self._counters.late_ignored += 1
        present = {e.exposure_us for e in record.inputs}
        if exposure.exposure_us not in present:
            # A camera whose brackets have grown: without this they would be cut short for ever.
            earlier = (self._parsed(r.path) for r in record.rejected if r.reason == _IGNORED)
            present.update(parsed.exposure_us for parsed in earlier if parsed is not None)
            self._expected.observe({*present, exposure.exposure_us})
        yield from _amend(
            bracket, RejectedFile(exposure.path, *exposure.signature, _IGNORED), late=1
        )

    def _parsed(self, path: str) -> ParsedName | None:
        return self._parse(PurePosixPath(path).name)


def _amend(bracket: OpenBracket, *rejected: RejectedFile, late: int = 0) -> Iterator[Command]:
    """Note files in the row of a bracket that stays as it is."""
    record = bracket.previous
    assert record is not None
    paths = {r.path for r in rejected}
    kept = tuple(r for r in record.rejected if r.path not in paths)
    bracket.previous = replace(record, rejected=kept + rejected, late=record.late + late)
    yield WriteRecord(bracket.previous, amended=True)
