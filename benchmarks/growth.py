"""Growth of the merge with exposures and with pixels: it must be linear.

Time on a shared machine is noisy; therefore the instructions of the compiled kernel are counted,
too, by valgrind where it is installed: the same number on every run. Valgrind 3.19 knows no
AVX-512, so that what it counts is the way of machines without.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.hdr import engine
from asi_watch.hdr.merging import open_merge
from benchmarks._count import WIDTH
from benchmarks.frames import decoded, jpeg_frames, log_response
from benchmarks.reporting import median, result_path, save, show
from benchmarks.settings import MERGE

EXPOSURES = tuple(range(1, 13))
FRAMES = 4
ROWS = (256, 512, 1024, 2048, 3072, 4096, 6144)  # of 2048 pixels: 0.5 … 12.6 MP
ROWS_COUNTED = 512
SIDE = 2048
_BAND = 64

Point = tuple[int, int]
"""Exposures, and pixels of each."""


def counted(points: Sequence[Point]) -> tuple[dict[Point, int], str] | None:
    """Instructions of the compiled kernel for each merge, and which way of it was counted.

    None where they cannot be counted.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None or engine.kernel_name() == "numpy":
        return None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "count"
        command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}"]
        # One file for each call of the kernel, which holds nothing else.
        command += ["--toggle-collect=merge_codes", "--dump-after=merge_codes"]
        command += [sys.executable, "-m", "benchmarks._count"]
        command += [f"{exposures}x{pixels // WIDTH}" for exposures, pixels in points]
        kernel = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        totals = []
        for number in range(1, len(points) + 1):
            text = Path(f"{out}.{number}").read_text()
            (total,) = re.findall(r"^totals: (\d+)", text, re.MULTILINE)
            totals.append(int(total))
    return dict(zip(points, totals, strict=True)), kernel


def timed(points: Sequence[Point], rounds: int) -> dict[Point, list[NDArray[np.float64]]]:
    """CPU seconds of one thread for each merge, band by band, in turns of changing order."""
    picture = decoded(jpeg_frames(SIDE))[2]
    rows = max(pixels for _, pixels in points) // SIDE
    stack = np.concatenate([picture] * -(-rows // SIDE))
    # Frames of their own memory: they shall come from where frames come from.
    frames = [np.roll(stack, number, axis=1) for number in range(max(n for n, _ in points))]
    out = np.empty_like(stack)
    times: dict[Point, list[NDArray[np.float64]]] = {point: [] for point in points}
    order = list(points)
    shuffle = random.Random(1).shuffle
    for _ in range(rounds):
        shuffle(order)
        for point in order:
            times[point].append(_cpu(frames, point, out))
    return times


def _cpu(
    frames: Sequence[NDArray[np.uint8]], point: Point, out: NDArray[np.uint8]
) -> NDArray[np.float64]:
    exposures, height = point[0], point[1] // SIDE
    merge = open_merge(MERGE, log_response(), (height, SIDE, 3), threads=1)
    for number, frame in enumerate(frames[:exposures]):
        merge.add(frame[:height], 80.0 * 2 ** (number / 2))
    merge.picture_rows(0, 1, out[:1])  # tables
    spent = []
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        started = time.thread_time()
        merge.picture_rows(top, bottom, out[top:bottom])
        spent.append(time.thread_time() - started)
    return np.array(spent)


def undisturbed(runs: Sequence[NDArray[np.float64]]) -> float:
    """Sum over the bands of the least time of each.

    A band takes a millisecond or two: in some run it is left alone, where a whole picture never is.
    """
    return float(np.min(runs, axis=0).sum())


def decode_cpu(rounds: int) -> float:
    """Least CPU seconds of decoding one exposure of SIDE × SIDE into memory used again."""
    data, buffer = jpeg_frames(SIDE)[2], bytearray(SIDE * SIDE * 3)
    best = float("inf")
    for _ in range(rounds):
        started = time.thread_time()
        simplejpeg.decode_jpeg(data, colorspace="BGR", strict=True, buffer=buffer)
        best = min(best, time.thread_time() - started)
    return best


def straight_line(values: Mapping[float, float]) -> dict[str, float]:
    """Least squares line, r², and the largest deviation from it as a share of the value."""
    x, y = np.array(list(values)), np.array(list(values.values()))
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - (slope * x + intercept)
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "r2": float(1 - (rest**2).sum() / ((y - y.mean()) ** 2).sum()),
        "worst": float(np.abs(rest / y).max()),
    }


def measure(rounds: int) -> dict[str, Any]:
    """Measure both ways of growth."""
    by_exposures = [(n, ROWS_COUNTED * WIDTH) for n in EXPOSURES]
    by_pixels = [(FRAMES, rows * WIDTH) for rows in ROWS]
    full = [(n, SIDE * SIDE) for n in EXPOSURES]
    instructions = counted(by_exposures + by_pixels)
    times = timed(full + by_pixels, rounds)
    least = {point: undisturbed(runs) for point, runs in times.items()}
    series: dict[str, dict[float, float]] = {
        "CPU by exposures": {n: least[n, SIDE * SIDE] for n in EXPOSURES},
        "CPU by pixels": {pixels / 1e6: least[FRAMES, pixels] for _, pixels in by_pixels},
    }
    if instructions is not None:
        count = instructions[0]
        samples = 3.0 * ROWS_COUNTED * WIDTH
        series["instructions by exposures"] = {n: count[n, p] / samples for n, p in by_exposures}
        series["instructions by pixels"] = {p / 1e6: count[n, p] / 1e9 for n, p in by_pixels}
    # From the second exposure on: a single one needs no sum.
    lines = {
        name: straight_line({x: y for x, y in values.items() if x >= 2 or "pixels" in name})
        for name, values in series.items()
    }
    return {
        "series": series,
        "lines": lines,
        "decode_cpu": decode_cpu(3 * rounds),
        "spread": median([max(r.sum() for r in runs) / least[p] for p, runs in times.items()]),
        "kernel": engine.kernel_name(),
        "counted_kernel": instructions[1] if instructions else None,
    }


_UNITS = {
    "CPU by exposures": (1000, "ms CPU", "exposure"),
    "CPU by pixels": (1000, "ms CPU", "megapixel"),
    "instructions by exposures": (1, "per sample", "exposure"),
    "instructions by pixels": (1, "10⁹", "megapixel"),
}


def report(result: dict[str, Any]) -> None:
    """Print what was measured."""
    rows = []
    for name, line in result["lines"].items():
        factor, unit, each = _UNITS[name]
        rows.append(
            (
                name,
                f"{factor * line['slope']:.3g} {unit}, {each}",
                f"{factor * line['intercept']:.3g}",
                f"{line['r2']:.4f}",
                f"{100 * line['worst']:.1f} %",
            )
        )
    show(
        f"growth of the merge (CPU: {result['kernel']}, instructions: {result['counted_kernel']};"
        f" by exposures at {SIDE}², from the 2nd on;"
        f" by pixels with {FRAMES})",
        ("", "slope: one more", "at 0", "r²", "furthest from the line"),
        rows,
    )
    one_more = result["lines"]["CPU by exposures"]["slope"]
    print(
        f"one more exposure costs {one_more / result['decode_cpu']:.2f} of decoding it"
        f" ({1000 * one_more:.1f} of {1000 * result['decode_cpu']:.1f} ms CPU); CPU is the sum of"
        f" the least times of bands of {_BAND} rows over {result['rounds']} runs, of which the"
        f" slowest took {result['spread']:.2f} × that"
    )
    if "instructions by pixels" not in result["lines"]:
        print("instructions were not counted: valgrind and the compiled kernel are needed")


def plot(result: dict[str, Any], path: Path) -> Path:
    """Draw each series with its line."""
    from matplotlib.figure import Figure

    ways = [w for w in ("instructions", "CPU") if f"{w} by pixels" in result["series"]]
    figure = Figure(figsize=(8.5, 2.7 * len(ways)), layout="constrained")
    grid = figure.subplots(len(ways), 2, squeeze=False)
    for row, way in zip(grid, ways, strict=True):
        for axes, over in zip(row, ("exposures", "pixels"), strict=True):
            name = f"{way} by {over}"
            factor, unit, _ = _UNITS[name]
            values, line = result["series"][name], result["lines"][name]
            x = np.array(list(values))
            ends = np.array([0, x.max()])
            fitted = factor * (line["slope"] * ends + line["intercept"])
            axes.plot(ends, fitted, color="#a0aec0", lw=1.2)
            axes.plot(x, [factor * y for y in values.values()], "o", color="#2b6cb0", ms=4)
            axes.text(0.04, 0.88, f"r² = {line['r2']:.4f}", transform=axes.transAxes, fontsize=9)
            axes.set(
                ylabel=f"{unit}, {result['kernel']}"
                if way == "CPU"
                else f"instructions, {unit}, {result['counted_kernel']}",
                xlim=(0, None),
                ylim=(0, None),
            )
            axes.set_xlabel("exposures" if over == "exposures" else "megapixels")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return path


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=15, help="of timing [%(default)s]")
    options = parser.parse_args(arguments)
    result = measure(options.rounds) | {"rounds": options.rounds}
    report(result)
    drawn = plot(result, result_path("growth.png"))
    print("written:", save("growth", result), drawn)


if __name__ == "__main__":
    main()
