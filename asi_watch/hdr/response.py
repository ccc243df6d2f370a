"""The response curve g(z) of a camera as a value that never changes, and whether it can be one."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

ChannelOrder = Literal["BGR", "RGB"]
Severity = Literal["refuse", "warn"]

_CHANNEL_NAMES = {1: ("grey",), 3: ("blue", "green", "red")}
"""Names of the channels of a curve, in the order of its columns."""

# Codes judged for their course: beyond them noise and saturation leave a curve little to stand on.
_FIRST, _LAST = 15, 240
_MIDDLE = slice(64, 193)
_DEEPEST_FALL = 1.0  # stops; published solvers leave dents of a few tenths
_SMALLEST_FALL = 0.005  # stops; less is rounding
# Known cameras cover 1.9 to 9.9 stops from code 15 to 240.
_NO_RISE, _SMALL_RANGE, _LARGE_RANGE, _ABSURD_RANGE = 0.25, 1.5, 15.0, 40.0
# Slope from 15 to 60 over that from 195 to 240: at least 1 for known cameras in the ln domain,
# far below for the exposures themselves (0.1 for a power law).
_LINEAR_BEND = 0.7


@dataclass(frozen=True, eq=False)
class ResponseCurve:
    """A log response g(z) = ln(irradiance × exposure time) with where it came from."""

    # g(z) per channel, channels in BGR order; made read-only. ValueError as `as_log_response`.
    log_response: NDArray[np.float32]
    # What the curve's file says about it. `channel_order` there describes the file, not this array.
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        curve = np.array(as_log_response(self.log_response), order="C")
        curve.setflags(write=False)
        object.__setattr__(self, "log_response", curve)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.log_response.shape[1])

    @property
    def tone_scale(self) -> tuple[float, float] | None:
        """Scale of the brackets the curve was made of (`weighted_merge.curve_scale`), if known."""
        found = self.metadata.get("tone_scale")
        if not isinstance(found, list | tuple) or len(found) != 2:
            return None
        numbers = [v for v in found if isinstance(v, int | float) and math.isfinite(v)]
        return (float(numbers[0]), float(numbers[1])) if len(numbers) == 2 else None

    @property
    def provisional(self) -> bool:
        """Whether the brackets it was made of told too little for more than a beginning."""
        return self.metadata.get("provisional") is True

    @cached_property
    def curve_id(self) -> str:
        """Content hash: 16 hex digits of SHA-256 over g as little-endian float32, BGR order."""
        return hashlib.sha256(self.log_response.astype("<f4").tobytes()).hexdigest()[:16]


def as_log_response(response: ArrayLike) -> NDArray[np.float32]:
    """Give a response array its one shape, (256, C) float32.

    Parameters
    ----------
    response : array_like, shape (256,), (256, C) or (256, 1, C)
        g(z) in the ln domain, C 1 or 3; ValueError for other shapes, complex numbers and values
        not finite.
    """
    if np.iscomplexobj(response):
        raise ValueError("a response curve holds real numbers; these are complex")
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


def on_scale_of(curve: ResponseCurve, present: ResponseCurve) -> ResponseCurve:
    """Give a curve the free constant per channel of the one it is to replace.

    No calibration can know these constants; products stay comparable over a swap when both curves
    agree in the median over the middle codes. A first curve has g(128) = 0.

    Parameters
    ----------
    curve, present : ResponseCurve
        Of the same number of channels.
    """
    difference = present.log_response.astype(np.float64) - curve.log_response
    moved = curve.log_response + np.median(difference[_MIDDLE], axis=0)
    metadata = dict(curve.metadata)
    if "lnE_range" in metadata:
        low, high = metadata["lnE_range"]
        ends = [moved.min() - curve.log_response.min(), moved.max() - curve.log_response.max()]
        metadata["lnE_range"] = [low + float(ends[0]), high + float(ends[1])]
    return ResponseCurve(moved.astype(np.float32), metadata)


def curve_drift(curve: ResponseCurve, earlier: ResponseCurve) -> float:
    """Return how far a curve is from another, in stops.

    Root mean square over the codes 15 … 240, in the worst channel; the free constant is left out.

    Parameters
    ----------
    curve, earlier : ResponseCurve
        Of the same number of channels.
    """
    difference = (curve.log_response - earlier.log_response)[_FIRST : _LAST + 1].astype(np.float64)
    return float(np.max(np.std(difference, axis=0)) / np.log(2))


@dataclass(frozen=True, slots=True)
class CurveProblem:
    """What is wrong with a response curve."""

    # "refuse": no camera can have it, and nothing is merged with it. "warn": it can be used.
    severity: Severity
    text: str  # one clause for the operator, without the name of the file


def judge_curve(response: ArrayLike) -> tuple[CurveProblem, ...]:
    """Judge whether an array can be the log response of a camera: problems that refuse first.

    Parameters
    ----------
    response : array_like
        g(z) in the ln domain, columns in BGR order; of any shape and content.
    """
    try:
        curve = as_log_response(response).astype(np.float64)
    except (ValueError, TypeError) as error:
        return (CurveProblem("refuse", str(error)),)
    named: dict[CurveProblem, list[str]] = {}
    for column, name in enumerate(_CHANNEL_NAMES[curve.shape[1]]):
        for problem in _channel_problems(curve[:, column]):
            named.setdefault(problem, []).append(name)
    found = [
        CurveProblem(problem.severity, f"{', '.join(names)}: {problem.text}")
        for problem, names in named.items()
    ]
    if curve.min() >= 0 and not any(p.severity == "refuse" for p in found):
        text = "every value is positive: exposures, it seems, not their logarithm g(z)"
        linear = any(_looks_linear(g) for g in curve.T)
        found.append(CurveProblem("refuse" if linear else "warn", text))
    return tuple(sorted(found, key=lambda p: p.severity))


def _channel_problems(g: NDArray[np.float64]) -> list[CurveProblem]:
    stops = g / np.log(2.0)
    rise = stops[_LAST] - stops[_FIRST]
    between = f"from code {_FIRST} to {_LAST}"
    if rise <= -_NO_RISE:
        return [CurveProblem("refuse", f"falls by {-rise:.2f} stops {between}: no camera's")]
    if rise < _NO_RISE:
        text = f"does not rise: {rise:.2f} stops {between}, no camera's"
        return [CurveProblem("refuse", text)]
    if rise > _ABSURD_RANGE:
        return [CurveProblem("refuse", f"rises by {rise:.0f} stops {between}: no camera's")]
    found = []
    if not _SMALL_RANGE <= rise <= _LARGE_RANGE:
        text = f"rises by {rise:.1f} stops {between}; cameras do by 2 to 10"
        found.append(CurveProblem("warn", text))
    steps = np.diff(stops)
    falling = int((steps < -_SMALLEST_FALL).sum())
    if falling:
        inner = stops[_FIRST : _LAST + 1]
        deepest = float((np.maximum.accumulate(inner) - inner).max())
        at = int(np.argmin(steps)) + 1
        text = f"falls at {falling} of 255 steps between codes, most at code {at}"
        if deepest > _DEEPEST_FALL:
            text += f", in all by {deepest:.1f} stops below what it had reached: no camera's"
            return [CurveProblem("refuse", text)]
        found.append(CurveProblem("warn", f"{text} ({steps.min():.2f} stops)"))
    return found


def _looks_linear(g: NDArray[np.float64]) -> bool:
    return bool(g[60] - g[_FIRST] < _LINEAR_BEND * (g[_LAST] - g[195]))
