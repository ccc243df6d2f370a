"""The collector: from files found to brackets due. Pure decisions, no clock of its own.

One camera's bracket state. Every method takes the monotonic time and returns the commands that
follow; nothing here touches a file or a thread, and of the ledger only rows are looked up. In the
order of this file: files arrive, a bracket is over, a merge has ended, late files of a bracket
that was over already.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol

from asi_watch.brackets import ExpectedExposures, Exposure, is_listed, slot_of, why_too_many
from asi_watch.config.model import CameraConfig
from asi_watch.files import counted
from asi_watch.live import messages as msg
from asi_watch.live.collecting.open_bracket import Arrival, OpenBracket
from asi_watch.live.ledger.records import (
    MAX_ATTEMPTS,
    MOST_REJECTED,
    WAITS,
    WAITS_FOR_CURVE,
    WITHOUT_CURVE,
    BracketRecord,
    RecordState,
    RejectedFile,
    for_channels,
    tries,
)
from asi_watch.merge_bracket import Failed, Published
from asi_watch.products import Unusable

_MOST_OPEN = 1000
_FIRST_BACKOFF = 2.0
_LONGEST_BACKOFF = 300.0
_MOST_EXTRA_GRACE = 60.0
_IGNORED = "late: ignored"
# Ignored names that are remembered, since events report a file more than once: a few hundred KB.
_REMEMBERED = 5_000
_COUNTED = (
    *("files_found", "names_ignored", "exposures_read", "times_not_listed", "files_unusable"),
    *("files_vanished", "duplicates", "late", "late_ignored", "published", "incomplete"),
    *("revisions", "adopted", "skipped", "merge_failures", "parked"),
)


class _Rows(Protocol):
    """Where rows of brackets that are over are looked up: the ledger."""

    def get(self, camera: str, slot: datetime) -> BracketRecord | None:
        """Return the row of a bracket, None if it has none."""


class Collector:
    """Bracket state of one camera. Owner thread only.

    Parameters
    ----------
    config : CameraConfig
    rows : _Rows
        The ledger's rows of brackets that are over.
    """

    def __init__(self, config: CameraConfig, rows: _Rows) -> None:
        self.counters = dict.fromkeys(_COUNTED, 0)
        """What has happened since the start; every file ends in one of these."""
        self._ignored: dict[str, None] = {}
        self.expected = ExpectedExposures(config.expected_exposures_us, config.exposure_tolerance)
        self._camera = config.name
        self._rules = config.bracket
        self._grace = config.bracket.grace.total_seconds()
        self._pattern, self._place_of = config.pattern, config.place_of
        self._stable_for = config.stable_for.total_seconds()
        self._rows = rows
        self._open: dict[datetime, OpenBracket] = {}

    @property
    def is_full(self) -> bool:
        """True with so many brackets open that none need be taken up from the ledger."""
        return len(self._open) >= _MOST_OPEN

    def open_slots(self) -> list[datetime]:
        """Slots of the brackets that are not over, in order."""
        return sorted(slot for slot, b in self._open.items() if not b.probing)

    def unrecorded_folders(self) -> set[str]:
        """Folders, relative to the watch folder, that hold files which are in no row yet."""
        return {folder for b in self._open.values() for folder in b.unrecorded_folders()}

    def _ignore_name(self, path: str) -> None:
        if path not in self._ignored:
            self.counters["names_ignored"] += 1
            if len(self._ignored) < _REMEMBERED:
                self._ignored[path] = None

    def is_open(self, slot: datetime) -> bool:
        """Tell whether a bracket has begun and is not over."""
        return slot in self._open

    def slot_of_name(self, path: str) -> datetime | None:
        """Return the slot of a file by its name, None if it is no exposure's.

        Parameters
        ----------
        path : str
            Relative to the watch folder.
        """
        arrival = self._arrival(path)
        return None if arrival is None else self._slot(arrival.timestamp)

    def found(
        self, path: str, signature: msg.Signature | None, settled: bool, now: float
    ) -> msg.Commands:
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
        arrival = self._arrival(path)
        if arrival is None:
            self._ignore_name(path)
            return []
        bracket = self._bracket_for(arrival, signature, now)
        if bracket is None or (signature is not None and bracket.known(path) == signature):
            return []
        self.counters["files_found"] += 1
        bracket.recorded = False
        if now > bracket.last_arrival:
            bracket.last_arrival, bracket.extra_grace = now, 0.0
        if now == bracket.last_arrival:
            bracket.seen_by_event = signature is None
        if path in bracket.reading or settled:
            return [*bracket.look_at(arrival)]
        if signature is not None and signature[0] > 0 and bracket.may_read_early(path):
            return [bracket.read(arrival, early=True)]
        bracket.settling.setdefault(path, (now + self._stable_for, arrival))
        return []

    def read_done(
        self, slot: datetime, path: str, outcome: msg.ReadOutcome, now: float
    ) -> msg.Commands:
        """A file that was asked for has been read.

        Parameters
        ----------
        slot : datetime
        path : str
        outcome : ReadOutcome
        now : float
            Monotonic time.
        """
        bracket = self._open.get(slot)
        arrival = bracket.reading.pop(path, None) if bracket else None
        if bracket is None or arrival is None:
            return []
        commands: msg.Commands = []
        early = path in bracket.early
        bracket.early.discard(path)
        if bracket.merging:
            # What is being merged stays what it is; this comes after it.
            bracket.read_while_merging.append((arrival, outcome))
        elif early and isinstance(outcome, msg.Unusable):
            # It may still be being written, whatever its first bytes look like.
            bracket.settling[path] = (now + self._stable_for, arrival)
        else:
            commands += self._take(bracket, arrival, outcome)
        if path in bracket.read_again and slot in self._open:
            commands.append(bracket.read(bracket.read_again.pop(path)))
        return commands + self._advance(bracket)

    def due(self, now: float, stood_still: float = 0.0) -> msg.Commands:
        """Time has passed: files that lay still, brackets whose grace is over, retries.

        Parameters
        ----------
        now : float
            Monotonic time.
        stood_still : float
            Seconds in which nothing could be received: open brackets wait for so much longer, up
            to a limit, since they must end also where the owner is always late.
        """
        commands: msg.Commands = []
        for bracket in list(self._open.values()):
            bracket.extra_grace = min(bracket.extra_grace + stood_still, _MOST_EXTRA_GRACE)
            settled = [arrival for when, arrival in bracket.settling.values() if when <= now]
            commands += map(bracket.read, settled)
            if self._over_at(bracket) <= now:
                commands += self._close(bracket)
        return commands

    def resume(self, record: BracketRecord, now: float) -> msg.Commands:
        """Take up a bracket of the ledger that failed, or that is to be merged again.

        Every file that the row lists is read again, also those that could not be used. A bracket
        that waits for its next attempt has it now.

        Parameters
        ----------
        record : BracketRecord
        now : float
            Monotonic time.
        """
        bracket = self._open.get(record.slot)
        if bracket is not None:
            if bracket.retry_at is not None:
                bracket.retry_at, bracket.attempts = now, record.attempts
            return []
        bracket = self._open[record.slot] = OpenBracket(record.slot, now, previous=record)
        bracket.recorded = True
        bracket.forced = record.state == "published"
        return list(self._reopen(bracket))

    def _slot(self, timestamp: datetime) -> datetime:
        return slot_of(timestamp, self._rules.round_to, self._rules.offset)

    def _arrival(self, path: str) -> Arrival | None:
        """What the name of a file says, None if it is no exposure's."""
        parsed = self._pattern.parse(PurePosixPath(path).name)
        return None if parsed is None else Arrival(path, parsed.timestamp, parsed.exposure_us)

    def _bracket_for(
        self, arrival: Arrival, signature: msg.Signature | None, now: float
    ) -> OpenBracket | None:
        """The open bracket of a file; None for a file that the bracket's row already knows."""
        slot = self._slot(arrival.timestamp)
        bracket = self._open.get(slot)
        if bracket is None:
            record = self._rows.get(self._camera, slot)
            if record and signature and record.knows(arrival.path, signature):
                return None
            bracket = self._open[slot] = OpenBracket(slot, now, previous=record)
        return bracket

    def _take(
        self, bracket: OpenBracket, arrival: Arrival, outcome: msg.ReadOutcome
    ) -> Iterator[msg.Command]:
        """Take a file that was read into a bracket that is not being merged."""
        match outcome:
            case msg.ReadOk(exposure):
                self.counters["exposures_read"] += 1
                listed = is_listed(exposure.nominal_us, self.expected.rule, self.expected.tolerance)
                self.counters["times_not_listed"] += not listed
                if bracket.probing:
                    yield from self._late_exposure(bracket, exposure)
                else:
                    self.counters["duplicates"] += bracket.admit(exposure)
            case msg.Unusable():
                self.counters["files_unusable"] += 1
                if bracket.probing:
                    # Noted in the row, so that it is not read again at every scan.
                    reason = f"late and unusable: {outcome.reason}"
                    signature = outcome.signature or (0, 0)
                    yield from _amend(bracket, RejectedFile(arrival.path, *signature, reason))
                else:
                    bracket.reject(arrival, outcome)
                    yield from self._input_lost(bracket, arrival.path, "cannot be used any more")
            case msg.Vanished():
                self.counters["files_vanished"] += 1
                bracket.forget(arrival.path)
                yield from self._input_lost(bracket, arrival.path, "has vanished")
            case msg.Unchanged():
                pass

    def _advance(self, bracket: OpenBracket) -> msg.Commands:
        """After a read: see whether a bracket is complete, overtaken or done with."""
        if bracket.slot not in self._open or bracket.busy or bracket.merging:
            return []
        if bracket.probing:
            del self._open[bracket.slot]
            return [msg.DropWork(bracket.slot)]
        if not self._is_ready(bracket):
            return self._close(bracket) if bracket.overtaken else []
        return self._merge(bracket) + self._overtake(bracket)

    def _over_at(self, bracket: OpenBracket) -> float:
        """Monotonic time at which a bracket is over though not complete."""
        if bracket.busy or bracket.merging:
            return float("inf")
        if bracket.retry_at is not None:
            return bracket.retry_at
        grace = 0.0 if bracket.overtaken else self._grace + bracket.extra_grace
        return bracket.last_arrival + grace

    def _is_ready(self, bracket: OpenBracket) -> bool:
        """Tell whether a bracket need not wait for more."""
        previous = bracket.previous
        stands = previous is not None and previous.state == "published" and previous.complete
        if stands and not bracket.forced:
            # It was complete before: what comes now is another bracket in its slot, as when a
            # clock was set back. One revision of all of it is enough.
            return False
        times = bracket.times
        return len(times) >= self._rules.min_exposures and self.expected.is_complete(times)

    def _overtake(self, bracket: OpenBracket) -> msg.Commands:
        """End earlier brackets of which nothing has come since this one began.

        Only what arrives in order says that a camera is done with a bracket: files of one scan
        have one time, and a backlog may be read newest first.
        """
        commands: msg.Commands = []
        if bracket.previous is not None:
            return commands
        for earlier in [b for s, b in self._open.items() if s < bracket.slot]:
            if earlier.last_arrival >= bracket.first_arrival:
                continue
            earlier.overtaken = True
            if not (earlier.busy or earlier.merging or earlier.probing or earlier.retry_at):
                commands += self._close(earlier)
        return commands

    def _close(self, bracket: OpenBracket) -> msg.Commands:
        """End a bracket with what is there."""
        if bracket.probing:
            return self._advance(bracket)
        if bracket.recoverable and not bracket.final_look_done:
            # A half file may have become whole without an event: look once more.
            bracket.final_look_done = True
            return [c for a in list(bracket.recoverable.values()) for c in bracket.look_at(a)]
        previous = bracket.previous
        # The row says only that a revision failed: the earlier product may be there.
        may_stand = previous is not None and previous.state == "failed" and previous.products
        if may_stand or len(bracket.times) >= self._rules.min_exposures:
            return self._merge(bracket)
        return self._skip(bracket)

    def _merge(self, bracket: OpenBracket) -> msg.Commands:
        too_many = why_too_many(bracket.times)
        if too_many is not None:
            return self._refuse(bracket, too_many)
        previous, inputs = bracket.previous, bracket.inputs
        if (
            previous is not None
            and previous.state == "published"
            and not bracket.forced
            and previous.given == {(e.path, e.signature) for e in inputs}
        ):
            return self._nothing_new(bracket, previous)
        bracket.merging = True
        bracket.retry_at = None
        stands = previous.products if previous else ()
        return [
            msg.MergeBracket(
                slot=bracket.slot,
                exposures=inputs,
                expected=self.expected.count(),
                complete=self.expected.is_complete(bracket.times),
                left_out=tuple(Unusable(r.path, r.reason) for r in bracket.left_out),
                revision=bracket.revision,
                folder=str(self._place_of(stands[0])[1].parent) if stands else None,
                earlier=previous.inputs if previous else (),
                min_exposures=self._rules.min_exposures,
                arrived=bracket.last_arrival,
                seen_by_event=bracket.seen_by_event,
            )
        ]

    def _nothing_new(self, bracket: OpenBracket, previous: BracketRecord) -> msg.Commands:
        """The late file lost to a newer one that is merged already: the row lists it."""
        excluded = tuple(r for r in previous.rejected if r.is_contradicting)
        row = replace(
            previous,
            rejected=(excluded + bracket.left_out)[:MOST_REJECTED],
            duplicates=bracket.duplicates,
            late=bracket.late,
        )
        return self._over(bracket, row, amended=True)

    def _refuse(self, bracket: OpenBracket, reason: str) -> msg.Commands:
        """Merge nothing of what is no bracket; a product that is published stands."""
        previous = bracket.previous
        if previous is None or previous.state != "published":
            return self._skip(bracket, reason)
        return [*self._abandon_revision(bracket, previous, reason), *self._advance(bracket)]

    def _skip(self, bracket: OpenBracket, refused: str | None = None) -> msg.Commands:
        self.counters["skipped"] += 1
        if refused is None:
            self.expected.observe(bracket.times)
        present, expected = len(bracket.times), self.expected.count()
        of = f"{present} of {expected} exposures" if expected else counted(present, "exposure")
        reason = refused or f"{of} usable, at least {self._rules.min_exposures} needed"
        if not refused and present == 1 and len(bracket.usable) > 1:
            (time,) = bracket.times
            reason += f": {len(bracket.usable)} files have the same exposure time of {time:.12g} µs"
        if bracket.rejected:
            reason += f"; {len(bracket.rejected)} unusable"
        record = self._record(bracket, "skipped", reason)
        return self._over(bracket, replace(record, revision=bracket.revision - 1))

    def _record(
        self, bracket: OpenBracket, state: RecordState, reason: str | None
    ) -> BracketRecord:
        bracket.recorded = not (bracket.busy or bracket.read_while_merging)
        complete = self.expected.is_complete(bracket.times)
        return bracket.record(self._camera, state, reason, self.expected.count(), complete)

    def merge_done(self, slot: datetime, outcome: msg.MergeOutcome, now: float) -> msg.Commands:
        """A merge that was asked for has ended.

        Parameters
        ----------
        slot : datetime
        outcome : MergeOutcome
        now : float
            Monotonic time.
        """
        bracket = self._open.get(slot)
        if bracket is None or not bracket.merging:
            return []
        match outcome:
            case Published():
                return self._published(bracket, outcome)
            case msg.ProductKept():
                return self._kept(bracket, outcome)
            case Failed(kind="output"):
                self.counters["merge_failures"] += 1
                return self.defer(slot, f"{WAITS}{outcome.reason}")
            case Failed(kind="curve"):
                channels = for_channels(outcome.channels)
                return self.defer(slot, f"{WAITS_FOR_CURVE}{channels}: {outcome.reason}")
        return self._failed(bracket, outcome, now)

    def defer(self, slot: datetime, reason: str) -> msg.Commands:
        """A merge that was asked for cannot be made yet: its bracket waits in the ledger.

        Parameters
        ----------
        slot : datetime
        reason : str
            For its row.
        """
        bracket = self._open[slot]
        return self._over(bracket, self._record(bracket, "failed", reason))

    def _published(self, bracket: OpenBracket, outcome: Published) -> msg.Commands:
        """Record a bracket whose products are in place."""
        # What it teaches counts for itself: 5 of 5 are complete.
        self.expected.observe(bracket.times)
        first = bracket.revision == 1
        record = self._record(bracket, "published", _remark(outcome) or bracket.other_brackets())
        record = record.without({one.path: one.reason for one in outcome.left_out})
        self.counters["published" if first else "revisions"] += 1
        self.counters["adopted"] += outcome.adopted
        self.counters["incomplete"] += not record.complete
        timings = dict(outcome.timings)
        latency = timings.pop("latency", None)
        record = replace(
            record,
            revision=max(record.revision, outcome.revision or 0),
            # Every revision had an exposure that came late.
            late=max(record.late, (outcome.revision or 1) - 1),
            products=outcome.products,
            curve_id=outcome.curve_id,
            algorithm=outcome.algorithm,
            latency=latency if first else record.latency,
            timings=timings,
        )
        return self._over(bracket, record)

    def _failed(self, bracket: OpenBracket, outcome: Failed, now: float) -> msg.Commands:
        """Take in what was read meanwhile, then read again, retry later, or stop retrying."""
        self.counters["merge_failures"] += outcome.kind != "few"
        bracket.merging = False
        commands: msg.Commands = [msg.DropWork(bracket.slot)]
        if outcome.kind == "few" and bracket.previous is not None:
            # The product that its row names is gone.
            bracket.previous = replace(bracket.previous, products=())
        commands += self._take_read_while_merging(bracket, bracket)
        if bracket.probing or outcome.kind == "few":
            # Probing: an input of the product that it was to revise is gone, the product stands.
            return commands + self._advance(bracket)
        if outcome.files:
            return commands + self._read_again(bracket, outcome.files)
        return commands + self._retry_later(bracket, outcome, now)

    def _read_again(self, bracket: OpenBracket, paths: tuple[str, ...]) -> msg.Commands:
        """Inputs changed between being read and being merged: read them again first."""
        commands: msg.Commands = []
        for exposure in (one for one in bracket.inputs if one.path in paths):
            bracket.forget(exposure.path)
            commands += bracket.look_at(self._arrival(exposure.path) or Arrival.of(exposure))
        return commands

    def _retry_later(self, bracket: OpenBracket, outcome: Failed, now: float) -> msg.Commands:
        if outcome.kind in ("permanent", "taken"):
            # Not retried though not tried so often: see `tries`.
            bracket.attempts = MAX_ATTEMPTS + tries(bracket.attempts) + 1
        else:
            bracket.attempts += 1
        record = self._record(bracket, "failed", outcome.reason)
        if bracket.attempts >= MAX_ATTEMPTS:
            self.counters["parked"] += 1
            return self._over(bracket, record)
        pause = min(_FIRST_BACKOFF * 2**bracket.attempts, _LONGEST_BACKOFF)
        bracket.retry_at = now + pause
        return [msg.WriteRecord(record, pause)]

    def _kept(self, bracket: OpenBracket, outcome: msg.ProductKept) -> msg.Commands:
        """Keep a product that is better than what could be merged now; its row says so."""
        self.counters["late_ignored"] += 1
        previous, record = bracket.previous, outcome.record
        reason = f"late: not merged, since {outcome.why}"
        usable = [RejectedFile(e.path, *e.signature, reason) for e in bracket.usable.values()]
        left_out = {
            r.path: r
            for r in (*record.rejected, *bracket.rejected.values(), *usable)
            if not (r in usable and record.knows(r.path, r.signature))
        }
        stands = "; ".join(filter(None, (record.reason, f"not merged again: {outcome.why}")))
        row = replace(
            record,
            reason=stands,
            rejected=tuple(left_out.values())[:MOST_REJECTED],
            duplicates=bracket.duplicates,
            late=max(record.late, bracket.late),
            latency=previous.latency if previous else None,
        )
        no_news = previous is not None and previous.state == "published"
        return self._over(bracket, row, amended=no_news)

    def _over(
        self, bracket: OpenBracket, record: BracketRecord, *, amended: bool = False
    ) -> msg.Commands:
        """End a bracket; files that came while it was being merged are late arrivals to it."""
        del self._open[bracket.slot]
        commands: msg.Commands = [
            msg.WriteRecord(record, amended=amended),
            msg.DropWork(bracket.slot),
        ]
        if not (bracket.read_while_merging or bracket.busy):
            return commands
        successor = OpenBracket(bracket.slot, bracket.last_arrival, previous=record)
        successor.reading, successor.read_again = bracket.reading, bracket.read_again
        successor.settling = bracket.settling
        self._open[bracket.slot] = successor
        commands += self._take_read_while_merging(successor, bracket)
        return commands + self._advance(successor)

    def _take_read_while_merging(self, bracket: OpenBracket, merged: OpenBracket) -> msg.Commands:
        """Take into `bracket` what was read while `merged` was being merged."""
        waiting, merged.read_while_merging = merged.read_while_merging, []
        return [c for arrival, outcome in waiting for c in self._take(bracket, arrival, outcome)]

    def _late_exposure(self, bracket: OpenBracket, exposure: Exposure) -> Iterator[msg.Command]:
        """Begin a revision, or note in the row that the file is ignored."""
        record = bracket.previous
        assert record is not None
        if record.knows(exposure.path, exposure.signature):
            return
        if record.state == "published":
            self.counters["late"] += 1
            if self._rules.late == "ignore":
                yield from self._ignore(bracket, record, exposure)
                return
            bracket.late += 1
        yield from self._reopen(bracket, exposure.path)
        bracket.admit(exposure)

    def _ignore(
        self, bracket: OpenBracket, record: BracketRecord, exposure: Exposure
    ) -> Iterator[msg.Command]:
        self.counters["late_ignored"] += 1
        present = {e.nominal_us for e in record.inputs}
        if exposure.nominal_us not in present:
            # A camera whose brackets have grown: without this they would be cut short for ever.
            ignored = (self._arrival(r.path) for r in record.rejected if r.reason == _IGNORED)
            present.update(a.exposure_us for a in ignored if a is not None and a.exposure_us)
            self.expected.observe({*present, exposure.nominal_us})
        rejected = RejectedFile(exposure.path, *exposure.signature, _IGNORED)
        yield from _amend(bracket, rejected, late=1)

    def _reopen(self, bracket: OpenBracket, newly: str | None = None) -> Iterator[msg.Command]:
        """Read all files of the row again, for the next revision; `newly` is its reason."""
        again = {a.path: self._arrival(a.path) or a for a in bracket.reopen(newly)}
        # The left-out ones as well: an older file may have to take the place of an input.
        for rejected in bracket.previous.rejected if bracket.previous else ():
            arrival = self._arrival(rejected.path)
            if arrival is not None and rejected.path != newly:
                again.setdefault(rejected.path, arrival)
        for arrival in again.values():
            yield from bracket.look_at(arrival)

    def _input_lost(self, bracket: OpenBracket, path: str, what: str) -> Iterator[msg.Command]:
        """Abandon a revision that lacks an input of the published product."""
        record = bracket.previous
        if record is None or record.state != "published" or bracket.probing:
            return
        if path not in {e.path for e in record.inputs}:
            return
        # A revision with fewer inputs would be worse than the product that stands.
        # A fallback product is final then: nobody need ask for it again.
        reason = record.reason
        if reason is not None and reason.startswith(WITHOUT_CURVE):
            reason = reason.partition("; ")[2] or None
        bracket.previous = record = replace(record, reason=reason)
        why = f"since the earlier input {path} {what}"
        yield from self._abandon_revision(bracket, record, why)

    def _abandon_revision(
        self, bracket: OpenBracket, record: BracketRecord, why: str
    ) -> Iterator[msg.Command]:
        """Let the published product stand; its row lists what came late."""
        self.counters["late_ignored"] += 1
        arrived = bracket.late - record.late
        left_out = bracket.abandon_revision(f"late: not merged, {why}")
        yield from _amend(bracket, *left_out, late=arrived)


def _remark(made: Published) -> str | None:
    """Say in the row what makes a product doubtful."""
    without = (f"{WITHOUT_CURVE}{for_channels(made.channels)}",) if made.fallback else ()
    missing = (f"not written: {one}" for one in made.missing)
    return "; ".join((*without, *missing, *made.notes)) or None


def _amend(bracket: OpenBracket, *rejected: RejectedFile, late: int = 0) -> Iterator[msg.Command]:
    """List files in the row of a bracket that stays as it is, as long as the row has room.

    Beyond that, nothing is written: junk that keeps coming must not cost a row for each file.
    """
    record = bracket.previous
    assert record is not None
    paths = {r.path for r in rejected}
    kept = tuple(r for r in record.rejected if r.path not in paths)
    listed = (kept + rejected)[:MOST_REJECTED]
    if listed == record.rejected and len(listed) == MOST_REJECTED:
        return
    bracket.previous = replace(record, rejected=listed, late=record.late + late)
    yield msg.WriteRecord(bracket.previous, amended=True)
