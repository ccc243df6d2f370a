"""Live brackets while a backlog is worked off: latency beside and without it, and its throughput.

A camera was cut off: when it comes back, hours of brackets are moved into its folder while it goes
on taking pictures. The backlog shall use what the cores have left, and the live brackets shall not
wait for it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.daemon import (
    SLOT,
    START,
    Bracket,
    Floor,
    Load,
    RunningDaemon,
    file_name,
    running,
    schedule,
)
from benchmarks.frames import jpeg_frames
from benchmarks.host import HostWatch
from benchmarks.reporting import median, percentile, save, show

SIZE = 2048
INTERVAL = 2.0
ALONE = 20
BACKLOG = 240


def prepare(folder: Path, frames: tuple[bytes, ...], brackets: int) -> list[Bracket]:
    """Write the hours before START beside the watched folder; number −1 is the newest bracket."""
    for bracket in range(-brackets, 0):
        hour = folder / f"{START + SLOT * bracket:%H}"
        hour.mkdir(parents=True, exist_ok=True)
        for position, frame in enumerate(frames):
            (hour / file_name(bracket, position)).write_bytes(frame)
    return [(0, bracket) for bracket in range(-brackets, 0)]


def measure(brackets: int) -> dict[str, Any]:
    """Live brackets alone, then while the backlog is there."""
    frames = jpeg_frames(SIZE)
    floor = Floor(frames)
    with running(frames, 1) as daemon, HostWatch() as host:
        behind = prepare(daemon.folder / "cut-off", frames, brackets)
        steps = schedule(Load(1, SIZE, INTERVAL, ALONE))
        alone = latencies(daemon, daemon.drive(steps, floor))
        moved, used = time.monotonic(), daemon.cpu()
        day = daemon.folder / "in0" / f"{START:%Y/%m/%d}"
        for hour in sorted((daemon.folder / "cut-off").iterdir()):
            hour.rename(day / hour.name)
        closed: dict[Bracket, float] = {}
        number = ALONE
        while len(daemon.published(behind)) < brackets:
            load = Load(1, SIZE, INTERVAL, 1)
            due = moved + INTERVAL * (number - ALONE)
            time.sleep(max(0.0, due - time.monotonic()))
            closed |= daemon.drive([step._replace(bracket=number) for step in schedule(load)])
            number += 1
        took, used = time.monotonic() - moved, daemon.cpu() - used
        beside = latencies(daemon, closed)
        peak = daemon.peak_rss()
    cores = len(os.sched_getaffinity(0))
    return {
        "floor": floor.total,
        "alone": alone,
        "beside": beside,
        "backlog": brackets,
        "brackets_per_second": brackets / took,
        "cores_used": used / took,
        "cores": cores,
        "cpu_per_bracket": used / (brackets + len(beside)),
        "peak_rss": peak,
        "stolen_share": host.report.stolen_share,
    }


def latencies(daemon: RunningDaemon, closed: dict[Bracket, float]) -> list[float]:
    """Seconds from the last close to the product, of all but the first in a new folder."""
    published = daemon.wait(list(closed), 120)
    return [published[key] - closed[key] for key in sorted(closed) if key[1] > 0]


def report(result: dict[str, Any]) -> None:
    """Print what was measured."""
    rows = [
        (
            name,
            len(values),
            *(f"{1000 * percentile(values, share):.0f}" for share in (0.5, 0.95, 1.0)),
            f"{median(values) / result['floor']:.2f}",
        )
        for name, values in (("alone", result["alone"]), ("beside the backlog", result["beside"]))
    ]
    show(
        f"live brackets of 5 × {SIZE}² every {INTERVAL:g} s, floor {1000 * result['floor']:.0f} ms",
        ("", "n", "p50 ms", "p95 ms", "longest ms", "p50 / floor"),
        rows,
    )
    print(
        f"backlog: {result['backlog']} brackets at {result['brackets_per_second']:.1f} a second"
        f" beside them, {result['cores_used']:.2f} of {result['cores']} cores used,"
        f" {1000 * result['cpu_per_bracket']:.0f} ms of CPU a bracket,"
        f" peak memory {result['peak_rss'] / 2**20:.0f} MiB;"
        f" the host took {100 * result['stolen_share']:.1f} % of the cores"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backlog", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--brackets", type=int, default=BACKLOG, help="of the backlog [%(default)s]"
    )
    result = measure(parser.parse_args(arguments).brackets)
    report(result)
    print("written:", save("backlog", result))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
