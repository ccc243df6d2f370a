"""When a bracket is over: complete, overtaken, or its grace at an end; and what it becomes then."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from asi_watch.brackets import ExpectedExposures
from asi_watch.config.model import BracketConfig
from asi_watch.live.collecting.bracket_state import OpenBracket
from asi_watch.live.counters import Counters
from asi_watch.live.messages import Command, DropWork, MergeBracket, ReadFile, WriteRecord
from asi_watch.live.records import BracketRecord, RecordState


class Closing:
    """Ends brackets: merges them, or skips those with too little in them. Owner thread only.

    Parameters
    ----------
    camera : str
    rules : BracketConfig
    expected : ExpectedExposures
    counters : Counters
    brackets : dict
        All open brackets by their slots, shared with the collector; skipped ones are taken out.
    """

    def __init__(
        self,
        camera: str,
        rules: BracketConfig,
        expected: ExpectedExposures,
        counters: Counters,
        brackets: dict[datetime, OpenBracket],
    ) -> None:
        self._counters = counters
        self._camera = camera
        self._rules = rules
        self._expected = expected
        self._open = brackets

    def settle_up(self, bracket: OpenBracket) -> list[Command]:
        """See whether a bracket is complete, overtaken or done with, now that a read ended."""
        if bracket.slot not in self._open or bracket.busy or bracket.merging:
            return []
        if bracket.probing:
            del self._open[bracket.slot]
            return [DropWork(bracket.slot)]
        if not self._is_ready(bracket):
            return self.close(bracket) if bracket.overtaken else []
        return self._merge(bracket) + self._overtake(bracket)

    def over_at(self, bracket: OpenBracket) -> float:
        """Monotonic time at which a bracket is over though not complete."""
        if bracket.busy or bracket.merging:
            return float("inf")
        if bracket.retry_at is not None:
            return bracket.retry_at
        grace = 0.0 if bracket.overtaken else self._rules.grace.total_seconds() + bracket.excused
        return bracket.last_arrival + grace

    def close(self, bracket: OpenBracket) -> list[Command]:
        """End a bracket with what is there."""
        if bracket.probing:
            return self.settle_up(bracket)
        if bracket.recoverable and not bracket.looked_last:
            # A half file may have become whole without an event: look once more.
            bracket.looked_last = True
            again: list[ReadFile] = []
            for arrival in list(bracket.recoverable.values()):
                again += bracket.look_at(arrival)
            return [*again]
        if len(bracket.exposures) >= self._rules.min_exposures or _may_stand(bracket):
            return self._merge(bracket)
        return self._skip(bracket)

    def record(self, bracket: OpenBracket, state: RecordState, reason: str | None) -> BracketRecord:
        """Give a bracket as a row of the ledger."""
        complete = self._expected.is_complete(bracket.exposures)
        record = bracket.record(self._camera, state, reason, self._expected.count(), complete)
        # That of the first publication stays, whatever comes of a revision.
        return replace(record, latency=bracket.previous.latency if bracket.previous else None)

    def _is_ready(self, bracket: OpenBracket) -> bool:
        """Tell whether a bracket need not wait for more."""
        previous = bracket.previous
        stands = previous is not None and previous.state == "published" and previous.complete
        if stands and not bracket.again:
            # It was whole before: what comes now is another bracket in its slot, as when a clock
            # was set back. One revision of all of it is enough.
            return False
        enough = len(bracket.exposures) >= self._rules.min_exposures
        return enough and self._expected.is_complete(bracket.exposures)

    def _overtake(self, bracket: OpenBracket) -> list[Command]:
        """End earlier brackets of which nothing has come since this one began.

        Only what arrives in order says that a camera is done with a bracket: files of one scan
        have one time, and a backlog may be read newest first.
        """
        commands: list[Command] = []
        if bracket.previous is not None:
            return commands
        for earlier in [b for s, b in self._open.items() if s < bracket.slot]:
            if earlier.last_arrival >= bracket.first_arrival:
                continue
            earlier.overtaken = True
            if not (earlier.busy or earlier.merging or earlier.probing or earlier.retry_at):
                commands += self.close(earlier)
        return commands

    def _merge(self, bracket: OpenBracket) -> list[Command]:
        previous = bracket.previous
        if (
            previous is not None
            and previous.state == "published"
            and not bracket.again
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
                expected=self._expected.count(),
                complete=self._expected.is_complete(bracket.exposures),
                revision=bracket.revision,
                products=previous.products if previous else (),
                arrived=bracket.last_arrival,
                told=bracket.told,
                fewest=self._rules.min_exposures,
                earlier=previous.inputs if previous else (),
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
        return [WriteRecord(amended, amended=True), DropWork(bracket.slot)]

    def _skip(self, bracket: OpenBracket) -> list[Command]:
        self._counters.count_once("skipped", bracket.slot)
        self._counters.take_back("parked", bracket.slot)
        self._expected.observe(bracket.exposures)
        present, expected = len(bracket.exposures), self._expected.count()
        of = f"{present} of {expected}" if expected else f"{present}"
        reason = f"{of} exposures usable, at least {self._rules.min_exposures} needed"
        if bracket.rejected:
            reason += f"; {len(bracket.rejected)} unusable"
        del self._open[bracket.slot]
        record = replace(self.record(bracket, "skipped", reason), revision=bracket.revision - 1)
        return [WriteRecord(record), DropWork(bracket.slot)]


def _may_stand(bracket: OpenBracket) -> bool:
    """Tell whether a product may be there, of which the row says only that its revision failed."""
    previous = bracket.previous
    return previous is not None and previous.state == "failed" and bool(previous.products)
