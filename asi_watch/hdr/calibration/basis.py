"""What of the samples a curve is made from: the levels around the places, or their bare codes.

A mean of 25 pixels has a fifth of their noise, but is that of one exposure only as far as what it
is the mean of differs little: of texture rougher than all noise, the single pixel tells more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.answering import highest_answering, lowest_answering
from asi_watch.hdr.calibration.observations import Observations, observe
from asi_watch.hdr.calibration.prediction import is_still, thinned
from asi_watch.hdr.calibration.residuals import channel_residuals
from asi_watch.hdr.calibration.robust import code_noise, fit_robust
from asi_watch.hdr.calibration.samples import BracketSamples

Estimate = tuple[NDArray[np.float64], int]  # g of one channel, steps its monotone constraint held

# Roughness over the noise of a code: from where on codes are better, and may be better.
_WORTHWHILE, _TEXTURE = 10.0, 4.0
_CLEARLY_LESS = 0.6
_EXPLAINED_STOPS = 0.02


_BGR = ("blue", "green", "red")


@dataclass(frozen=True)
class Basis:
    """What a channel's curve is made from.

    Parameters
    ----------
    low, high : int
        Codes that answer to exposure.
    fine : bool
        Levels of the surroundings, or else the bare codes.
    """

    low: int
    high: int
    fine: bool


def table_of(samples: Sequence[BracketSamples], channel: int, basis: Basis) -> Observations:
    """Collect one channel of all brackets; ValueError if nothing of it is usable."""
    table = observe(samples, channel, basis.low, basis.high, fine=basis.fine)
    if not table.usable.any():
        named = f" in {_BGR[channel]}" if samples[0].channels == len(_BGR) else ""
        raise ValueError(
            f"no usable samples{named}: every place is too dark or saturated in all exposures but"
            " one"
        )
    return table


def fit_best(
    samples: Sequence[BracketSamples], channel: int, clips: tuple[int, int], strength: float
) -> tuple[Basis, Estimate]:
    """Make the robust estimate of one channel from what tells most.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    clips : (int, int)
        Codes outside are not to be used.
    strength : float
        See `fit_robust`.

    Returns
    -------
    basis : Basis
    estimate : (ndarray of shape (256,), int)
    """
    low = lowest_answering(samples, channel, clips[0])
    high = highest_answering(samples, channel, clips[1])
    levels, codes = Basis(low, high, fine=True), Basis(low, high, fine=False)
    table = observe(samples, channel, low, high, fine=True)
    if not table.usable.any():
        if not observe(samples, channel, low, high, fine=False).usable.any():
            codes = Basis(*clips, fine=False)
        return codes, fit_robust(table_of(samples, channel, codes), strength)
    estimate = fit_robust(table, strength)
    if not is_still(samples) or all(s.levels is None for s in samples):
        return levels, estimate
    few = table_of(thinned(samples), channel, codes)
    roughness = float(np.median(table.roughness[table.usable]))
    spread = channel_residuals(len(samples), table, estimate[0]).spread()
    if spread < _EXPLAINED_STOPS and roughness < _WORTHWHILE * code_noise(few, estimate[0]):
        return levels, estimate
    other = fit_robust(few, strength)
    above_noise = roughness / code_noise(few, other[0])
    other_spread = channel_residuals(len(samples), few, other[0]).spread()
    if above_noise > _WORTHWHILE or (
        above_noise > _TEXTURE and other_spread < _CLEARLY_LESS * spread
    ):
        return codes, other
    return levels, estimate
