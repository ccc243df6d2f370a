"""Records as rows of the ledger's table of brackets, and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from asi_watch.live.records import (
    BracketRecord,
    RejectedFile,
    exposure_from_json,
    exposure_to_json,
)

COLUMNS = (
    "camera", "slot", "state", "revision", "attempts", "expected", "complete", "inputs",
    "rejected", "products", "curve_id", "algorithm", "duplicates", "late", "latency", "timings",
    "reason", "updated_utc",
)  # fmt: skip
"""Columns of the table, in its own order."""


def to_row(record: BracketRecord) -> tuple[Any, ...]:
    """Give a record as values in the order of `COLUMNS`."""
    return (
        record.camera,
        record.slot.isoformat(),
        record.state,
        record.revision,
        record.attempts,
        record.expected,
        int(record.complete),
        json.dumps([exposure_to_json(e) for e in record.inputs]),
        json.dumps([asdict(r) for r in record.rejected]),
        json.dumps(record.products),
        record.curve_id,
        record.algorithm,
        record.duplicates,
        record.late,
        record.latency,
        json.dumps(record.timings),
        record.reason,
        record.updated_utc,
    )


def from_row(row: tuple[Any, ...]) -> BracketRecord:
    """Read a record back from values in the order of `COLUMNS`.

    Raises
    ------
    ValueError, TypeError, KeyError, AttributeError
        If the values make no sense.
    """
    named = dict(zip(COLUMNS, row, strict=True))
    named["slot"] = datetime.fromisoformat(named["slot"])
    named["complete"] = bool(named["complete"])
    named["inputs"] = tuple(exposure_from_json(e) for e in json.loads(named["inputs"]))
    named["rejected"] = tuple(RejectedFile(**r) for r in json.loads(named["rejected"]))
    named["products"] = tuple(json.loads(named["products"]))
    named["timings"] = json.loads(named["timings"])
    return BracketRecord(**named)
