"""An open bracket: what of it has arrived, what is being read, what it waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from asi_watch.brackets import Exposure
from asi_watch.duplicates import chosen_files, why_superseded
from asi_watch.live.messages import ReadFile, ReadOutcome, Signature, Unusable
from asi_watch.live.records import BracketRecord, RecordState, RejectedFile


@dataclass(slots=True)
class Arrival:
    """A file of a bracket whose name has been read but whose content has not."""

    path: str
    timestamp: datetime
    exposure_us: float


@dataclass(slots=True)
class OpenBracket:
    """One slot that is not over. Changed by the collector alone.

    `previous` is the ledger's row of a bracket that was over already. Until a usable new file
    has been seen, such a bracket is only *probing*: nothing of the row is touched. What is read
    while it is being merged waits in `heard_meanwhile`. With `again` an operator wants what is
    published merged once more, though nothing new has come. Times are monotonic; `excused` are the
    seconds since the last arrival in which nothing could have been heard. `told` if an event told
    of the last arrival as it happened; a scan finds what has long been there.
    """

    slot: datetime
    first_arrival: float
    previous: BracketRecord | None = None
    reopened: bool = False
    again: bool = False
    usable: dict[str, Exposure] = field(default_factory=dict)
    rejected: dict[str, RejectedFile] = field(default_factory=dict)
    recoverable: dict[str, Arrival] = field(default_factory=dict)
    reading: dict[str, Arrival] = field(default_factory=dict)
    read_again: dict[str, Arrival] = field(default_factory=dict)
    early: set[str] = field(default_factory=set)
    settling: dict[str, tuple[float, Arrival]] = field(default_factory=dict)
    heard_meanwhile: list[tuple[Arrival, ReadOutcome]] = field(default_factory=list)
    merging: bool = False
    overtaken: bool = False
    looked_last: bool = False
    retry_at: float | None = None
    attempts: int = 0
    blocked: int = 0
    revision: int = 1
    duplicates: int = 0
    late: int = 0
    last_arrival: float = field(init=False)
    excused: float = 0.0
    told: bool = False

    def __post_init__(self) -> None:
        self.last_arrival = self.first_arrival

    @property
    def probing(self) -> bool:
        """True while only the ledger's row stands and no new usable file has been seen."""
        return self.previous is not None and not self.reopened

    @property
    def busy(self) -> bool:
        """True while files of the bracket are being read or written."""
        return bool(self.reading or self.settling)

    @property
    def exposures(self) -> dict[float, Exposure]:
        """Of each exposure time the file that is merged, by the rule of `chosen_files`."""
        return chosen_files(self.usable.values())

    @property
    def inputs(self) -> tuple[Exposure, ...]:
        """The exposures of the bracket, shortest first."""
        exposures = self.exposures
        return tuple(exposures[t] for t in sorted(exposures))

    @property
    def left_out(self) -> tuple[RejectedFile, ...]:
        """The bracket's other files: what cannot be used, and those in whose place an input is."""
        exposures = self.exposures
        superseded = (
            RejectedFile(e.path, *e.signature, why_superseded(e, winner))
            for e in self.usable.values()
            if (winner := exposures[e.exposure_us]).path != e.path
        )
        # In an order that says nothing of arrival: products note them, live and batch the same.
        return tuple(sorted((*self.rejected.values(), *superseded), key=lambda r: r.path))

    def known(self, path: str) -> Signature | None:
        """Signature under which this file has had its turn, None if it has not."""
        if path in self.usable:
            return self.usable[path].signature
        if path in self.rejected:
            return self.rejected[path].signature
        return self.previous.signature_of(path) if self.previous and self.probing else None

    # -- being read -------------------------------------------------------------------------

    def ask(self, arrival: Arrival, *, early: bool = False) -> ReadFile:
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
        return [self.ask(arrival)]

    def may_look_early(self, path: str) -> bool:
        """Tell whether a file may be tried that may still be being written."""
        # What was tried once and is not whole yet is given its time.
        return not self.merging and path not in self.rejected

    # -- arriving ---------------------------------------------------------------------------

    def admit(self, exposure: Exposure) -> None:
        """Take in a usable exposure; of two with the same time the newer file wins.

        The other is kept in mind: the newer one may vanish, or turn out to be damaged.
        """
        self._forget(exposure.path)
        self.duplicates += exposure.exposure_us in self.exposures
        self.usable[exposure.path] = exposure

    def refuse(self, arrival: Arrival, outcome: Unusable) -> None:
        """Note a file that cannot be used, and whether looking again is worth it."""
        before = self.rejected.get(arrival.path)
        self._forget(arrival.path)
        self.reject(arrival.path, outcome.signature or (0, 0), outcome.reason)
        if outcome.may_recover:
            self.recoverable[arrival.path] = arrival
            # What is as it was is not worth another last look: a file that nobody may read would
            # be looked at for ever.
            self.looked_last &= before == self.rejected[arrival.path]

    def reject(self, path: str, signature: Signature, reason: str) -> None:
        """Note that a file is not part of the product."""
        self.rejected[path] = RejectedFile(path, *signature, reason)

    def drop(self, path: str) -> None:
        """Forget a file that is gone, or that must be looked at anew."""
        self._forget(path)

    def _forget(self, path: str) -> None:
        # A file that was rewritten has its turn again under its new content.
        self.recoverable.pop(path, None)
        self.rejected.pop(path, None)
        self.usable.pop(path, None)

    # -- over already -----------------------------------------------------------------------

    def reopen(self, newly: str | None) -> list[Arrival]:
        """Begin the next revision of a bracket that was over.

        Parameters
        ----------
        newly : str or None
            The file that is the reason.

        Returns
        -------
        list of Arrival
            The earlier inputs, which must be read again.
        """
        record = self.previous
        assert record is not None
        self.reopened = True
        self.revision = max(1, record.revision + (record.state == "published"))
        self.duplicates, self.late = 0, record.late + self.late
        self.attempts = record.attempts if record.state == "failed" else 0
        earlier = [e for e in record.inputs if e.path != newly]
        return [Arrival(e.path, e.timestamp, e.exposure_us) for e in earlier]

    def give_up_revision(self, reason: str) -> list[RejectedFile]:
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
        """Give the bracket as a row of the ledger."""
        return BracketRecord(
            camera=camera,
            slot=self.slot,
            state=state,
            revision=self.revision,
            attempts=self.attempts,
            expected=expected,
            complete=whole,
            inputs=self.inputs,
            rejected=self.left_out,
            products=self.previous.products if self.previous else (),
            duplicates=self.duplicates,
            late=self.late,
            reason=reason,
        )
