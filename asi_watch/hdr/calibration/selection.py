"""Which of several estimates is used, by what fits and predicts best.

Levels are means of 25 pixels and have a fifth of their noise, but stand for one exposure only as
far as these differ little: of texture rougher than all noise, the single pixel tells more. A merge
uses g where no better code is at hand, also at dark codes that were left out of the fit, so there
g is set to what such codes mean on average, and at bright codes where that predicts left-out
exposures better than going straight on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asi_watch.hdr.calibration.report import channel_residuals
from asi_watch.hdr.calibration.responsive_codes import black_and_white, responsive_range
from asi_watch.hdr.calibration.robust import code_noise, fit_robust
from asi_watch.hdr.calibration.samples import (
    CODES,
    BracketSamples,
    Clips,
    Observations,
    Vector,
    is_still,
    observe,
    thinned,
)
from asi_watch.hdr.calibration.solver import (
    ANCHOR,
    SMALLEST_STEP,
    fit_plain,
    smoothness_matrix,
    solve_monotone,
)

# Roughness over the noise of a code: from where on codes are better, and may be better.
_WORTHWHILE, _TEXTURE = 10.0, 4.0
_CLEARLY_LESS = 0.6
_EXPLAINED_STOPS = 0.02
# By this much must predict better than straight ends: means up to high_clip, means up to 255 (a
# jump there scales whole pictures); than the best of these, means with a plain curve, and the
# plain curve alone. That is fitted to the noise of the very codes it is judged by, which alone is
# worth a twentieth, and half of that in a mean.
_BETTER_CODES, _BETTER_ENDS, _BETTER_MEAN, _BETTER_CURVE = 0.95, 0.8, 0.96, 0.9
# The plain curve is only asked where it cannot wiggle: smoother than usual, with exposures enough.
_PLAIN_FACTOR = 10.0
_PLAIN_EXPOSURES = 5
_FAR_BELOW_WHITE = 239  # a highest responsive code below which so many codes are white's
# Codes above may be set to what they mean on average: pixels there are half saturated already.
_HALF_SATURATED = 240
_JUDGED = (10, 245)
_SLOPE_CODES = 8
_PRIOR_COUNT = 3.0
_FIXED = 1e9
_BGR = ("blue", "green", "red")


@dataclass(frozen=True, eq=False)
class ChannelCurve:
    """The curve of one channel and what it was made from."""

    g: Vector  # shape (256,)
    repairs: int  # steps that the monotone constraint held up
    clips: Clips  # lowest and highest code used
    fine: bool  # from levels of the surroundings, or else from the bare codes


def table_of(
    samples: Sequence[BracketSamples], channel: int, clips: Clips, *, fine: bool
) -> Observations:
    """Collect one channel of all brackets as `observe` does; ValueError if nothing is usable.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    clips : (int, int)
    fine : bool
    """
    table = observe(samples, channel, clips, fine=fine)
    if not table.usable.any():
        named = f" in {_BGR[channel]}" if samples[0].channels == len(_BGR) else ""
        raise ValueError(
            f"no usable samples{named}: every place is too dark or saturated in all exposures but"
            " one"
        )
    return table


def fit_channel(
    samples: Sequence[BracketSamples], channel: int, clips: Clips, strength: float
) -> ChannelCurve:
    """Make the robust estimate of one channel from what tells most: levels, or bare codes.

    Parameters
    ----------
    samples : sequence of BracketSamples
    channel : int
    clips : (int, int)
        Codes outside are not to be used.
    strength : float
        See `fit_robust`.
    """
    responsive = responsive_range(samples, channel, clips)
    ends = black_and_white(samples, channel, responsive)
    table = observe(samples, channel, responsive, fine=True)
    if not table.usable.any():
        if observe(samples, channel, responsive, fine=False).usable.any():
            clips = responsive
        codes = table_of(samples, channel, clips, fine=False)
        return ChannelCurve(*fit_robust(codes, strength, ends), clips, fine=False)
    levels = ChannelCurve(*fit_robust(table, strength, ends), responsive, fine=True)
    if not is_still(samples) or all(s.levels is None for s in samples):
        return levels
    few = table_of(thinned(samples), channel, responsive, fine=False)
    roughness = float(np.median(table.roughness[table.usable]))
    spread = channel_residuals(table, levels.g).spread()
    if spread < _EXPLAINED_STOPS and roughness < _WORTHWHILE * code_noise(few, levels.g):
        return levels
    other = ChannelCurve(*fit_robust(few, strength, ends), responsive, fine=False)
    above_noise = roughness / code_noise(few, other.g)
    clearly_less = channel_residuals(few, other.g).spread() < _CLEARLY_LESS * spread
    better = above_noise > _WORTHWHILE or (above_noise > _TEXTURE and clearly_less)
    return other if better else levels


def best_predicting(
    samples: Sequence[BracketSamples],
    robust: Sequence[ChannelCurve],
    weight: Vector,
    smoothness: float,
) -> tuple[list[ChannelCurve], str]:
    """Give the robust curves their ends; prefer plain ones where they predict far better.

    Also says by which method. Plain ones do where the images break the model for most places
    (flare, a film's base); of scenes that moved the bare codes cannot judge, there the robust
    curves stand with straight ends.

    Parameters
    ----------
    samples : sequence of BracketSamples
    robust : sequence of ChannelCurve
    weight : ndarray, shape (256,)
        With which a merge would count each code.
    smoothness : float
        Of a plain curve.
    """
    few = thinned(samples)
    judges = [observe(few, channel, (0, CODES - 1), fine=False) for channel in range(len(robust))]
    straight, to_clip, to_white = [], [], []
    for curve, judge in zip(robust, judges, strict=True):
        low, high = curve.clips
        last = min(_HALF_SATURATED, high)
        ended = _with_mean_ends(curve.g, judge, weight, low, last)
        dark = np.where(np.arange(CODES) <= last, ended, curve.g)
        straight.append(replace(curve, g=_straight_on(dark, high)))
        to_clip.append(replace(curve, g=_straight_on(ended, high)))
        to_white.append(replace(curve, g=ended))
    best, method = straight, "robust"
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
    if np.median([curve.clips[1] for curve in robust]) < _FAR_BELOW_WHITE:
        return best, method
    # Where white pixels have codes, a curve bent for them predicts best and is false elsewhere.
    inner = [observe(few, k, (0, curve.clips[1]), fine=False) for k, curve in enumerate(robust)]
    errors = error, _joint_error(best, inner, weight)
    exposures = min(len(s.exposure_times) for s in samples)
    for candidate, name, share in _with_plain(best, judges, weight, smoothness, exposures):
        found = _joint_error(candidate, judges, weight), _joint_error(candidate, inner, weight)
        if found[0] < min(share * errors[0], error) and found[1] < share * errors[1]:
            best, method, error = candidate, name, found[0]
    return best, method


def _with_plain(
    robust: Sequence[ChannelCurve],
    judges: Sequence[Observations],
    weight: Vector,
    smoothness: float,
    exposures: int,
) -> Iterator[tuple[list[ChannelCurve], str, float]]:
    """The means of robust and plain curves, and the plain one; how much better they must be."""
    for factor, name in ((1.0, "plain"), (_PLAIN_FACTOR, f"plain, smoothness × {_PLAIN_FACTOR:g}")):
        plain, mean = [], []
        for curve, judge in zip(robust, judges, strict=True):
            g, repairs = fit_plain(judge, weight, smoothness * factor)
            g = _straight_on(g, curve.clips[1])
            plain.append(replace(curve, g=g, repairs=repairs))
            mean.append(replace(curve, g=(curve.g + g) / 2.0, repairs=max(curve.repairs, repairs)))
        yield mean, f"mean of robust and {name}", _BETTER_MEAN
        if factor > 1.0 and exposures >= _PLAIN_EXPOSURES:
            yield plain, name, _BETTER_CURVE


def _joint_error(
    curves: Sequence[ChannelCurve], judges: Sequence[Observations], weight: Vector
) -> float:
    errors = [
        _leave_one_out_error(curve.g, judge, weight)
        for curve, judge in zip(curves, judges, strict=True)
    ]
    return float(np.sqrt(np.mean(np.square(errors))))


def _leave_one_out_error(curve: Vector, table: Observations, weight: Vector) -> float:
    """RMS difference in codes when each observation is predicted from its place's others.

    Where the observed code is neither dark nor bright; NaN if none is.
    """
    weights = weight[table.codes] * table.usable
    exposure = weights * (curve[table.codes] - table.log_times)
    others = weights.sum(axis=1, keepdims=True) - weights
    total = exposure.sum(axis=1, keepdims=True) - exposure
    judged = table.usable & (others > 0.5) & (table.codes > _JUDGED[0]) & (table.codes < _JUDGED[1])
    if not judged.any():
        return float("nan")
    predicted = np.interp(
        total[judged] / others[judged] + table.log_times[judged], curve, np.arange(CODES)
    )
    return float(np.sqrt(np.mean((predicted - table.codes[judged]) ** 2)))


def _with_mean_ends(
    curve: Vector, table: Observations, weight: Vector, first: int, last: int
) -> Vector:
    """Set g at the codes outside first…last to what they mean on average beside better ones.

    The same inside, up to the free constant; rising; g(128) = 0.
    """
    codes = np.arange(CODES)
    inside = (codes >= first) & (codes <= last)
    weights = (weight * inside)[table.codes] * table.usable
    total = weights.sum(axis=1, keepdims=True)
    known = (weights * (curve[table.codes] - table.log_times)).sum(axis=1, keepdims=True)
    exposure = known / np.where(total > 0, total, 1.0) + table.log_times
    seen = table.usable & ~inside[table.codes] & (total > weight[first])
    counts = np.bincount(table.codes[seen], minlength=CODES).astype(np.float64)
    sums = np.bincount(table.codes[seen], weights=exposure[seen], minlength=CODES)
    strength = np.where(inside, _FIXED, counts + _PRIOR_COUNT)
    wanted = np.where(inside, _FIXED * curve, sums + _PRIOR_COUNT * curve)
    matrix = smoothness_matrix(np.sqrt(np.where(inside, 0.0, 10.0 * _PRIOR_COUNT)))
    matrix[np.diag_indices(CODES)] += strength
    ended, _ = solve_monotone(matrix, wanted)
    # The inside is kept to the last digit; only a rise across the seams is left to ensure.
    ended[inside] = curve[inside]
    below = curve[first] - SMALLEST_STEP * np.arange(first, 0, -1)
    above = curve[last] + SMALLEST_STEP * np.arange(1, CODES - last)
    ended[:first] = np.minimum(ended[:first], below)
    ended[last + 1 :] = np.maximum(ended[last + 1 :], above)
    return np.asarray(ended - ended[ANCHOR])


def _straight_on(curve: Vector, high_clip: int) -> Vector:
    """Continue g from high_clip to 255 with the mean slope that it has just below."""
    start = max(0, high_clip - _SLOPE_CODES)
    slope = (curve[high_clip] - curve[start]) / (high_clip - start)
    longer = curve.copy()
    longer[high_clip:] = curve[high_clip] + slope * np.arange(CODES - high_clip)
    return longer
