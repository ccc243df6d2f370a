"""The collector: from files found to brackets due. Pure decisions, one owner, no clock of its own.

Every method takes the monotonic time and returns the commands that follow; nothing here touches
a file, a thread or the ledger (rows of brackets that are over are looked up through `lookup`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol

from asi_watch.brackets import BracketRules, ExpectedExposures, Exposure
from asi_watch.live.bracket_state import Arrival, OpenBracket
from asi_watch.live.commands import (
    Command,
    DropWork,
    MergeBracket,
    MergeFailed,
    MergeOutcome,
    Published,
    ReadFile,
    ReadOk,
    ReadOutcome,
    Signature,
    Unchanged,
    Unusable,
    Vanished,
    WriteRecord,
)
from asi_watch.live.counters import Counters
from asi_watch.live.records import BracketRecord, RecordState, RejectedFile
from asi_watch.phases import Slots

MAX_ATTEMPTS = 8
_FIRST_BACKOFF = 2.0
_LONGEST_BACKOFF = 300.0


class ParsedName(Protocol):
    """What a file name says (see `asi_watch.naming`)."""

    @property
    def timestamp(self) -> datetime:
        """Naive time in the clock of the names."""

    @property
    def exposure_us(self) -> float:
        """Exposure time in microseconds."""


class Collector:
    """Bracket state of one camera.

    Parameters
    ----------
    camera : str
    rules : BracketRules
    parse : callable
        File name → `ParsedName`, or None for names that are no exposures.
    lookup : callable
        Slot → the ledger's row of that bracket, or None.
    stable_for : float
        Seconds that a file must lie still which was only seen to be created.
    slots : Slots, optional
        Slot of every timestamp; default: as the rules say.
    """

    def __init__(
        self,
        camera: str,
        rules: BracketRules,
        parse: Callable[[str], ParsedName | None],
        lookup: Callable[[datetime], BracketRecord | None],
        stable_for: float,
        slots: Slots | None = None,
    ) -> None:
        self.camera = camera
        self.rules = rules
        self.counters = Counters()
        self.expected = ExpectedExposures(rules.exposures)
        self._parse = parse
        self._lookup = lookup
        self._stable_for = stable_for
        self._slots = slots or Slots(rules.round_to, rules.offset)
        self._open: dict[datetime, OpenBracket] = {}

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
            self.counters.names_ignored += 1
            return []
        arrival = Arrival(path, parsed.timestamp, parsed.exposure_us)
        bracket = self._bracket_for(arrival, signature, now)
        if bracket is None or (signature is not None and bracket.known(path) == signature):
            return []
        self.counters.files_found += 1
        bracket.last_arrival = max(bracket.last_arrival, now)
        if path in bracket.reading:
            bracket.read_again[path] = arrival
            return []
        if not settled:
            bracket.settling.setdefault(path, (now + self._stable_for, arrival))
            return []
        return [self._read(bracket, arrival)]

    def read_done(
        self, slot: datetime, path: str, outcome: ReadOutcome, now: float
    ) -> list[Command]:
        """A file that was asked for has been read."""
        bracket = self._open.get(slot)
        arrival = bracket.reading.pop(path, None) if bracket else None
        if bracket is None or arrival is None:
            return []
        commands = list(self._take(bracket, arrival, outcome))
        if path in bracket.read_again and slot in self._open:
            commands.append(self._read(bracket, bracket.read_again.pop(path)))
        return commands + self._settle_up(bracket, now)

    def merge_done(self, slot: datetime, outcome: MergeOutcome, now: float) -> list[Command]:
        """A merge that was asked for has ended."""
        bracket = self._open.get(slot)
        if bracket is None or not bracket.merging:
            return []
        bracket.merging = False
        if isinstance(outcome, MergeFailed):
            return self._merge_failed(bracket, outcome, now)
        return self._merged(bracket, outcome, now)

    def due(self, now: float) -> list[Command]:
        """Time has passed: files that lay still, brackets whose grace is over, retries."""
        commands: list[Command] = []
        for bracket in list(self._open.values()):
            for path, (when, arrival) in list(bracket.settling.items()):
                if when <= now:
                    del bracket.settling[path]
                    commands.append(self._read(bracket, arrival))
            if self._over_at(bracket) <= now:
                commands += self._close(bracket, now)
        return commands

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
        commands: list[Command] = list(self._reopen(bracket))
        for rejected in record.rejected:
            parsed = self._parse(PurePosixPath(rejected.path).name)
            if parsed is not None and rejected.path not in bracket.reading:
                del bracket.rejected[rejected.path]
                bracket.required.add(rejected.path)
                arrival = Arrival(rejected.path, parsed.timestamp, parsed.exposure_us)
                commands.append(self._read(bracket, arrival))
        return commands

    # -- what can be asked ------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Monotonic time at which `due` has something to do, None if it has not."""
        times = [self._over_at(b) for b in self._open.values()]
        times += [when for b in self._open.values() for when, _ in b.settling.values()]
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else soonest

    def open_slots(self) -> list[datetime]:
        """Slots of the brackets that are not over."""
        return sorted(slot for slot, b in self._open.items() if not b.probing)

    def is_open(self, slot: datetime) -> bool:
        """Tell whether a bracket has begun and is not over."""
        return slot in self._open

    def slot_of_name(self, path: str) -> tuple[datetime, datetime] | None:
        """Return timestamp and slot of a file by its name, None if it is no exposure's."""
        parsed = self._parse(PurePosixPath(path).name)
        return None if parsed is None else (parsed.timestamp, self._slots.slot(parsed.timestamp))

    def is_idle(self) -> bool:
        """True when nothing is being read or merged and no bracket is waiting."""
        return not self._open

    # -- arriving ---------------------------------------------------------------------------

    def _bracket_for(
        self, arrival: Arrival, signature: Signature | None, now: float
    ) -> OpenBracket | None:
        slot = self._slots.slot(arrival.timestamp)
        bracket = self._open.get(slot)
        if bracket is None:
            record = self._lookup(slot)
            if record and signature and record.knows(arrival.path, signature):
                return None
            bracket = self._open[slot] = OpenBracket(slot, now, previous=record)
        return bracket

    def _read(self, bracket: OpenBracket, arrival: Arrival) -> ReadFile:
        bracket.settling.pop(arrival.path, None)
        bracket.reading[arrival.path] = arrival
        return ReadFile(
            slot=bracket.slot,
            path=arrival.path,
            timestamp=arrival.timestamp,
            exposure_us=arrival.exposure_us,
            known=bracket.known(arrival.path),
            absorb=not (bracket.merging or bracket.probing),
        )

    def _take(
        self, bracket: OpenBracket, arrival: Arrival, outcome: ReadOutcome
    ) -> Iterator[Command]:
        match outcome:
            case ReadOk(exposure):
                self.counters.exposures_read += 1
                yield from self._admit(bracket, exposure)
            case Unusable():
                self.counters.files_unusable += 1
                yield from self._refuse(bracket, arrival, outcome)
            case Vanished():
                self.counters.files_vanished += 1
                bracket.drop(arrival.path)
                yield from self._required_is_gone(bracket, arrival.path, "has vanished")
            case Unchanged():
                pass

    def _admit(self, bracket: OpenBracket, exposure: Exposure) -> Iterator[Command]:
        if bracket.merging:
            bracket.came_during_merge.append(exposure)
            return
        bracket.required.discard(exposure.path)
        if bracket.probing:
            yield from self._arrived_late(bracket, exposure)
            return
        before = bracket.duplicates
        bracket.admit(exposure)
        self.counters.duplicates += bracket.duplicates - before

    def _refuse(
        self, bracket: OpenBracket, arrival: Arrival, outcome: Unusable
    ) -> Iterator[Command]:
        if bracket.probing:
            # Noted in the row, so that the same file is not read at every scan.
            rejected = RejectedFile(
                arrival.path, *(outcome.signature or (0, 0)), f"late and unusable: {outcome.reason}"
            )
            yield from self._amend(bracket, rejected)
            return
        bracket.refuse(arrival, outcome)
        yield from self._required_is_gone(bracket, arrival.path, "cannot be used any more")

    def _arrived_late(self, bracket: OpenBracket, exposure: Exposure) -> Iterator[Command]:
        record = bracket.previous
        assert record is not None
        if record.knows(exposure.path, exposure.signature):
            return
        if record.state == "published":
            self.counters.late += 1
            if self.rules.late == "ignore":
                self.counters.late_ignored += 1
                rejected = RejectedFile(exposure.path, *exposure.signature, "late: ignored")
                yield from self._amend(bracket, rejected, late=1)
                return
            bracket.late += 1
        yield from self._reopen(bracket, exposure.path)
        bracket.admit(exposure)

    def _reopen(self, bracket: OpenBracket, newly: str | None = None) -> Iterator[Command]:
        again = {arrival.path: arrival for arrival in bracket.reopen(newly)}
        # The others as well: what was older than an input may have to take its place.
        for rejected in bracket.previous.rejected if bracket.previous else ():
            parsed = self._parse(PurePosixPath(rejected.path).name)
            if parsed is not None and rejected.path != newly:
                arrival = Arrival(rejected.path, parsed.timestamp, parsed.exposure_us)
                again.setdefault(rejected.path, arrival)
        for path, arrival in again.items():
            if path in bracket.reading:
                bracket.read_again[path] = arrival
            else:
                yield self._read(bracket, arrival)

    def _required_is_gone(self, bracket: OpenBracket, path: str, what: str) -> Iterator[Command]:
        if path not in bracket.required:
            return
        bracket.required.discard(path)
        if bracket.previous is None or bracket.previous.state != "published":
            return
        # A revision with fewer inputs would be worse than the product that stands.
        self.counters.late_ignored += 1
        arrived = bracket.late - bracket.previous.late
        left_out = bracket.give_up_revision(
            f"late: not merged, since the earlier input {path} {what}"
        )
        yield from self._amend(bracket, *left_out, late=arrived)

    def _amend(
        self, bracket: OpenBracket, *rejected: RejectedFile, late: int = 0
    ) -> Iterator[Command]:
        """Note files in the row of a bracket that stays as it is."""
        record = bracket.previous
        assert record is not None
        paths = {r.path for r in rejected}
        kept = tuple(r for r in record.rejected if r.path not in paths)
        bracket.previous = replace(record, rejected=kept + rejected, late=record.late + late)
        yield WriteRecord(bracket.previous)

    # -- closing ----------------------------------------------------------------------------

    def _settle_up(self, bracket: OpenBracket, now: float) -> list[Command]:
        """See whether a bracket is complete, overtaken or done with, now that a read ended."""
        if bracket.slot not in self._open or bracket.busy or bracket.merging:
            return []
        if bracket.probing:
            del self._open[bracket.slot]
            return [DropWork(bracket.slot)]
        enough = len(bracket.exposures) >= self.rules.min_exposures
        if not (enough and self.expected.is_complete(bracket.exposures)):
            return self._close(bracket, now) if bracket.overtaken else []
        commands = self._merge(bracket)
        for earlier in [b for s, b in self._open.items() if s < bracket.slot]:
            earlier.overtaken = True
            if not (earlier.busy or earlier.merging or earlier.probing or earlier.retry_at):
                commands += self._close(earlier, now)
        return commands

    def _over_at(self, bracket: OpenBracket) -> float:
        if bracket.busy or bracket.merging:
            return float("inf")
        if bracket.retry_at is not None:
            return bracket.retry_at
        return bracket.last_arrival + (0.0 if bracket.overtaken else self.rules.grace)

    def _close(self, bracket: OpenBracket, now: float) -> list[Command]:
        if bracket.probing:
            return self._settle_up(bracket, now)
        if bracket.recoverable and not bracket.looked_last:
            # A half file may have become whole without an event: look once more.
            bracket.looked_last = True
            return [self._read(bracket, a) for a in list(bracket.recoverable.values())]
        if len(bracket.exposures) >= self.rules.min_exposures:
            return self._merge(bracket)
        return self._skip(bracket)

    def _merge(self, bracket: OpenBracket) -> list[Command]:
        previous = bracket.previous
        if (
            previous is not None
            and previous.state == "published"
            and {(e.path, e.signature) for e in previous.inputs}
            == {(e.path, e.signature) for e in bracket.inputs}
        ):
            return self._nothing_new(bracket, previous)
        bracket.merging = True
        bracket.retry_at = None
        return [
            MergeBracket(
                slot=bracket.slot,
                exposures=bracket.inputs,
                rejected=bracket.left_out,
                expected=self.expected.count(),
                complete=self.expected.is_complete(bracket.exposures),
                revision=bracket.revision,
                products=previous.products if previous else (),
                arrived=bracket.last_arrival,
            )
        ]

    def _nothing_new(self, bracket: OpenBracket, previous: BracketRecord) -> list[Command]:
        # The late file lost to a newer one that is merged already.
        del self._open[bracket.slot]
        amended = replace(
            previous,
            rejected=bracket.left_out,
            duplicates=bracket.duplicates,
            late=bracket.late,
        )
        return [WriteRecord(amended), DropWork(bracket.slot)]

    def _skip(self, bracket: OpenBracket) -> list[Command]:
        self.counters.skipped += 1
        self.expected.observe(bracket.exposures)
        present, expected = len(bracket.exposures), self.expected.count()
        of = f"{present} of {expected}" if expected else f"{present}"
        reason = f"{of} exposures usable, at least {self.rules.min_exposures} needed"
        if bracket.rejected:
            reason += f"; {len(bracket.rejected)} unusable"
        del self._open[bracket.slot]
        record = replace(self._record(bracket, "skipped", reason), revision=bracket.revision - 1)
        return [WriteRecord(record), DropWork(bracket.slot)]

    # -- after the merge --------------------------------------------------------------------

    def _merged(self, bracket: OpenBracket, outcome: Published, now: float) -> list[Command]:
        counters = self.counters
        complete = self.expected.is_complete(bracket.exposures)
        self.expected.observe(bracket.exposures)
        counters.published += bracket.revision == 1
        counters.revisions += bracket.revision > 1
        counters.adopted += outcome.adopted
        counters.incomplete += not complete
        record = replace(
            self._record(bracket, "published", None),
            complete=complete,
            products=outcome.products,
            curve_id=outcome.curve_id,
            algorithm=outcome.algorithm,
            latency=outcome.latency,
            timings=outcome.timings,
        )
        del self._open[bracket.slot]
        commands: list[Command] = [WriteRecord(record), DropWork(bracket.slot)]
        return commands + self._carry_over(bracket, record, now)

    def _carry_over(self, bracket: OpenBracket, record: BracketRecord, now: float) -> list[Command]:
        """Files that came while the bracket was being merged are late arrivals to it."""
        if not (bracket.came_during_merge or bracket.busy or bracket.read_again):
            return []
        successor = OpenBracket(bracket.slot, bracket.last_arrival, previous=record)
        successor.reading, successor.read_again = bracket.reading, bracket.read_again
        successor.settling = bracket.settling
        self._open[bracket.slot] = successor
        commands: list[Command] = []
        for exposure in bracket.came_during_merge:
            commands += self._admit(successor, exposure)
        return commands + self._settle_up(successor, now)

    def _merge_failed(
        self, bracket: OpenBracket, outcome: MergeFailed, now: float
    ) -> list[Command]:
        self.counters.merge_failures += 1
        for exposure in bracket.came_during_merge:
            bracket.admit(exposure)
        bracket.came_during_merge.clear()
        if outcome.stale:
            return self._read_stale(bracket, outcome.stale)
        if outcome.permanent:
            bracket.attempts = MAX_ATTEMPTS
        elif outcome.blocked:
            # Tried for ever, ever more rarely, and never parked.
            bracket.blocked += 1
        else:
            bracket.attempts += 1
        record = self._record(bracket, "failed", outcome.reason)
        commands: list[Command] = [WriteRecord(record), DropWork(bracket.slot)]
        if bracket.attempts >= MAX_ATTEMPTS:
            self.counters.parked += 1
            del self._open[bracket.slot]
            return commands + self._carry_over(bracket, record, now)
        tries = min(bracket.attempts + bracket.blocked, MAX_ATTEMPTS)
        bracket.retry_at = now + min(_FIRST_BACKOFF * 2**tries, _LONGEST_BACKOFF)
        return commands

    def _read_stale(self, bracket: OpenBracket, stale: tuple[str, ...]) -> list[Command]:
        """Inputs changed between being read and being merged: read them again first."""
        commands: list[Command] = [DropWork(bracket.slot)]
        for exposure in list(bracket.exposures.values()):
            if exposure.path in stale:
                bracket.drop(exposure.path)
                arrival = Arrival(exposure.path, exposure.timestamp, exposure.exposure_us)
                commands.append(self._read(bracket, arrival))
        return commands

    def _record(
        self, bracket: OpenBracket, state: RecordState, reason: str | None
    ) -> BracketRecord:
        complete = self.expected.is_complete(bracket.exposures)
        return bracket.record(self.camera, state, reason, self.expected.count(), complete)
