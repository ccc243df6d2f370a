"""The rows of the ledger as values: brackets that are over, decisions on curves, requests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import NaiveDatetime, TypeAdapter

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
        return {(e.path, e.signature) for e in self.inputs} | {
            (r.path, r.signature) for r in excluded
        }

    def without(self, excluded: Mapping[str, str]) -> "BracketRecord":
        """List exposures that the merge left out as what they are: they are in no product.

        Parameters
        ----------
        excluded : mapping
            Path → reason.
        """
        if not excluded:
            return self
        left_out = tuple(
            RejectedFile(e.path, *e.signature, excluded[e.path])
            for e in self.inputs
            if e.path in excluded
        )
        listed = (left_out + self.rejected)[:MOST_REJECTED]
        return replace(
            self,
            complete=False,
            inputs=tuple(e for e in self.inputs if e.path not in excluded),
            rejected=listed,
            unlisted=self.unlisted + len(left_out) + len(self.rejected) - len(listed),
        )

    def signature_of(self, path: str) -> tuple[int, int] | None:
        """Return the signature of a file when it was last considered; None if it never was."""
        # Of an input that was rewritten later, the row also holds the content that came too late.
        for rejected in self.rejected:
            if rejected.path == path:
                return rejected.signature
        for exposure in self.inputs:
            if exposure.path == path:
                return exposure.signature
        return None

    def knows(self, path: str, signature: tuple[int, int]) -> bool:
        """Tell whether this state of a file has been considered in this bracket."""
        return self.signature_of(path) == signature or any(
            e.path == path and e.signature == signature for e in self.inputs
        )


@dataclass(frozen=True, slots=True)
class CurveDecision:
    """What became of a candidate curve."""

    camera: str
    curve_id: str
    path: str
    base_id: str | None
    verdict: Literal["adopted", "rejected"]
    reason: str
    residual: float | None
    present_residual: float | None
    brackets: int
    decided_utc: str = ""
    channels: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a command wants the daemon to do; `camera` None: every camera."""

    id: int
    kind: str
    camera: str | None
    arguments: dict[str, Any]


def for_channels(channels: int | None) -> str:
    """Say in a reason for how many channels there is no curve; nothing where that is not known."""
    if channels is None:
        return ""
    return f"{FOR_CHANNELS.format(channels)}{'' if channels == 1 else 's'}"


def tries(attempts: int) -> int:
    """Say how often a merge was tried; a row of what cannot succeed counts from `MAX_ATTEMPTS`."""
    return attempts - MAX_ATTEMPTS if attempts > MAX_ATTEMPTS else attempts


def bounded(record: BracketRecord) -> BracketRecord:
    """Limit what a row may hold: the first rejected files and the number of all, short reasons."""
    surplus = max(0, len(record.rejected) - MOST_REJECTED)
    rejected = tuple(
        replace(r, reason=_cut(r.reason)) if len(r.reason) > _LONGEST_REASON else r
        for r in record.rejected[:MOST_REJECTED]
    )
    # May name a file whose bytes are no UTF-8, which SQLite does not accept.
    reason = None if record.reason is None else _cut(shown(record.reason))
    return replace(record, rejected=rejected, reason=reason, unlisted=record.unlisted + surplus)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


# -- rows and values --------------------------------------------------------------------------

NAMES = tuple(f.name for f in fields(BracketRecord))
"""The columns that make a record."""

UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What the functions below raise for values that make no sense."""

_JSON = ("inputs", "rejected", "products", "timings")
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (BracketRecord, CurveDecision, Request)
}
_T = TypeVar("_T", BracketRecord, CurveDecision, Request)


def to_row(record: BracketRecord) -> dict[str, Any]:
    """Return a record as the values of its columns."""
    row = {name: getattr(record, name) for name in NAMES} | {"slot": record.slot.isoformat()}
    return row | {name: json.dumps(row[name], default=_plain) for name in _JSON}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return {name: getattr(value, name) for name in value.__slots__}


def from_row(row: tuple[Any, ...]) -> BracketRecord:
    """Read a record from values in the order of `NAMES`."""
    record = _read(BracketRecord, row, _JSON)
    if datetime.fromisoformat(record.updated_utc).tzinfo is None:
        raise ValueError(f"updated_utc is {record.updated_utc!r:.40}")
    if any(exposure.timestamp.tzinfo is not None for exposure in record.inputs):
        raise ValueError("an exposure's time has a time zone")
    return record


def curve_from_row(row: tuple[Any, ...]) -> CurveDecision:
    """Read a decision on a curve from the values of its fields."""
    return _read(CurveDecision, row)


def request_from_row(row: tuple[Any, ...]) -> Request:
    """Read a request from the values of its fields."""
    return _read(Request, row, ("arguments",))


def _read(kind: type[_T], row: tuple[Any, ...], json_names: tuple[str, ...] = ()) -> _T:
    # SQLite keeps any value in any column, and pydantic takes bytes for text.
    if any(isinstance(value, bytes) for value in row):
        raise TypeError("bytes in the place of text")
    values = dict(zip((f.name for f in fields(kind)), row, strict=True))
    found: _T = _ADAPTERS[kind].validate_python(
        values | {name: json.loads(values[name]) for name in json_names}
    )
    return found


def utc_now() -> str:
    """Return the present time as rows hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
