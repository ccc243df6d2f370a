"""One simulation from start to end: where frames come from, and files written in time."""

import datetime as dt
import itertools
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asi_watch.naming import NamePattern
from asi_watch.response_files import response_bytes
from asi_watch.simulator.clouds import Weather
from asi_watch.simulator.sensor import Camera
from asi_watch.simulator.sky import START, Sky
from asi_watch.simulator.styles import STYLES

# Threshold of the cumulus field, in standard deviations.
CLOUD_COVER = {"clear": 9.0, "few": 1.1, "scattered": 0.5, "broken": -0.1}
WRITERS = ("plain", "chunked", "rename", "mixed")
# Of the time between two exposures, the share that a slow upload takes.
_PROCESSED = -1.0  # stands for the exposure time of pictures that the camera itself makes
_UPLOAD_SHARE, _LONGEST_PAUSE_S, _PIECES = 0.4, 0.2, 6


@dataclass(frozen=True)
class Frame:
    """One exposure as the camera took it; times are those of the camera's clock."""

    taken: dt.datetime
    exposure_us: float
    data: bytes  # content of the image file
    name: str = ""  # of the file


@dataclass(frozen=True)
class SimulatorSettings:
    """Settings of one simulation; a ValueError names a value that is impossible."""

    out: Path
    brackets: int = 10  # 0: until stopped
    interval_s: float = 30.0
    speed: float = 1.0  # camera seconds per real second; `inf` does not wait at all
    style: str = "plain"  # whose files these are like, see `styles.STYLES`
    exposures_us: tuple[float, ...] = ()  # none: those of the style; as the names say them
    settle_s: float = 1.0  # from one exposure of a bracket to the next
    size: int = 2048
    seed: int = 1
    clouds: str = "scattered"
    response: str = "film"
    quality: int = 90
    start: dt.datetime = START
    pattern: str = ""  # of names and sub-folders; empty: those of the style
    folders: str = ""
    writer: str = "plain"
    truth: bool = False  # save the true response curve and each bracket's true radiance

    def __post_init__(self) -> None:
        _require(self.style in STYLES, f"style is one of {', '.join(STYLES)}")
        for name in ("exposures_us", "pattern", "folders"):
            chosen = getattr(self, name) or getattr(STYLES[self.style], name)
            object.__setattr__(self, name, chosen)
        times = self.exposures_us
        _require(self.brackets >= 0, f"brackets is 0 (endless) or more, not {self.brackets}")
        _require(self.seed >= 0, f"seed is 0 or more, not {self.seed}")
        _require(self.speed > 0, f"speed is more than 0, not {self.speed:g}")
        for value, what in ((self.interval_s, "interval"), (self.settle_s, "settle")):
            _require(0 < value < math.inf, f"{what} is a positive time, not {value:g} s")
        _require(self.clouds in CLOUD_COVER, f"clouds is one of {', '.join(CLOUD_COVER)}")
        _require(self.writer in WRITERS, f"writer is one of {', '.join(WRITERS)}")
        _require(all(0 < t < math.inf for t in times), "exposures are positive numbers of µs")
        text = f"{len(times)} exposures {self.settle_s:g} s apart do not fit into an interval of "
        fits = (len(times) - 1) * self.settle_s < self.interval_s
        _require(fits, f"{text}{self.interval_s:g} s")
        if "{exposure}" in self.pattern:
            NamePattern(self.pattern)
        names = {self.name_of(us, n) for n, us in enumerate(times)}
        _require(len(names) == len(times), "exposures: two of them would have the same file name")
        folders = Path(self.start.strftime(self.folders))
        inside = not folders.is_absolute() and ".." not in folders.parts
        _require(inside, f"folders {self.folders!r} leads out of the watched folder")

    @property
    def truth_folder(self) -> Path:
        """Where truth goes: beside the watched folder, never inside it."""
        out = self.out.absolute()
        return out.with_name(f"{out.name}-truth")

    def name_of(self, exposure_us: float, number: int, bracket: int = 0) -> str:
        """Name the file of an exposure.

        Parameters
        ----------
        exposure_us : float
        number, bracket : int
            Its place in its bracket, and that one's among all.
        """
        style = STYLES[self.style]
        texts = {us: label for label, us in style.labels.items()} | {_PROCESSED: style.processed}
        text = texts.get(exposure_us, f"{exposure_us:.12g}")
        try:
            stem = self.pattern.format(timestamp=self.taken(number, bracket), exposure=text)
        except (KeyError, IndexError) as error:
            raise ValueError(f"pattern: {{{error.args[0]}}} in it is unknown") from error
        return stem + style.suffix

    def taken(self, number: int, bracket: int = 0) -> dt.datetime:
        """When an exposure of a bracket is taken, on the camera's clock.

        Parameters
        ----------
        number, bracket : int
            As in `name_of`.
        """
        return self.slot(bracket) + dt.timedelta(seconds=number * self.settle_s)

    def slot(self, bracket: int) -> dt.datetime:
        """When a bracket begins, on the camera's clock.

        Parameters
        ----------
        bracket : int
            Counted from 0.
        """
        return self.start + dt.timedelta(seconds=bracket * self.interval_s)


def _require(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)


class RenderedSource:
    """Brackets of a rendered sky."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        weather = Weather(cover=CLOUD_COVER[settings.clouds])
        self._sky = Sky(settings.size, settings.seed, start=settings.start, weather=weather)
        self._camera = Camera(settings.response, settings.seed, quality=settings.quality)
        if settings.truth:
            settings.truth_folder.mkdir(parents=True, exist_ok=True)
            metadata = {"algorithm": f"simulated camera, {settings.response}"}
            data = response_bytes(self._camera.log_response, metadata)
            (settings.truth_folder / "response.npz").write_bytes(data)

    def bracket(self, number: int) -> list[Frame]:
        """Take the exposures of one bracket, by its number from 0."""
        settings, style = self._settings, STYLES[self._settings.style]
        slot, frames = settings.slot(number), []
        for index, us in enumerate(settings.exposures_us):
            taken = settings.taken(index, number)
            radiance = self._sky.radiance((taken - settings.start).total_seconds())
            if settings.truth and index == len(settings.exposures_us) // 2:
                np.savez(settings.truth_folder / f"{slot:%Y%m%d%H%M%S}_truth", radiance=radiance)
            data = style.encode(self._camera, radiance, us * style.real, taken)
            frames.append(Frame(taken, us, data, settings.name_of(us, index, number)))
        if style.processed:
            name = settings.name_of(_PROCESSED, index, number)
            frames.append(Frame(taken, _PROCESSED, data, name))
        return frames


@dataclass
class Summary:
    """What a simulation did: brackets begun, files written."""

    brackets: int = 0
    files: int = 0
    stopped: bool = False  # before its end
    behind_s: float = 0.0  # the most that writing fell behind its own time, in real seconds


def simulate(settings: SimulatorSettings, stop: threading.Event | None = None) -> Summary:
    """Write what a camera would write.

    The names' timestamps follow the camera's clock, which begins at `settings.start`; real time
    only paces the writing.

    Parameters
    ----------
    settings : SimulatorSettings
    stop : threading.Event, optional
        When set, the file in work is finished and nothing more is written.
    """
    stop = stop or threading.Event()
    source = RenderedSource(settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    writer = _Writer(settings, stop)
    summary = Summary()
    for number in range(settings.brackets) if settings.brackets else itertools.count():
        if stop.is_set():
            break
        summary.brackets += 1
        for frame in source.bracket(number):
            summary.behind_s = max(summary.behind_s, writer.wait_for(frame))
            if stop.is_set():
                break
            writer.write(frame)
            summary.files += 1
    summary.stopped = stop.is_set()
    return summary


class _Writer:
    """The pace and the ways of writing of one simulation."""

    def __init__(self, settings: SimulatorSettings, stop: threading.Event) -> None:
        self._settings, self._stop = settings, stop
        self._began: float | None = None
        mixed = settings.writer == "mixed"
        self._kinds = itertools.cycle(WRITERS[:-1] if mixed else (settings.writer,))
        upload = _UPLOAD_SHARE * settings.settle_s / settings.speed
        self._pause_s = min(_LONGEST_PAUSE_S, upload / _PIECES)

    def wait_for(self, frame: Frame) -> float:
        """Sleep until the frame's time on the sped-up clock; return the seconds it is late."""
        since_start = (frame.taken - self._settings.start).total_seconds()
        due, now = since_start / self._settings.speed, time.monotonic()
        if self._began is None:
            # Time begins with the first file, not with the preparations.
            self._began = now - due
        ahead = self._began + due - now
        if ahead > 0:
            self._stop.wait(ahead)
        return -ahead

    def write(self, frame: Frame) -> None:
        """Put one frame into the folder."""
        path = self._settings.out / frame.taken.strftime(self._settings.folders) / frame.name
        write_file(path, frame.data, next(self._kinds), self._stop, self._pause_s)


def write_file(path: Path, data: bytes, kind: str, stop: threading.Event, pause_s: float) -> None:
    """Write one file as cameras and their upload programs do; its folder is made if needed.

    Parameters
    ----------
    path : Path
    data : bytes
    kind : {"plain", "chunked", "rename"}
        In one go; slowly in place, as over a thin line; or under another name first.
    stop : threading.Event
    pause_s : float
        For chunked: seconds between two pieces, until `stop` is set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.with_name(path.name + ".part") if kind == "rename" else path
    step = max(1, -(-len(data) // _PIECES)) if kind == "chunked" else max(1, len(data))
    with target.open("wb", buffering=0) as file:
        for start in range(0, len(data), step):
            if start:
                stop.wait(pause_s)
            file.write(data[start : start + step])
    if kind == "rename":
        target.replace(path)
