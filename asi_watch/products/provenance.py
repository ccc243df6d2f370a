"""Where a product came from, as a value that travels inside the product's own file.

The text is JSON in plain ASCII: file names with undecodable bytes survive as escapes, and every
container can hold it. Its first key names it, so that it is recognised wherever it is embedded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from asi_watch.products.provenance_values import (
    ProvenanceError,
    Scalar,
    count,
    get,
    need,
    objects,
    refuse_constant,
    scalars,
    word,
)

__all__ = [
    "MARKER",
    "MAX_PROVENANCE_BYTES",
    "SCHEMA_VERSION",
    "Provenance",
    "ProvenanceError",
    "Scalar",
    "Source",
    "Unusable",
]

SCHEMA_VERSION = 1
MARKER = "asi_watch_provenance"
MAX_PROVENANCE_BYTES = 512 << 10
"""Longest provenance written or believed; enough for some two thousand exposures."""


@dataclass(frozen=True, slots=True)
class Source:
    """One exposure that went into the product.

    Parameters
    ----------
    path : str
        Relative to the camera's watched folder; undecodable bytes as surrogates.
    exposure_us : float
        Exposure time in microseconds.
    timestamp : datetime
        Time in the file's name, in the camera's name clock (naive).
    size : int
        Bytes.
    mtime_ns : int
        Time of last modification, nanoseconds since the epoch.
    """

    path: str
    exposure_us: float
    timestamp: datetime
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unusable:
    """An exposure of the bracket that was left out.

    Parameters
    ----------
    path : str
        Relative to the camera's watched folder.
    reason : str
        Why.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Everything needed to say what a product is, and to rebuild its ledger row.

    Equal inputs give equal bytes: leave `created_utc` out where products must be reproducible.

    Parameters
    ----------
    camera : str
        Name of the camera.
    slot : datetime
        Slot of the bracket in the camera's name clock (naive).
    slot_utc : datetime
        The same instant in UTC (aware).
    sources : tuple of Source
        The exposures merged, in the order of their exposure times.
    algorithm : str
        Name of the merge algorithm.
    parameters : mapping
        Its settings: plain scalars.
    curve_id : str or None
        Content hash of the response curve; None if none was used.
    expected : int or None
        Exposures a whole bracket has; None if unknown.
    complete : bool
        Whether every expected exposure was used.
    revision : int
        1 for the first product of a slot, counted up by each re-merge.
    software : str
        Name and version of the writer.
    created_utc : datetime or None
        When it was merged (aware).
    unusable : tuple of Unusable
        Exposures of the bracket that could not be used.
    pixels : mapping
        How to read the file's numbers (written by the encoder): unit, scale, layers.
    """

    camera: str
    slot: datetime
    slot_utc: datetime
    sources: tuple[Source, ...]
    algorithm: str
    parameters: Mapping[str, Scalar]
    curve_id: str | None
    expected: int | None
    complete: bool
    revision: int
    software: str
    created_utc: datetime | None = None
    unusable: tuple[Unusable, ...] = ()
    pixels: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.slot.tzinfo is not None or self.slot_utc.tzinfo is None:
            raise ValueError("slot is naive (name clock), slot_utc is aware")
        if self.created_utc is not None and self.created_utc.tzinfo is None:
            raise ValueError("created_utc is aware")

    @property
    def used(self) -> int:
        """Number of exposures merged."""
        return len(self.sources)

    def to_json(self) -> str:
        """Return the provenance as one line of ASCII JSON.

        Raises
        ------
        ValueError
            If a number is not finite, or the text exceeds `MAX_PROVENANCE_BYTES`.
        """
        text = json.dumps(self._document(), ensure_ascii=True, allow_nan=False)
        if len(text) > MAX_PROVENANCE_BYTES:
            raise ValueError(
                f"provenance of {len(text)} bytes; the limit is {MAX_PROVENANCE_BYTES}"
            )
        return text

    def _document(self) -> dict[str, object]:
        return {
            MARKER: SCHEMA_VERSION,
            "software": self.software,
            "camera": self.camera,
            "slot": self.slot.isoformat(),
            "slot_utc": self.slot_utc.astimezone(UTC).isoformat(),
            "revision": self.revision,
            "complete": self.complete,
            "expected": self.expected,
            "used": self.used,
            "algorithm": self.algorithm,
            "parameters": dict(self.parameters),
            "curve_id": self.curve_id,
            "pixels": dict(self.pixels),
            "created_utc": self.created_utc and self.created_utc.astimezone(UTC).isoformat(),
            "sources": [
                {
                    "path": source.path,
                    "exposure_us": source.exposure_us,
                    "timestamp": source.timestamp.isoformat(),
                    "size": source.size,
                    "mtime_ns": source.mtime_ns,
                }
                for source in self.sources
            ],
            "unusable": [{"path": one.path, "reason": one.reason} for one in self.unusable],
        }

    @classmethod
    def from_json(cls, text: str | bytes) -> Provenance:
        """Read a provenance back, trusting nothing in it.

        Parameters
        ----------
        text : str or bytes
            What `to_json` wrote, or anything else.

        Returns
        -------
        Provenance

        Raises
        ------
        ProvenanceError
            If it is too long, no JSON, of another schema, or has a value of the wrong kind.
        """
        if len(text) > MAX_PROVENANCE_BYTES:
            raise ProvenanceError(f"provenance longer than {MAX_PROVENANCE_BYTES} bytes")
        try:
            document = json.loads(text, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ProvenanceError(f"provenance is no JSON: {str(error)[:120]}") from None
        if not isinstance(document, dict):
            raise ProvenanceError("provenance is no JSON object")
        version = document.get(MARKER)
        if type(version) is not int or version != SCHEMA_VERSION:
            raise ProvenanceError(
                f"provenance of schema {version!r:.40}; this version reads {SCHEMA_VERSION}"
            )
        try:
            return cls._from_document(document)
        except ProvenanceError:
            raise
        except (ValueError, OverflowError) as error:
            raise ProvenanceError(f"provenance: {str(error)[:200]}") from None

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Provenance:
        created = get(document, "created_utc", str, optional=True)
        curve_id = get(document, "curve_id", str, optional=True)
        expected = get(document, "expected", int, optional=True)
        return cls(
            camera=need(document, "camera", str),
            slot=datetime.fromisoformat(need(document, "slot", str)),
            slot_utc=datetime.fromisoformat(need(document, "slot_utc", str)).astimezone(UTC),
            sources=tuple(_source(one) for one in objects(document, "sources")),
            algorithm=word(need(document, "algorithm", str)),
            parameters=scalars(document, "parameters"),
            curve_id=None if curve_id is None else word(curve_id),
            expected=None if expected is None else count(expected, 0),
            complete=need(document, "complete", bool),
            revision=count(need(document, "revision", int), 1),
            software=need(document, "software", str),
            created_utc=None if created is None else datetime.fromisoformat(created),
            unusable=tuple(
                Unusable(need(one, "path", str), need(one, "reason", str))
                for one in objects(document, "unusable")
            ),
            pixels=scalars(document, "pixels"),
        )


def _source(one: dict[str, Any]) -> Source:
    exposure = one.get("exposure_us")
    if isinstance(exposure, bool) or not isinstance(exposure, int | float):
        raise ProvenanceError("provenance: 'exposure_us' must be a number")
    if not (math.isfinite(exposure) and exposure > 0):
        raise ProvenanceError("provenance: 'exposure_us' must be positive and finite")
    timestamp = datetime.fromisoformat(need(one, "timestamp", str))
    if timestamp.tzinfo is not None:
        raise ProvenanceError("provenance: 'timestamp' has a time zone; names have none")
    return Source(
        path=need(one, "path", str),
        exposure_us=float(exposure),
        timestamp=timestamp,
        size=need(one, "size", int),
        mtime_ns=need(one, "mtime_ns", int),
    )
