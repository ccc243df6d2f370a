"""What follows from a merge that has ended: a row, another attempt, or being parked."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from asi_watch.brackets import ExpectedExposures
from asi_watch.duplicates import brackets_among
from asi_watch.live.collecting.bracket_state import Arrival, OpenBracket
from asi_watch.live.collecting.closing import Closing
from asi_watch.live.collecting.taking_in import TakingIn
from asi_watch.live.counters import Counters
from asi_watch.live.messages import Command, DropWork, MergeFailed, Published, Stands, WriteRecord
from asi_watch.live.records import BracketRecord, RejectedFile

MAX_ATTEMPTS = 8
_FIRST_BACKOFF = 2.0
_LONGEST_BACKOFF = 300.0
# One exposure that came twice is no other bracket.
_MORE_THAN_A_REPETITION = 2


def tries(attempts: int) -> int:
    """Say how often a merge was tried; a row of what cannot succeed counts from `MAX_ATTEMPTS`."""
    return attempts - MAX_ATTEMPTS if attempts > MAX_ATTEMPTS else attempts


class AfterMerge:
    """Draws the consequences of published and failed merges. Owner thread only.

    Parameters
    ----------
    expected : ExpectedExposures
        Learns from what was published.
    closing : Closing
    taking_in : TakingIn
        Takes what was read meanwhile.
    counters : Counters
    brackets : dict
        All open brackets by their slots, shared with the collector.
    """

    def __init__(
        self,
        expected: ExpectedExposures,
        closing: Closing,
        taking_in: TakingIn,
        counters: Counters,
        brackets: dict[datetime, OpenBracket],
    ) -> None:
        self._expected = expected
        self._closing = closing
        self._taking_in = taking_in
        self._counters = counters
        self._open = brackets

    def published(self, bracket: OpenBracket, outcome: Published) -> list[Command]:
        """Record a bracket whose products are in place."""
        counters = self._counters
        # What it teaches counts for itself: 5 of 5 are complete.
        self._expected.observe(bracket.exposures)
        complete = self._expected.is_complete(bracket.exposures)
        counters.published += bracket.revision == 1
        counters.revisions += bracket.revision > 1
        counters.adopted += outcome.adopted
        counters.take_back("skipped", bracket.slot)
        counters.take_back("parked", bracket.slot)
        counters.incomplete += not complete
        record = self._closing.record(
            bracket, "published", outcome.remark or _several_brackets(bracket)
        )
        record = replace(
            record,
            complete=complete,
            products=outcome.products,
            curve_id=outcome.curve_id,
            algorithm=outcome.algorithm,
            latency=outcome.latency if bracket.revision == 1 else record.latency,
            timings=outcome.timings,
        )
        del self._open[bracket.slot]
        commands: list[Command] = [WriteRecord(record), DropWork(bracket.slot)]
        return commands + self._carry_over(bracket, record)

    def failed(self, bracket: OpenBracket, outcome: MergeFailed, now: float) -> list[Command]:
        """Take in what came meanwhile, then read again, try again later, or park the bracket."""
        self._counters.merge_failures += 1
        commands: list[Command] = [DropWork(bracket.slot)]
        commands += self._taking_in.take_heard(bracket, bracket)
        if bracket.probing:
            # Of what it was to be a revision from, something is gone: the product stands.
            return commands + self._closing.settle_up(bracket)
        if outcome.stale:
            return commands + _read_stale(bracket, outcome.stale)
        return commands + self._try_again_later(bracket, outcome, now)

    def stands(self, bracket: OpenBracket, outcome: Stands) -> list[Command]:
        """Keep a product that is better than what could be merged now; its row says so."""
        self._counters.late_ignored += 1
        previous, record = bracket.previous, outcome.record
        reason = f"late: not merged, since {outcome.why}"
        usable = [RejectedFile(e.path, *e.signature, reason) for e in bracket.usable.values()]
        left_out = {
            r.path: r
            for r in (*record.rejected, *bracket.rejected.values(), *usable)
            if not (r in usable and record.knows(r.path, r.signature))
        }
        row = replace(
            record,
            rejected=tuple(left_out.values()),
            duplicates=bracket.duplicates,
            late=max(record.late, bracket.late),
            latency=previous.latency if previous else None,
        )
        del self._open[bracket.slot]
        no_news = previous is not None and previous.state == "published"
        commands: list[Command] = [
            WriteRecord(row, amended=no_news),
            DropWork(bracket.slot),
        ]
        return commands + self._carry_over(bracket, row)

    def nothing_stands(self, bracket: OpenBracket) -> list[Command]:
        """Go on with a bracket of too few exposures: the product that its row names is gone."""
        assert bracket.previous is not None
        bracket.previous = replace(bracket.previous, products=())
        commands: list[Command] = [DropWork(bracket.slot)]
        commands += self._taking_in.take_heard(bracket, bracket)
        return commands + self._closing.settle_up(bracket)

    def put_off(self, bracket: OpenBracket, reason: str) -> list[Command]:
        """Leave a merge that could not begin to the ledger: it is taken up from there."""
        record = self._closing.record(bracket, "failed", reason)
        del self._open[bracket.slot]
        commands: list[Command] = [WriteRecord(record), DropWork(bracket.slot)]
        return commands + self._carry_over(bracket, record)

    def _carry_over(self, bracket: OpenBracket, record: BracketRecord) -> list[Command]:
        """Files that came while the bracket was being merged are late arrivals to it."""
        if not (bracket.heard_meanwhile or bracket.busy):
            return []
        successor = OpenBracket(bracket.slot, bracket.last_arrival, previous=record)
        successor.reading, successor.read_again = bracket.reading, bracket.read_again
        successor.settling = bracket.settling
        self._open[bracket.slot] = successor
        commands = self._taking_in.take_heard(successor, bracket)
        return commands + self._closing.settle_up(successor)

    def _try_again_later(
        self, bracket: OpenBracket, outcome: MergeFailed, now: float
    ) -> list[Command]:
        if outcome.permanent:
            # Given up at once, though not tried so often: see `tries`.
            bracket.attempts = MAX_ATTEMPTS + tries(bracket.attempts) + 1
        elif outcome.blocked:
            # Tried for ever, ever more rarely, and never parked.
            bracket.blocked += 1
        else:
            bracket.attempts += 1
        record = self._closing.record(bracket, "failed", outcome.reason)
        if bracket.attempts >= MAX_ATTEMPTS:
            counters = self._counters
            counters.count_once("parked", bracket.slot)
            counters.take_back("skipped", bracket.slot)
            del self._open[bracket.slot]
            return [WriteRecord(record), *self._carry_over(bracket, record)]
        failures = min(bracket.attempts + bracket.blocked, MAX_ATTEMPTS)
        pause = min(_FIRST_BACKOFF * 2**failures, _LONGEST_BACKOFF)
        bracket.retry_at = now + pause
        return [WriteRecord(record, pause)]


def _several_brackets(bracket: OpenBracket) -> str | None:
    """Say that a slot holds more than the one bracket that was merged."""
    if len(bracket.usable) < len(bracket.exposures) + _MORE_THAN_A_REPETITION:
        return None
    starts = [files[0].timestamp for files in brackets_among(bracket.usable.values())]
    if len(starts) < 2:
        return None
    apart = min(b - a for a, b in pairwise(starts)).total_seconds()
    return (
        f"the slot holds {len(starts)} brackets, {apart:g} s apart, and one is merged: round_to is"
        " too long, or a clock was set back"
    )


def _read_stale(bracket: OpenBracket, stale: tuple[str, ...]) -> list[Command]:
    """Inputs changed between being read and being merged: read them again first."""
    commands: list[Command] = []
    for exposure in list(bracket.exposures.values()):
        if exposure.path in stale:
            bracket.drop(exposure.path)
            arrival = Arrival(exposure.path, exposure.timestamp, exposure.exposure_us)
            commands += bracket.look_at(arrival)
    return commands
