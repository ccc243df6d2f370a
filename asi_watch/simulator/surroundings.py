"""What stands around the camera: trees, buildings, and the rim of the lens."""

import math

import cv2
import numpy as np

from asi_watch.simulator.lens import Floats, Lens

# How bright the whole scene is: the longest of 80…1280 µs shows the trees and the dark bases of the
# clouds and loses their brightest rims, the shortest loses nothing but the sun.
BRIGHTNESS = np.float32(1.5)
SKYLINE_STEPS = 4096
BAND = 128
TREE_GREEN = np.array([0.022, 0.050, 0.036], np.float32)
WALL_GREY = np.array([0.060, 0.066, 0.072], np.float32)


def draw_surroundings(size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw the surroundings: openness and foreground, each (size, size, 3), float32, BGR.

    Openness is what reaches a pixel of the sky's light: `BRIGHTNESS` at the zenith, less towards
    the rim (vignetting), 0 behind obstacles and outside the circle. Foreground is the radiance of
    obstacles and surround, to be added.

    Parameters
    ----------
    size : int
        Pixels along a side.
    rng : numpy.random.Generator
    """
    skylines = _tree_line(rng), _buildings(rng)
    leaves = _speckle(rng, size)
    openness = np.empty((size, size, 3), np.float32)
    foreground = np.empty_like(openness)
    # In bands: the many fields that one needs are large at full size.
    for top in range(0, size, BAND):
        rows = slice(top, min(top + BAND, size))
        part = Lens(size, rows.start, rows.stop)
        openness[rows], foreground[rows] = _draw_band(part, *skylines, leaves[rows])
    openness *= BRIGHTNESS
    foreground *= BRIGHTNESS
    return openness, foreground


def _draw_band(
    lens: Lens, tree_line: Floats, roofs: Floats, speckle: Floats
) -> tuple[Floats, Floats]:
    """Openness and foreground of the rows that the lens covers."""
    elevation = np.float32(90) - np.degrees(lens.zenith)
    turn = lens.azimuth * np.float32(SKYLINE_STEPS / (2 * math.pi))
    pixel_deg = 90 / lens.radius
    tree_cover = _cover(_at(tree_line, turn) - elevation, pixel_deg)
    wall_cover = _cover(_at(roofs, turn) - elevation, pixel_deg)
    inside = np.clip((1 - lens.reach) * np.float32(lens.radius / 1.5), 0, 1)
    vignette = inside * (1 - np.float32(0.28) * lens.reach**2.5)
    sky = (1 - tree_cover) * (1 - wall_cover)
    openness = cv2.merge([vignette * sky] * 3)
    leaves = TREE_GREEN * speckle[..., np.newaxis]
    objects = leaves * (tree_cover * (1 - wall_cover))[..., np.newaxis]
    objects += wall_cover[..., np.newaxis] * WALL_GREY
    foreground = objects * vignette[..., np.newaxis]
    # The lens barrel is not quite black: a faint ring, then darkness.
    outside = np.maximum(lens.reach - 1, 0)
    ring = np.float32(0.010) * np.exp(-outside / np.float32(0.012)) * (lens.reach >= 1)
    foreground += (ring + np.float32(0.0012))[..., np.newaxis]
    return np.asarray(openness, np.float32), np.asarray(foreground, np.float32)


def _cover(above_deg: Floats, pixel_deg: float) -> Floats:
    """Share of a pixel that lies under a skyline, the edge one pixel soft."""
    return np.asarray(np.clip(above_deg / np.float32(pixel_deg) + 0.5, 0, 1), np.float32)


def _at(profile: Floats, turn: Floats) -> Floats:
    """A profile over azimuth, seen at every pixel (linear between its steps)."""
    low = turn.astype(np.int32)
    share = turn - low
    first, second = profile[low % SKYLINE_STEPS], profile[(low + 1) % SKYLINE_STEPS]
    return np.asarray(first * (1 - share) + second * share, np.float32)


def _tree_line(rng: np.random.Generator) -> Floats:
    """Elevation of the trees in degrees over azimuth: gentle hills with ragged crowns."""
    frequency = np.fft.rfftfreq(SKYLINE_STEPS, 1 / SKYLINE_STEPS)
    hills, crowns = np.zeros_like(frequency), np.zeros_like(frequency)
    hills[1:12] = 1 / frequency[1:12]
    crowns[30:1500] = frequency[30:1500] ** -0.85
    lines = []
    for shape in (hills, crowns):
        phase = np.exp(2j * np.pi * rng.random(shape.size))
        line = np.fft.irfft(shape * phase, SKYLINE_STEPS)
        lines.append(line / line.std())
    line = 3.0 + 1.6 * lines[0] + 0.75 * np.abs(lines[1])
    return np.asarray(np.clip(line, 1.2, 11), np.float32)


def _buildings(rng: np.random.Generator) -> Floats:
    """Elevation of roofs in degrees over azimuth, −90 where nothing is built."""
    roofs = np.full(SKYLINE_STEPS, -90, np.float32)
    per_deg = SKYLINE_STEPS / 360
    for start, count in ((188.0, 3), (318.0, 2)):
        at = start
        for _ in range(count):
            width = float(rng.uniform(4, 9))
            height = float(rng.uniform(3.0, 6.5))
            span = slice(int(at * per_deg), int((at + width) * per_deg))
            steps = np.arange(roofs[span].size, dtype=np.float32)
            middle = (steps.size - 1) / 2
            gable = 2.2 * (1 - np.abs(steps - middle) / max(middle, 1))
            pitched = gable if rng.random() < 0.5 else np.zeros_like(steps)
            roofs[span] = np.maximum(roofs[span], height + pitched)
            at += width * 1.05
    return roofs


def _speckle(rng: np.random.Generator, size: int) -> Floats:
    """Light and shade in the leaves."""
    grain = rng.standard_normal((size, size), dtype=np.float32)
    soft = cv2.GaussianBlur(grain, (0, 0), max(0.8, size / 900))
    return np.asarray(np.clip(1 + 0.5 * soft / max(float(soft.std()), 1e-6), 0.2, 2.6), np.float32)
