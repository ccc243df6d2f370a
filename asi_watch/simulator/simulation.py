"""One simulation from start to end: where frames come from, and files written in time."""

import datetime as dt
import itertools
import json
import math
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from asi_watch.brackets import slot_of
from asi_watch.naming import NamePattern
from asi_watch.response_files import response_bytes
from asi_watch.simulator.clouds import Weather
from asi_watch.simulator.faults import Arrival, Faults, Frame, apply_faults
from asi_watch.simulator.lens import Floats
from asi_watch.simulator.sensor import Camera
from asi_watch.simulator.sky import START, Sky

# Threshold of the cumulus field, in standard deviations.
CLOUD_COVER = {"clear": 9.0, "few": 1.1, "scattered": 0.5, "broken": -0.1}
WRITERS = ("plain", "chunked", "rename", "mixed")
_MIXED = ("plain", "chunked", "rename")
# Of the time between two exposures, the share that a slow upload takes.
_UPLOAD_SHARE = 0.4
_LONGEST_PAUSE_S = 0.2
_PIECES = 6


@dataclass(frozen=True)
class SimulatorSettings:
    """Settings of one simulation; times are those of the camera's clock.

    A ValueError names a value that is impossible.
    """

    out: Path
    brackets: int = 10  # 0: until stopped (in a replay: until the archive ends)
    interval_s: float = 30.0
    speed: float = 1.0  # camera seconds per real second; `inf` does not wait at all
    exposures_us: tuple[float, ...] = (80.0, 160.0, 320.0, 640.0, 1280.0)
    settle_s: float = 1.0  # from one exposure of a bracket to the next
    size: int = 2048
    seed: int = 1
    clouds: str = "scattered"
    response: str = "film"
    quality: int = 90
    drift_px: float | None = None  # of the clouds at the zenith from one exposure to the next
    start: dt.datetime = START
    pattern: str = "{timestamp:%Y%m%d%H%M%S}_{exposure}"
    folders: str = "%Y/%m/%d/%H"
    writer: str = "plain"
    faults: Faults = field(default_factory=dict)
    truth: bool = False  # save the true response curve and each bracket's true radiance
    replay: Path | None = None  # archive to write again with new timestamps, no rendered sky

    def __post_init__(self) -> None:
        times, drift = self.exposures_us, self.drift_px
        _require(self.brackets >= 0, f"brackets is 0 (endless) or more, not {self.brackets}")
        _require(self.seed >= 0, f"seed is 0 or more, not {self.seed}")
        _require(self.speed > 0, f"speed is more than 0, not {self.speed:g}")
        for value, what in ((self.interval_s, "interval"), (self.settle_s, "settle")):
            _require(0 < value < math.inf, f"{what} is a positive time, not {value:g} s")
        _require(drift is None or 0 <= drift < math.inf, f"drift is 0 pixels or more, not {drift}")
        _require(self.clouds in CLOUD_COVER, f"clouds is one of {', '.join(CLOUD_COVER)}")
        _require(self.writer in WRITERS, f"writer is one of {', '.join(WRITERS)}")
        _require(bool(times), "exposures: at least one exposure time is needed")
        _require(all(0 < t < math.inf for t in times), "exposures are positive numbers of µs")
        last = (len(times) - 1) * self.settle_s
        text = f"{len(times)} exposures {self.settle_s:g} s apart do not fit into an interval of "
        _require(last < self.interval_s, f"{text}{self.interval_s:g} s")
        fits = last + max(self.settle_s, 1.0) < self.interval_s or "duplicate" not in self.faults
        text = "faults: a duplicate comes after the bracket and would fall into the next one"
        _require(fits, f"{text}; a longer interval is needed")
        names = {NamePattern(self.pattern).format(self.start, us) for us in times}
        _require(len(names) == len(times), "exposures: two of them would have the same file name")
        folders = Path(self.start.strftime(self.folders))
        inside = not folders.is_absolute() and ".." not in folders.parts
        _require(inside, f"folders {self.folders!r} leads out of the watched folder")

    @property
    def truth_folder(self) -> Path:
        """Where truth goes: beside the watched folder, never inside it."""
        return self._beside("-truth")

    @property
    def manifest(self) -> Path:
        """File that lists what was written, one JSON object a line."""
        return self._beside("-manifest.jsonl")

    def _beside(self, ending: str) -> Path:
        out = self.out.absolute()
        return out.with_name(out.name + ending)

    def slot(self, bracket: int) -> dt.datetime:
        """When a bracket (counted from 0) begins, on the camera's clock."""
        return self.start + dt.timedelta(seconds=bracket * self.interval_s)


def _require(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)


class RenderedSource:
    """Brackets of a rendered sky; `count` of them, or endless (None)."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self.count = settings.brackets or None
        weather = Weather(cover=CLOUD_COVER[settings.clouds])
        self.sky = Sky(settings.size, settings.seed, start=settings.start, weather=weather)
        self._camera = Camera(settings.response, settings.seed, quality=settings.quality)
        if settings.truth:
            settings.truth_folder.mkdir(parents=True, exist_ok=True)
            metadata = {"algorithm": f"simulated camera, {settings.response}"}
            data = response_bytes(self._camera.log_response, metadata)
            (settings.truth_folder / "response.npz").write_bytes(data)

    def bracket(self, number: int) -> list[Frame]:
        """Take the exposures of one bracket, by its number from 0."""
        settings = self._settings
        slot, moments = settings.slot(number), self.moments(number)
        frames = []
        for index, (us, t) in enumerate(zip(settings.exposures_us, moments, strict=True)):
            radiance = self.sky.radiance(t)
            if settings.truth and index == len(moments) // 2:
                self._save_radiance(slot, t, radiance)
            data = self._camera.encode(self._camera.expose(radiance, us))
            taken = slot + dt.timedelta(seconds=index * settings.settle_s)
            frames.append(Frame(number, slot, taken, us, data))
        return frames

    def moments(self, number: int) -> list[float]:
        """Times of the sky, in seconds since the start, that a bracket's exposures see.

        With a drift given they are as far apart as the clouds need for it, whatever the time
        between the exposures.

        Parameters
        ----------
        number : int
            Of the bracket, from 0.
        """
        settings = self._settings
        step = settings.settle_s
        if settings.drift_px is not None:
            step = settings.drift_px / self.sky.drift_px_per_s
        first = number * settings.interval_s
        return [first + index * step for index in range(len(settings.exposures_us))]

    def _save_radiance(self, slot: dt.datetime, t: float, radiance: Floats) -> None:
        path = self._settings.truth_folder / f"{slot:%Y%m%d%H%M%S}_truth.npz"
        np.savez(path, radiance=radiance, t_seconds=np.float64(t), slot=np.str_(slot.isoformat()))


class ReplaySource:
    """Brackets of an archive with new timestamps; the files' content is untouched.

    The archive's frames are grouped into slots of the interval; within a slot they keep their
    distances in time. A ValueError says that there is nothing to replay.
    """

    def __init__(self, settings: SimulatorSettings, archive: Path) -> None:
        self._settings = settings
        if not archive.is_dir():
            raise ValueError(f"replay: {archive} is not a folder")
        pattern, length = NamePattern(settings.pattern), dt.timedelta(seconds=settings.interval_s)
        slots: defaultdict[dt.datetime, list[tuple[dt.datetime, float, Path]]] = defaultdict(list)
        for folder, _, names in os.walk(archive):
            for name in names:
                parsed, path = pattern.parse(name), Path(folder, name)
                # A named pipe would stop the replay for good.
                if parsed is not None and path.is_file():
                    slots[slot_of(parsed.timestamp, length)].append((*parsed, path))
        if not slots:
            text = f"replay: no file in {archive} has a name like {settings.pattern!r}"
            raise ValueError(text)
        self._slots = sorted(slots.items())
        self.count = min(settings.brackets or len(slots), len(slots))

    def bracket(self, number: int) -> list[Frame]:
        """Read one bracket, by its number from 0."""
        old_slot, files = self._slots[number]
        slot = self._settings.slot(number)
        return [
            Frame(number, slot, slot + (taken - old_slot), us, path.read_bytes(), path.suffix)
            for taken, us, path in sorted(files)
        ]


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
    on_written: Callable[[Arrival, Summary], None] | None = None,
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
    """
    stop = stop or threading.Event()
    source: RenderedSource | ReplaySource = (
        ReplaySource(settings, settings.replay) if settings.replay else RenderedSource(settings)
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    summary = Summary()
    with settings.manifest.open("w", encoding="utf-8") as manifest:
        writer = _Writer(settings, clock or Clock(stop), manifest)
        for arrival in _arrivals(settings, source, stop, summary):
            summary.behind_s = max(summary.behind_s, writer.wait_for(arrival))
            if stop.is_set():
                break
            writer.write(arrival)
            summary.files += arrival.node != "nothing"
            summary.faults.update([arrival.fault] if arrival.fault else [])
            if on_written:
                on_written(arrival, summary)
    summary.stopped = stop.is_set()
    return summary


def _arrivals(
    settings: SimulatorSettings,
    source: RenderedSource | ReplaySource,
    stop: threading.Event,
    summary: Summary,
) -> Iterator[Arrival]:
    """All arrivals in order of time; never more than a few brackets are held in memory."""
    pending: list[Arrival] = []
    interval = dt.timedelta(seconds=settings.interval_s)
    settle = dt.timedelta(seconds=settings.settle_s)
    for number in itertools.count() if source.count is None else range(source.count):
        if stop.is_set():
            break
        pending += apply_faults(
            source.bracket(number), settings.faults, settings.seed, interval=interval, settle=settle
        )
        summary.brackets += 1
        pending.sort(key=lambda arrival: arrival.at)
        while pending and pending[0].at < settings.slot(number + 1):
            yield pending.pop(0)
    yield from pending


class _Writer:
    """The pace and the ways of writing of one simulation."""

    def __init__(self, settings: SimulatorSettings, clock: Clock, manifest: TextIO) -> None:
        self._settings, self._clock, self._manifest = settings, clock, manifest
        self._pattern = NamePattern(settings.pattern)
        self._began: float | None = None
        self._written = 0
        upload = _UPLOAD_SHARE * settings.settle_s / settings.speed
        self._pause_s = min(_LONGEST_PAUSE_S, upload / _PIECES)

    def wait_for(self, arrival: Arrival) -> float:
        """Sleep until the arrival's time on the sped-up clock; return the seconds it is late."""
        since_start = (arrival.at - self._settings.start).total_seconds()
        due, now = since_start / self._settings.speed, self._clock.now()
        if self._began is None:
            # Time begins with the first file, not with the preparations.
            self._began = now - due
        ahead = self._began + due - now
        if ahead > 0:
            self._clock.sleep(ahead)
        return -ahead

    def write(self, arrival: Arrival) -> None:
        """Put one arrival into the folder and into the manifest."""
        frame = arrival.frame
        name = self._pattern.format(frame.timestamp, frame.exposure_us) + frame.suffix
        path = Path(frame.timestamp.strftime(self._settings.folders), name)
        kind = arrival.node if arrival.node != "file" else self._settings.writer
        if kind == "mixed":
            kind = _MIXED[self._written % len(_MIXED)]
            self._written += 1
        if kind != "nothing":
            write_file(self._settings.out / path, frame.data, kind, self._clock, self._pause_s)
        row = {
            "bracket": frame.bracket,
            "slot": frame.slot.isoformat(),
            "timestamp": frame.timestamp.isoformat(),
            "exposure_us": frame.exposure_us,
            "path": path.as_posix(),
            "fault": arrival.fault,
            "writer": kind,
            "size": len(frame.data),
        }
        self._manifest.write(json.dumps(row) + "\n")
        self._manifest.flush()


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return
    target = path.with_name(path.name + ".part") if kind == "rename" else path
    step = max(1, -(-len(data) // _PIECES)) if kind == "chunked" else max(1, len(data))
    with target.open("wb", buffering=0) as file:
        for start in range(0, len(data), step):
            if start:
                clock.sleep(pause_s)
            file.write(data[start : start + step])
    if kind == "rename":
        target.replace(path)
