"""The collector: from files found to brackets due. Pure decisions, one owner, no clock of its own.

Every method takes the monotonic time and returns the commands that follow; nothing here touches
a file, a thread or the ledger (rows of brackets that are over are looked up through `lookup`).
What it decides by: `taking_in` (a file was read), `closing` (a bracket is over), `after_merge`,
`late` (a file came for a bracket that was over).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import PurePosixPath

from asi_watch.brackets import ExpectedExposures, slot_of
from asi_watch.config.model import BracketConfig
from asi_watch.config.values import Exposures
from asi_watch.live.collecting.after_merge import AfterMerge
from asi_watch.live.collecting.bracket_state import Arrival, OpenBracket
from asi_watch.live.collecting.closing import Closing
from asi_watch.live.collecting.late import LateFiles, ParseName
from asi_watch.live.collecting.taking_in import TakingIn
from asi_watch.live.counters import Counters
from asi_watch.live.messages import (
    Command,
    MergeFailed,
    MergeOutcome,
    Published,
    ReadOutcome,
    Signature,
    Stands,
    TooFew,
    Unusable,
)
from asi_watch.live.records import BracketRecord

_MOST_EXCUSED = 60.0


class Collector:
    """Bracket state of one camera.

    Parameters
    ----------
    camera : str
    rules : BracketConfig
    parse : callable
        File name → timestamp and exposure, or None for names that are no exposures.
    lookup : callable
        Slot → the ledger's row of that bracket, or None.
    stable_for : float
        Seconds that a file must lie still which was only seen to be created.
    exposures_us : tuple of float, int or "auto", optional
        Expected exposures in µs; default: as the rules say.
    """

    def __init__(
        self,
        camera: str,
        rules: BracketConfig,
        parse: ParseName,
        lookup: Callable[[datetime], BracketRecord | None],
        stable_for: float,
        exposures_us: Exposures | None = None,
    ) -> None:
        self.expected = ExpectedExposures(exposures_us or rules.exposures)
        self._parse = parse
        self._lookup = lookup
        self._stable_for = stable_for
        self._rules = rules
        self._open: dict[datetime, OpenBracket] = {}
        self.counters = counters = Counters()
        self._closing = Closing(camera, rules, self.expected, counters, self._open)
        self._late = LateFiles(rules, self.expected, counters, parse)
        self._taking_in = TakingIn(self._late, counters)
        self._after = AfterMerge(
            self.expected, self._closing, self._taking_in, counters, self._open
        )

    # -- what happens -----------------------------------------------------------------------

    def found(
        self, path: str, signature: Signature | None, settled: bool, now: float
    ) -> list[Command]:
        """A file was seen: by an event (`signature` None) or by a scan.

        Parameters
        ----------
        path : str
            Relative to the watch folder.
        signature : tuple of int, or None
            Size and modification time, where they are known.
        settled : bool
            True when its writer has closed it or moved it in place.
        now : float
            Monotonic time at which it was seen.
        """
        parsed = self._parse(PurePosixPath(path).name)
        if parsed is None:
            self.counters.count_once("names_ignored", path)
            return []
        arrival = Arrival(path, parsed.timestamp, parsed.exposure_us)
        bracket = self._bracket_for(arrival, signature, now)
        if bracket is None or (signature is not None and bracket.known(path) == signature):
            return []
        self.counters.files_found += 1
        if now > bracket.last_arrival:
            bracket.last_arrival, bracket.excused = now, 0.0
        if now == bracket.last_arrival:
            bracket.told = signature is None
        if path in bracket.reading or settled:
            return [*bracket.look_at(arrival)]
        if signature is not None and signature[0] > 0 and bracket.may_look_early(path):
            return [bracket.ask(arrival, early=True)]
        bracket.settling.setdefault(path, (now + self._stable_for, arrival))
        return []

    def read_done(
        self, slot: datetime, path: str, outcome: ReadOutcome, now: float
    ) -> list[Command]:
        """A file that was asked for has been read."""
        bracket = self._open.get(slot)
        arrival = bracket.reading.pop(path, None) if bracket else None
        if bracket is None or arrival is None:
            return []
        commands: list[Command] = []
        early = path in bracket.early
        bracket.early.discard(path)
        if bracket.merging:
            # What is being merged stays what it is; this comes after it.
            bracket.heard_meanwhile.append((arrival, outcome))
        elif early and isinstance(outcome, Unusable):
            # It may still be being written, whatever its first bytes look like.
            bracket.settling[path] = (now + self._stable_for, arrival)
        else:
            commands += self._taking_in.take(bracket, arrival, outcome)
        if path in bracket.read_again and slot in self._open:
            commands.append(bracket.ask(bracket.read_again.pop(path)))
        return commands + self._closing.settle_up(bracket)

    def merge_done(self, slot: datetime, outcome: MergeOutcome, now: float) -> list[Command]:
        """A merge that was asked for has ended."""
        bracket = self._open.get(slot)
        if bracket is None or not bracket.merging:
            return []
        bracket.merging = False
        match outcome:
            case Published():
                return self._after.published(bracket, outcome)
            case MergeFailed():
                return self._after.failed(bracket, outcome, now)
            case Stands():
                return self._after.stands(bracket, outcome)
            case TooFew():
                return self._after.nothing_stands(bracket)

    def put_off(self, slot: datetime, reason: str) -> list[Command]:
        """A merge that was asked for cannot begin for long: its bracket waits in the ledger."""
        bracket = self._open.get(slot)
        if bracket is None or not bracket.merging:
            return []
        bracket.merging = False
        return self._after.put_off(bracket, reason)

    def due(self, now: float) -> list[Command]:
        """Time has passed: files that lay still, brackets whose grace is over, retries."""
        commands: list[Command] = []
        for bracket in list(self._open.values()):
            for when, arrival in list(bracket.settling.values()):
                if when <= now:
                    commands.append(bracket.ask(arrival))
            if self._closing.over_at(bracket) <= now:
                commands += self._closing.close(bracket)
        return commands

    def held_up(self, seconds: float) -> None:
        """So long nothing could be heard: what came meanwhile has yet to be taken in.

        Open brackets wait for so much longer, up to a limit: where the owner is always late, they
        must end nevertheless.
        """
        for bracket in self._open.values():
            bracket.excused = min(bracket.excused + seconds, _MOST_EXCUSED)

    def resume(self, record: BracketRecord, now: float) -> list[Command]:
        """Take up a bracket that failed before a restart, or that is to be tried again.

        Every file that the row knows is looked at anew, also those that could not be used. A
        bracket that waits for its next attempt has it now.
        """
        bracket = self._open.get(record.slot)
        if bracket is not None:
            if bracket.retry_at is not None:
                bracket.retry_at, bracket.attempts = now, record.attempts
            return []
        bracket = self._open[record.slot] = OpenBracket(record.slot, now, previous=record)
        bracket.again = record.state == "published"
        return list(self._late.reopen(bracket))

    # -- what can be asked ------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Monotonic time at which `due` has something to do, None if it has not."""
        times = [self._closing.over_at(b) for b in self._open.values()]
        times += [when for b in self._open.values() for when, _ in b.settling.values()]
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else soonest

    def __len__(self) -> int:
        """How many brackets are not over, or are being looked at again."""
        return len(self._open)

    def open_slots(self) -> list[datetime]:
        """Slots of the brackets that are not over."""
        return sorted(slot for slot, b in self._open.items() if not b.probing)

    def unrecorded_slots(self) -> set[datetime]:
        """Slots whose row, if there is one, does not say all that is known."""
        return {slot for slot, b in self._open.items() if b.retry_at is None}

    def is_open(self, slot: datetime) -> bool:
        """Tell whether a bracket has begun and is not over."""
        return slot in self._open

    def slot_of_name(self, path: str) -> tuple[datetime, datetime] | None:
        """Return timestamp and slot of a file by its name, None if it is no exposure's."""
        parsed = self._parse(PurePosixPath(path).name)
        return None if parsed is None else (parsed.timestamp, self._slot(parsed.timestamp))

    def _slot(self, timestamp: datetime) -> datetime:
        return slot_of(timestamp, self._rules.round_to, self._rules.offset)

    # -- arriving ---------------------------------------------------------------------------

    def _bracket_for(
        self, arrival: Arrival, signature: Signature | None, now: float
    ) -> OpenBracket | None:
        slot = self._slot(arrival.timestamp)
        bracket = self._open.get(slot)
        if bracket is None:
            record = self._lookup(slot)
            if record and signature and record.knows(arrival.path, signature):
                return None
            bracket = self._open[slot] = OpenBracket(slot, now, previous=record)
        return bracket
