"""``python -m tests.machine.judging WHAT DATA [WATCH OUTPUT]``, where the data disk is mounted.

Prints one JSON document. `aftermath` is asked right after a start, before the daemon runs: what a
power cut left. `verdict` is asked at the end.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import OpenEXR

from asi_watch.brackets import Exposure
from asi_watch.live.ledger.ledger import FILE_NAME, Ledger
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.products import ProvenanceError, is_temporary, read_provenance
from tests.faults.verdict import OnDisk, decode_strictly, files_by_slot
from tests.machine.place import MIN_EXPOSURES, Place
from tests.machine.writers import WAYS, state_of

Rows = dict[datetime, BracketRecord]


def flaw(product: Path) -> str | None:
    """Tell what is wrong with a product, None for nothing."""
    if not product.stat().st_size:
        return "zero bytes"
    try:
        read_provenance(product)
        if product.suffix == ".exr":
            # Reading the channels unpacks every block.
            with OpenEXR.File(str(product)) as file:
                file.channels()
        else:
            decode_strictly(product)
    except (OSError, ValueError, ProvenanceError, RuntimeError) as error:
        return f"torn: {error}"
    return None


def products_in(output: Path) -> Iterator[Path]:
    """All files in the output folder but temporary ones."""
    for path in sorted(output.rglob("*")):
        if path.is_file() and not is_temporary(path.name):
            yield path


def ledger_copy(state: Path, folder: Path) -> tuple[str, Rows]:
    """What the ledger says, without changing a byte of it: its integrity, and its rows."""
    for name in (FILE_NAME, FILE_NAME + "-wal"):
        if (state / name).exists():
            shutil.copy(state / name, folder)
    if not (folder / FILE_NAME).exists():
        return "none", {}
    try:
        with sqlite3.connect(folder / FILE_NAME) as db:
            (integrity,) = db.execute("PRAGMA integrity_check").fetchone()
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        db.close()
        if integrity != "ok" or not tables:
            return integrity, {}
        with Ledger(folder) as ledger:
            return integrity, {r.slot: r for r in ledger.history()}
    except (sqlite3.Error, ValueError) as error:
        return str(error), {}


def aftermath(place: Place) -> dict[str, Any]:
    """What the power cut left of products, ledger and inputs."""
    flaws = {str(p.relative_to(place.output)): flaw(p) for p in products_in(place.output)}
    with tempfile.TemporaryDirectory() as folder:
        integrity, rows = ledger_copy(place.state, Path(folder))
    inputs = [p for p in place.watch.rglob("*.jpg") if p.is_file()]
    return {
        "products": list(flaws),
        "flaws": {name: text for name, text in flaws.items() if text},
        "temporaries": sum(is_temporary(p.name) for p in place.output.rglob("*")),
        "ledger": integrity,
        "published": {s.isoformat(): r.revision for s, r in rows.items() if r.state == "published"},
        "inputs": len(inputs),
        "empty_inputs": sum(not p.stat().st_size for p in inputs),
    }


def unsettled(rows: Rows, slots: dict[datetime, OnDisk]) -> list[str]:
    """Files of which the ledger does not say yet what became of them."""
    return [
        name
        for slot, there in slots.items()
        for name, signature in there.files.items()
        if slot not in rows or not rows[slot].knows(name, signature)
    ]


def rows_now(place: Place) -> Rows:
    with Ledger(place.state, read_only=True) as ledger:
        return {r.slot: r for r in ledger.history()}


def settled(place: Place) -> dict[str, Any]:
    """Which exposures still wait for the daemon."""
    return {"unsettled": unsettled(rows_now(place), files_by_slot(place.watch))}


def verdict(place: Place) -> dict[str, Any]:
    """Compare folder, ledger and products; `faults` is empty if all is as promised."""
    slots = files_by_slot(place.watch)
    with tempfile.TemporaryDirectory() as folder:
        integrity, rows = ledger_copy(place.state, Path(folder))
    faults = [f"not accounted for: {name}" for name in unsettled(rows, slots)]
    if integrity != "ok":
        faults.append(f"ledger: {integrity}")
    counts: Counter[str] = Counter()
    for slot, there in slots.items():
        counts["exposures"] += len(there.files)
        counts["whole"] += len(there.chosen)
        if slot in rows:
            faults += _faults_of_slot(rows[slot], there, counts)
    for row in rows.values():
        faults += _faults_of_products(row, place)
        counts["revisions"] += max(0, row.revision - 1)
        counts[row.state] += 1
    made = {str(p.relative_to(place.output)) for p in place.output.rglob("*") if p.is_file()}
    known = {p for row in rows.values() for p in row.products}
    faults += [f"without a row: {name}" for name in sorted(made - known)]
    faults += [f"not there: {name}" for name in sorted(known - made)]
    published = {s.isoformat(): r.revision for s, r in rows.items() if r.state == "published"}
    return {"faults": faults, "counts": dict(counts), "published": published}


def _faults_of_slot(row: BracketRecord, there: OnDisk, counts: Counter[str]) -> Iterator[str]:
    if row.state == "skipped":
        if len(there.chosen) >= MIN_EXPOSURES:
            yield f"{row.slot} was skipped with {len(there.chosen)} whole exposures: {row.reason}"
        return
    if row.state != "published":
        yield f"{row.slot} is {row.state}: {row.reason}"
        return
    inputs = {(e.path, e.size, e.mtime_ns) for e in row.inputs}
    lost = {i for i in inputs if there.files.get(i[0]) != i[1:]}
    counts["inputs_lost_after_publishing"] += len(lost)
    best = {_key(e) for e in there.chosen.values()}
    if not lost and inputs != best:
        yield f"{row.slot} was not made of its whole exposures: {sorted(inputs ^ best)}"
    if row.revision - 1 > row.late:
        yield f"{row.slot} has revision {row.revision}, but {row.late} late exposures"


def _key(exposure: Exposure) -> tuple[str, int, int]:
    return (exposure.path, exposure.size, exposure.mtime_ns)


def _faults_of_products(row: BracketRecord, place: Place) -> Iterator[str]:
    if row.state == "published" and not row.products:
        yield f"{row.slot} is published without a product"
    for name in row.products:
        path = place.output / name
        if not path.exists():
            continue  # told elsewhere
        if text := flaw(path):
            yield f"{name}: {text}"
            continue
        provenance = read_provenance(path)
        sources = {(s.path, s.size, s.mtime_ns) for s in provenance.sources}
        if (provenance.slot, provenance.revision) != (row.slot, row.revision):
            yield f"{name} is revision {provenance.revision} of {provenance.slot}, says itself"
        if sources != {_key(e) for e in row.inputs}:
            yield f"{name} is made of other exposures than its row says"


def writers(place: Place) -> dict[str, Any]:
    """State of every file that the control has written, by way of writing."""
    return {
        way: {p.name: state_of(p) for p in (place.writers / way).glob("*")}
        for way in WAYS
        if (place.writers / way).exists()
    }


_ASKED: dict[str, Callable[[Place], dict[str, Any]]] = {
    "aftermath": aftermath,
    "settled": settled,
    "verdict": verdict,
    "writers": writers,
}

if __name__ == "__main__":
    print(json.dumps(_ASKED[sys.argv[1]](Place(*map(Path, sys.argv[2:])))))
