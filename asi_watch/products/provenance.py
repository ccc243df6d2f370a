"""Where a product came from, as a value that travels inside the product's own file.

The text is JSON in plain ASCII: file names with undecodable bytes survive as escapes, and every
container can hold it. Its first key names it, so that it is recognised wherever it is embedded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field, replace
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    NaiveDatetime,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from asi_watch.brackets import CONTRADICTS, Exposure
from asi_watch.errors import AsiWatchError, without_addresses

MARKER = "asi_watch_provenance"
MAX_PROVENANCE_BYTES = 512 << 10
"""Longest provenance written or believed."""

_SCHEMA_VERSION = 1
_MOST_EXAMPLES, _LONGEST_REASON = 50, 300
_LARGEST = (1 << 63) - 1


class ProvenanceError(AsiWatchError, ValueError):
    """A product without provenance, or with one that makes no sense."""


def _as_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the calendar") from error


_Utc = Annotated[AwareDatetime, AfterValidator(_as_utc)]
# May become part of a file's name, and a value in a database.
_Word = Annotated[str, Field(strict=True, pattern=r"\A[A-Za-z0-9_.+-]{1,64}\z")]
_Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]
_Size = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]  # bytes
# Time of last modification, nanoseconds since the epoch.
_Nanoseconds = Annotated[int, Field(strict=True, ge=-_LARGEST, le=_LARGEST)]
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None
_PLAIN = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True, config=_PLAIN)
class Source:
    """One exposure that went into the product."""

    path: StrictStr  # relative to the camera's watched folder; undecodable bytes as surrogates
    exposure_us: Annotated[float, Field(strict=True, gt=0)]  # exposure time in microseconds
    timestamp: NaiveDatetime  # time in the file's name, in the camera's name clock
    size: _Size
    mtime_ns: _Nanoseconds
    # What the file's name, or else `bracket.exposures`, gives, where `exposure_us` is of its
    # metadata.
    nominal_us: Annotated[float, Field(strict=True, gt=0)] | None = None


@dataclass(frozen=True, config=_PLAIN)
class Unusable:
    """A file of the bracket that was left out: its path (as in `Source`), and why."""

    path: StrictStr
    reason: StrictStr
    # As in `Source`, of an exposure that the merge itself left out; otherwise None.
    size: _Size | None = None
    mtime_ns: _Nanoseconds | None = None

    @property
    def is_contradicting(self) -> bool:
        """True where the merge left the exposure out: it contradicts its exposure time."""
        return self.reason.startswith(CONTRADICTS)


@dataclass(frozen=True, config=_PLAIN)
class Provenance:
    """Everything needed to say what a product is, and to rebuild its ledger row.

    Equal inputs give equal bytes: leave `created_utc` out where products must be reproducible.
    A value of the wrong kind or out of range is a ValueError.
    """

    camera: StrictStr
    slot: NaiveDatetime  # of the bracket, in the camera's name clock
    slot_utc: _Utc
    sources: tuple[Source, ...]  # the exposures merged
    algorithm: _Word
    parameters: Mapping[StrictStr, Scalar]  # settings of the merge
    curve_id: _Word | None  # content hash of the response curve, None without one
    expected: _Count | None  # exposures of a complete bracket, None while unknown
    complete: StrictBool  # whether all of them were merged
    # 1 for the first product of a slot.
    revision: Annotated[int, Field(strict=True, ge=1, lt=1 << 31)]
    software: StrictStr
    created_utc: _Utc | None = None  # when it was written
    # The first files of the bracket that were left out, and how many more there are.
    unusable: tuple[Unusable, ...] = ()
    unusable_more: _Count = 0
    notes: tuple[StrictStr, ...] = ()  # what makes the product doubtful, one sentence each
    # What the numbers of the file mean; filled in by the encoder.
    pixels: Mapping[StrictStr, Scalar] = field(default_factory=dict)
    # Where the camera stands and how it looks, as far as the configuration says.
    geometry: Mapping[StrictStr, Scalar] = field(default_factory=dict)
    provisional: StrictBool = False  # the curve tells too little, and is replaced as soon as may be

    @property
    def used(self) -> int:
        """Number of exposures merged."""
        return len(self.sources)

    def excluded_of(self, exposures: Iterable[Exposure]) -> tuple[Unusable, ...]:
        """Return those of the exposures that the merge was given and left out as contradicting.

        Parameters
        ----------
        exposures : iterable of Exposure
            A file that was rewritten since is none of them.
        """
        given = {e.path: (e.size, e.mtime_ns) for e in exposures}
        return tuple(
            u
            for u in self.unusable
            if u.is_contradicting
            and u.path in given
            and (u.size is None or (u.size, u.mtime_ns) == given[u.path])
        )

    def to_json(self) -> str:
        """One line of ASCII JSON; ValueError if it exceeds `MAX_PROVENANCE_BYTES`."""
        document = {MARKER: _SCHEMA_VERSION, "used": self.used, **asdict(self)}
        for name in ("geometry", "provisional"):
            if not document[name]:
                del document[name]
        for file in (*document["sources"], *document["unusable"]):
            for optional in ("size", "mtime_ns", "nominal_us"):
                if file.get(optional, 0) is None:
                    del file[optional]
        text = json.dumps(document, ensure_ascii=True, allow_nan=False, default=datetime.isoformat)
        if len(text) > MAX_PROVENANCE_BYTES:
            limit = f"the limit is {MAX_PROVENANCE_BYTES}"
            raise ValueError(f"provenance of {len(text)} bytes; {limit}")
        return text

    @classmethod
    def from_json(cls, text: str | bytes) -> Provenance:
        """Read a provenance back, trusting nothing in it; ProvenanceError if it makes no sense.

        Parameters
        ----------
        text : str or bytes
            What follows the JSON is not looked at.
        """
        head = text[:MAX_PROVENANCE_BYTES]
        try:
            plain = head if isinstance(head, str) else head.decode("latin-1")
            document = json.JSONDecoder().raw_decode(plain)[0]
        except (ValueError, RecursionError) as error:
            raise ProvenanceError(f"provenance is no JSON: {str(error)[:120]}") from None
        if not isinstance(document, dict):
            raise ProvenanceError("provenance is no JSON object")
        version = document.pop(MARKER, None)
        if type(version) is not int or version != _SCHEMA_VERSION:
            raise ProvenanceError(
                f"provenance of schema {version!r:.40}; this version reads {_SCHEMA_VERSION}"
            )
        try:
            return _READER.validate_python(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ProvenanceError(f"provenance: {where}: {first['msg'][:200]}") from None


_READER = TypeAdapter(Provenance)


def files_of(files: Iterable[Exposure | Source]) -> set[tuple[str, int, int, float]]:
    """Return what tells files apart: path, size, time to the nanosecond, and exposure time.

    Parameters
    ----------
    files : iterable of Exposure or Source
    """
    return {(f.path, f.size, f.mtime_ns, f.exposure_us) for f in files}


def is_product_of(
    found: Provenance, camera: str, slot: datetime, exposures: Iterable[Exposure | Source]
) -> bool:
    """Tell whether a product is that of a bracket, though its camera may have had another name.

    No two cameras have a file of one path, one size and one time to the nanosecond: a product made
    of one of these exposures is this camera's, whatever it was called then.

    Parameters
    ----------
    found : Provenance
        What the product says of itself.
    camera, slot : str, datetime
        The camera's name now; the bracket's slot.
    exposures : iterable of Exposure or Source
        Of the bracket, now or when it was merged.
    """
    if found.slot != slot:
        return False
    return found.camera == camera or not files_of(found.sources).isdisjoint(files_of(exposures))


def first_examples(left_out: Iterable[Unusable]) -> tuple[tuple[Unusable, ...], int]:
    """Bound what a provenance says of files left out: the first by path, and how many more.

    What the merge left out comes first: a product is compared with its bracket by it.

    Parameters
    ----------
    left_out : iterable of Unusable
    """
    rising = sorted(left_out, key=lambda one: (not one.is_contradicting, one.path, one.reason))
    kept = tuple(replace(u, reason=plain_reason(u.reason)) for u in rising[:_MOST_EXAMPLES])
    return kept, len(rising) - len(kept)


def plain_reason(text: str) -> str:
    """Return a reason without addresses in memory, cut to a line.

    Parameters
    ----------
    text : str
    """
    plain = without_addresses(text)
    return plain if len(plain) <= _LONGEST_REASON else f"{plain[: _LONGEST_REASON - 1]}…"
