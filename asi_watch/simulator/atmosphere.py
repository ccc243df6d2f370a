"""Light of the sun: the cloudless sky, the disc with its aureole, and its ghosts in the lens."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from asi_watch.simulator.lens import Floats, Lens, Sun

# BGR, relative irradiance per millisecond; the sky is placed so that 80…1280 µs frame it.
ZENITH_BLUE = np.array([0.86, 0.46, 0.21], np.float32)
HORIZON_WHITE = np.array([1.12, 1.03, 0.90], np.float32)
SUN_PEAK = 6.0e4
# Half the sun's apparent diameter, widened by the blur of a small lens.
SUN_RADIUS_DEG = 0.30
CORE_DEG = 14.0
# Where on the line from the sun (1) through the centre (0) a ghost lies, its radius in shares of
# the image circle, and its radiance (BGR) under a free sun.
GHOSTS = (
    (-0.55, 0.050, (0.055, 0.085, 0.040)),
    (-0.30, 0.022, (0.030, 0.060, 0.110)),
    (0.38, 0.030, (0.100, 0.060, 0.035)),
)


def sunlight(sun: Sun) -> NDArray[np.float32]:
    """Colour of direct sunlight (BGR, green about 1): redder the longer its way through the air.

    Parameters
    ----------
    sun : Sun

    Returns
    -------
    ndarray, shape (3,), float32
    """
    mass = 1 / max(math.cos(sun.zenith), 0.1)
    # Optical depths of clear air at about 460, 540 and 610 nm.
    depth = np.array([0.26, 0.17, 0.12], np.float32)
    light = np.exp(-depth * np.float32(mass - 1)) * np.array([0.93, 0.98, 1.0], np.float32)
    return np.asarray(light, np.float32)


def clear_sky(lens: Lens, sun: Sun) -> Floats:
    """Radiance of the cloudless sky, without the sun's disc and inner aureole.

    The CIE standard general sky, type 12 (clear, low turbidity), ISO 15469:2004: gradation
    φ(Z) = 1 + a·exp(b / cos Z) and indicatrix f(χ) = 1 + c·(exp(dχ) − exp(dπ/2)) + e·cos²χ with
    a = −1, b = −0.32, c = 10, d = −3, e = 0.45. The formula gives luminance; the colour (blue at
    the zenith, pale at the horizon and near the sun) is our own.

    Parameters
    ----------
    lens : Lens
    sun : Sun

    Returns
    -------
    ndarray, shape (H, W, 3), float32, BGR
    """
    cosine = lens.cos_to(sun)
    chi = np.arccos(np.clip(cosine, -1, 1))
    up = np.maximum(np.cos(lens.zenith), np.float32(0.02))
    gradation = (1 - np.exp(np.float32(-0.32) / up)) / np.float32(1 - math.exp(-0.32))
    floor = math.exp(-3 * math.pi / 2)
    indicatrix = 1 + 10 * (np.exp(-3 * chi) - np.float32(floor)) + np.float32(0.45) * cosine**2
    at_zenith = 1 + 10 * (math.exp(-3 * sun.zenith) - floor) + 0.45 * math.cos(sun.zenith) ** 2
    luminance = gradation * indicatrix / np.float32(max(at_zenith, 1.0))
    # Compressed: a camera's sharp blue filter sees less of the contrast than the eye does.
    luminance = luminance ** np.float32(0.62)
    pale = 1 - np.exp(np.float32(-0.20) * (1 / up - 1))
    pale = np.maximum(pale, np.float32(0.75) * np.exp(-chi / np.float32(0.22)))[..., np.newaxis]
    colour = ZENITH_BLUE * (1 - pale) + HORIZON_WHITE * sunlight(sun) * np.float32(0.72) * pale
    sky = luminance[..., np.newaxis] * colour
    tail = np.float32(0.55) * np.exp(-chi / np.float32(0.30))
    sky += tail[..., np.newaxis] * sunlight(sun)
    return np.asarray(sky, np.float32)


def add_sun(image: Floats, lens: Lens, sun: Sun) -> None:
    """Add the sun's disc and its aureole to a radiance image, in place.

    The aureole falls as a power of the angle, as measured circumsolar profiles do beyond the disc,
    and is faded out at `CORE_DEG`.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), float32, BGR
    lens : Lens
        Of the image's size.
    sun : Sun
    """
    x, y = lens.pixel_of(sun)
    # Near the horizon the fisheye draws the aureole wider along the azimuth.
    reach = math.ceil(math.radians(CORE_DEG) / (math.pi / 2) * lens.radius * 1.6) + 2
    rows = slice(max(0, int(y) - reach), min(lens.size, int(y) + reach + 1))
    cols = slice(max(0, int(x) - reach), min(lens.size, int(x) + reach + 1))
    chi = np.degrees(_angle(lens, sun, rows, cols))
    fade = np.clip(1 - chi / np.float32(CORE_DEG), 0, 1) ** 2
    aureole = np.float32(60) * (np.maximum(chi, SUN_RADIUS_DEG) / np.float32(0.6)) ** -1.5 * fade
    # A pixel is a fraction of a degree: the disc's edge is as soft as one pixel at least.
    soft = max(0.10, 90 / lens.radius * 0.6)
    disc = np.float32(SUN_PEAK) / (
        1 + np.exp(np.clip((chi - SUN_RADIUS_DEG) / (soft / 4), -50, 50))
    )
    image[rows, cols] += (aureole + disc)[..., np.newaxis] * sunlight(sun)


def _angle(lens: Lens, sun: Sun, rows: slice, cols: slice) -> Floats:
    """Angle to the sun in radians, exact for small angles (arccos of float32 is not)."""
    e, n, u = sun.direction
    east, north, up = lens.directions(rows, cols)
    chord = np.sqrt((east - e) ** 2 + (north - n) ** 2 + (up - u) ** 2)
    return np.asarray(2 * np.arcsin(np.clip(chord / 2, 0, 1)), np.float32)


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
