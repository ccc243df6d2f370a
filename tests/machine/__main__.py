"""``python -m tests.machine powercut|share``: see CONTRIBUTING.md, "Tests"."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.machine import image, mounted
from tests.machine.powercut import PowerCuts, Report
from tests.machine.share import Outcome, ShareTest

SKIPPED = 77


def main() -> int:
    """Run one of the tests and print its table; 77 if this computer cannot."""
    parser = argparse.ArgumentParser(prog="python -m tests.machine")
    parser.add_argument("test", choices=["powercut", "share"])
    parser.add_argument("--rounds", type=int, default=10, help="power cuts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--on",
        choices=["auto", "machine", "mount"],
        default="auto",
        help="powercut: a machine (emulated, some minutes a round, where there is no KVM), or a"
        " disk mounted here; auto: a machine if it runs at full speed",
    )
    parser.add_argument("--keep", type=Path, help="folder for disks and logs, kept")
    parser.add_argument("--eager", action="store_true", help="a daemon that forces nothing to disk")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # Machines are switched off and disks unmounted on the way out, whoever asks for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    where = _where(options.on if options.test == "powercut" else "machine")
    if where is None:
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="asi-watch-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        system = image.system() if where == "machine" else None
        if options.test == "share" and system is not None:
            outcomes = ShareTest(system, folder).run()
            print("\n".join(share_table(outcomes)))
            return int(any(outcome.faults for outcome in outcomes))
        cuts = PowerCuts(
            system, folder, rounds=options.rounds, seed=options.seed, eager=options.eager
        )
        report = cuts.run()
    print("\n".join(cut_table(report, where)))
    return 0 if report.sound else 1


def _where(wanted: str) -> str | None:
    """Choose a machine or a mounted disk; None if neither is possible, with the reasons."""
    slow = image.no_kvm() if wanted == "auto" else None
    lacking = {"machine": [*image.missing(), *([slow] if slow else [])], "mount": mounted.missing()}
    for where, lacks in lacking.items():
        if wanted not in {"auto", where}:
            continue
        if not lacks:
            return where
        print(f"not on a {where}: {'; '.join(lacks)}", file=sys.stderr)
    return None


def cut_table(report: Report, where: str) -> list[str]:
    """Lines of the table of what the power cuts did."""
    counts = report.counts
    naive, durable = report.states["naive"], report.states["durable"]
    spoilt = ", ".join(f"{n} {s}" for s, n in sorted(naive.items()) if s != "whole")
    rows: list[tuple[str, object]] = [
        ("power cuts", f"{report.cuts} (on a {where})"),
        ("4 KB blocks written but not flushed", f"{report.unflushed}, {report.lost_blocks} lost"),
        ("brackets", f"{counts['published']} published, {counts['skipped']} skipped"),
        ("exposures on the disk", f"{counts['exposures']}, {counts['whole']} whole"),
        ("inputs lost after their bracket was published", counts["inputs_lost_after_publishing"]),
        ("revisions", counts["revisions"]),
        ("torn or empty products, after any cut", len(report.torn)),
        ("announced rows missing after a cut", report.rows_lost),
        ("merged twice", counts["merged_twice"]),
        ("control: renamed without fsync", f"{naive.total()} files, {spoilt or 'none lost'}"),
        ("control: cuts that cost some of these", len(report.rounds_seen["naive"])),
        ("control: asi-watch's publish", f"{durable.total()} files, {durable['whole']} whole"),
        ("faults", len(report.faults)),
    ]
    lines = _aligned(rows)
    lines += [f"FAULT {fault}" for fault in report.faults[:40]]
    if not report.control_lost:
        lines.append("FAULT the control lost nothing: these cuts show nothing")
    return lines


def share_table(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines of the table of what came of the shares."""
    lines = []
    for outcome in outcomes:
        counts = outcome.counts
        text = (
            f"{counts['published']} published, {counts['revisions']} revisions,"
            f" {counts['exposures']} exposures, {len(outcome.faults)} faults"
        )
        lines += _aligned([(outcome.name, "; ".join([text, *outcome.facts]))], 28)
        lines += [f"FAULT {fault}" for fault in outcome.faults]
    return lines


def _aligned(rows: Sequence[tuple[str, object]], width: int = 0) -> list[str]:
    width = max(width, *(len(name) for name, _ in rows))
    return [f"{name.ljust(width)} | {value}" for name, value in rows]


if __name__ == "__main__":
    sys.exit(main())
