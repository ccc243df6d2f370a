"""Throughput over an archive: brackets per second, and CPU against what decoding alone costs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from asi_watch.responses import response_bytes
from benchmarks.daemon import Floor
from benchmarks.frames import EXPOSURES_US, jpeg_frames, log_response
from benchmarks.reporting import median, save, show

SIZE = 2048
BRACKETS = 24
ROUNDS = 3
START = datetime(2026, 6, 21, 9)
_CALL = (
    "import sys; from asi_watch.pipeline import process_directory as p;"
    "p(sys.argv[1], sys.argv[2], response_file=sys.argv[3], n_workers=int(sys.argv[4]),"
    " algorithm='debevec_custom')"
)


def fill(folder: Path, brackets: int) -> None:
    """Write an archive of brackets."""
    frames = jpeg_frames(SIZE)
    for number in range(brackets):
        slot = START + timedelta(seconds=30 * number)
        for index, (frame, exposure) in enumerate(zip(frames, EXPOSURES_US, strict=True)):
            stamp = slot + timedelta(seconds=index)
            (folder / f"{stamp:%Y%m%d%H%M%S}_{exposure:.0f}.jpg").write_bytes(frame)


def run(folder: Path, workers: int) -> tuple[float, float]:
    """Process the archive once in a process of its own; wall and CPU seconds."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        response = str(folder.parent / "response.npz")
        command = [sys.executable, "-c", _CALL, str(folder), out, response, str(workers)]
        subprocess.run(command, check=True, capture_output=True)
        wall = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        made = sum(1 for _ in Path(out).rglob("*_hdr.jpg"))
        expected = sum(1 for _ in folder.iterdir()) // len(EXPOSURES_US)
        if made != expected:
            raise SystemExit(f"{made} of {expected} brackets were made")
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, cpu


def main() -> None:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "response.npz").write_bytes(response_bytes(log_response()))
        small, large = root / "few", root / "many"
        for folder, brackets in ((small, 2), (large, BRACKETS + 2)):
            folder.mkdir()
            fill(folder, brackets)
        rows, result = [], {}
        measured = {w: [(run(small, w), run(large, w)) for _ in range(ROUNDS)] for w in (0, 1, 2)}
        floor = Floor(jpeg_frames(SIZE))
        floor.sample(15)
        bound = len(EXPOSURES_US) * floor.median("decode") + floor.median("encode")
        for workers, pairs in measured.items():
            # The difference of two runs leaves imports and start-up out.
            wall = median([(large_[0] - small_[0]) / BRACKETS for small_, large_ in pairs])
            cpu = median([(large_[1] - small_[1]) / BRACKETS for small_, large_ in pairs])
            rows.append(
                (
                    workers,
                    f"{1 / wall:.1f}",
                    f"{1000 * cpu:.0f}",
                    f"{1000 * bound:.0f}",
                    f"{cpu / bound:.2f}",
                )
            )
            result[f"{workers} workers"] = {"wall": wall, "cpu": cpu, "bound": bound}
    show(
        f"archive: 5 × {SIZE}² JPEG → JPEG",
        ("workers", "brackets/s", "CPU ms/bracket", "5 decodes + 1 encode ms", "ratio"),
        rows,
    )
    print("written:", save("archive", result))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
