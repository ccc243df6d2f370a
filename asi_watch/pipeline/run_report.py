"""A table of what became of every bracket of an archive, written as the run goes on."""

import csv
import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from asi_watch.files import shown

if TYPE_CHECKING:
    from asi_watch.pipeline.archive import BracketOutcome

_COLUMNS = ("slot", "state", "products", "missing_us", "left_out", "notes", "reason")


class ReportFile:
    """Writes the report of one run; its file appears when the run ends, also by an interrupt.

    Parameters
    ----------
    path : Path
        Its suffix chooses the format: ``.csv`` or ``.json`` (a list of objects). ValueError for
        others; an OSError if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".csv", ".json"):
            raise ValueError(f"{shown(path)}: a report is a .csv or .json file")
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._rows = 0

    def __enter__(self) -> "ReportFile":
        self._file = self._part.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        if self._path.suffix == ".csv":
            csv.writer(self._file).writerow(_COLUMNS)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        if self._path.suffix == ".json":
            self._file.write("\n]\n" if self._rows else "[]\n")
        self._file.close()
        self._part.replace(self._path)

    def add(self, outcome: "BracketOutcome") -> None:
        """Write the row of one bracket.

        Parameters
        ----------
        outcome : BracketOutcome
        """
        row: dict[str, Any] = {
            "slot": outcome.slot.isoformat(),
            "state": outcome.state,
            "products": [str(product) for product in outcome.products],
            "missing_us": list(outcome.missing),
            "left_out": [f"{one.path}: {one.reason}" for one in outcome.left_out],
            "notes": list(outcome.notes),
            "reason": str(outcome.error or ""),
        }
        if self._path.suffix == ".json":
            self._file.write(",\n" if self._rows else "[\n")
            self._file.write(json.dumps(row, ensure_ascii=False))
        else:
            cells = (
                "; ".join(map(str, v)) if isinstance(v, list) else v.replace("\n", " ")
                for v in row.values()
            )
            csv.writer(self._file).writerow(cells)
        self._rows += 1
