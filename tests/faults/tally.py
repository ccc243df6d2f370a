"""The counts of the long runs, gathered in one table at the end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("ASI_WATCH_SOAK_RESULTS", "soak-results"))
FILE = "counts.jsonl"

KILLS = "kill -9 at random moments"
CRASHES = "death at named steps"
DAMAGED = "damaged files"
SAME = "live equals batch"
DAY = "24 simulated hours"
MODEL = "model of the collector"

# What is promised, what shows it, and the counts that do.
PROMISES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("exposures lost", "0", KILLS, ("lost", "exposures", "brackets", "kills")),
    ("torn products", "0", KILLS, ("torn", "published", "kills")),
    ("merged twice", "0", KILLS, ("merged_twice", "published", "kills")),
    ("lost, torn or merged twice", "0", CRASHES, ("wrong", "points")),
    ("visible damage taken for whole", "0", DAMAGED, ("visible_accepted", "visible", "files")),
    ("crashes, or hangs over 2 s", "0", DAMAGED, ("crashes_or_hangs", "files", "slowest")),
    ("products that differ", "0", SAME, ("differences", "products", "revisions")),
    ("histories that end otherwise", "0", MODEL, ("differences", "histories", "merges")),
    ("growth of memory from hour 2 to 24", "≤ 5 %", DAY, ("growth", "from_mib", "to_mib")),
    ("threads, file descriptors", "flat", DAY, ("threads", "descriptors")),
)


class Tally:
    """Appends one line per long test; `table` gives all of them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def add(self, what: str, **counts: float | str) -> None:
        """Note the counts of one run."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"what": what, **counts}, ensure_ascii=False) + "\n")

    def latest(self) -> dict[str, dict[str, Any]]:
        """Counts of the last run of each kind."""
        if not self._path.exists():
            return {}
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return {line.pop("what"): line for line in lines}

    def table(self) -> list[str]:
        """Lines of a table: what is promised, and what was counted."""
        latest = self.latest()
        rows = [("promise", "goal", "shown by", "counted")]
        for promise, goal, what, names in PROMISES:
            if latest.get(what, {}).keys() >= set(names):
                first, *others = (f"{n.replace('_', ' ')} {latest[what][n]}" for n in names)
                rows.append((promise, goal, what, f"{first} ({', '.join(others)})"))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return [
            " | ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]) for r in rows
        ]
