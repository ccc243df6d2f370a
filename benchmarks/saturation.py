"""How much one core carries: the daemon driven harder and harder until it falls behind.

A flood of brackets first tells the capacity, brackets per second; then the daemon is offered
shares of it, step by step. Of each step: how long brackets took, CPU, peak memory, and whether the
queue grew. The daemon is pinned to one core with one worker, then given two of both; the writer is
this process.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.daemon import Load, RunningDaemon, Step, running, schedule
from benchmarks.frames import EXPOSURES_US, jpeg_frames
from benchmarks.host import HostWatch
from benchmarks.reporting import median, percentile, result_path, save, show

SHARES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5)
CAMERAS = 16
_CAMERA_INTERVAL = 30.0
# Brackets not yet published when the last was written, in seconds' worth of arrivals.
_BEHIND = 1.5
_PATIENCE = 900.0


def offered(rate: float, seconds: float, first: int) -> list[Step]:
    """Files of all cameras at `rate` brackets per second together, numbered from `first` on."""
    interval = CAMERAS / rate
    rounds = max(1, round(seconds / interval))
    load = Load(CAMERAS, 0, interval, rounds)
    return [step._replace(bracket=step.bracket + first) for step in schedule(load)]


def flood(daemon: RunningDaemon, rounds: int, first: int) -> float:
    """Write a backlog at once; brackets per second in which it was worked off."""
    load = Load(CAMERAS, 0, 0.0, rounds)
    steps = [step._replace(bracket=step.bracket + first) for step in schedule(load)]
    # All brackets whole, one after the other.
    steps.sort(key=lambda step: (step.bracket, step.camera, step.position))
    done = sorted(daemon.wait(list(daemon.drive(steps)), _PATIENCE).values())
    # The first ones pay for the warm-up of their folders.
    begin = len(done) // 4
    return (len(done) - 1 - begin) / (done[-1] - done[begin])


def step(daemon: RunningDaemon, rate: float, seconds: float, first: int) -> dict[str, Any]:
    """Offer one load for some seconds and report what it did."""
    daemon.peak_rss()
    steps = offered(rate, seconds, first)
    with HostWatch() as host:
        used, began = daemon.cpu(), time.monotonic()
        closed = daemon.drive(steps)
        wall = time.monotonic() - began
        spent = daemon.cpu() - used
        in_time = daemon.published(list(closed))
        done = daemon.wait(list(closed), _PATIENCE)
        spent_in_all = daemon.cpu() - used
    values = [done[key] - closed[key] for key in closed]
    return {
        "offered": rate,
        "brackets": len(closed),
        "first": first,
        "p50": median(values),
        "p95": percentile(values, 0.95),
        "p99": percentile(values, 0.99),
        "waiting_at_end": len(closed) - len(in_time),
        "fell_behind": len(closed) - len(in_time) > max(2.0, _BEHIND * rate),
        "cpu_share": spent / wall,
        "cpu_per_bracket": spent_in_all / len(closed),
        "peak_rss": daemon.peak_rss(),
        "stolen_share": host.report.stolen_share,
        "stalls": len(host.report.stalls),
    }


def sweep(workers: int, size: int, seconds: float) -> dict[str, Any]:
    """Drive a daemon with `workers` workers on as many cores up to and beyond its capacity."""
    cores = sorted(os.sched_getaffinity(0))[:workers]
    results: list[dict[str, Any]] = []
    frames = jpeg_frames(size)
    with running(frames, CAMERAS, cores=cores, workers=workers) as daemon:
        flood(daemon, 1, 0)  # warm
        capacity = flood(daemon, 4, 1)
    # Another daemon, whose memory has not seen the flood.
    with running(frames, CAMERAS, cores=cores, workers=workers) as daemon:
        idle = daemon.peak_rss()
        step(daemon, 0.2 * capacity, 0.0, 0)
        first = 1
        for share in SHARES:
            result = step(daemon, share * capacity, seconds, first) | {"share": share}
            results.append(result)
            first += len({s.bracket for s in offered(share * capacity, seconds, first)})
            print(f"  {_line(result)}", flush=True)
            if result["fell_behind"] and share >= 1:
                break
    sound = [r for r in results if not r["fell_behind"]]
    cpu = median([r["cpu_per_bracket"] for r in results])
    return {
        "workers": workers,
        "cores": len(cores),
        "capacity": capacity,
        "idle_rss": idle,
        "sustained": max((r["offered"] for r in sound), default=0.0),
        "cpu_per_bracket": cpu,
        "cameras_at_70": 0.7 * workers * _CAMERA_INTERVAL / cpu,
        "steps": results,
    }


def _line(r: dict[str, Any]) -> str:
    behind = f", BEHIND by {r['waiting_at_end']}" if r["fell_behind"] else ""
    return (
        f"{r['offered']:.1f} brackets/s ({100 * r['share']:.0f} %): p50 {1000 * r['p50']:.0f},"
        f" p95 {1000 * r['p95']:.0f} ms, CPU {100 * r['cpu_share']:.0f} %,"
        f" {r['peak_rss'] / 2**20:.0f} MiB{behind}"
    )


def report(runs: list[dict[str, Any]], size: int) -> None:
    """Print what was measured."""
    for run in runs:
        cores = f"{run['cores']} core{'s' if run['cores'] > 1 else ''}"
        show(
            f"{CAMERAS} cameras of {len(EXPOSURES_US)} × {size}², {run['workers']} worker(s)"
            f" on {cores}",
            (
                "brackets/s",
                "cameras at 30 s",
                "p50 ms",
                "p95",
                "p99",
                "CPU %",
                "waiting at the end",
                "peak MiB",
                "stolen %",
            ),
            [
                (
                    f"{r['offered']:.1f}",
                    f"{30 * r['offered']:.0f}",
                    *(f"{1000 * r[key]:.0f}" for key in ("p50", "p95", "p99")),
                    f"{100 * r['cpu_share']:.0f}",
                    f"{r['waiting_at_end']}{' (behind)' if r['fell_behind'] else ''}",
                    f"{r['peak_rss'] / 2**20:.0f}",
                    f"{100 * r['stolen_share']:.1f}",
                )
                for r in run["steps"]
            ],
        )
        print(
            f"{cores}: a flood is worked off at {run['capacity']:.1f} brackets/s; in step up to"
            f" {run['sustained']:.1f} offered ({30 * run['sustained']:.0f} cameras at 30 s);"
            f" {1000 * run['cpu_per_bracket']:.0f} ms CPU each, so that 70 % of the CPU carries"
            f" {run['cameras_at_70']:.0f} cameras; {run['idle_rss'] / 2**20:.0f} MiB before the"
            " first bracket\n"
        )


def plot(runs: list[dict[str, Any]], path: Path) -> Path:
    """Draw latency and memory against the load."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run, colour in zip(runs, ("#2b6cb0", "#dd6b20"), strict=False):
        cameras = [_CAMERA_INTERVAL * r["offered"] for r in run["steps"]]
        cores = f"{run['cores']} core{'s' if run['cores'] > 1 else ''}"
        for key, style in (("p50", "o-"), ("p95", "^:")):
            values = [1000 * r[key] for r in run["steps"]]
            left.plot(cameras, values, style, color=colour, ms=4, label=f"{cores}, {key}")
        left.axvline(run["cameras_at_70"], color=colour, lw=0.8, ls="--", alpha=0.6)
        memory = [r["peak_rss"] / 2**20 for r in run["steps"]]
        right.plot(cameras, memory, "o-", color=colour, ms=4, label=cores)
    left.set(ylabel="ms, last close to durable product", yscale="log")
    left.set_title("latency (dashed: 70 % of the CPU)", fontsize=9)
    right.set(ylabel="MiB resident at most", ylim=(0, None))
    right.set_title("memory", fontsize=9)
    for axes in (left, right):
        axes.set(xlabel="as many cameras with a bracket every 30 s", xlim=(0, None))
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return path


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.saturation", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="per step [%(default)s]")
    parser.add_argument("--size", type=int, default=2048, help="pixels along a side [%(default)s]")
    parser.add_argument("--workers", default="1,2", metavar="LIST", help="[%(default)s]")
    parser.add_argument("--name", default="saturation", help="of the result files [%(default)s]")
    options = parser.parse_args(arguments)
    runs = []
    for workers in (int(word) for word in options.workers.split(",")):
        print(f"{workers} worker(s) on {workers} core(s) …", flush=True)
        runs.append(sweep(workers, options.size, options.seconds))
    report(runs, options.size)
    drawn = plot(runs, result_path(f"{options.name}.png"))
    print("written:", save(options.name, {"runs": runs}), drawn)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
