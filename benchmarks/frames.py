"""Exposures to measure with: JPEG files of a rendered sky, as an all-sky camera writes them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.simulator.sensor import Camera
from asi_watch.simulator.sky import Sky

EXPOSURES_US = (80.0, 160.0, 320.0, 640.0, 1280.0)


@lru_cache(maxsize=4)
def jpeg_frames(size: int, seed: int = 1) -> tuple[bytes, ...]:
    """One bracket of square JPEG files, shortest exposure first."""
    sky, camera = Sky(size, seed), Camera("film", seed)
    radiance = sky.radiance(0.0)
    return tuple(camera.encode(camera.expose(radiance, t)) for t in EXPOSURES_US)


def decoded(frames: tuple[bytes, ...]) -> list[NDArray[np.uint8]]:
    """The same as pixels, BGR."""
    return [simplejpeg.decode_jpeg(f, colorspace="BGR", strict=True) for f in frames]


def log_response() -> NDArray[np.float32]:
    """The camera's true g(z), BGR."""
    return Camera("film", 1).log_response
