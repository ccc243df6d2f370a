"""The rows of the ledger as values: brackets that are over, decisions on curves, requests."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, NaiveDatetime, TypeAdapter

from asi_watch.brackets import CONTRADICTS, SUPERSEDED, Exposure
from asi_watch.files import shown

RecordState = Literal["published", "skipped", "failed"]

MAX_ATTEMPTS = 8
"""So often a merge is tried; then it is not tried again until an operator asks for it."""
WITHOUT_CURVE = "merged by mertens, for want of a response curve"
"""Reason in the row of a bracket that was published by the fallback: no curve fitted it."""
FOR_CHANNELS = " for images of {} channel"
"""How such a reason goes on, so that only a curve that fits the images has them merged again."""
WAITS = "waits: "
"""How the reason begins in the row of a bracket that could not be merged yet and did not fail."""
WAITS_FOR_CURVE = f"{WAITS}no response curve"
"""How the reason begins in the row of a bracket that is merged when a curve comes."""
TAKEN = "its place is taken: "
"""How the reason begins in the row of a bracket where another camera's product lies."""
MOST_REJECTED = 50
"""So many rejected files a row lists; of the others it holds the number alone."""
_LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """A file of a bracket that is not part of its product, and why."""

    path: str
    size: int
    mtime_ns: int
    reason: str

    @property
    def signature(self) -> tuple[int, int]:
        """Size and modification time of the file when it was rejected."""
        return (self.size, self.mtime_ns)

    @property
    def is_superseded(self) -> bool:
        """True where another file of the same exposure time was merged instead."""
        return self.reason.startswith(SUPERSEDED)

    @property
    def is_contradicting(self) -> bool:
        """True where the merge left the exposure out: it contradicts its exposure time."""
        return self.reason.startswith(CONTRADICTS)


@dataclass(frozen=True, slots=True)
class BracketRecord:
    """One row of the ledger: a bracket that is over."""

    camera: str
    slot: NaiveDatetime  # naive, in the clock of the file names
    state: RecordState  # `failed` is tried again until its attempts are used up
    revision: int = 0  # 1 for the first product, one more for every later one; 0: no product
    attempts: int = 0  # merges tried for this revision; see `tries` for what can never succeed
    expected: int | None = None  # exposures of a complete bracket; None while that is not known
    complete: bool = False
    inputs: tuple[Exposure, ...] = ()  # what was merged, or would have been
    # Files of this slot that were not; at most `MOST_REJECTED`, and `unlisted` more.
    rejected: tuple[RejectedFile, ...] = ()
    products: tuple[str, ...] = ()  # relative to the camera's output folder
    curve_id: str | None = None
    algorithm: str | None = None
    duplicates: int = 0  # exposures that came twice, and after publication
    late: int = 0
    # Seconds from the last input to the first product being durably in place.
    latency: float | None = None
    timings: dict[str, float] = field(default_factory=dict)  # seconds per step
    # Why it was skipped or failed; of a published bracket: what is unusual about it.
    reason: str | None = None
    updated_utc: str = ""  # ISO time of the row's last change
    unlisted: int = 0

    @property
    def given(self) -> set[tuple[str, tuple[int, int]]]:
        """The files that the merge was given, by path and signature: also those it left out."""
        excluded = (r for r in self.rejected if r.is_contradicting)
        inputs = {(e.path, e.signature) for e in self.inputs}
        return inputs | {(r.path, r.signature) for r in excluded}

    @property
    def lacks_curve(self) -> bool:
        """True where no response curve fitted: it waits for one, or was merged by mertens."""
        return (self.reason or "").startswith((WAITS_FOR_CURVE, WITHOUT_CURVE))

    def without(self, excluded: Mapping[str, str]) -> "BracketRecord":
        """List exposures that the merge left out as what they are: they are in no product.

        Parameters
        ----------
        excluded : mapping
            Path → reason.
        """
        if not excluded:
            return self
        left_out = (
            RejectedFile(e.path, *e.signature, excluded[e.path])
            for e in self.inputs
            if e.path in excluded
        )
        others = (r for r in self.rejected if r.path not in excluded)
        inputs = tuple(e for e in self.inputs if e.path not in excluded)
        return _bounded(replace(self, complete=False, inputs=inputs, rejected=(*left_out, *others)))

    def signature_of(self, path: str) -> tuple[int, int] | None:
        """Return the signature of a file when it was last considered; None if it never was."""
        return next((file.signature for file in self._files if file.path == path), None)

    def knows(self, path: str, signature: tuple[int, int]) -> bool:
        """Tell whether this state of a file has been considered in this bracket."""
        return any(file.path == path and file.signature == signature for file in self._files)

    @property
    def _files(self) -> "Iterator[RejectedFile | Exposure]":
        # Of an input that was rewritten later, the row also holds the content that came too late.
        yield from self.rejected
        yield from self.inputs


@dataclass(frozen=True, slots=True)
class CurveDecision:
    """What was decided on a curve: by the gate, or by an operator (the last three verdicts)."""

    camera: str
    curve_id: str
    path: str
    base_id: str | None  # of the operator's file at that time
    verdict: Literal["adopted", "rejected", "unchanged", "pinned", "unpinned", "withdrawn"]
    reason: str
    residual: float | None = None  # stops left unexplained: by this curve, by the one in use
    present_residual: float | None = None
    brackets: int = 0
    decided_utc: str = ""
    channels: int | None = None
    coverage: int | None = None  # codes that samples told of, in the worst channel
    drift: float | None = None  # stops from the curve that was in use
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What a command wants the daemon to do; `camera` None: every camera."""

    id: int
    kind: str
    camera: str | None
    arguments: dict[str, Any]


class Retry(BaseModel):
    """Which brackets are to be merged again: these slots, and all of some states in a span.

    Published brackets only if `published`; all of them only with `since` or `until`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    slots: tuple[NaiveDatetime, ...] = ()
    failed: bool = False
    skipped: bool = False
    published: bool = False
    since: NaiveDatetime | None = None  # slots from this one on
    until: NaiveDatetime | None = None  # and before this one

    def conditions(self) -> Iterator[tuple[str, tuple[object, ...]]]:
        """Give the SQL conditions of these rows, with their values."""
        since = self.since.isoformat() if self.since else ""
        until = self.until.isoformat() if self.until else "~"
        for state in ("failed", "skipped", "published"):
            if getattr(self, state) and (state != "published" or self.since or self.until):
                yield "state = ? AND slot >= ? AND slot < ?", (state, since, until)
        for slot in self.slots:
            yield "slot = ? AND (state != 'published' OR ?)", (slot.isoformat(), self.published)


def for_channels(channels: int | None) -> str:
    """Say in a reason for how many channels there is no curve; nothing where that is not known."""
    if channels is None:
        return ""
    return f"{FOR_CHANNELS.format(channels)}{'' if channels == 1 else 's'}"


def tries(attempts: int) -> int:
    """Say how often a merge was tried; a row of what cannot succeed counts from `MAX_ATTEMPTS`."""
    return attempts - MAX_ATTEMPTS if attempts > MAX_ATTEMPTS else attempts


def _bounded(record: BracketRecord) -> BracketRecord:
    """Limit what a row may hold: the first rejected files and the number of all, short reasons."""
    surplus = max(0, len(record.rejected) - MOST_REJECTED)
    rejected = tuple(replace(r, reason=_cut(r.reason)) for r in record.rejected[:MOST_REJECTED])
    # May name a file whose bytes are no UTF-8, which SQLite does not accept.
    reason = None if record.reason is None else _cut(shown(record.reason))
    return replace(record, rejected=rejected, reason=reason, unlisted=record.unlisted + surplus)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What `_read_row` raises for values that make no sense."""
_JSON = ("inputs", "rejected", "products", "timings", "arguments")
Row = TypeVar("Row", BracketRecord, CurveDecision, Request)
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (BracketRecord, CurveDecision, Request)
}


def _columns(kind: type[BracketRecord] | type[CurveDecision] | type[Request]) -> str:
    """Name the columns that make such a value, for SQL."""
    return ", ".join(f.name for f in fields(kind))


def _to_row(record: BracketRecord) -> dict[str, Any]:
    """Return a record as the values of its columns."""
    row = {f.name: getattr(record, f.name) for f in fields(record)}
    row |= {name: json.dumps(row[name], default=_plain) for name in _JSON if name in row}
    return row | {"slot": record.slot.isoformat()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return {name: getattr(value, name) for name in value.__slots__}


def _read_row(kind: type[Row], row: tuple[Any, ...]) -> Row:
    """Read a value from its columns, in the order of `_columns`."""
    # SQLite keeps any value in any column, and pydantic takes bytes for text.
    if any(isinstance(value, bytes) for value in row):
        raise TypeError("bytes in the place of text")
    values = dict(zip((f.name for f in fields(kind)), row, strict=True))
    values |= {name: json.loads(values[name]) for name in _JSON if name in values}
    found: Row = _ADAPTERS[kind].validate_python(values)
    if isinstance(found, BracketRecord):
        if datetime.fromisoformat(found.updated_utc).tzinfo is None:
            raise ValueError(f"updated_utc is {found.updated_utc!r:.40}")
        if any(exposure.timestamp.tzinfo is not None for exposure in found.inputs):
            raise ValueError("an exposure's time has a time zone")
    return found


def utc_now() -> str:
    """Return the present time as rows hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
