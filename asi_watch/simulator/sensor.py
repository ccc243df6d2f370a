"""The camera: its response curve, the noise of its sensor, and its JPEG."""

import math

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

RESPONSES = ("srgb", "gamma", "film", "linear")
# Electrons in a full pixel and electrons of read noise: a small industrial sensor.
FULL_WELL = 11_000.0
READ_NOISE = 6.0
# Codes of linear pictures without light, and of full pixels.
BLACK, WHITE = 1024, 65_535
# The noise tile is this much wider than the image, so that every frame takes another part of it.
_NOISE_SPARE = 61
_CODES = 65_536
# Rows worked on at a time: what they need stays in the processor's cache.
_BAND = 64
_MICROSECONDS_PER_MS = 1000.0


def response_curve(kind: str) -> NDArray[np.float32]:
    """Logarithmic response curve g(z), shape (256, 3), float32, BGR, rising, g(128) = 0.

    The channels differ a little in contrast, as real sensors do.

    Parameters
    ----------
    kind : {"srgb", "gamma", "film", "linear"}
        sRGB (IEC 61966-2-1), a power of 1/2.2, sRGB followed by an S-shaped film curve, or none.
    """
    if kind not in RESPONSES:
        raise ValueError(f"response {kind!r} is not one of {', '.join(RESPONSES)}")
    exposure = np.concatenate([[0.0], np.geomspace(1e-7, 1.0, 200_000)])
    # Code 0 is reached by no light at all; it stands for the quarter of a code.
    codes = np.maximum(np.arange(256), 0.25) / 255
    curves = []
    for contrast in (0.94, 1.0, 1.05):
        g = np.log(np.interp(codes, _code(kind, exposure, contrast), exposure))
        curves.append(g - g[128])
    return np.stack(curves, axis=1).astype(np.float32)


def _code(kind: str, x: NDArray[np.float64], contrast: float) -> NDArray[np.float64]:
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


class Camera:
    """A camera with a known response curve.

    Shot and read noise together have a variance a·x + b at exposure x; in the scale
    2·√(a·x + b)/a it is the same everywhere (Anscombe 1948, Biometrika 35, 246), so that one tile
    of noise, added in that scale, serves all frames.

    Parameters
    ----------
    response : str
        See `response_curve`.
    seed : int
        Of the noise.
    noise : bool
    quality : int
        JPEG quality, 1…100.
    """

    def __init__(
        self, response: str = "film", seed: int = 0, *, noise: bool = True, quality: int = 90
    ) -> None:
        if not 1 <= quality <= 100:
            raise ValueError(f"JPEG quality is 1…100, not {quality}")
        self.response, self.quality = response, quality
        curve = self.log_response = response_curve(response)
        curve.setflags(write=False)
        self._noise = noise
        self._rng = np.random.default_rng([seed, 0xCA])
        self._grain: NDArray[np.float32] | None = None
        # A pixel is full where the last channel saturates.
        full = float(np.exp(curve[255].max()))
        electrons = self._electrons = FULL_WELL / full
        # Read noise is the shot noise of a constant number of electrons.
        self._offset = READ_NOISE**2 / electrons
        self._scale = (_CODES - 1) / math.sqrt(full * 1.05 + self._offset)
        self._grain_scale = np.float32(0.5 / math.sqrt(electrons) * self._scale)
        # By channel: square-root code of the exposure → pixel value.
        logarithm = np.log(np.maximum((np.arange(_CODES) / self._scale) ** 2 - self._offset, 1e-9))
        self._values = [
            np.rint(np.interp(logarithm, curve[:, channel], np.arange(256))).astype(np.uint8)
            for channel in range(3)
        ]

    def expose(self, radiance: NDArray[np.float32], exposure_us: float) -> NDArray[np.uint8]:
        """Take a picture, shape (H, W, 3), uint8, BGR.

        Parameters
        ----------
        radiance : ndarray, shape (H, W, 3), float32, BGR
            Relative irradiance per millisecond.
        exposure_us : float
        """
        if not (math.isfinite(exposure_us) and exposure_us > 0):
            raise ValueError(f"an exposure time is a positive number of µs, not {exposure_us}")
        square = self._scale**2
        factor = np.float32(exposure_us / _MICROSECONDS_PER_MS * square)
        noise = self._noise_for(*radiance.shape[:2]) if self._noise else None
        picture = np.empty(radiance.shape, np.uint8)
        for top in range(0, len(radiance), _BAND):
            rows = slice(top, top + _BAND)
            root = radiance[rows] * factor
            root += np.float32(self._offset * square)
            cv2.sqrt(root, dst=root)
            grain = np.zeros(4) if noise is None else noise[rows]
            # Rounded and limited to 0…65535 on the way.
            codes = np.asarray(cv2.add(root, grain, dtype=cv2.CV_16U))
            for channel, values in enumerate(self._values):
                picture[rows, :, channel] = values[codes[..., channel]]
        return picture

    def expose_linear(
        self, radiance: NDArray[np.float32], exposure_us: float
    ) -> NDArray[np.uint16]:
        """Take a picture whose codes rise with the light from `BLACK` on, (H, W, 3), uint16, BGR.

        Parameters
        ----------
        radiance, exposure_us
            As in `expose`.
        """
        electrons = radiance * np.float32(exposure_us / _MICROSECONDS_PER_MS * self._electrons)
        if self._noise:
            noise = self._rng.standard_normal(radiance.shape, dtype=np.float32)
            electrons += noise * np.sqrt(electrons + np.float32(READ_NOISE**2))
        codes = BLACK + electrons * np.float32((WHITE - BLACK) / FULL_WELL)
        return np.asarray(np.rint(np.clip(codes, 0, WHITE)), np.uint16)

    def encode(self, picture: NDArray[np.uint8]) -> bytes:
        """Compress a picture as the camera does: baseline JPEG, 4:2:0.

        Parameters
        ----------
        picture : ndarray, shape (H, W, 3), uint8, BGR
        """
        options = {"quality": self.quality, "colorspace": "BGR", "colorsubsampling": "420"}
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), **options))

    def _noise_for(self, height: int, width: int) -> NDArray[np.float32]:
        """A part of the noise tile, another one for each frame."""
        shape = (height + _NOISE_SPARE, width + _NOISE_SPARE, 3)
        if self._grain is None or self._grain.shape != shape:
            self._grain = self._rng.standard_normal(shape, dtype=np.float32)
            self._grain *= self._grain_scale
        y, x = self._rng.integers(0, _NOISE_SPARE, 2)
        return self._grain[y : y + height, x : x + width]
