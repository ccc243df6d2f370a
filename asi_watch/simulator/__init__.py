"""A camera that is not there: a rendered sky of known radiance, or the replay of an archive."""

from asi_watch.simulator.clouds import Weather
from asi_watch.simulator.sensor import Camera, response_curve
from asi_watch.simulator.sky import Sky

__all__ = ["Camera", "Sky", "Weather", "response_curve"]
