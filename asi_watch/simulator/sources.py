"""Where the frames come from: the rendered sky seen through the simulated camera, or an archive."""

from __future__ import annotations

import datetime as dt
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from asi_watch.brackets import slot_of
from asi_watch.naming import NamePattern
from asi_watch.response_files import response_bytes
from asi_watch.simulator.faults import Frame
from asi_watch.simulator.lens import Floats
from asi_watch.simulator.sensor import Camera
from asi_watch.simulator.settings import SimulatorSettings
from asi_watch.simulator.sky import Sky

_Slot = tuple[dt.datetime, list[tuple[dt.datetime, float, Path]]]


class RenderedSource:
    """Brackets of a rendered sky."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self.sky = Sky(settings.size, settings.seed, start=settings.start, weather=settings.weather)
        self.camera = Camera(settings.response, settings.seed, quality=settings.quality)
        if settings.truth:
            settings.truth_folder.mkdir(parents=True, exist_ok=True)
            self._save_response()

    @property
    def count(self) -> int | None:
        """A rendered sky has no end."""
        return self._settings.brackets or None

    def bracket(self, number: int) -> list[Frame]:
        """Take the exposures of one bracket, by its number from 0."""
        settings = self._settings
        slot = settings.slot(number)
        moments = self.moments(number)
        frames = []
        for index, (us, t) in enumerate(zip(settings.exposures_us, moments, strict=True)):
            radiance = self.sky.radiance(t)
            if settings.truth and index == len(moments) // 2:
                self._save_radiance(slot, t, radiance)
            data = self.camera.encode(self.camera.expose(radiance, us))
            taken = slot + dt.timedelta(seconds=index * settings.settle_s)
            frames.append(Frame(number, slot, taken, us, data))
        return frames

    def moments(self, number: int) -> list[float]:
        """Times of the sky, in seconds since the start, that a bracket's exposures see.

        With a drift given they are as far apart as the clouds need for it, whatever the time
        between the exposures.
        """
        settings = self._settings
        step = settings.settle_s
        if settings.drift_px is not None:
            step = settings.drift_px / self.sky.drift_px_per_s
        first = number * settings.interval_s
        return [first + index * step for index in range(len(settings.exposures_us))]

    def _save_response(self) -> None:
        curve, times = self.camera.log_response, np.log(self._settings.exposures_us)
        bounds = [float(curve.min() - times.max()), float(curve.max() - times.min())]
        metadata = {**self.camera.metadata, "lnE_range": bounds}
        path = self._settings.truth_folder / "response.npz"
        path.write_bytes(response_bytes(curve, metadata))

    def _save_radiance(self, slot: dt.datetime, t: float, radiance: Floats) -> None:
        path = self._settings.truth_folder / f"{slot:%Y%m%d%H%M%S}_truth.npz"
        np.savez(path, radiance=radiance, t_seconds=np.float64(t), slot=np.str_(slot.isoformat()))


class ReplaySource:
    """Brackets of an archive with new timestamps; the files' content is untouched.

    The archive's frames are grouped into slots of the interval; within a slot they keep their
    distances in time.

    Parameters
    ----------
    settings : SimulatorSettings
        With `replay` set.

    Raises
    ------
    ValueError
        If no file in the archive has a name that follows the pattern.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._slots = _find_brackets(settings)

    @property
    def count(self) -> int | None:
        """Brackets in the archive, or as many of them as are asked for."""
        asked = self._settings.brackets
        return min(asked, len(self._slots)) if asked else len(self._slots)

    def bracket(self, number: int) -> list[Frame]:
        """Read one bracket, by its number from 0.

        Raises
        ------
        OSError
            If a file cannot be read.
        """
        old_slot, files = self._slots[number]
        slot = self._settings.slot(number)
        return [
            Frame(number, slot, slot + (taken - old_slot), us, path.read_bytes(), path.suffix)
            for taken, us, path in files
        ]


def _find_brackets(settings: SimulatorSettings) -> list[_Slot]:
    """Slots of the archive in order of time, each with its files."""
    archive = settings.replay
    if archive is None or not archive.is_dir():
        raise ValueError(f"replay: {archive} is not a folder")
    pattern = NamePattern(settings.pattern)
    length = dt.timedelta(seconds=settings.interval_s)
    slots: defaultdict[dt.datetime, list[tuple[dt.datetime, float, Path]]] = defaultdict(list)
    for folder, _, names in os.walk(archive):
        for name in names:
            parsed = pattern.parse(name)
            path = Path(folder, name)
            # A named pipe would stop the replay for good.
            if parsed is None or not path.is_file():
                continue
            slots[slot_of(parsed.timestamp, length)].append((*parsed, path))
    if not slots:
        raise ValueError(f"replay: no file in {archive} has a name like {settings.pattern!r}")
    return [(slot, sorted(slots[slot])) for slot in sorted(slots)]


Source = RenderedSource | ReplaySource
