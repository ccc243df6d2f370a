"""What is known of a bracket once it is over: the rows of the ledger, as values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from asi_watch.brackets import SUPERSEDED, Exposure

_EXPOSURE = [field.name for field in fields(Exposure)]

RecordState = Literal["published", "skipped", "failed"]

MAX_ATTEMPTS = 8
"""So often a merge is tried; then it is not tried again until an operator asks for it."""

WITHOUT_CURVE = "merged by mertens, for want of a response curve"
"""Reason in the row of a published bracket that is a makeshift."""

PUT_OFF = "waits: "
"""How the reason begins in the row of a bracket that could not be merged yet, nor failed."""

TAKEN = "its place is taken: "
"""How the reason begins in the row of a bracket where another camera's product stands."""


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
        """True where another file of the same exposure time was merged in its place."""
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
        1 for the first product; counts every replacement by `late: remerge`. 0: no product.
    attempts : int
        How often merging was tried for this revision; more than it may be tried for what was
        not retried before its attempts were used up (see `tries`).
    expected : int or None
        How many exposures a complete bracket has; None while that is not known.
    complete : bool
    inputs : tuple of Exposure
        What was merged, or would have been.
    rejected : tuple of RejectedFile
        Files of this slot that were not: unusable, superseded by a newer duplicate, late.
    products : tuple of str
        Relative to the camera's output folder.
    curve_id, algorithm : str or None
    duplicates, late : int
        How many exposures came twice; how many came after publication.
    latency : float or None
        Seconds from the last input being there to the first product being durably in place.
    timings : dict
        Seconds spent per step.
    reason : str or None
        Why it was skipped or failed; of what was published, why it is a makeshift, or that its
        slot holds other brackets as well.
    updated_utc : str
        ISO time of the row's last change.
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

    def signature_of(self, path: str) -> tuple[int, int] | None:
        """Signature under which a file last had its turn in this bracket, None if it had none."""
        # Of an input that was rewritten later, the row also holds the content that came too late.
        for rejected in self.rejected:
            if rejected.path == path:
                return rejected.signature
        for exposure in self.inputs:
            if exposure.path == path:
                return exposure.signature
        return None

    def knows(self, path: str, signature: tuple[int, int]) -> bool:
        """Tell whether this state of a file has had its turn in this bracket."""
        return self.signature_of(path) == signature or any(
            e.path == path and e.signature == signature for e in self.inputs
        )


@dataclass(frozen=True, slots=True)
class CurveDecision:
    """What became of a candidate curve: the other kind of row."""

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


def exposure_to_json(exposure: Exposure) -> dict[str, Any]:
    """Give an exposure as a JSON-able mapping."""
    return {name: getattr(exposure, name) for name in _EXPOSURE} | {
        "timestamp": exposure.timestamp.isoformat()
    }


def exposure_from_json(value: dict[str, Any]) -> Exposure:
    """Read an exposure back from `exposure_to_json`.

    Raises
    ------
    ValueError, TypeError
        If it makes no sense.
    """
    exposure = Exposure(**{**value, "timestamp": naive_time(value["timestamp"])})
    if not (isinstance(exposure.path, str) and isinstance(exposure.exposure_us, int | float)):
        raise TypeError(f"an exposure is {value!r:.80}")
    return exposure


def rejected_from_json(value: dict[str, Any]) -> RejectedFile:
    """Read a rejected file back from its fields.

    Raises
    ------
    TypeError
        If it makes no sense.
    """
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


def tries(attempts: int) -> int:
    """Say how often a merge was tried; a row of what cannot succeed counts from `MAX_ATTEMPTS`."""
    return attempts - MAX_ATTEMPTS if attempts > MAX_ATTEMPTS else attempts
