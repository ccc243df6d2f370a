"""Where the frames come from: the rendered sky, seen through the simulated camera."""

from __future__ import annotations

import datetime as dt
from typing import Protocol

import numpy as np

from asi_watch.response_files import response_bytes
from asi_watch.simulator.faults import Frame
from asi_watch.simulator.lens import Floats
from asi_watch.simulator.sensor import Camera
from asi_watch.simulator.settings import SimulatorSettings
from asi_watch.simulator.sky import Sky


class Source(Protocol):
    """Gives the frames of one bracket after the other."""

    @property
    def count(self) -> int | None:
        """How many brackets there are; None for no end."""
        ...

    def bracket(self, number: int) -> list[Frame]:
        """Frames of a bracket in the order they were taken."""
        ...


class RenderedSource:
    """Brackets of a rendered sky.

    Parameters
    ----------
    settings : SimulatorSettings
    """

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
        """Take the exposures of one bracket.

        Parameters
        ----------
        number : int
            From 0.

        Returns
        -------
        list of Frame
        """
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
