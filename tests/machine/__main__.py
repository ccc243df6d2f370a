"""``python -m tests.machine powercut|share``: see CONTRIBUTING.md, "Tests"."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from tests.machine import image, mounted
from tests.machine.powercut import PowerCuts, Report

SKIPPED = 77


def main() -> int:
    """Run one of the tests and print its table."""
    parser = argparse.ArgumentParser(prog="python -m tests.machine")
    parser.add_argument("test", choices=["powercut"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--on", choices=["auto", "machine", "mount"], default="auto")
    parser.add_argument("--keep", type=Path, help="folder for disks and logs, kept")
    parser.add_argument("--eager", action="store_true", help="a daemon that forces nothing to disk")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    where = _where(options.on)
    if where is None:
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="asi-watch-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        system = image.system() if where == "machine" else None
        cuts = PowerCuts(
            system, folder, rounds=options.rounds, seed=options.seed, eager=options.eager
        )
        report = cuts.run()
    print("\n".join(table(report, where)))
    return 0 if report.sound else 1


def _where(wanted: str) -> str | None:
    """Choose a machine or a mounted disk; None if neither is possible, with the reasons."""
    lacking = {"machine": image.missing(), "mount": mounted.missing()}
    for where, lacks in lacking.items():
        if wanted not in {"auto", where}:
            continue
        if not lacks:
            return where
        print(f"not on a {where}: {'; '.join(lacks)}", file=sys.stderr)
    return None


def table(report: Report, where: str) -> list[str]:
    """Lines of the table of what was counted."""
    counts = report.counts
    naive, durable = report.states["naive"], report.states["durable"]
    spoilt = ", ".join(f"{n} {s}" for s, n in sorted(naive.items()) if s != "whole")
    lost = len(report.rounds_seen["naive"])
    rows = [
        ("power cuts", f"{report.cuts} (on a {where})"),
        ("blocks the disk had not flushed", f"{report.unflushed}, {report.lost_blocks} lost"),
        ("brackets", f"{counts['published']} published, {counts['skipped']} skipped"),
        ("exposures on the disk", f"{counts['exposures']}, {counts['whole']} whole"),
        ("inputs lost after their bracket was published", counts["inputs_lost_after_publishing"]),
        ("revisions", counts["revisions"]),
        ("torn or empty products, after any cut", counts["torn_products"]),
        ("announced rows missing after a cut", counts["rows_lost"]),
        ("merged twice", counts["merged_twice"]),
        ("control: renamed without fsync", f"{naive.total()} files, {spoilt or 'none lost'}"),
        ("control: cuts that cost some of these", f"{lost} of {report.cuts}"),
        ("control: asi-watch's publish", f"{durable.total()} files, {durable['whole']} whole"),
        ("faults", len(report.faults)),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)} | {value}" for name, value in rows]
    lines += [f"FAULT {fault}" for fault in report.faults[:40]]
    if not report.control_lost:
        lines.append("FAULT the control lost nothing: these cuts show nothing")
    return lines


if __name__ == "__main__":
    sys.exit(main())
