"""The choice of ends, and of a second opinion, by what predicts best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.basis import Estimate
from asi_watch.hdr.calibration.observations import Observations, observe
from asi_watch.hdr.calibration.plain import fit_plain
from asi_watch.hdr.calibration.prediction import (
    HALF_SATURATED,
    is_still,
    leave_one_out_error,
    straight_on,
    thinned,
    with_mean_ends,
)
from asi_watch.hdr.calibration.samples import CODES, BracketSamples

# By this much must predict better than straight ends: means up to high_clip, means up to 255 (a
# jump there scales whole pictures), and the plain curve than what was best so far. It is fitted
# to the noise of the very codes it is judged by, which alone is worth a twentieth.
_BETTER_CODES, _BETTER_ENDS, _BETTER_CURVE = 0.95, 0.8, 0.9
# The plain curve is only asked where it cannot wiggle: smoother than usual, with exposures enough.
_PLAIN_FACTOR = 10.0
_PLAIN_EXPOSURES = 5

Vector = NDArray[np.float64]


def best_predicting(
    samples: Sequence[BracketSamples],
    robust: list[Estimate],
    weight: Vector,
    smoothness: float,
    clips: Sequence[tuple[int, int]],
) -> tuple[list[Estimate], str]:
    """Give the robust curves their ends; prefer plain ones where they predict far better.

    They do where the images break the model for most places (flare, a film's base); of scenes
    that moved the bare codes cannot judge, there the robust curves stand with straight ends.

    Parameters
    ----------
    samples : sequence of BracketSamples
    robust : list of (ndarray, int)
        Curve and repairs of each channel.
    weight : ndarray, shape (256,)
        With which a merge would count each code.
    smoothness : float
        Of a plain curve.
    clips : sequence of (int, int)
        Lowest and highest code that each robust curve was fitted to.

    Returns
    -------
    estimate : list of (ndarray, int)
    method : str
    """
    few = thinned(samples)
    judges = [observe(few, channel, 0, CODES - 1, fine=False) for channel in range(len(robust))]
    best, to_clip, to_white = [], [], []
    for (curve, repairs), judge, (low, high) in zip(robust, judges, clips, strict=True):
        last = min(HALF_SATURATED, high)
        ended = with_mean_ends(curve, judge, weight, low, last)
        dark = np.where(np.arange(CODES) <= last, ended, curve)
        best.append((straight_on(dark, high), repairs))
        to_clip.append((straight_on(ended, high), repairs))
        to_white.append((ended, repairs))
    method = "robust"
    if not is_still(samples):
        return best, method
    straight_error = error = _joint_error(best, judges, weight)
    for candidate, name, share in (
        (to_clip, "robust, mean bright codes", _BETTER_CODES),
        (to_white, "robust, mean white", _BETTER_ENDS),
    ):
        candidate_error = _joint_error(candidate, judges, weight)
        if candidate_error < min(share * straight_error, error):
            best, method, error = candidate, name, candidate_error
    if min(len(s.exposure_times) for s in samples) >= _PLAIN_EXPOSURES:
        fits = [fit_plain(judge, weight, smoothness * _PLAIN_FACTOR) for judge in judges]
        plain = [
            (straight_on(curve, high), repairs)
            for (curve, repairs), (_, high) in zip(fits, clips, strict=True)
        ]
        if _joint_error(plain, judges, weight) < _BETTER_CURVE * error:
            best, method = plain, f"plain, smoothness × {_PLAIN_FACTOR:g}"
    return best, method


def _joint_error(
    estimate: Sequence[Estimate], judges: Sequence[Observations], weight: Vector
) -> float:
    errors = [
        leave_one_out_error(curve, judge, weight)
        for (curve, _), judge in zip(estimate, judges, strict=True)
    ]
    return float(np.sqrt(np.mean(np.square(errors))))
