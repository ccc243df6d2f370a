"""The counts of the long runs, gathered in one table at the end."""

from __future__ import annotations

import json
import os
from pathlib import Path

FOLDER = Path(os.environ.get("ASI_WATCH_SOAK_RESULTS", "soak-results"))
FILE = "counts.jsonl"


class Tally:
    """Appends one line per long test; `table` gives all of them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def add(self, what: str, **counts: float | str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"what": what, **counts}) + "\n")

    def table(self) -> list[str]:
        if not self._path.exists():
            return []
        latest: dict[str, str] = {}
        for line in self._path.read_text().splitlines():
            counts = json.loads(line)
            what = counts.pop("what")
            latest[what] = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in counts.items())
        width = max(len(what) for what in latest)
        return [f"{what:<{width}}  {counts}" for what, counts in latest.items()]
