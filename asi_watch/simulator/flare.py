"""Ghosts of the sun: light thrown back and forth between the faces of the lens."""

from __future__ import annotations

import math

import numpy as np

from asi_watch.simulator.lens import Floats, Lens, Sun

# Where on the line from the sun (1) through the centre (0) a ghost lies, its radius in shares of
# the image circle, and its radiance (BGR) under a free sun.
GHOSTS = (
    (-0.55, 0.050, (0.055, 0.085, 0.040)),
    (-0.30, 0.022, (0.030, 0.060, 0.110)),
    (0.38, 0.030, (0.100, 0.060, 0.035)),
)


def add_flare(scene: Floats, lens: Lens, sun: Sun, share: float) -> None:
    """Add the ghosts of the sun to a radiance image, in place.

    Parameters
    ----------
    scene : ndarray, shape (H, W, 3), float32, BGR
    lens : Lens
        Of the image's size.
    sun : Sun
    share : float
        How much of the sun the clouds let through, 0…1.
    """
    x, y = lens.pixel_of(sun)
    centre = (lens.size - 1) / 2
    for place, radius, colour in GHOSTS:
        at = centre + place * (x - centre), centre + place * (y - centre)
        _add_disc(scene, at, radius * lens.radius, np.array(colour, np.float32) * np.float32(share))


def _add_disc(scene: Floats, at: tuple[float, float], radius: float, colour: Floats) -> None:
    """Add a soft disc that is a little brighter at its rim."""
    reach = math.ceil(radius * 1.3) + 1
    rows, cols = (
        slice(max(0, int(v) - reach), min(len(scene), int(v) + reach + 1)) for v in (at[1], at[0])
    )
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, np.newaxis] - np.float32(at[1])
    x = np.arange(cols.start, cols.stop, dtype=np.float32)[np.newaxis, :] - np.float32(at[0])
    away = np.hypot(x, y) / np.float32(radius)
    body = np.clip((np.float32(1.12) - away) / np.float32(0.24), 0, 1)
    body *= np.float32(0.6) + np.float32(0.4) * np.minimum(away, 1) ** 3
    scene[rows, cols] += body[..., np.newaxis] * colour
