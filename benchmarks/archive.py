"""Throughput over an archive: brackets per second, and CPU against what decoding alone costs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import simplejpeg

from asi_watch.response_files import response_bytes
from benchmarks.daemon import file_name
from benchmarks.frames import EXPOSURES_US, decoded, jpeg_frames, log_response
from benchmarks.reporting import median, save, show
from benchmarks.settings import MERGE, merge_frames

SIZE = 2048
BRACKETS = 24
ROUNDS = 5
_CALL = (
    "import sys; from asi_watch.pipeline import process_directory as p;"
    "p(sys.argv[1], sys.argv[2], response_file=sys.argv[3], n_workers=int(sys.argv[4]),"
    " algorithm='debevec_custom')"
)


def fill(folder: Path, brackets: int) -> None:
    """Write an archive of brackets."""
    frames = jpeg_frames(SIZE)
    for number in range(brackets):
        for position, frame in enumerate(frames):
            (folder / file_name(number, position)).write_bytes(frame)


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


class Bound:
    """CPU of what cannot be avoided: every exposure decoded once, one picture encoded, on one core.

    In memory that is used again, as the merge of an archive does.
    """

    def __init__(self) -> None:
        self._frames = jpeg_frames(SIZE)
        pixels = decoded(tuple(self._frames))
        self._picture = merge_frames(pixels, EXPOSURES_US, MERGE, log_response())
        self._buffer = bytearray(self._picture.nbytes)

    def seconds(self) -> float:
        """Median of a few rounds, now."""
        return median([self._round() for _ in range(5)])

    def _round(self) -> float:
        started = time.process_time()
        for frame in self._frames:
            simplejpeg.decode_jpeg(frame, colorspace="BGR", strict=True, buffer=self._buffer)
        simplejpeg.encode_jpeg(self._picture, quality=95, colorspace="BGR")
        return time.process_time() - started


@dataclass(frozen=True)
class Round:
    """One bracket of an archive, and the bound before and after it was measured; seconds."""

    wall: float
    cpu: float
    bound: float


def measure(small: Path, large: Path, workers: int, bound: Bound) -> Round:
    """Measure a bracket: the difference of two runs leaves imports and start-up out."""
    before = bound.seconds()
    few, many = run(small, workers), run(large, workers)
    nearby = (before + bound.seconds()) / 2
    return Round((many[0] - few[0]) / BRACKETS, (many[1] - few[1]) / BRACKETS, nearby)


def main() -> None:
    """Run the benchmark."""
    rounds: dict[int, list[Round]] = {workers: [] for workers in (0, 1, 2)}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "response.npz").write_bytes(response_bytes(log_response()))
        small, large = root / "few", root / "many"
        for folder, brackets in ((small, 2), (large, BRACKETS + 2)):
            folder.mkdir()
            fill(folder, brackets)
        bound = Bound()
        for _ in range(ROUNDS):
            for workers, done in rounds.items():
                done.append(measure(small, large, workers, bound))
    rows, result = [], {}
    for workers, done in rounds.items():
        wall, cpu = median([r.wall for r in done]), median([r.cpu for r in done])
        least, ratio = median([r.bound for r in done]), median([r.cpu / r.bound for r in done])
        times = (f"{1 / wall:.1f}", f"{1000 * cpu:.0f}", f"{1000 * least:.0f}", f"{ratio:.2f}")
        rows.append((workers, *times))
        result[f"{workers} workers"] = {
            "wall": wall,
            "cpu": cpu,
            "bound": least,
            "ratio": ratio,
            "rounds": [asdict(r) for r in done],
        }
    show(
        f"archive: 5 × {SIZE}² JPEG → JPEG",
        ("workers", "brackets/s", "CPU ms/bracket", "5 decodes + 1 encode, CPU ms", "ratio"),
        rows,
    )
    print("written:", save("archive", result))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
