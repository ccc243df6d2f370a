"""Latency of the real daemon: last exposure closed → HDR image durably in its place.

Cameras write brackets at their pace, one after the other or all at once; the daemon runs as its
own process. Beside the figures stands what the host of this machine took away meanwhile: a
percentile of a few hundred brackets tells more of the host than of the daemon where the host
stalls for longer than a bracket takes.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.daemon import Bracket, Floor, Load, Phase, running, schedule
from benchmarks.frames import jpeg_frames
from benchmarks.host import HostReport, HostWatch
from benchmarks.reporting import median, percentile, result_path, save, show

# Floor samples before and after a run, for runs that leave no gaps.
_EDGE_SAMPLES = 5
_BRACKETS_PER_HOUR = 120
# Share of the machine that others may use before the figures mean little.
_DISTURBED = 0.1
_EXPLAINED = """\
Taken away: a core stood still for 20 ms or more, or more than 10 ms of CPU time were stolen, from
the last close to the product. Longer brackets are likelier to meet that, so the second table is
the daemon at its best, and the first is the daemon on this host. others: CPU used by other
processes of this machine, the benchmark's own included; they count in both tables."""

QUICK = (
    Load(cameras=1, size=2048, interval=2.0, brackets=30),
    Load(cameras=4, size=2048, interval=4.0, brackets=12),
    Load(cameras=16, size=2048, interval=16.0, brackets=4),
)


def measure(load: Load) -> dict[str, Any]:
    """Run one load and report it."""
    frames = jpeg_frames(load.size)
    floor = Floor(frames)
    floor.sample(_EDGE_SAMPLES)
    with running(frames, load.cameras) as daemon, HostWatch() as host:
        used = daemon.cpu()
        closed = daemon.drive(schedule(load), floor)
        published = daemon.wait(list(closed), 600)
        used = daemon.cpu() - used
        peak, steps = daemon.peak_rss(), daemon.steps()
    floor.sample(_EDGE_SAMPLES)
    result = asdict(load) | {
        "floor": floor.total,
        "floor_samples": len(floor.times["decode"]),
        "cpu_per_bracket": used / len(closed),
        "cameras_per_core": 0.7 * 30 / (used / len(closed)),
        "peak_rss": peak,
        "steps": {"decode": floor.median("decode"), **steps},
        "others_busy_share": max(0.0, host.report.busy_share - used / _core_seconds(host.report)),
    }
    return result | _distribution(closed, published, floor.total, host.report)


def _core_seconds(report: HostReport) -> float:
    return (report.ended - report.began) * len(os.sched_getaffinity(0))


def _distribution(
    closed: dict[Bracket, float], published: dict[Bracket, float], floor: float, host: HostReport
) -> dict[str, Any]:
    """Percentiles of all brackets, and of those that the host left alone."""
    # The first bracket of each camera opens new folders and warms everything up.
    counted = sorted(key for key in closed if key[1] > 0)
    values = [published[key] - closed[key] for key in counted]
    quiet = [host.quiet(closed[key], published[key]) for key in counted]
    alone = [value for value, still in zip(values, quiet, strict=True) if still]
    fresh = [
        value
        for value, key in zip(values, counted, strict=True)
        if key[1] % _BRACKETS_PER_HOUR == 0
    ]
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        "n": len(values),
        **{name: percentile(values, share) for name, share in shares.items()},
        "p50_ratio": median(values) / floor,
        "p99_ratio": percentile(values, 0.99) / floor,
        "quiet_n": len(alone),
        "quiet": {name: percentile(alone, share) for name, share in shares.items()}
        if alone
        else {},
        "quiet_p99_ratio": percentile(alone, 0.99) / floor if alone else None,
        "new_folder": fresh,
        "host": {
            "stalls": len(host.stalls),
            "longest_stall": host.longest,
            "stolen_share": host.stolen_share,
            "busy_share": host.busy_share,
            "real_time_watchers": host.real_time,
        },
        "latencies": values,
        "left_alone": quiet,
    }


def report(results: list[dict[str, Any]]) -> None:
    """Print what was measured."""
    shares = ("p50", "p95", "p99")
    show(
        "latency: last exposure closed → JPEG durable (5 exposures per bracket)",
        ("cameras", "every", "n", "floor ms", *shares, "p50/floor", "p99/floor", "CPU ms", "MiB"),
        [
            (
                _title(r),
                f"{r['interval']:g} s",
                r["n"],
                *(_ms(r[key]) for key in ("floor", *shares)),
                f"{r['p50_ratio']:.2f}",
                f"{r['p99_ratio']:.2f}",
                _ms(r["cpu_per_bracket"]),
                f"{r['peak_rss'] / 2**20:.0f}",
            )
            for r in results
        ],
    )
    show(
        "the same, brackets during which the host took nothing away",
        ("cameras", "n", *shares, "p99/floor", "stalls", "longest ms", "stolen %", "others %"),
        [
            (
                _title(r),
                r["quiet_n"],
                *(_ms(r["quiet"].get(key)) for key in shares),
                f"{r['quiet_p99_ratio']:.2f}" if r["quiet"] else "–",
                r["host"]["stalls"],
                _ms(r["host"]["longest_stall"]),
                f"{100 * r['host']['stolen_share']:.1f}",
                f"{100 * r['others_busy_share']:.0f}",
            )
            for r in results
        ],
    )
    print(_EXPLAINED)
    for r in results:
        notes = [f"floor sampled {r['floor_samples']} times"]
        notes.append(f"one core at 70 % carries {r['cameras_per_core']:.0f} such cameras at 30 s")
        if not r["host"]["real_time_watchers"]:
            notes.append("stalls were watched without real-time priority: an upper bound")
        if r["new_folder"]:
            notes.append(f"first in a new folder: {', '.join(map(_ms, r['new_folder']))} ms")
        print(f"{_title(r)}: {'; '.join(notes)}")
        if r["others_busy_share"] > _DISTURBED:
            print("  OTHER PROCESSES WERE BUSY: these figures are theirs as much as the daemon's")


def _title(result: dict[str, Any]) -> str:
    several = result["cameras"] > 1
    return f"{result['cameras']}, {result['phase']}" if several else str(result["cameras"])


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:.0f}"


def plot(results: list[dict[str, Any]], path: Path) -> Path:
    """Draw where the time between the last exposure and the product goes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.8 + 0.7 * (len(results) + 1)), layout="constrained")
    axes = figure.add_subplot()
    labels = ["floor: one decode, one encode"]
    unavoidable = results[0]
    parts = [[1000 * unavoidable["steps"]["decode"], 0.0, 0.0, 0.0]]
    parts[0][2] = 1000 * unavoidable["floor"] - parts[0][0]
    for result in results:
        steps = {name: 1000 * seconds for name, seconds in result["steps"].items()}
        hand_over = max(0.0, steps["waited"] - steps["decode"])
        several = result["cameras"] > 1
        together = ", all at once" if several and result["phase"] == "together" else ""
        labels.append(f"{result['cameras']} camera{'s' if several else ''}{together}")
        parts.append([steps["decode"], hand_over, steps["encode"], steps["publish"]])
    names = ("decode the last exposure", "event and hand-over", "merge and encode", "write durably")
    colours = ("#2b6cb0", "#a0aec0", "#dd6b20", "#2f855a")
    left = [0.0] * len(parts)
    for column, (name, colour) in enumerate(zip(names, colours, strict=True)):
        widths = [row[column] for row in parts]
        axes.barh(labels, widths, left=left, color=colour, label=name)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("ms, medians")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", frameon=False, ncols=4, fontsize=8)
    figure.savefig(path, dpi=150)
    return path


def _loads(options: argparse.Namespace) -> list[Load]:
    cameras = [int(word) for word in options.cameras.split(",")] if options.cameras else None
    if options.interval is None and cameras is None and options.brackets is None:
        return list(QUICK)
    phases: tuple[Phase, ...] = (options.phase,)
    if options.phase == "both":
        phases = ("spread", "together")
    return [
        Load(
            count,
            options.size,
            options.interval or 30.0,
            options.brackets or 20,
            phase,
            options.settle,
        )
        for count in cameras or (1, 4, 16)
        for phase in (phases if count > 1 else phases[:1])
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description="Latency of the real daemon. Without options: a quick run, faster than cameras"
        " are. The true pace: --interval 30 (10 minutes for each 20 brackets of a camera count).",
    )
    parser.add_argument("--interval", type=float, metavar="S", help="between brackets [30]")
    parser.add_argument("--brackets", type=int, metavar="N", help="of each camera [20]")
    parser.add_argument("--cameras", metavar="LIST", help="one run for each count [1,4,16]")
    parser.add_argument(
        "--phase",
        choices=("spread", "together", "both"),
        default="spread",
        help="cameras one after the other over the interval, or all at once [%(default)s]",
    )
    parser.add_argument(
        "--settle", type=float, default=0.25, metavar="S", help="between exposures [%(default)s]"
    )
    parser.add_argument("--size", type=int, default=2048, help="pixels along a side [%(default)s]")
    parser.add_argument("--name", default="latency", help="of the result files [%(default)s]")
    results = []
    options = parser.parse_args(arguments)
    for load in _loads(options):
        minutes = load.interval * load.brackets / 60
        print(
            f"{load.cameras} cameras ({load.phase}), {load.brackets} brackets each,"
            f" every {load.interval:g} s: {minutes:.1f} min …",
            flush=True,
        )
        results.append(measure(load))
    report(results)
    drawn = plot(results, result_path(f"{options.name}.png"))
    print("written:", save(options.name, {"runs": results}), drawn)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
