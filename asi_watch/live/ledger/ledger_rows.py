"""Records as rows of the ledger's table of brackets, and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from asi_watch.files import shown
from asi_watch.live.ledger.ledger_schema import TABLES
from asi_watch.live.records import (
    BracketRecord,
    CurveDecision,
    exposure_from_json,
    exposure_to_json,
    naive_time,
    rejected_from_json,
)

COLUMNS = TABLES["brackets"][:-1]
"""Columns of the table that make a record, in its own order: all but `asked`."""

_COUNTS = ("revision", "attempts", "complete", "duplicates", "late")
_KINDS: dict[str, Any] = {
    **dict.fromkeys(_COUNTS, int),
    **dict.fromkeys(("curve_id", "algorithm", "reason"), str | None),
    "expected": int | None,
    "latency": float | int | None,
}
"""What the columns hold; the others hold text."""


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
        # May name a file whose bytes are no UTF-8, which SQLite does not take.
        None if record.reason is None else shown(record.reason),
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
    _check_kinds(named)
    named["slot"] = naive_time(named["slot"])
    named["complete"] = bool(named["complete"])
    named["inputs"] = tuple(exposure_from_json(e) for e in json.loads(named["inputs"]))
    named["rejected"] = tuple(rejected_from_json(r) for r in json.loads(named["rejected"]))
    named["products"] = tuple(json.loads(named["products"]))
    if not all(isinstance(product, str) for product in named["products"]):
        raise TypeError("a product is no path")
    named["timings"] = dict(json.loads(named["timings"]))
    return BracketRecord(**named)


def _check_kinds(named: dict[str, Any]) -> None:
    # SQLite keeps any value in any column.
    for name, value in named.items():
        kinds = _KINDS.get(name, str)
        if not isinstance(value, kinds):
            raise TypeError(f"{name} is {value!r:.40}")
    if named["state"] not in ("published", "skipped", "failed"):
        raise ValueError(f"state is {named['state']!r:.40}")


def curve_from_row(row: tuple[Any, ...]) -> CurveDecision:
    """Read a decision on a curve back from the values of its fields.

    Raises
    ------
    TypeError, ValueError
        If the values make no sense.
    """
    decision = CurveDecision(*row)
    texts = (decision.camera, decision.curve_id, decision.path, decision.reason)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"a curve is {row!r:.80}")
    if decision.verdict not in ("adopted", "rejected"):
        raise ValueError(f"the verdict on a curve is {decision.verdict!r:.40}")
    return decision
