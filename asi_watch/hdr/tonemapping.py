"""From ln E to the codes of a display picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class ToneCurve:
    """The global tone curve ((exp lnE − exp a) / (exp b − exp a)) ^ (1/γ), clipped to 0 … 1.

    Parameters
    ----------
    black, white : float
        a and b: the ln E shown as black and as white.
    gamma : float
        γ of the display; 1 leaves the picture linear.

    Raises
    ------
    ValueError
        If `white` is not above `black` or `gamma` not above 0.
    """

    black: float
    white: float
    gamma: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.black, self.white]).all() and self.black < self.white):
            raise ValueError(f"the ln E range must rise; got ({self.black:g}, {self.white:g})")
        if not (np.isfinite(self.gamma) and self.gamma > 0):
            raise ValueError(f"gamma must be above 0; got {self.gamma:g}")

    def levels(self, ln_e: ArrayLike) -> NDArray[np.float64]:
        """Display level of each ln E, 0 … 1.

        Everything is measured from `white`, so that no unit of time overflows exp().
        """
        ln = np.asarray(ln_e, dtype=np.float64)
        floor = np.exp(self.black - self.white)
        linear = (np.exp(np.minimum(ln - self.white, 0.0)) - floor) / (1.0 - floor)
        return np.asarray(np.clip(linear, 0.0, 1.0) ** (1.0 / self.gamma))

    def codes(self, ln_e: ArrayLike, maximum: int) -> NDArray[np.uint16]:
        """Display codes 0 … `maximum` (255 or 65535), truncated."""
        return (self.levels(ln_e) * maximum).astype(np.uint16)

    def thresholds(self, maximum: int) -> NDArray[np.float64]:
        """Smallest ln E of every code: entry k is where code k begins; entry 0 is −inf.

        Returns
        -------
        ndarray, shape (maximum + 2,), float64
            Rising; the last entry is +inf, so that a search never runs off the end.
        """
        level = np.arange(1, maximum + 1, dtype=np.float64) / maximum
        floor = np.exp(self.black - self.white)
        linear = level**self.gamma * (1.0 - floor) + floor
        out = np.empty(maximum + 2)
        out[0], out[-1] = -np.inf, np.inf
        out[1:-1] = self.white + np.log(linear)
        return out


def code_maximum(dtype: np.dtype[np.uint8] | np.dtype[np.uint16] | type) -> int:
    """Largest code of a picture's dtype: 255 or 65535.

    Raises
    ------
    ValueError
        If it is neither uint8 nor uint16.
    """
    kind = np.dtype(dtype)
    if kind == np.uint8:
        return 255
    if kind == np.uint16:
        return 65535
    raise ValueError(f"a picture is uint8 or uint16; got {kind}")
