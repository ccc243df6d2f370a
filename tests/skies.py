"""Rendered brackets with known radiance and response curve, small and quick, for any test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.simulator.sensor import Camera
from asi_watch.simulator.sky import Sky

EXPOSURES_US = (80.0, 160.0, 320.0, 640.0, 1280.0)


@dataclass(frozen=True)
class SkyBracket:
    """Images of one bracket and the truth behind them.

    `images` (uint8 (H, W, 3) BGR) and `radiance` (float32 (H, W, 3) BGR, relative irradiance per
    ms; one array per image) follow the order of `exposures_us`. `log_response` is the true g(z),
    (256, 3) BGR, g(128) = 0 in each channel.
    """

    images: tuple[NDArray[np.uint8], ...]
    exposures_us: tuple[float, ...]
    radiance: tuple[NDArray[np.float32], ...]
    log_response: NDArray[np.float32]


@lru_cache(maxsize=4)
def _sky(size: int, seed: int) -> Sky:
    return Sky(size, seed)


def sky_bracket(
    size: int = 128,
    *,
    exposures_us: tuple[float, ...] = EXPOSURES_US,
    seed: int = 1,
    response: str = "film",
    noise: bool = True,
    jpeg: bool = False,
    drift_px: float = 0.0,
    t_seconds: float = 0.0,
) -> SkyBracket:
    """Render one bracket.

    Parameters
    ----------
    size : int
        Width and height in pixels (96–256 are quick).
    jpeg : bool
        True compresses and decodes each image once.
    drift_px : float
        How far the clouds at the zenith move from one exposure to the next; 0 is a still scene.
    t_seconds : float
        When the bracket begins; another moment gives other clouds and another place of the sun.
    """
    sky = _sky(size, seed)
    camera = Camera(response, seed, noise=noise)
    step = drift_px / sky.drift_px_per_s
    radiance = [sky.radiance(t_seconds + k * step) for k in range(len(exposures_us))]
    images = [camera.expose(r, t) for r, t in zip(radiance, exposures_us, strict=True)]
    if jpeg:
        images = [simplejpeg.decode_jpeg(camera.encode(i), colorspace="BGR") for i in images]
    return SkyBracket(tuple(images), tuple(exposures_us), tuple(radiance), camera.log_response)


def jpeg_bracket(size: int = 128, *, seed: int = 1, t_seconds: float = 0.0) -> dict[int, bytes]:
    """Render one bracket as JPEG files: exposure in µs → bytes."""
    bracket = sky_bracket(size, seed=seed, t_seconds=t_seconds)
    camera = Camera("film", seed)
    pairs = zip(bracket.exposures_us, bracket.images, strict=True)
    return {int(us): camera.encode(image) for us, image in pairs}
