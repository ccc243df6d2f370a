"""A camera that is not there: a rendered sky of known radiance, or the replay of an archive."""

from asi_watch.simulator.clouds import Weather
from asi_watch.simulator.faults import FAULTS, FaultRate, parse_faults
from asi_watch.simulator.sensor import RESPONSES, Camera, response_curve
from asi_watch.simulator.settings import CLOUD_COVER, WRITERS, SimulatorSettings
from asi_watch.simulator.simulation import Clock, Summary, Written, simulate
from asi_watch.simulator.sky import Sky

__all__ = [
    "CLOUD_COVER",
    "FAULTS",
    "RESPONSES",
    "WRITERS",
    "Camera",
    "Clock",
    "FaultRate",
    "SimulatorSettings",
    "Sky",
    "Summary",
    "Weather",
    "Written",
    "parse_faults",
    "response_curve",
    "simulate",
]
