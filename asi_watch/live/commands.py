"""What the collector is told and what it asks for: plain values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from asi_watch.brackets import Exposure
from asi_watch.live.records import BracketRecord, RejectedFile

Signature = tuple[int, int]


# -- what the collector is told -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadOk:
    """The file decoded strictly."""

    exposure: Exposure


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The file is still what it was when it was last read."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The file is gone."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """The file cannot be used; with `may_recover` it may still be growing."""

    reason: str
    may_recover: bool
    signature: Signature | None


ReadOutcome = ReadOk | Unchanged | Vanished | Unusable


@dataclass(frozen=True, slots=True)
class Published:
    """The bracket's products are durably in place."""

    products: tuple[str, ...]
    curve_id: str | None
    algorithm: str
    latency: float | None
    timings: dict[str, float] = field(default_factory=dict)
    adopted: bool = False
    """The products were already there, complete, from before a crash: nothing was merged."""
    remark: str | None = None
    """Why this is a makeshift."""


@dataclass(frozen=True, slots=True)
class MergeFailed:
    """Merging or publishing failed.

    `stale` names inputs that changed or vanished since they were read; with `permanent`, trying
    again with the same inputs cannot help. With `blocked` the place it is written to is at fault
    (full, read-only, gone): that is no attempt of the bracket's.
    """

    reason: str
    stale: tuple[str, ...] = ()
    permanent: bool = False
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Stands:
    """Nothing was merged: what is published is better. `record` is its row, `why` says how."""

    record: BracketRecord
    why: str = "the product that stands has more exposures"


@dataclass(frozen=True, slots=True)
class TooFew:
    """Nothing was merged: the exposures are too few, and nothing is published that could stand."""


MergeOutcome = Published | MergeFailed | Stands | TooFew


# -- what the collector asks for ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Read and check this file; keep its share of the merge if `absorb`."""

    slot: datetime
    path: str
    timestamp: datetime
    exposure_us: float
    known: Signature | None
    absorb: bool


@dataclass(frozen=True, slots=True)
class MergeBracket:
    """Merge these exposures and publish the products."""

    slot: datetime
    exposures: tuple[Exposure, ...]
    rejected: tuple[RejectedFile, ...]
    expected: int | None
    complete: bool
    revision: int
    products: tuple[str, ...]
    """Where the earlier revision lies; empty for the first."""
    arrived: float
    """Monotonic time at which the last input was seen."""
    fewest: int = 1
    """With fewer exposures nothing is merged."""
    earlier: tuple[Exposure, ...] = ()
    """What its row was made of, if it has one."""
    told: bool = False
    """An event told of the last input as it came; otherwise it may have come long before."""


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Put this row into the ledger; what failed is tried again in `next_try` seconds, if ever.

    `amended`: the bracket stays as it was, the row says more of its files.
    """

    record: BracketRecord
    next_try: float | None = None
    amended: bool = False


@dataclass(frozen=True, slots=True)
class DropWork:
    """Nothing more comes of what was kept for this slot."""

    slot: datetime


Command = ReadFile | MergeBracket | WriteRecord | DropWork
