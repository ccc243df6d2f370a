"""The response curve g(z) of a camera as a value that never changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

ChannelOrder = Literal["BGR", "RGB"]


@dataclass(frozen=True, eq=False)
class ResponseCurve:
    """A log response g(z) = ln(irradiance × exposure time) with where it came from.

    Parameters
    ----------
    log_response : ndarray, shape (256, C), float32
        g(z) per channel, channels in BGR order; made read-only.
    metadata : mapping
        What the curve's file says about it. `channel_order` there describes the file, not this
        array.

    Raises
    ------
    ValueError
        If the array is not (256, C) with C = 1 or 3, or holds a value that is not finite.
    """

    log_response: NDArray[np.float32]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        curve = np.array(as_log_response(self.log_response), order="C")
        curve.setflags(write=False)
        object.__setattr__(self, "log_response", curve)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.log_response.shape[1])

    @cached_property
    def curve_id(self) -> str:
        """Content hash: 16 hex digits of SHA-256 over g as little-endian float32, BGR order."""
        return hashlib.sha256(self.log_response.astype("<f4").tobytes()).hexdigest()[:16]


def as_log_response(response: ArrayLike) -> NDArray[np.float32]:
    """Give a response array its one shape, (256, C) float32.

    Parameters
    ----------
    response : array_like, shape (256,), (256, C) or (256, 1, C)
        g(z) in the ln domain.

    Returns
    -------
    ndarray, shape (256, C), float32

    Raises
    ------
    ValueError
        If the shape is another one or a value is not finite.
    """
    curve = np.asarray(response, dtype=np.float32)
    if curve.ndim == 3 and curve.shape[1] == 1:
        curve = curve[:, 0, :]
    elif curve.ndim == 1:
        curve = curve[:, np.newaxis]
    if curve.ndim != 2 or curve.shape[0] != 256 or curve.shape[1] not in (1, 3):
        shape = np.shape(response)
        raise ValueError(
            f"a response curve has shape (256, C) or (256, 1, C), C 1 or 3; got {shape}"
        )
    if not np.isfinite(curve).all():
        raise ValueError("the response curve holds values that are not finite")
    return curve
