"""The real daemon under load: cameras that write into its folders, and when the products came.

The end of a bracket is the moment its product got its name (the file's change time), so the
daemon's own word is not needed.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
import simplejpeg
import yaml

from asi_watch.live.ledger.ledger import Ledger
from asi_watch.response_files import response_bytes
from benchmarks.frames import EXPOSURES_US, decoded, log_response
from benchmarks.reporting import interleaved, median
from benchmarks.settings import MERGE, merge_frames

START = datetime(2026, 6, 21, 9)
SLOT = timedelta(seconds=30)
# A gap between two files must be this long to measure the floor in the middle of it.
_GAP = 0.5

Phase = Literal["spread", "together"]

Bracket = tuple[int, int]
"""Camera and number of the bracket."""


@dataclass(frozen=True)
class Load:
    """How hard the daemon is driven.

    Parameters
    ----------
    cameras, size : int
        Cameras, and pixels along a side of their pictures.
    interval : float
        Seconds from one bracket of a camera to its next.
    brackets : int
        Brackets of each camera.
    phase : str
        "spread" evenly over the interval, or "together" all at once.
    settle : float
        Seconds between two exposures of a bracket; less where the interval leaves no time.
    """

    cameras: int
    size: int
    interval: float
    brackets: int
    phase: Phase = "spread"
    settle: float = 0.1


class Step(NamedTuple):
    """One file that one camera writes."""

    due: float
    camera: int
    bracket: int
    position: int


def schedule(load: Load) -> list[Step]:
    """All files of a run in the order they are due, from time 0."""
    count = len(EXPOSURES_US)
    settle = min(load.settle, load.interval / (2 * count))
    shift = load.interval / load.cameras if load.phase == "spread" else 0.0
    return sorted(
        Step(bracket * load.interval + camera * shift + place * settle, camera, bracket, place)
        for bracket in range(load.brackets)
        for camera in range(load.cameras)
        for place in range(count)
    )


def file_name(bracket: int, position: int) -> str:
    """Name an exposure by its place in its bracket."""
    stamp = START + SLOT * bracket + timedelta(seconds=position)
    return f"{stamp:%Y%m%d%H%M%S}_{EXPOSURES_US[position]:.0f}.jpg"


class Floor:
    """One decode and one encode on one core, what cannot be avoided; sampled again and again.

    The last exposure is decoded and the bracket's own picture encoded, both in memory that is
    used again, as the daemon does.
    """

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._last = frames[-1]
        pixels = decoded(tuple(frames))
        self._picture = merge_frames(pixels, EXPOSURES_US, MERGE, log_response())
        self._buffer = bytearray(self._picture.nbytes)
        self.times: dict[str, list[float]] = {"decode": [], "encode": []}
        interleaved(self._jobs(), 0)  # warm: the first is slowest, and does not count

    def sample(self, rounds: int = 1) -> None:
        """Time both in turns."""
        for name, values in interleaved(self._jobs(), rounds, warm_up=False).items():
            self.times[name] += values

    def _jobs(self) -> dict[str, Callable[[], object]]:
        return {
            "decode": lambda: simplejpeg.decode_jpeg(
                self._last, colorspace="BGR", strict=True, buffer=self._buffer
            ),
            "encode": lambda: simplejpeg.encode_jpeg(self._picture, quality=95, colorspace="BGR"),
        }

    def median(self, name: str) -> float:
        """Median seconds of "decode" or "encode"."""
        return median(self.times[name])

    @property
    def total(self) -> float:
        """Median seconds of one decode and one encode, one after the other."""
        return median([a + b for a, b in zip(*self.times.values(), strict=True)])


def configure(folder: Path, cameras: int, **settings: Any) -> Path:
    """Write a configuration for some cameras with a preloaded curve; `settings` go on top."""
    response = folder / "response.npz"
    response.write_bytes(response_bytes(log_response()))
    sections: dict[str, Any] = {}
    for number in range(cameras):
        watch = folder / f"in{number}"
        watch.mkdir(exist_ok=True)
        sections[f"camera{number}"] = {
            "watch": str(watch),
            "output": str(folder / f"out{number}"),
            "response": str(response),
            "bracket": {"exposures": [int(t) for t in EXPOSURES_US]},
            "recalibrate": {"every": "never"},
        }
    config = folder / "bench.yaml"
    document = {"state_dir": str(folder / "state"), "cameras": sections, **settings}
    config.write_text(yaml.safe_dump(document))
    return config


def start_daemon(
    config: Path, log: Path, cores: Sequence[int] | None = None
) -> subprocess.Popen[bytes]:
    """Start the daemon, on some cores only if they are given, and wait until it is ready."""
    command = [sys.executable, "-m", "asi_watch", "run", "-c", str(config)]
    if cores is not None:
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream)
    while b"msg=ready" not in log.read_bytes():
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    return process


class RunningDaemon:
    """The daemon with its cameras' folders, for one run.

    Parameters
    ----------
    folder : Path
        Its folders are made in it.
    frames : sequence of bytes
        The files of every bracket.
    process : Popen
        The daemon.
    """

    def __init__(
        self, folder: Path, frames: Sequence[bytes], process: subprocess.Popen[bytes]
    ) -> None:
        self.folder = folder
        self.pid = process.pid
        self._frames = frames
        self._process = psutil.Process(process.pid)
        self._peak = 0

    def cpu(self) -> float:
        """CPU seconds used up to now."""
        user, system, *_ = self._process.cpu_times()
        return float(user + system)

    def peak_rss(self) -> int:
        """Peak resident bytes since the last call (or the start), also if pages came and went."""
        peak = 0
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peak = int(line.split()[1]) * 1024
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self._peak = max(self._peak, peak)
        return peak

    def drive(self, steps: Sequence[Step], floor: Floor | None = None) -> dict[Bracket, float]:
        """Write every file when it is due; return when each bracket's last file was closed.

        Parameters
        ----------
        steps : sequence of Step
            In order; due times count from now.
        floor : Floor, optional
            Sampled in the middle of long gaps between two files.
        """
        closed: dict[Bracket, float] = {}
        began = time.monotonic()
        for step in steps:
            due = began + step.due
            gap = due - time.monotonic()
            if floor is not None and gap > _GAP:
                time.sleep(gap / 2)
                floor.sample()
            time.sleep(max(0.0, due - time.monotonic()))
            when = self._write(step)
            if step.position == len(self._frames) - 1:
                closed[step.camera, step.bracket] = when
        return closed

    def _write(self, step: Step) -> float:
        slot = START + SLOT * step.bracket
        hour = self.folder / f"in{step.camera}" / f"{slot:%Y/%m/%d/%H}"
        hour.mkdir(parents=True, exist_ok=True)
        (hour / file_name(step.bracket, step.position)).write_bytes(self._frames[step.position])
        return time.time()

    def published(self, brackets: Sequence[Bracket]) -> dict[Bracket, float]:
        """When the products that are there came into their places."""
        found = {}
        for camera, bracket in brackets:
            slot = START + SLOT * bracket
            name = f"out{camera}/{slot:%Y/%m/%d/%H}/{slot:%Y%m%d%H%M%S}_hdr.jpg"
            try:
                found[camera, bracket] = (self.folder / name).stat().st_ctime
            except FileNotFoundError:
                continue
        return found

    def wait(self, brackets: Sequence[Bracket], patience: float) -> dict[Bracket, float]:
        """Wait until all products are there; SystemExit if that takes longer than `patience`."""
        deadline = time.monotonic() + patience
        while len(found := self.published(brackets)) < len(brackets):
            if time.monotonic() > deadline:
                missing = len(brackets) - len(found)
                raise SystemExit(f"{missing} brackets were not published in {patience:.0f} s")
            time.sleep(0.2)
        return found

    def steps(self, first: int = 1) -> dict[str, float]:
        """Median seconds per step of the brackets from number `first` on, as the ledger has it."""
        with Ledger(self.folder / "state", read_only=True) as ledger:
            rows = [r for r in ledger.history() if r.slot >= START + SLOT * first]
        return {
            name: median([r.timings[name] for r in rows])
            for name in ("waited", "encode", "publish")
        }


@contextmanager
def running(
    frames: Sequence[bytes], cameras: int, *, cores: Sequence[int] | None = None, **settings: Any
) -> Iterator[RunningDaemon]:
    """Run the daemon for some cameras in a temporary folder; its log is shown if it fails."""
    folder = Path(tempfile.mkdtemp(prefix="asi-watch-bench-"))
    try:
        process = start_daemon(configure(folder, cameras, **settings), folder / "log", cores)
        try:
            yield RunningDaemon(folder, frames, process)
        except BaseException:
            sys.stderr.write((folder / "log").read_text()[-4000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
