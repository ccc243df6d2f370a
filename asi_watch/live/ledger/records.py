"""The rows of the ledger as values: brackets that are over, decisions on curves, requests."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from asi_watch.brackets import SUPERSEDED, Exposure
from asi_watch.files import shown
from asi_watch.live.ledger.schema import TABLES

RecordState = Literal["published", "skipped", "failed"]

MAX_ATTEMPTS = 8
"""So often a merge is tried; then it is not tried again until an operator asks for it."""

WITHOUT_CURVE = "merged by mertens, for want of a response curve"
"""Reason in the row of a bracket that was published by the fallback: no curve fitted it."""

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


@dataclass(frozen=True, slots=True)
class BracketRecord:
    """One row of the ledger: a bracket that is over.

    Parameters
    ----------
    camera : str
    slot : datetime
        Naive, in the clock of the file names.
    state : {"published", "skipped", "failed"}
        `failed` is tried again until its attempts are used up.
    revision : int
        1 for the first product, one more for every later one; 0: no product.
    attempts : int
        How often merging was tried for this revision; see `tries` for what can never succeed.
    expected : int or None
        How many exposures a complete bracket has; None while that is not known.
    complete : bool
    inputs : tuple of Exposure
        What was merged, or would have been.
    rejected : tuple of RejectedFile
        Files of this slot that were not: unusable, superseded by a newer duplicate, late. At most
        `MOST_REJECTED` in a row of the ledger.
    products : tuple of str
        Relative to the camera's output folder.
    curve_id, algorithm : str or None
    duplicates, late : int
        How many exposures came twice; how many came after publication.
    latency : float or None
        Seconds from the last input to the first product being durably in place.
    timings : dict
        Seconds spent per step.
    reason : str or None
        Why it was skipped or failed; of a published bracket: what is unusual about it.
    updated_utc : str
        ISO time of the row's last change.
    unlisted : int
        How many more files were rejected than `rejected` lists.
    """

    camera: str
    slot: datetime
    state: RecordState
    revision: int = 0
    attempts: int = 0
    expected: int | None = None
    complete: bool = False
    inputs: tuple[Exposure, ...] = ()
    rejected: tuple[RejectedFile, ...] = ()
    products: tuple[str, ...] = ()
    curve_id: str | None = None
    algorithm: str | None = None
    duplicates: int = 0
    late: int = 0
    latency: float | None = None
    timings: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    updated_utc: str = ""
    unlisted: int = 0

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
    verdict: str
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

COLUMNS = tuple(name for name in TABLES["brackets"] if name != "asked")
"""The columns that make a record."""

_EXPOSURE = [f.name for f in fields(Exposure)]
_COUNTS = ("revision", "attempts", "complete", "duplicates", "late", "unlisted")
_KINDS: dict[str, Any] = {
    **dict.fromkeys(_COUNTS, int),
    **dict.fromkeys(("curve_id", "algorithm", "reason"), str | None),
    "expected": int | None,
    "latency": float | int | None,
}
"""What the columns hold; the others hold text."""

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What the functions below raise for values that make no sense."""


def to_row(record: BracketRecord) -> tuple[Any, ...]:
    """Return a record as values in the order of `COLUMNS`."""
    values = {name: getattr(record, name) for name in COLUMNS}
    values |= {
        "slot": record.slot.isoformat(),
        "complete": int(record.complete),
        "inputs": json.dumps([exposure_to_json(e) for e in record.inputs]),
        "rejected": json.dumps([asdict(r) for r in record.rejected]),
        "products": json.dumps(record.products),
        "timings": json.dumps(record.timings),
    }
    return tuple(values.values())


def from_row(row: tuple[Any, ...]) -> BracketRecord:
    """Read a record from values in the order of `COLUMNS`.

    Raises
    ------
    UNREADABLE
        If the values make no sense.
    """
    named = dict(zip(COLUMNS, row, strict=True))
    # SQLite keeps any value in any column.
    for name, value in named.items():
        if not isinstance(value, _KINDS.get(name, str)):
            raise TypeError(f"{name} is {value!r:.40}")
    if named["state"] not in ("published", "skipped", "failed"):
        raise ValueError(f"state is {named['state']!r:.40}")
    if datetime.fromisoformat(named["updated_utc"]).tzinfo is None:
        raise ValueError(f"updated_utc is {named['updated_utc']!r:.40}")
    named["slot"] = naive_time(named["slot"])
    named["complete"] = bool(named["complete"])
    named["inputs"] = tuple(_exposure(e) for e in json.loads(named["inputs"]))
    named["rejected"] = tuple(_rejected(r) for r in json.loads(named["rejected"]))
    named["products"] = tuple(json.loads(named["products"]))
    if not all(isinstance(product, str) for product in named["products"]):
        raise TypeError("a product is no path")
    named["timings"] = dict(json.loads(named["timings"]))
    return BracketRecord(**named)


def curve_from_row(row: tuple[Any, ...]) -> CurveDecision:
    """Read a decision on a curve from the values of its fields.

    Raises
    ------
    UNREADABLE
        If the values make no sense.
    """
    decision = CurveDecision(*row)
    texts = (decision.camera, decision.curve_id, decision.path, decision.reason)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"a curve is {row!r:.80}")
    if decision.verdict not in ("adopted", "rejected"):
        raise ValueError(f"the verdict on a curve is {decision.verdict!r:.40}")
    if not isinstance(decision.channels, int | None):
        raise TypeError(f"channels is {decision.channels!r:.40}")
    return decision


def exposure_to_json(exposure: Exposure) -> dict[str, Any]:
    """Return an exposure as a mapping for JSON."""
    return {name: getattr(exposure, name) for name in _EXPOSURE} | {
        "timestamp": exposure.timestamp.isoformat()
    }


def _exposure(value: dict[str, Any]) -> Exposure:
    exposure = Exposure(**{**value, "timestamp": naive_time(value["timestamp"])})
    if not (isinstance(exposure.path, str) and isinstance(exposure.exposure_us, int | float)):
        raise TypeError(f"an exposure is {value!r:.80}")
    return exposure


def _rejected(value: dict[str, Any]) -> RejectedFile:
    rejected = RejectedFile(**value)
    if not (isinstance(rejected.path, str) and isinstance(rejected.reason, str)):
        raise TypeError(f"a rejected file is {value!r:.80}")
    return rejected


def naive_time(text: str) -> datetime:
    """Read a time in the clock of the file names.

    Raises
    ------
    ValueError
        If it is none, or one with a time zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        raise ValueError(f"{text} is no time of a file name")
    return moment


def utc_now() -> str:
    """Return the present time as rows hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
