"""The merge of decoded frames: time and memory against the peers."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.hdr import engine
from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.merging import open_merge
from asi_watch.hdr.weighted_merge import Merge
from asi_watch.simulator.sensor import Camera
from asi_watch.simulator.sky import Sky
from benchmarks._peers import PEERS
from benchmarks.reporting import interleaved, median, save, show
from benchmarks.settings import MERGE, merge_frames

WIDTH, HEIGHT = 3072, 2048
TIMES = (80.0, 160.0, 320.0, 640.0)
FRAMES = len(TIMES)
Frames = list[NDArray[np.uint8]]


def bracket() -> tuple[Frames, list[bytes], NDArray[np.float32]]:
    """Four exposures of one rendered sky, cut to 3072 × 2048; as pixels and as JPEG; and g(z)."""
    camera = Camera("film", 1)
    above = (WIDTH - HEIGHT) // 2
    radiance = np.ascontiguousarray(Sky(WIDTH, 1).radiance(0.0)[above : above + HEIGHT])
    files = [camera.encode(camera.expose(radiance, time)) for time in TIMES]
    frames = [simplejpeg.decode_jpeg(f, colorspace="BGR", strict=True) for f in files]
    return frames, files, camera.log_response


def opened(
    frames: Frames, g: NDArray[np.float32], threads: int, disc: SkyDisc | None = None
) -> Merge:
    """Open a merge that holds the frames."""
    merge = open_merge(replace(MERGE, sky_disc=disc), g, frames[0].shape, threads=threads)
    for pixels, time_ in zip(frames, TIMES, strict=False):
        merge.add(pixels, time_)
    return merge


def in_numpy(merge: Merge, out: NDArray[np.uint8]) -> None:
    """Take a picture by the path of a machine without the compiled kernel."""
    kernel, engine._kernel = engine._kernel, None
    try:
        merge.picture(out=out)
    finally:
        engine._kernel = kernel


def peak_mb(job: Callable[[], object]) -> float:
    """Peak resident memory of a call above what was resident before it, in MB (Linux)."""
    job()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    kept = job()
    peak = _resident("VmHWM") - before
    del kept
    return peak


def _resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    return float("nan")


def compare(frames: Frames, files: list[bytes], g: NDArray[np.float32]) -> dict[str, Any]:
    """Time four frames to one 8-bit picture against the peers, in turns."""
    four, times = frames, TIMES
    out, copy = np.empty_like(four[0]), np.empty_like(four[0])
    one, two = opened(four, g, 1), opened(four, g, 2)
    masked = opened(four, g, 2, SkyDisc(WIDTH / 2, HEIGHT / 2, HEIGHT / 2))
    wide = np.empty(out.shape, np.uint16)

    def copies() -> None:
        for frame in four:
            np.copyto(copy, frame)

    ours: dict[str, Callable[[], object]] = {
        "asi-watch, 2 threads": lambda: two.picture(out=out),
        "asi-watch, 1 thread": lambda: one.picture(out=out),
        "asi-watch, sky disc only, 2 threads": lambda: masked.picture(out=out),
        "asi-watch, 16 bit, 2 threads": lambda: two.picture(out=wide),
        "asi-watch, half-float radiance, 2 threads": lambda: two.radiance_half(1000.0),
        "asi-watch, ln E and validity, 2 threads": lambda: two.radiance(),
        "asi-watch without kernel (numpy), 2 threads": lambda: in_numpy(two, out),
    }
    floor: dict[str, Callable[[], object]] = {
        "floor: copy the four frames": copies,
        "floor: decode one JPEG": lambda: simplejpeg.decode_jpeg(
            files[0], colorspace="BGR", strict=True, buffer=out
        ),
    }
    peers = {name: _bound(peer, four, times, g) for name, peer in PEERS.items()}
    quick = interleaved({**floor, **ours}, 9)
    slow = interleaved({"asi-watch, 2 threads": ours["asi-watch, 2 threads"], **peers}, 3)
    medians = {name: median(values) for name, values in (slow | quick).items()}
    # Ratios come from the run in which both took turns.
    ratio = {name: median(slow[name]) / median(slow["asi-watch, 2 threads"]) for name in slow}
    # Work apart from waiting: what other processes take of the cores does not enter.
    cpu = {name: _process_cpu(job, 5) for name, job in ours.items()}
    cpu |= {name: _process_cpu(job, 1) for name, job in peers.items()}
    memory = {name: peak_mb(peer) for name, peer in peers.items()}
    memory["asi-watch, 2 threads"] = peak_mb(lambda: merge_frames(four, times, MERGE, g))
    rows = []
    for name in (*floor, *ours, *peers):
        factor = ratio.get(name, medians[name] / medians["asi-watch, 2 threads"])
        extra = f"{memory[name]:.0f}" if name in memory else ""
        work = f"{1000 * cpu[name]:.0f}" if name in cpu else ""
        rows.append((name, f"{1000 * medians[name]:.1f}", f"{factor:.2f}", work, extra))
    show(
        f"{FRAMES} decoded frames, {WIDTH} x {HEIGHT} x 3 → one picture ({engine.kernel_name()})",
        ("", "ms (median)", "× ours", "CPU ms (least)", "peak extra MB"),
        rows,
    )
    return {"seconds": medians, "ratio_to_ours": ratio, "cpu_seconds": cpu, "peak_extra_mb": memory}


def _process_cpu(job: Callable[[], object], repeats: int) -> float:
    """Least CPU seconds of all threads of this process."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        job()
        best = min(best, time.process_time() - started)
    return best


def _bound(peer: Callable[..., object], *args: Any) -> Callable[[], object]:
    return lambda: peer(*args)


def main() -> None:
    """Run the benchmark."""
    frames, files, g = bracket()
    print("written:", save("kernel", compare(frames, files, g)))


if __name__ == "__main__":
    main()
