"""Seamless noise tiles, made once and reused for every frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fractal_tile(
    rng: np.random.Generator,
    size: int,
    *,
    slope: float,
    lowest: float = 2.0,
    stretch: float = 1.0,
) -> NDArray[np.float32]:
    """Make a tile of fractal noise that continues across its edges.

    White noise is shaped in the frequency domain to amplitudes proportional to k^−slope, which is
    the sum of very many octaves at once.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
        Width and height in pixels.
    slope : float
        Exponent of the amplitude spectrum: larger is smoother.
    lowest : float
        Lowest frequency kept, in cycles per tile; it sets the size of the largest forms.
    stretch : float
        Above 1, forms are drawn out along x by this factor.

    Returns
    -------
    ndarray, shape (size, size), float32
        Mean 0, standard deviation 1.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    ky = np.fft.fftfreq(size, 1 / size)[:, np.newaxis]
    kx = np.fft.rfftfreq(size, 1 / size)[np.newaxis, :] * stretch
    k = np.hypot(kx, ky)
    shape = np.zeros_like(k)
    np.power(k, -slope, where=k > 0, out=shape)
    shape *= 1 / (1 + (lowest / np.maximum(k, 1e-9)) ** 6)
    tile = np.fft.irfft2(spectrum * shape, s=(size, size)).astype(np.float32)
    tile -= tile.mean()
    tile /= tile.std()
    return tile
