"""Latency of the real daemon: last exposure closed → HDR image durably in its place.

A writer puts brackets into the folders of N cameras, evenly spread over the interval, as one
camera each would; the daemon runs as its own process. The end of a bracket is the moment its
product got its name (its change time), so the daemon's own word is not needed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import simplejpeg
import yaml

from asi_watch.live.ledger import Ledger
from asi_watch.responses import response_bytes
from benchmarks.frames import EXPOSURES_US, decoded, jpeg_frames, log_response
from benchmarks.reporting import RESULTS, interleaved, median, percentile, save, show

START = datetime(2026, 6, 21, 9)
BETWEEN_FRAMES = 0.1


@dataclass
class Load:
    """How hard the daemon is driven."""

    cameras: int
    size: int
    interval: float
    brackets: int


def floor(frames: tuple[bytes, ...], rounds: int = 15) -> dict[str, float]:
    """One decode and one encode, on one core, in seconds: what cannot be avoided."""
    picture = decoded(frames[:1])[0]
    times = interleaved(
        {
            "decode": lambda: simplejpeg.decode_jpeg(frames[-1], colorspace="BGR", strict=True),
            "encode": lambda: simplejpeg.encode_jpeg(picture, quality=95, colorspace="BGR"),
        },
        rounds,
    )
    return {name: median(values) for name, values in times.items()}


def configure(folder: Path, load: Load) -> Path:
    """Write a configuration for N cameras with a preloaded curve."""
    response = folder / "response.npz"
    response.write_bytes(response_bytes(log_response()))
    cameras: dict[str, Any] = {}
    for number in range(load.cameras):
        watch = folder / f"in{number}"
        watch.mkdir()
        cameras[f"camera{number}"] = {
            "watch": str(watch),
            "output": str(folder / f"out{number}"),
            "response": str(response),
            "bracket": {"exposures": [int(t) for t in EXPOSURES_US]},
            "recalibrate": {"every": "never"},
        }
    config = folder / "bench.yaml"
    config.write_text(yaml.safe_dump({"state_dir": str(folder / "state"), "cameras": cameras}))
    return config


def start_daemon(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the daemon and wait until it is ready."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "asi_watch", "run", "-c", str(config)], stderr=stream
        )
    while b"msg=ready" not in log.read_bytes():
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    return process


def drive(folder: Path, load: Load, frames: tuple[bytes, ...]) -> dict[tuple[int, int], float]:
    """Write every bracket; return the wall time at which its last exposure was closed."""
    closed = {}
    began = time.monotonic()
    step = load.interval / load.cameras
    for bracket in range(load.brackets):
        for camera in range(load.cameras):
            due = began + bracket * load.interval + camera * step
            time.sleep(max(0.0, due - time.monotonic()))
            closed[camera, bracket] = _write(folder / f"in{camera}", bracket, frames, step)
    return closed


def _write(folder: Path, bracket: int, frames: tuple[bytes, ...], step: float) -> float:
    slot = START + timedelta(seconds=30 * bracket)
    hour = folder / f"{slot:%Y/%m/%d/%H}"
    hour.mkdir(parents=True, exist_ok=True)
    pause = min(BETWEEN_FRAMES, step / (2 * len(frames)))
    for index, (frame, exposure) in enumerate(zip(frames, EXPOSURES_US, strict=True)):
        if index:
            time.sleep(pause)
        stamp = slot + timedelta(seconds=index)
        path = hour / f"{stamp:%Y%m%d%H%M%S}_{exposure:.0f}.jpg"
        path.write_bytes(frame)
    return time.time()


def latencies(folder: Path, closed: dict[tuple[int, int], float], patience: float) -> list[float]:
    """Seconds from the last close to the product's name, for every bracket."""
    deadline = time.monotonic() + patience
    found: dict[tuple[int, int], float] = {}
    while len(found) < len(closed) and time.monotonic() < deadline:
        for (camera, bracket), when in closed.items():
            slot = START + timedelta(seconds=30 * bracket)
            product = folder / f"out{camera}" / f"{slot:%Y/%m/%d/%H}/{slot:%Y%m%d%H%M%S}_hdr.jpg"
            if (camera, bracket) not in found and product.exists():
                found[camera, bracket] = product.stat().st_ctime - when
        time.sleep(0.2)
    missing = len(closed) - len(found)
    if missing:
        raise SystemExit(f"{missing} brackets were not published in {patience:.0f} s")
    # The first bracket opens new folders and warms everything up.
    return [value for (_, bracket), value in sorted(found.items()) if bracket > 0]


def measure(load: Load) -> dict[str, Any]:
    """Run one load and report it."""
    frames = jpeg_frames(load.size)
    before = floor(frames)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        daemon = start_daemon(configure(folder, load), folder / "log")
        try:
            process = psutil.Process(daemon.pid)
            used_before = sum(process.cpu_times()[:2])
            closed = drive(folder, load, frames)
            values = latencies(folder, closed, 120)
            steps = _steps(folder / "state")
            used = sum(process.cpu_times()[:2]) - used_before
            peak = _peak_memory(daemon.pid)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
    after = floor(frames)
    unavoidable = sum(min(before[k], after[k]) for k in before)
    cpu = used / len(closed)
    return {
        "cameras": load.cameras,
        "size": load.size,
        "interval": load.interval,
        "brackets": len(closed),
        "floor": unavoidable,
        "p50": median(values),
        "p95": percentile(values, 0.95),
        "p99": percentile(values, 0.99),
        "p50_ratio": median(values) / unavoidable,
        "p99_ratio": percentile(values, 0.99) / unavoidable,
        "cpu_per_bracket": cpu,
        "cameras_per_core": 0.7 * 30 / cpu,
        "peak_rss": peak,
        "steps": {"decode": before["decode"], **steps},
        "latencies": values,
    }


def _steps(state_dir: Path) -> dict[str, float]:
    """Median seconds per step, as the ledger has them."""
    with Ledger(state_dir, read_only=True) as ledger:
        rows = [r for r in ledger.history() if r.slot > START]
    return {
        name: median([r.timings[name] for r in rows]) for name in ("waited", "encode", "publish")
    }


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
        labels.append(f"{result['cameras']} camera{'s' if result['cameras'] > 1 else ''}")
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


def _peak_memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


LOADS = (
    Load(cameras=1, size=2048, interval=2.0, brackets=30),
    Load(cameras=4, size=2048, interval=4.0, brackets=12),
    Load(cameras=16, size=2048, interval=8.0, brackets=5),
)
LONG_LOADS = (
    Load(cameras=1, size=2048, interval=30.0, brackets=20),
    Load(cameras=4, size=2048, interval=30.0, brackets=20),
    Load(cameras=16, size=2048, interval=30.0, brackets=20),
)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="true intervals of 30 s: half an hour")
    options = parser.parse_args(arguments)
    results = []
    for load in LONG_LOADS if options.full else LOADS:
        print(f"{load.cameras} cameras, a bracket every {load.interval:g} s each …", flush=True)
        results.append(measure(load))
    show(
        "latency: last exposure closed → JPEG durable (5 × 2048² per bracket)",
        (
            "cameras",
            "every",
            "floor ms",
            "p50 ms",
            "p95",
            "p99",
            "p50/floor",
            "p99/floor",
            "CPU ms",
        ),
        [
            (
                r["cameras"],
                f"{r['interval']:g} s",
                *(f"{1000 * r[key]:.0f}" for key in ("floor", "p50", "p95", "p99")),
                f"{r['p50_ratio']:.2f}",
                f"{r['p99_ratio']:.2f}",
                f"{1000 * r['cpu_per_bracket']:.0f}",
            )
            for r in results
        ],
    )
    last = results[-1]
    print(
        f"one core at 70 % carries {last['cameras_per_core']:.0f} such cameras at 30 s;"
        f" peak memory {last['peak_rss'] / 2**20:.0f} MiB with {last['cameras']} cameras"
    )
    print("written:", save("latency", {"runs": results}), plot(results, RESULTS / "latency.png"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
