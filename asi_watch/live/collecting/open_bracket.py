"""The state of one bracket that is not over, or of one that is over and gets late files.

Plain data with the operations that keep it consistent; the decisions are the collector's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from asi_watch.brackets import Exposure, brackets_among, chosen_files, why_superseded
from asi_watch.live.ledger.records import MOST_REJECTED, BracketRecord, RecordState, RejectedFile
from asi_watch.live.messages import ReadFile, ReadOutcome, Signature, Unusable

MOST_USABLE, MOST_UNUSABLE = 1_000, 10_000
"""So many files of one slot are kept in memory; what comes beyond that is only counted."""

# One exposure that came twice is no second bracket.
_MORE_THAN_A_REPETITION = 2


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file of a bracket whose name has been read but whose content has not."""

    path: str
    timestamp: datetime
    exposure_us: float  # what the name says, 0 if nothing

    @classmethod
    def of(cls, exposure: Exposure) -> Arrival:
        """The file of an exposure that must be read again."""
        return cls(exposure.path, exposure.timestamp, exposure.nominal_us)


@dataclass(slots=True)
class OpenBracket:
    """One slot that is not over. Changed by the collector alone; times are monotonic.

    Parameters
    ----------
    slot : datetime
    first_arrival : float
    previous : BracketRecord, optional
        The ledger's row of a bracket that was over already. Until a usable new file has been read,
        such a bracket is *probing*: its row stands as it is.
    """

    slot: datetime
    first_arrival: float
    previous: BracketRecord | None = None
    reopened: bool = False
    forced: bool = False
    """An operator wants the published bracket merged once more, though nothing new has come."""
    usable: dict[str, Exposure] = field(default_factory=dict)
    rejected: dict[str, RejectedFile] = field(default_factory=dict)
    recoverable: dict[str, Arrival] = field(default_factory=dict)
    """Of the rejected: files that may still become whole."""
    reading: dict[str, Arrival] = field(default_factory=dict)
    read_again: dict[str, Arrival] = field(default_factory=dict)
    """Files that changed while they were being read."""
    early: set[str] = field(default_factory=set)
    """Files being read whose writer may not be done yet."""
    settling: dict[str, tuple[float, Arrival]] = field(default_factory=dict)
    """Files that must lie still until a given time before they are read."""
    read_while_merging: list[tuple[Arrival, ReadOutcome]] = field(default_factory=list)
    not_kept: int = 0  # files beyond `MOST_USABLE` and `MOST_UNUSABLE`
    merging: bool = False
    overtaken: bool = False  # a later bracket is complete: nothing more of this one is expected
    final_look_done: bool = False
    recorded: bool = False  # the ledger's row says all that is known of the bracket's files
    retry_at: float | None = None
    attempts: int = 0
    revision: int = 1
    duplicates: int = 0
    late: int = 0
    last_arrival: float = field(init=False)
    extra_grace: float = 0.0
    """Seconds since the last arrival in which nothing could have been received."""
    seen_by_event: bool = False
    """An event reported the last arrival as it happened; a scan finds what may be old."""

    def __post_init__(self) -> None:
        self.last_arrival = self.first_arrival

    @property
    def probing(self) -> bool:
        """True while the ledger's row stands and no new usable file has been read."""
        return self.previous is not None and not self.reopened

    @property
    def busy(self) -> bool:
        """True while files of the bracket are being read or written."""
        return bool(self.reading or self.settling)

    @property
    def times(self) -> set[float]:
        """Nominal exposure times of the usable files, in microseconds."""
        return {exposure.nominal_us for exposure in self.usable.values()}

    @property
    def inputs(self) -> tuple[Exposure, ...]:
        """The exposures to merge, shortest first: of each time the file `chosen_files` names."""
        exposures = chosen_files(self.usable.values())
        return tuple(exposures[t] for t in sorted(exposures))

    @property
    def left_out(self) -> tuple[RejectedFile, ...]:
        """The bracket's other files: unusable ones, and those superseded by an input."""
        winners = {e.nominal_us: e for e in self.inputs}
        superseded = (
            RejectedFile(e.path, *e.signature, why_superseded(e, winner))
            for e in self.usable.values()
            if (winner := winners[e.nominal_us]).path != e.path
        )
        # By name, not by arrival: products list them, live and batch the same.
        return tuple(sorted((*self.rejected.values(), *superseded), key=lambda r: r.path))

    def known(self, path: str) -> Signature | None:
        """Signature under which this file was last read, None if it was not."""
        if path in self.usable:
            return self.usable[path].signature
        if path in self.rejected:
            return self.rejected[path].signature
        return self.previous.signature_of(path) if self.previous and self.probing else None

    def unrecorded_folders(self) -> Iterator[str]:
        """Folders of the files that are in no row yet (may repeat)."""
        if self.recorded:
            return
        files = (self.usable, self.rejected, self.reading, self.read_again, self.settling)
        for paths in files:
            yield from (path.rpartition("/")[0] for path in paths)
        for arrival, _ in self.read_while_merging:
            yield arrival.path.rpartition("/")[0]

    def other_brackets(self) -> str | None:
        """Say that the slot holds more than the one bracket that is merged."""
        if len(self.usable) < len(self.times) + _MORE_THAN_A_REPETITION:
            return None
        starts = [files[0].timestamp for files in brackets_among(self.usable.values())]
        if len(starts) < 2:
            return None
        apart = min(b - a for a, b in pairwise(starts)).total_seconds()
        return (
            f"the slot holds {len(starts)} brackets, {apart:g} s apart, and one is merged: round_to"
            " is too long, or a clock was set back"
        )

    def read(self, arrival: Arrival, *, early: bool = False) -> ReadFile:
        """Have a file read that is not being read; `early`: its writer may not be done with it."""
        self.settling.pop(arrival.path, None)
        self.reading[arrival.path] = arrival
        if early:
            self.early.add(arrival.path)
        return ReadFile(
            slot=self.slot,
            path=arrival.path,
            timestamp=arrival.timestamp,
            exposure_us=arrival.exposure_us,
            known=self.known(arrival.path),
            absorb=not (self.merging or self.probing),
        )

    def look_at(self, arrival: Arrival) -> list[ReadFile]:
        """Have a file read; once more afterwards if it is being read already."""
        if arrival.path in self.reading:
            self.read_again[arrival.path] = arrival
            return []
        return [self.read(arrival)]

    def may_read_early(self, path: str) -> bool:
        """Tell whether a file may be tried that may still be being written."""
        # What was tried once and is not whole yet is given its time.
        return not self.merging and path not in self.rejected

    def admit(self, exposure: Exposure) -> bool:
        """Add a usable exposure; True if there was one of its time already.

        Files of one exposure time are all kept: the one to be merged may vanish or be damaged.
        """
        self.forget(exposure.path)
        if len(self.usable) >= MOST_USABLE:
            self.not_kept += 1
            return True
        again = exposure.nominal_us in self.times
        self.duplicates += again
        self.usable[exposure.path] = exposure
        return again

    def reject(self, arrival: Arrival, outcome: Unusable) -> None:
        """Note a file that cannot be used, and whether it is read once more at the end."""
        before = self.rejected.get(arrival.path)
        self.forget(arrival.path)
        if len(self.rejected) >= MOST_UNUSABLE:
            self.not_kept += 1
            return
        rejected = RejectedFile(arrival.path, *(outcome.signature or (0, 0)), reason=outcome.reason)
        self.rejected[arrival.path] = rejected
        if outcome.may_recover:
            self.recoverable[arrival.path] = arrival
            # A file that is as it was needs no further final look: one that nobody may read would
            # be read for ever.
            self.final_look_done &= before == rejected

    def forget(self, path: str) -> None:
        """Drop what is known of a file that is gone, or that has a new content."""
        self.recoverable.pop(path, None)
        self.rejected.pop(path, None)
        self.usable.pop(path, None)

    def reopen(self, newly: str | None) -> list[Arrival]:
        """Begin the next revision; returns the earlier inputs, which must be read again.

        Parameters
        ----------
        newly : str or None
            The file that is the reason.
        """
        record = self.previous
        assert record is not None
        self.reopened = True
        self.revision = max(1, record.revision + (record.state == "published"))
        self.duplicates, self.late = 0, record.late + self.late
        self.attempts = record.attempts if record.state == "failed" else 0
        return [Arrival.of(e) for e in record.inputs if e.path != newly]

    def abandon_revision(self, reason: str) -> list[RejectedFile]:
        """Go back to the row as it stands; return the files that are left out, with `reason`."""
        record = self.previous
        assert record is not None
        usable = [RejectedFile(e.path, *e.signature, reason) for e in self.usable.values()]
        left_out = [
            r for r in (*usable, *self.rejected.values()) if not record.knows(r.path, r.signature)
        ]
        self.reopened = False
        self.retry_at = None
        self.usable.clear()
        self.rejected.clear()
        self.recoverable.clear()
        self.late = 0
        return left_out

    def record(
        self, camera: str, state: RecordState, reason: str | None, expected: int | None, whole: bool
    ) -> BracketRecord:
        """Give the bracket as a row of the ledger, with at most `MOST_REJECTED` left-out files.

        The latency of the first publication stays, whatever comes of a revision.
        """
        left_out = self.left_out
        listed = left_out[:MOST_REJECTED]
        return BracketRecord(
            camera=camera,
            slot=self.slot,
            state=state,
            revision=self.revision,
            attempts=self.attempts,
            expected=expected,
            complete=whole,
            inputs=self.inputs,
            rejected=listed,
            products=self.previous.products if self.previous else (),
            duplicates=self.duplicates,
            late=self.late,
            latency=self.previous.latency if self.previous else None,
            reason=reason,
            unlisted=len(left_out) - len(listed) + self.not_kept,
        )
