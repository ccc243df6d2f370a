"""The camera: its response curve, the noise of its sensor, and its JPEG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

RESPONSES = ("srgb", "gamma", "film", "linear")
# Electrons in a full pixel and electrons of read noise: a small industrial sensor.
FULL_WELL = 11_000.0
READ_NOISE = 6.0
# The noise tile is this much wider than the image, so that every frame takes another part of it.
NOISE_SPARE = 61
CODES = 65_536
# Rows worked on at a time: what they need stays in the processor's cache.
BAND = 64
MICROSECONDS_PER_MS = 1000.0


def response_curve(kind: str) -> NDArray[np.float32]:
    """Logarithmic response curve g(z) = ln(irradiance per µs × exposure in µs).

    The three channels differ a little in contrast, as real sensors do; each is fixed by
    g(128) = 0.

    Parameters
    ----------
    kind : {"srgb", "gamma", "film", "linear"}
        sRGB (IEC 61966-2-1), a power of 1/2.2, sRGB followed by an S-shaped film curve, or none.

    Returns
    -------
    ndarray, shape (256, 3), float32, BGR
        Strictly increasing.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind not in RESPONSES:
        raise ValueError(f"response {kind!r} is not one of {', '.join(RESPONSES)}")
    exposure = np.concatenate([[0.0], np.geomspace(1e-7, 1.0, 200_000)])
    # Code 0 is reached by no light at all; it stands for the quarter of a code.
    codes = np.maximum(np.arange(256), 0.25) / 255
    curves = []
    for contrast in (0.94, 1.0, 1.05):
        value = _encode(kind, exposure, contrast)
        g = np.log(np.interp(codes, value, exposure))
        curves.append(g - g[128])
    return np.stack(curves, axis=1).astype(np.float32)


def _encode(kind: str, x: NDArray[np.float64], contrast: float) -> NDArray[np.float64]:
    """Code in 0…1 for exposure in 0…1."""
    if kind == "linear":
        return x
    if kind == "gamma":
        return np.asarray(x ** (contrast / 2.2))
    power = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    power = power**contrast
    if kind == "srgb":
        return np.asarray(power)
    # A film's toe and shoulder: the smooth step, mixed in by half.
    return np.asarray(0.5 * power + 0.5 * power**2 * (3 - 2 * power))


@dataclass(frozen=True)
class _Tables:
    """Square-root code of exposure → pixel value, per channel."""

    values: NDArray[np.uint8]
    scale: float
    offset: float


class Camera:
    """A camera with a known response curve.

    Parameters
    ----------
    response : str
        Kind of the response curve, see `response_curve`.
    seed : int
        Seed of the noise.
    noise : bool
        False leaves out shot and read noise.
    quality : int
        JPEG quality, 1…100.

    Raises
    ------
    ValueError
        If `response` is unknown or `quality` out of range.
    """

    def __init__(
        self, response: str = "film", seed: int = 0, *, noise: bool = True, quality: int = 90
    ) -> None:
        if not 1 <= quality <= 100:
            raise ValueError(f"JPEG quality is 1…100, not {quality}")
        self.response = response
        self.quality = quality
        curve = response_curve(response)
        curve.setflags(write=False)
        self.log_response = curve
        self._noise = noise
        self._rng = np.random.default_rng([seed, 0xCA])
        self._grain: NDArray[np.float32] | None = None
        self._tables = _build_tables(curve)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file of the true curve says about it."""
        return {
            "channel_order": "BGR",
            "file_format": "log-response",
            "algorithm": f"simulated camera, {self.response}",
            "exposure_unit": "us",
            "channels": 3,
        }

    def expose(self, radiance: NDArray[np.float32], exposure_us: float) -> NDArray[np.uint8]:
        """Take a picture.

        Shot and read noise together have a variance a·x + b at exposure x; in the scale
        2·√(a·x + b)/a it is the same everywhere (Anscombe 1948, Biometrika 35, 246), so that one
        tile of noise, added in that scale, serves all frames.

        Parameters
        ----------
        radiance : ndarray, shape (H, W, 3), float32, BGR
            Relative irradiance per millisecond.
        exposure_us : float
            Exposure time in µs.

        Returns
        -------
        ndarray, shape (H, W, 3), uint8, BGR

        Raises
        ------
        ValueError
            If the exposure time is not a positive number.
        """
        if not (math.isfinite(exposure_us) and exposure_us > 0):
            raise ValueError(f"an exposure time is a positive number of µs, not {exposure_us}")
        tables = self._tables
        square = tables.scale**2
        factor = np.float32(exposure_us / MICROSECONDS_PER_MS * square)
        noise = self._noise_for(*radiance.shape[:2]) if self._noise else None
        picture = np.empty(radiance.shape, np.uint8)
        for top in range(0, len(radiance), BAND):
            rows = slice(top, top + BAND)
            root = radiance[rows] * factor
            root += np.float32(tables.offset * square)
            cv2.sqrt(root, dst=root)
            grain = np.zeros(4) if noise is None else noise[rows]
            # Rounded and limited to 0…65535 on the way.
            codes = np.asarray(cv2.add(root, grain, dtype=cv2.CV_16U))
            for channel in range(3):
                picture[rows, :, channel] = tables.values[channel][codes[..., channel]]
        return picture

    def encode(self, picture: NDArray[np.uint8]) -> bytes:
        """Compress a picture as the camera does: baseline JPEG, 4:2:0.

        Parameters
        ----------
        picture : ndarray, shape (H, W, 3), uint8, BGR

        Returns
        -------
        bytes
        """
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(picture),
            quality=self.quality,
            colorspace="BGR",
            colorsubsampling="420",
        )
        return bytes(data)

    def _noise_for(self, height: int, width: int) -> NDArray[np.float32]:
        """A part of the noise tile, another one for each frame."""
        shape = (height + NOISE_SPARE, width + NOISE_SPARE, 3)
        if self._grain is None or self._grain.shape != shape:
            self._grain = self._rng.standard_normal(shape, dtype=np.float32)
            self._grain *= np.float32(_noise_scale(self.log_response) * self._tables.scale)
        y, x = self._rng.integers(0, NOISE_SPARE, 2)
        return self._grain[y : y + height, x : x + width]


def _electrons(curve: NDArray[np.float32]) -> float:
    """Electrons per unit of exposure: the pixel is full where the last channel saturates."""
    return FULL_WELL / float(np.exp(curve[255].max()))


def _noise_scale(curve: NDArray[np.float32]) -> float:
    """Find the standard deviation of the noise of √(x + offset)."""
    return 0.5 / math.sqrt(_electrons(curve))


def _build_tables(curve: NDArray[np.float32]) -> _Tables:
    # Read noise is the shot noise of a constant number of electrons.
    offset = READ_NOISE**2 / _electrons(curve)
    brightest = float(np.exp(curve[255].max())) * 1.05 + offset
    scale = (CODES - 1) / math.sqrt(brightest)
    exposure = (np.arange(CODES) / scale) ** 2 - offset
    logarithm = np.log(np.maximum(exposure, 1e-9))
    codes = np.arange(256)
    values = [np.interp(logarithm, curve[:, c], codes) for c in range(curve.shape[1])]
    return _Tables(np.rint(values).astype(np.uint8), scale, offset)
