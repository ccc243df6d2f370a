"""The merge as a formula in plain float64: slow, short, and what the kernel must equal.

Debevec & Malik, "Recovering high dynamic range radiance maps from photographs" (SIGGRAPH 1997),
equation 6: ln E = Σ w(z) (g(z) − ln t) / Σ w(z), with fallbacks where no exposure
has weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.lookup_tables import remap_codes, weight_table
from asi_watch.hdr.response import as_log_response
from asi_watch.hdr.tone import GammaCurve, code_maximum

NO_WEIGHT = 1e-12


@dataclass(frozen=True)
class ReferenceRadiance:
    """What the formula gives.

    Parameters
    ----------
    ln_radiance : ndarray, shape (H, W, C), float64
        ln E, in 1 / (unit of the exposure times).
    shown : ndarray, shape (H, W, C), float64
        ln E as pictures show it, where the rim of a saturated sun is as it is.
    validity : ndarray, shape (H, W, C), uint8
        0 valid, 1 under-exposed everywhere, 2 over-exposed everywhere.
    minimum, maximum : ndarray, shape (C,), float64
        min_real and max_real: the range of ln E that the exposures can tell apart.
    """

    ln_radiance: NDArray[np.float64]
    shown: NDArray[np.float64]
    validity: NDArray[np.uint8]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]


def reference_radiance(
    frames: Sequence[NDArray[np.uint8]],
    exposure_times: Sequence[float],
    log_response: ArrayLike,
    *,
    weight_type: str,
    low_clip: int,
    high_clip: int,
    remap: bool,
) -> ReferenceRadiance:
    """Merge by the formula.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        One per exposure.
    exposure_times : sequence of float
        Positive, any unit.
    log_response : array_like, shape (256, C)
        g(z).
    weight_type : str
        As `weight_table` takes it.
    low_clip, high_clip : int
        Codes at or beyond which an exposure says nothing.
    remap : bool
        True: codes are stretched to z' before w and g are looked up (`debevec_custom`).
        False: raw codes, weight zero outside [low, high] (`debevec_exact`).

    Returns
    -------
    ReferenceRadiance
    """
    g = as_log_response(log_response).astype(np.float64)
    weights = weight_table(weight_type, g)
    ln_t = np.log(np.asarray(exposure_times, dtype=np.float64))
    codes = np.stack(frames)
    if remap:
        codes = remap_codes(low_clip, high_clip)[codes]
        dark, bright = 0, 255
    else:
        z = np.arange(256)
        weights[(z < low_clip) | (z > high_clip)] = 0.0
        dark, bright = low_clip, high_clip
    channel = np.arange(g.shape[1])
    w = weights[codes, channel]
    numerator = (w * (g[codes, channel] - ln_t[:, None, None, None])).sum(axis=0)
    total = w.sum(axis=0)
    empty = total <= NO_WEIGHT
    minimum, maximum = g.min(axis=0) - ln_t.max(), g.max(axis=0) - ln_t.min()
    ln_e = np.where(empty, 0.0 if remap else maximum, numerator / np.where(empty, 1.0, total))
    ln_e = np.minimum(ln_e, maximum)
    under = empty & (codes[np.argmin(ln_t)] <= dark)
    over = empty & (codes[np.argmax(ln_t)] >= bright)
    # Whatever a longer exposure shows where the shortest is saturated.
    shortest = int(np.argmin(ln_t))
    saturated = (codes[shortest] >= bright) & (w[shortest] <= NO_WEIGHT)
    shown = np.where(over | saturated, maximum, np.where(under, minimum, ln_e))
    table = remap_codes(low_clip, high_clip) if remap else np.arange(256)
    white = (table >= bright) & (weights[table].max(axis=1) <= NO_WEIGHT)
    saturated = _with_rim(saturated, frames[shortest], int(np.argmax(white)))
    over, empty = over | saturated, empty | saturated
    ln_e = np.where(over, maximum, np.where(under, minimum, ln_e))
    validity = np.where(empty, np.where(under & ~over, 1, 2), 0).astype(np.uint8)
    return ReferenceRadiance(ln_e, shown, validity, minimum, maximum)


def _with_rim(
    saturated: NDArray[np.bool_], codes: NDArray[np.uint8], bright: int
) -> NDArray[np.bool_]:
    """Add channels within 90 codes of a saturated one, and pixels within 35 beside them."""
    some = saturated.any(axis=2)
    near = np.zeros_like(some)
    for row, column in zip(*np.nonzero(some), strict=True):
        near[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    channel = some[..., np.newaxis] & (codes >= max(bright - 90, 1))
    return saturated | channel | (near[..., np.newaxis] & (codes >= max(bright - 35, 1)))


def reference_picture(
    radiance: ReferenceRadiance,
    *,
    lnE_range: tuple[float, float] | None,
    gamma: float,
    dtype: type[Any] = np.uint8,
) -> NDArray[Any]:
    """Tone-map a reference radiance; `gamma` 1 leaves it linear.

    Returns
    -------
    ndarray, shape (H, W, C), uint8 or uint16
    """
    out: NDArray[Any] = np.empty(radiance.shown.shape, dtype=dtype)
    maximum = code_maximum(dtype)
    for c in range(out.shape[2]):
        black, white = lnE_range or (float(radiance.minimum[c]), float(radiance.maximum[c]))
        curve = GammaCurve(black, white, gamma)
        out[..., c] = curve.codes(radiance.shown[..., c], maximum)
    return out
