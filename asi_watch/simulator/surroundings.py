"""What stands around the camera: trees, and the rim of the lens."""

import math

import cv2
import numpy as np

from asi_watch.simulator.lens import Floats, Lens

# How bright the whole scene is: the longest of 80…1280 µs shows the trees and the dark bases of the
# clouds and loses their brightest rims, the shortest loses nothing but the sun.
_BRIGHTNESS = np.float32(1.5)
_STEPS = 4096  # of the skyline
_BAND = 128
_TREE_GREEN = np.array([0.022, 0.050, 0.036], np.float32)


def draw_surroundings(size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw the surroundings: openness and foreground, each (size, size, 3), float32, BGR.

    Openness is what reaches a pixel of the sky's light: `_BRIGHTNESS` at the zenith, less towards
    the rim (vignetting), 0 behind trees and outside the circle. Foreground is the radiance of
    trees and surround, to be added.

    Parameters
    ----------
    size : int
        Pixels along a side.
    rng : numpy.random.Generator
    """
    skyline, leaves = _tree_line(rng), _speckle(rng, size)
    openness = np.empty((size, size, 3), np.float32)
    foreground = np.empty_like(openness)
    # In bands: the many fields that one needs are large at full size.
    for top in range(0, size, _BAND):
        rows = slice(top, min(top + _BAND, size))
        lens = Lens(size, rows.start, rows.stop)
        steps = lens.azimuth * np.float32(_STEPS / (2 * math.pi))
        above = np.interp(steps, np.arange(_STEPS), skyline, period=_STEPS)
        above -= 90 - np.degrees(lens.zenith)
        trees = np.clip(above * lens.radius / 90 + 0.5, 0, 1)  # the edge one pixel soft
        inside = np.clip((1 - lens.reach) * np.float32(lens.radius / 1.5), 0, 1)
        vignette = inside * (1 - np.float32(0.28) * lens.reach**2.5)
        openness[rows] = (vignette * (1 - trees))[..., np.newaxis]
        foreground[rows] = (leaves[rows] * trees * vignette)[..., np.newaxis] * _TREE_GREEN
        # The lens barrel is not quite black: a faint ring, then darkness.
        ring = 0.010 * np.exp(np.minimum(1 - lens.reach, 0) / 0.012) * (lens.reach >= 1)
        foreground[rows] += (ring + 0.0012)[..., np.newaxis]
    return openness * _BRIGHTNESS, foreground * _BRIGHTNESS


def _tree_line(rng: np.random.Generator) -> Floats:
    """Elevation of the trees in degrees over azimuth: gentle hills with ragged crowns."""
    frequency = np.fft.rfftfreq(_STEPS, 1 / _STEPS)
    hills, crowns = np.zeros_like(frequency), np.zeros_like(frequency)
    hills[1:12] = 1 / frequency[1:12]
    crowns[30:1500] = frequency[30:1500] ** -0.85
    lines = []
    for shape in (hills, crowns):
        phase = np.exp(2j * np.pi * rng.random(shape.size))
        line = np.fft.irfft(shape * phase, _STEPS)
        lines.append(line / line.std())
    line = 3.0 + 1.6 * lines[0] + 0.75 * np.abs(lines[1])
    return np.asarray(np.clip(line, 1.2, 11), np.float32)


def _speckle(rng: np.random.Generator, size: int) -> Floats:
    """Light and shade in the leaves."""
    grain = rng.standard_normal((size, size), dtype=np.float32)
    soft = cv2.GaussianBlur(grain, (0, 0), max(0.8, size / 900))
    return np.asarray(np.clip(1 + 0.5 * soft / max(float(soft.std()), 1e-6), 0.2, 2.6), np.float32)
