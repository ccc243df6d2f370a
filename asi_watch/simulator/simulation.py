"""One simulation from start to end: frames, faults, and files written in time."""

from __future__ import annotations

import datetime as dt
import heapq
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from asi_watch.naming import NamePattern
from asi_watch.simulator.faults import Arrival, apply_faults
from asi_watch.simulator.settings import SimulatorSettings
from asi_watch.simulator.sources import RenderedSource, ReplaySource, Source

log = logging.getLogger(__name__)

MIXED = ("plain", "chunked", "rename")
# Of the time between two exposures, the share that a slow upload takes.
UPLOAD_SHARE = 0.4
LONGEST_PAUSE_S = 0.2
PIECES = 6


class Clock:
    """Real time, until `stop` is set; tests hand in one that does not wait."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait; returns early when the simulation is stopped."""
        if seconds > 0:
            self._stop.wait(seconds)


def write_file(path: Path, data: bytes, kind: str, clock: Clock, pause_s: float) -> None:
    """Write one file as cameras and their upload programs do; its folder is made if needed.

    Parameters
    ----------
    path : Path
    data : bytes
    kind : {"plain", "chunked", "rename", "fifo"}
        In one go; slowly in place, as over a thin line; under another name first; or not a file
        but a named pipe, which blocks whoever opens it.
    clock : Clock
    pause_s : float
        For chunked: real seconds between two pieces.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return
    target = path.with_name(path.name + ".part") if kind == "rename" else path
    step = max(1, -(-len(data) // PIECES)) if kind == "chunked" else max(1, len(data))
    with target.open("wb", buffering=0) as file:
        for start in range(0, len(data), step):
            if start:
                clock.sleep(pause_s)
            file.write(data[start : start + step])
    if kind == "rename":
        target.replace(path)


@dataclass(frozen=True)
class Written:
    """One line of the manifest; `path` is relative to the watched folder, `size` in bytes.

    `writer` is "plain", "chunked", "rename", "fifo", or "nothing" for a frame that is missing.
    """

    bracket: int
    slot: dt.datetime
    timestamp: dt.datetime
    exposure_us: float
    path: str
    fault: str | None
    writer: str
    size: int

    def as_json(self) -> str:
        """Give the line as JSON."""
        row = {**vars(self), "slot": self.slot.isoformat(), "timestamp": self.timestamp.isoformat()}
        return json.dumps(row)


@dataclass
class Summary:
    """What a simulation did: brackets begun, files written, how often each fault happened."""

    brackets: int = 0
    files: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    stopped: bool = False
    """True when it was stopped before its end."""
    behind_s: float = 0.0
    """The most that writing fell behind its own time, in real seconds."""


def simulate(
    settings: SimulatorSettings,
    *,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    on_written: Callable[[Written, Summary], None] | None = None,
) -> Summary:
    """Write what a camera would write.

    The names' timestamps follow the camera's clock, which begins at `settings.start`; real time
    only paces the writing.

    Parameters
    ----------
    settings : SimulatorSettings
    clock : Clock, optional
        Real time.
    stop : threading.Event, optional
        When set, the file in work is finished and nothing more is written.
    on_written : callable, optional
        Called after each file.

    Raises
    ------
    ValueError
        If there is nothing to replay.
    OSError
        If a file cannot be written.
    """
    stop = stop or threading.Event()
    clock = clock or Clock(stop)
    source: Source = ReplaySource(settings) if settings.replay else RenderedSource(settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    summary = Summary()
    with settings.manifest.open("w", encoding="utf-8") as manifest:
        run = _Run(settings, clock, manifest)
        for arrival in _arrivals(settings, source, stop, summary):
            run.wait_for(arrival, summary)
            if stop.is_set():
                break
            written = run.write(arrival)
            summary.files += arrival.node != "nothing"
            summary.faults.update([arrival.fault] if arrival.fault else [])
            if on_written:
                on_written(written, summary)
    summary.stopped = stop.is_set()
    return summary


def _arrivals(
    settings: SimulatorSettings, source: Source, stop: threading.Event, summary: Summary
) -> Iterator[Arrival]:
    """All arrivals in order of time; never more than a few brackets are held in memory."""
    pending: list[tuple[dt.datetime, int, Arrival]] = []
    interval = dt.timedelta(seconds=settings.interval_s)
    settle = dt.timedelta(seconds=settings.settle_s)
    order = number = 0
    while (source.count is None or number < source.count) and not stop.is_set():
        frames = source.bracket(number)
        summary.brackets += 1
        for arrival in apply_faults(
            frames, settings.faults, settings.seed, interval=interval, settle=settle
        ):
            order += 1
            heapq.heappush(pending, (arrival.at, order, arrival))
        number += 1
        while pending and pending[0][0] < settings.slot(number):
            yield heapq.heappop(pending)[2]
    while pending:
        yield heapq.heappop(pending)[2]


class _Run:
    """The pace and the ways of writing of one simulation."""

    def __init__(self, settings: SimulatorSettings, clock: Clock, manifest: TextIO) -> None:
        self._settings = settings
        self._clock = clock
        self._manifest = manifest
        self._pattern = NamePattern(settings.pattern)
        self._began: float | None = None
        self._turn = 0
        upload = UPLOAD_SHARE * settings.settle_s / settings.speed
        self._pause_s = min(LONGEST_PAUSE_S, upload / PIECES)

    def wait_for(self, arrival: Arrival, summary: Summary) -> None:
        """Sleep until the arrival's time has come on the sped-up clock."""
        since_start = (arrival.at - self._settings.start).total_seconds()
        due = since_start / self._settings.speed
        now = self._clock.now()
        if self._began is None:
            # Time begins with the first file, not with the preparations.
            self._began = now - due
        ahead = self._began + due - now
        summary.behind_s = max(summary.behind_s, -ahead)
        if ahead > 0:
            self._clock.sleep(ahead)

    def write(self, arrival: Arrival) -> Written:
        """Put one arrival into the folder and into the manifest."""
        frame = arrival.frame
        folder = Path(frame.timestamp.strftime(self._settings.folders))
        name = self._pattern.format(frame.timestamp, frame.exposure_us) + frame.suffix
        path = self._settings.out / folder / name
        kind = self._writer() if arrival.node == "file" else arrival.node
        if arrival.node != "nothing":
            write_file(path, frame.data, kind, self._clock, self._pause_s)
        head = (frame.bracket, frame.slot, frame.timestamp, frame.exposure_us)
        relative, size = (folder / name).as_posix(), len(frame.data)
        written = Written(*head, relative, arrival.fault, kind, size)
        self._manifest.write(written.as_json() + "\n")
        self._manifest.flush()
        log.debug("simulator wrote %s", written.path)
        return written

    def _writer(self) -> str:
        kind: str = self._settings.writer
        if kind == "mixed":
            kind = MIXED[self._turn % len(MIXED)]
            self._turn += 1
        return kind
