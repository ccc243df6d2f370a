"""Pictures by operators that look at the whole radiance map: OpenCV's, and `local`."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.merge_settings import MergeSettings, Radiance
from asi_watch.hdr.tone import PhotographicCurve, ToneScale, to_srgb

_BASE_RADIUS = 1 / 16  # of the shorter side
_BASE_EDGE = 0.5  # steps of ln E above are edges, below details

Plane = NDArray[np.float32]


def whole_levels(radiance: Radiance, settings: MergeSettings, scale: ToneScale) -> Plane:
    """Map a radiance map to display levels 0 … 1, shape (H, W, C).

    Parameters
    ----------
    radiance : Radiance
    settings : MergeSettings
        With `maps_whole`.
    scale : ToneScale
    """
    ln = radiance.ln_radiance
    if settings.sky_disc is not None:
        # What is outside must not set the scale.
        ln[~settings.sky_disc.mask(ln.shape)] = scale.middle
    if settings.tone.operator == "local":
        curve = PhotographicCurve(*scale, settings.tone.key)
        return _local(ln, curve, settings.tone.detail)
    light = np.exp(np.clip(ln - np.float32(scale.middle), -30, 30))
    mapped = _mapping(settings).process(np.broadcast_to(light, (*ln.shape[:2], 3)).copy())
    levels = np.nan_to_num(np.asarray(mapped, dtype=np.float32))[:, :, : ln.shape[2]]
    return np.clip(levels, 0.0, 1.0)


def _mapping(settings: MergeSettings) -> Any:
    tone, gamma = settings.tone, settings.gamma
    if tone.operator == "reinhard":
        return cv2.createTonemapReinhard(gamma, light_adapt=tone.adaptation)
    if tone.operator == "drago":
        return cv2.createTonemapDrago(gamma, bias=tone.bias)
    return cv2.createTonemapMantiuk(gamma, scale=tone.contrast)


def _local(ln: Plane, curve: PhotographicCurve, detail: float) -> Plane:
    """Compress what a guided filter leaves (He, Sun, Tang 2010), and keep the rest as it is."""
    grey = np.minimum(ln.mean(axis=2), np.float32(curve.white))
    size = (2 * max(1, int(min(grey.shape) * _BASE_RADIUS)) + 1,) * 2
    mean = cv2.blur(grey, size)
    variance = cv2.blur(grey * grey, size) - mean * mean
    slope = variance / (variance + np.float32(_BASE_EDGE**2))
    base = np.asarray(cv2.blur(slope, size) * grey + cv2.blur(mean - slope * mean, size))
    kept = np.log(np.maximum(curve.linear(base), np.float32(1e-6))) - grey
    kept += np.float32(detail) * (grey - base)
    return to_srgb(np.minimum(np.exp(ln + kept[:, :, np.newaxis]), np.float32(1.0)))
