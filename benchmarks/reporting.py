"""How every benchmark reports: a table for people, JSON beside it, the machine named."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path("bench-results")


def interleaved(
    jobs: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Time several jobs in turn, A B C A B C …, after one warm-up each; seconds per run."""
    if warm_up:
        for job in jobs.values():
            job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - started)
    return times


def median(values: Sequence[float]) -> float:
    """Median of a sequence that is not empty."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """Value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console(highlight=False)
    console.width = max(console.width, 100)
    console.print(table)


def result_path(name: str) -> Path:
    """Where a result goes; its folder is made."""
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / name


def save(name: str, result: Mapping[str, Any]) -> Path:
    """Write a benchmark's result as JSON, with the machine it was run on."""
    path = result_path(f"{name}.json")
    machine = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }
    path.write_text(json.dumps({"machine": machine, **result}, indent=2) + "\n")
    return path


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
