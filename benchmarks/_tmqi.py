"""TMQI: how well a picture shows the structure of a scene, and how natural it looks.

Yeganeh & Wang, "Objective quality assessment of tone-mapped images" (IEEE TIP 22, 657, 2013).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_A, _ALPHA, _BETA = 0.8012, 0.3046, 0.7088
_normal_cdf = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)), otypes=[float])


def luminance(bgr: NDArray[np.floating]) -> Plane:
    """Weigh the channels as the eye does."""
    return np.asarray(bgr.astype(np.float64) @ (0.0722, 0.7152, 0.2126))


def tmqi(radiance: Plane, picture: Plane) -> float:
    """Quality 0 … 1 of a picture (luma 0 … 255) of a scene (luminance)."""
    scene = (radiance - radiance.min()) / np.ptp(radiance) * (2**32 - 1)
    fidelity = 1.0
    one, two = scene, picture
    for scale, weight in enumerate(_WEIGHTS):
        fidelity *= max(_structure(one, two, 2.0 ** (4 - scale)), 1e-6) ** weight
        one, two = (cv2.blur(p, (2, 2))[::2, ::2] for p in (one, two))
    return _A * fidelity**_ALPHA + (1 - _A) * _naturalness(picture) ** _BETA


def _structure(one: Plane, two: Plane, cycles: float) -> float:
    mean1, mean2 = _blurred(one), _blurred(two)
    deviation1 = np.sqrt(np.maximum(_blurred(one * one) - mean1**2, 0))
    deviation2 = np.sqrt(np.maximum(_blurred(two * two) - mean2**2, 0))
    both = _blurred(one * two) - mean1 * mean2
    sensitivity = 260 * (0.0192 + 0.114 * cycles) * math.exp(-((0.114 * cycles) ** 1.1))
    middle = 128 / (1.4 * sensitivity)
    seen1, seen2 = (_normal_cdf((d - middle) / (middle / 3)) for d in (deviation1, deviation2))
    visible = (2 * seen1 * seen2 + 0.01) / (seen1**2 + seen2**2 + 0.01)
    return float((visible * (both + 10) / (deviation1 * deviation2 + 10)).mean())


def _blurred(plane: Plane) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5)[5:-5, 5:-5])


def _naturalness(picture: Plane) -> float:
    height, width = (side // 11 * 11 for side in picture.shape)
    blocks = picture[:height, :width].reshape(height // 11, 11, width // 11, 11)
    contrast = float(np.clip(blocks.std(axis=(1, 3)).mean() / 64.29, 1e-6, 1 - 1e-6))
    mode = 3.4 / 12.5
    shape = (contrast / mode) ** 3.4 * ((1 - contrast) / (1 - mode)) ** 9.1
    return shape * math.exp(-0.5 * ((float(picture.mean()) - 115.94) / 27.99) ** 2)
