"""What a radiance product holds, and how ln E becomes the numbers of a file.

The merge works in ln E with exposure times in microseconds; files carry E × 1000, which puts
daylight all-sky radiances into the middle of what half floats resolve. Work goes block by block
of rows, so that only the file's own planes are image-sized.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHANNEL_NAMES",
    "HALF_RANGE",
    "RADIANCE_SCALE",
    "HalfLayers",
    "RadianceLayers",
    "blocks",
    "float_planes",
    "half_planes",
    "round_to_half",
]

RADIANCE_SCALE = 1000.0
"""Radiance in files = exp(lnE) × this: per millisecond, where lnE is per microsecond."""

_LN_SCALE = np.float32(math.log(RADIANCE_SCALE))
HALF_RANGE = (2.0**-14, 65504.0)
"""Smallest normal and largest half float: below, precision fades; above, there is only infinity."""
_BLOCK_VALUES = 48 << 10
CHANNEL_NAMES: dict[int, tuple[str, ...]] = {1: ("Y",), 3: ("B", "G", "R")}


@dataclass(frozen=True, slots=True, eq=False)
class RadianceLayers:
    """What a radiance product holds.

    Parameters
    ----------
    ln_radiance : ndarray, shape (H, W, C), float32
        ln E, E in 1/µs of exposure; BGR or one channel; finite.
    validity : ndarray, shape (H, W, C), uint8, optional
        0 valid, 1 too dark in every exposure, 2 saturated in every exposure.
    uncertainty : ndarray, shape (H, W, C), float, optional
        Standard deviation of ln E.

    Raises
    ------
    ValueError
        If shapes or types differ from that.
    """

    ln_radiance: NDArray[np.float32]
    validity: NDArray[np.uint8] | None = None
    uncertainty: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        ln = self.ln_radiance
        if (
            ln.dtype != np.float32
            or ln.ndim != 3
            or ln.shape[2] not in CHANNEL_NAMES
            or ln.size == 0
        ):
            raise ValueError(f"ln_radiance is float32 (H, W, 1 or 3); got {ln.dtype} {ln.shape}")
        for name, layer in (("validity", self.validity), ("uncertainty", self.uncertainty)):
            if layer is not None and layer.shape != ln.shape:
                raise ValueError(f"{name} has shape {layer.shape}, ln_radiance {ln.shape}")
        if self.validity is not None and self.validity.dtype != np.uint8:
            raise ValueError(f"validity is uint8; got {self.validity.dtype}")

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and largest radiance, in the file's unit.

        Raises
        ------
        ValueError
            If a value is not finite.
        """
        low, high = float(self.ln_radiance.min()), float(self.ln_radiance.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("ln_radiance holds values that are not finite")
        return _exp(low), _exp(high)


@dataclass(frozen=True, slots=True, eq=False)
class HalfLayers:
    """What a radiance product of half floats holds, plane by plane as the file does.

    Parameters
    ----------
    planes : ndarray, shape (C, H, W), float16
        Radiance in the file's unit; B, G, R or one channel.
    validity : ndarray, shape (C, H, W), uint8
        As in `RadianceLayers`.
    uncertainty : ndarray, shape (H, W, C), float, optional
        As in `RadianceLayers`.

    Raises
    ------
    ValueError
        If shapes or types differ from that.
    """

    planes: NDArray[np.float16]
    validity: NDArray[np.uint8]
    uncertainty: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        shape = self.planes.shape
        if self.planes.dtype != np.float16 or len(shape) != 3 or shape[0] not in CHANNEL_NAMES:
            raise ValueError(f"planes are float16 (1 or 3, H, W); got {self.planes.dtype} {shape}")
        if self.validity.dtype != np.uint8 or self.validity.shape != shape:
            raise ValueError(f"validity has shape {self.validity.shape}, the planes {shape}")


def _exp(ln_value: float) -> float:
    return math.inf if ln_value > 700 else math.exp(ln_value) * RADIANCE_SCALE


def blocks(ln: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield radiance in cache-sized blocks of rows; the block's memory is used again."""
    height, width, channels = ln.shape
    rows = max(1, _BLOCK_VALUES // (width * channels))
    scratch = np.empty((rows, width, channels), np.float32)
    for top in range(0, height, rows):
        part = ln[top : top + rows]
        block = scratch[: len(part)]
        np.add(part, _LN_SCALE, out=block)
        np.exp(block, out=block)
        yield slice(top, top + len(part)), block


def float_planes(layers: RadianceLayers) -> NDArray[np.float32]:
    """Radiance in the file's unit, shape (C, H, W)."""
    height, width, channels = layers.ln_radiance.shape
    planes = np.empty((channels, height, width), np.float32)
    for rows, block in blocks(layers.ln_radiance):
        planes[:, rows] = block.transpose(2, 0, 1)
    return planes


def half_planes(layers: RadianceLayers) -> NDArray[np.float16]:
    """Radiance in the file's unit, shape (C, H, W), held to the normal range of half floats."""
    height, width, channels = layers.ln_radiance.shape
    planes = np.empty((channels, height, width), np.float16)
    for rows, block in blocks(layers.ln_radiance):
        planes[:, rows] = round_to_half(block).transpose(2, 0, 1)
    return planes


def round_to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round positive numbers to half floats by integer arithmetic, nearest, ties to even.

    Takes a third of the time of NumPy's conversion, because values are first held to the normal
    range of half floats.

    Parameters
    ----------
    values : ndarray, float32
        Overwritten.

    Returns
    -------
    ndarray of the same shape, float16
    """
    np.clip(values, np.float32(HALF_RANGE[0]), np.float32(HALF_RANGE[1]), out=values)
    bits = values.view(np.uint32)
    odd = (bits >> 13) & 1
    # Shift the exponent's bias from 127 to 15 and round off the 13 bits that go.
    bits += odd
    bits -= np.uint32((112 << 23) - 0xFFF)
    bits >>= 13
    return bits.astype(np.uint16).view(np.float16)
