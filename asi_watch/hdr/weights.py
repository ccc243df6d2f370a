"""How much each code z of an exposure counts in a merge, and how noisy it is.

`triangle` is the hat of Debevec & Malik (SIGGRAPH 1997); `sine` is a raised cosine of the same
support; `noise` is the inverse variance of ln E under a sensor model of shot, read and
quantisation noise, the weighting that Kirk & Andersen (BMVC 2006), Granados et al. (CVPR 2010)
and Hasinoff, Durand & Freeman (CVPR 2010) derive as the one of least variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.response import as_log_response

WeightType = Literal["triangle", "sine", "noise"]
WEIGHT_TYPES: tuple[str, ...] = get_args(WeightType)

_QUANTISATION_VARIANCE = 1.0 / 12.0

# A dozen electrons: darker codes count only where every exposure is as dark, and an even mean is
# then as good. It keeps the range of the weights within what integer sums hold to 1e-4 in ln E.
_SMALLEST_NOISE_WEIGHT = 1.0 / 2048.0


@dataclass(frozen=True)
class NoiseModel:
    """What the sensor adds to a perfect code.

    Parameters
    ----------
    full_well : float
        Electrons that a pixel holds at code 255.
    read_noise : float
        Standard deviation of the read-out, electrons.

    Notes
    -----
    The defaults are those of a small-pixel CMOS camera; only their ratio moves the weights.
    """

    full_well: float = 8000.0
    read_noise: float = 6.0


DEFAULT_NOISE = NoiseModel()


def log_variance(log_response: ArrayLike, noise: NoiseModel = DEFAULT_NOISE) -> NDArray[np.float64]:
    """Variance of g(z), that is of ln(irradiance × time), seen through one code.

    Parameters
    ----------
    log_response : array_like, shape (256, C)
        g(z).
    noise : NoiseModel
        Shot and read noise; quantisation contributes (g'(z))² / 12.

    Returns
    -------
    ndarray, shape (256, C), float64
        In (ln units)²; finite and positive.
    """
    g = as_log_response(log_response).astype(np.float64)
    electrons = noise.full_well * np.exp(g - g.max(axis=0))
    sensor = (electrons + noise.read_noise**2) / electrons**2
    slope = np.gradient(g, axis=0)
    return np.asarray(sensor + slope**2 * _QUANTISATION_VARIANCE, dtype=np.float64)


def weight_table(
    weight_type: str, log_response: ArrayLike | None = None, channels: int = 1
) -> NDArray[np.float64]:
    """Weight w(z) of every code, per channel.

    Parameters
    ----------
    weight_type : {"triangle", "sine", "noise"}
        `triangle`: z up to 127, 255 − z above. `sine`: cos(2πz/255 − π) + 1. `noise`: inverse
        variance of ln E, scaled to a maximum of 1 and not below 1/2048. All are zero at 0 and
        255.
    log_response : array_like, shape (256, C), optional
        g(z); `noise` needs it.
    channels : int
        Number of columns when there is no response.

    Returns
    -------
    ndarray, shape (256, C), float64

    Raises
    ------
    ValueError
        If the name is unknown, or `noise` is asked for without a response.
    """
    if log_response is not None:
        channels = as_log_response(log_response).shape[1]
    z = np.arange(256, dtype=np.float64)
    if weight_type == "triangle":
        column = np.minimum(z, 255.0 - z)
    elif weight_type == "sine":
        column = np.cos(2.0 * np.pi * z / 255.0 - np.pi) + 1.0
    elif weight_type == "noise":
        if log_response is None:
            raise ValueError("the weight 'noise' needs a response curve")
        return _noise_weights(log_response)
    else:
        raise ValueError(f"weight_type is one of {', '.join(WEIGHT_TYPES)}; got {weight_type!r}")
    column[[0, 255]] = 0.0
    return np.repeat(column[:, np.newaxis], channels, axis=1)


def _noise_weights(log_response: ArrayLike) -> NDArray[np.float64]:
    weights = 1.0 / log_variance(log_response)
    weights /= weights[1:255].max(axis=0)
    weights = np.maximum(weights, _SMALLEST_NOISE_WEIGHT)
    weights[[0, 255]] = 0.0
    return weights


def remap_codes(low_clip: int, high_clip: int) -> NDArray[np.uint8]:
    """Stretch codes from [low_clip, high_clip] to 0 … 255.

    Parameters
    ----------
    low_clip, high_clip : int
        0 ≤ low < high ≤ 255.

    Returns
    -------
    ndarray, shape (256,), uint8
        trunc((clip(z, low, high) − low) · 255 / (high − low)), computed in float32.
    """
    z = np.arange(256, dtype=np.float32)
    clipped = np.clip(z, np.float32(low_clip), np.float32(high_clip)) - np.float32(low_clip)
    return (clipped * np.float32(255) / np.float32(high_clip - low_clip)).astype(np.uint8)
