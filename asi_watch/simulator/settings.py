"""What a simulation is asked to do, checked before anything is written."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from asi_watch.naming import NamePattern
from asi_watch.simulator.clouds import Weather
from asi_watch.simulator.faults import FaultRate
from asi_watch.simulator.sensor import RESPONSES
from asi_watch.simulator.sky import LARGEST, SMALLEST, START

WriterKind = Literal["plain", "chunked", "rename", "mixed"]
WRITERS: tuple[str, ...] = get_args(WriterKind)
# Threshold of the cumulus field, in standard deviations.
CLOUD_COVER = {"clear": 9.0, "few": 1.1, "scattered": 0.5, "broken": -0.1}
DEFAULT_PATTERN = "{timestamp:%Y%m%d%H%M%S}_{exposure}"


@dataclass(frozen=True)
class SimulatorSettings:
    """Settings of one simulation; times are those of the camera's clock.

    Raises
    ------
    ValueError
        If a value is impossible; the text names it.
    """

    out: Path
    brackets: int = 10
    """How many; 0 goes on until stopped (in a replay: until the archive ends)."""
    interval_s: float = 30.0
    speed: float = 1.0
    """Seconds of the camera's clock per real second; `inf` does not wait at all."""
    exposures_us: tuple[float, ...] = (80.0, 160.0, 320.0, 640.0, 1280.0)
    settle_s: float = 1.0
    """From one exposure of a bracket to the next."""
    size: int = 2048
    seed: int = 1
    clouds: str = "scattered"
    response: str = "film"
    quality: int = 90
    drift_px: float | None = None
    """Pixels the clouds at the zenith move between two exposures; None: as the wind has it."""
    start: dt.datetime = START
    pattern: str = DEFAULT_PATTERN
    folders: str = "%Y/%m/%d/%H"
    """`strftime` pattern of the sub-folders."""
    writer: WriterKind = "plain"
    faults: tuple[FaultRate, ...] = ()
    truth: bool = False
    """Save the true response curve and the true radiance of every bracket."""
    replay: Path | None = None
    """Archive to write again with new timestamps, in place of the rendered sky."""

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_bracket()
        self._check_names()
        for value, known, what in (
            (self.clouds, tuple(CLOUD_COVER), "clouds"),
            (self.response, RESPONSES, "response"),
            (self.writer, WRITERS, "writer"),
        ):
            _require(value in known, f"{what} is one of {', '.join(known)}, not {value!r}")

    @property
    def weather(self) -> Weather:
        """Weather of the rendered sky."""
        return Weather(cover=CLOUD_COVER[self.clouds])

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
        """When a bracket begins, on the camera's clock."""
        return self.start + dt.timedelta(seconds=bracket * self.interval_s)

    def _check_numbers(self) -> None:
        _require(self.brackets >= 0, f"brackets is 0 (endless) or more, not {self.brackets}")
        _require(SMALLEST <= self.size <= LARGEST, f"size is {SMALLEST}…{LARGEST}, not {self.size}")
        _require(self.seed >= 0, f"seed is 0 or more, not {self.seed}")
        _require(1 <= self.quality <= 100, f"quality is 1…100, not {self.quality}")
        _require(self.speed > 0, f"speed is more than 0, not {self.speed:g}")
        for value, what in ((self.interval_s, "interval"), (self.settle_s, "settle")):
            good = math.isfinite(value) and value > 0
            _require(good, f"{what} is a positive time, not {value:g} s")
        drift = self.drift_px
        good = drift is None or (math.isfinite(drift) and drift >= 0)
        _require(good, f"drift is 0 pixels or more, not {drift}")

    def _check_bracket(self) -> None:
        times = self.exposures_us
        _require(bool(times), "exposures: at least one exposure time is needed")
        good = all(math.isfinite(t) and t > 0 for t in times)
        _require(good, "exposures are positive numbers of µs")
        _require(len(set(times)) == len(times), "exposures: one exposure time is there twice")
        last = (len(times) - 1) * self.settle_s
        text = f"{len(times)} exposures {self.settle_s:g} s apart do not fit into an interval of "
        _require(last < self.interval_s, f"{text}{self.interval_s:g} s")
        again = any(fault.kind == "duplicate" for fault in self.faults)
        fits = last + max(self.settle_s, 1.0) < self.interval_s
        text = "faults: a duplicate comes after the bracket and would fall into the next one"
        _require(fits or not again, f"{text}; a longer interval is needed")

    def _check_names(self) -> None:
        _require(self.start.tzinfo is None, "start is a time of the camera's clock, without a zone")
        pattern = NamePattern(self.pattern)
        names = [pattern.format(self.start, us) for us in self.exposures_us]
        _require(len(set(names)) == len(names), f"pattern {self.pattern!r} repeats itself")
        folders = Path(self.start.strftime(self.folders))
        inside = not folders.is_absolute() and ".." not in folders.parts
        _require(inside, f"folders {self.folders!r} leads out of the watched folder")


def _require(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)
