"""What the host of a virtual machine takes away while something is measured.

One child process per core sleeps a few milliseconds at a time, at real-time priority where that is
allowed: when it oversleeps, nobody inside the machine was in its way, the core itself was gone.
Besides that, the kernel counts stolen time, in steps of 10 ms. Both are recorded with their times,
so that a measurement can be told apart from what the host did to it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

_NAP = 0.004
_STALL = 0.020
_NAPS_PER_STEAL = 5
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")

Interval = tuple[float, float]


@dataclass
class HostReport:
    """What the host did between two moments; times are those of `time.time()`.

    Parameters
    ----------
    began, ended : float
        The time watched.
    real_time : bool
        Whether the watchers had real-time priority: without it a busy machine, too, delays them.
    stalls : list of (float, float)
        Naps that took 20 ms too long, on any core.
    steals : list of (float, float, float)
        From, to, and the CPU seconds stolen in between, per core.
    busy : float
        CPU seconds that processes of this machine used, all together.
    """

    began: float
    ended: float = 0.0
    real_time: bool = True
    stalls: list[Interval] = field(default_factory=list)
    steals: list[tuple[float, float, float]] = field(default_factory=list)
    busy: float = 0.0

    @property
    def stolen_share(self) -> float:
        """Share of all cores' time that the kernel counts as stolen."""
        return sum(s for _, _, s in self.steals) / self._core_seconds

    @property
    def busy_share(self) -> float:
        """Share of all cores' time in use by processes of this machine."""
        return self.busy / self._core_seconds

    @property
    def _core_seconds(self) -> float:
        return max(1e-9, (self.ended - self.began) * len(os.sched_getaffinity(0)))

    @property
    def longest(self) -> float:
        """Longest stall in seconds."""
        return max((b - a for a, b in self.stalls), default=0.0)

    def quiet(self, began: float, ended: float) -> bool:
        """Whether no stall and no more than one tick of stolen time touch an interval."""
        if any(a < ended and b > began for a, b in self.stalls):
            return False
        stolen = 0.0
        for a, b, seconds in self.steals:
            shared = min(b, ended) - max(a, began)
            if shared > 0:
                stolen += seconds * shared / (b - a)
        return stolen <= _TICK


class HostWatch:
    """Watches the host while a block runs; `report` is complete after it."""

    def __init__(self) -> None:
        self.report = HostReport(time.time())
        self._children: list[subprocess.Popen[str]] = []
        self._busy = 0.0

    def __enter__(self) -> Self:
        for core in sorted(os.sched_getaffinity(0)):
            command = [sys.executable, "-m", "benchmarks.host", str(core)]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            child.stdout.readline()  # it watches now
            self._children.append(child)
        self._busy = _busy_seconds()
        self.report = HostReport(time.time())
        return self

    def __exit__(self, *_exception: object) -> None:
        self.report.ended = time.time()
        self.report.busy = _busy_seconds() - self._busy
        for child in self._children:
            child.send_signal(signal.SIGTERM)
            output, _ = child.communicate()
            found = json.loads(output)
            self.report.real_time &= found["real_time"]
            self.report.stalls += [(a, b) for a, b in found["stalls"]]
            self.report.steals += [(a, b, s) for a, b, s in found["steals"]]


def _busy_seconds() -> float:
    """User, nice, system and interrupt time of all cores."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(words[i]) for i in (0, 1, 2, 5, 6)) * _TICK


def _steal_reader(core: int) -> Callable[[], float]:
    def read() -> float:
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith(f"cpu{core} "):
                return int(line.split()[8]) * _TICK
        return 0.0

    return read


def _watch(core: int) -> None:
    """Watch one core until SIGTERM, then print what was seen."""
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.sched_setaffinity(0, {core})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        real_time = True
    except PermissionError:
        real_time = False
    print("watching", flush=True)
    stalls, steals, naps = [], [], 0
    steal = _steal_reader(core)
    counted, since = steal(), time.time()
    last = time.time()
    while not stopped:
        time.sleep(_NAP)
        now = time.time()
        if now - last >= _STALL + _NAP:
            stalls.append((last, now))
        last = now
        naps += 1
        if naps % _NAPS_PER_STEAL == 0:
            total = steal()
            if total > counted:
                steals.append((since, now, total - counted))
            counted, since = total, now
    print(json.dumps({"real_time": real_time, "stalls": stalls, "steals": steals}))


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
