"""From samples to a response curve with its report, and which of several estimates is used.

Levels are means of 25 pixels and have a fifth of their noise, but stand for one exposure only as
far as these differ little: of texture rougher than all noise, the single pixel tells more. A merge
uses g where no better code is at hand, also at dark codes that were left out of the fit, so there
g is set to what such codes mean on average, and at bright codes where that predicts left-out
exposures better than going straight on.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from asi_watch.hdr.calibration import report as reporting
from asi_watch.hdr.calibration import samples as sampled
from asi_watch.hdr.calibration.estimate import (
    code_noise,
    fit_plain,
    fit_robust,
    smoothness_matrix,
    solve_monotone,
)
from asi_watch.hdr.calibration.samples import (
    ANCHOR,
    CODES,
    SMALLEST_STEP,
    BracketSamples,
    Clips,
    Floats,
    Observations,
    Vector,
    black_and_white,
    observe,
    responsive_range,
)
from asi_watch.hdr.calibration.sampling import MOST_PLACES
from asi_watch.hdr.calibration.times import judge_times
from asi_watch.hdr.lookup_tables import weight_table

_REFERENCE_SMOOTHNESS = 50.0
# Strength of the shape prior per place at the reference smoothness; chosen by cross-validation.
_STRENGTH = 5e-5
_WEIGHT_SCALES = {"triangle": 1.0, "sine": 63.75}  # of one height
# Roughness over the noise of a code: from where on codes are better, and may be better.
_WORTHWHILE, _TEXTURE = 10.0, 4.0
_CLEARLY_LESS = 0.6
_EXPLAINED_STOPS = 0.02
# By this much must predict better than straight ends: means up to high_clip, means up to 254 (at
# 255 a jump would scale whole pictures); than the best of these, means with a plain curve, and the
# plain curve alone. That is fitted to the noise of the very codes it is judged by, which alone is
# worth a twentieth, and half of that in a mean.
_BETTER_CODES, _BETTER_ENDS, _BETTER_MEAN, _BETTER_CURVE = 0.95, 0.95, 0.96, 0.9
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
_JUDGING_PLACES = 10_000
_STILL_PIXELS = 0.75
_BGR = ("blue", "green", "red")


@dataclass(frozen=True, eq=False)
class _Curve:
    """The curve of one channel and what it was made from."""

    g: Vector  # shape (256,)
    clips: Clips  # lowest and highest code used
    fine: bool  # from levels of the surroundings, or else from the bare codes


def check_settings(smoothness: float, weight_type: str, low_clip: int, high_clip: int) -> None:
    """Refuse settings that no curve can be calibrated with; the ValueError names the setting.

    Parameters
    ----------
    smoothness : float
    weight_type : str
    low_clip, high_clip : int
    """
    if not 0 <= low_clip < high_clip <= CODES - 1:
        raise ValueError(
            "low_clip and high_clip must satisfy 0 <= low < high <= 255, "
            f"got {low_clip} and {high_clip}"
        )
    if weight_type not in _WEIGHT_SCALES:
        names = " or ".join(map(repr, _WEIGHT_SCALES))
        raise ValueError(f"weight type {weight_type!r} is unknown: use {names}")
    if not 0 < smoothness < np.inf:
        raise ValueError(f"smoothness must be a positive number; got {smoothness!r}")


def calibrate_response(
    samples: Sequence[BracketSamples],
    *,
    smoothness: float = _REFERENCE_SMOOTHNESS,
    weight_type: str = "triangle",
    low_clip: int = 5,
    high_clip: int = 250,
    pool: Executor | None = None,
) -> reporting.Calibration:
    """Estimate the log response g(z) of a camera; ValueError if nothing usable is given.

    Parameters
    ----------
    samples : sequence of BracketSamples
        One per bracket, all with the same channels.
    smoothness : float
        λ of Debevec and Malik at 10 brackets × 1000 samples, scaled so that it weighs the same
        against any number of samples. The strength of the shape prior is in proportion to λ².
    weight_type : {"triangle", "sine"}
        How merges will weigh codes, by which the dark and bright ends of g are derived and judged.
    low_clip, high_clip : int
        Observations with codes outside low_clip…high_clip are not used.
    pool : Executor, optional
        Threads to work in.
    """
    check_settings(smoothness, weight_type, low_clip, high_clip)
    channels = _common_channels(samples)
    clips = low_clip, high_clip
    weight = weight_table(weight_type)[:, 0] * _WEIGHT_SCALES[weight_type]
    used = _thinned(samples, MOST_PLACES)

    def fit(of: Sequence[BracketSamples]) -> tuple[list[_Curve], str]:
        strength = _STRENGTH * (smoothness / _REFERENCE_SMOOTHNESS) ** 2
        curves = sampled.each(
            pool, lambda channel: _fit_channel(of, channel, clips, strength), range(channels)
        )
        return _best_predicting(of, curves, weight, smoothness)

    curves, method = fit(used)
    residuals = _residuals(curves, used, pool)
    verdict = judge_times(used, [curve.clips for curve in curves])
    suspects = {c.exposure_time for c in reporting.check_exposures(used, residuals) if c.suspect}
    if verdict.sure is None and not verdict.suspects and suspects:
        # False times can make codes seem not to respond to exposure; codes that do not (a film's
        # base) can make sound times seem false. Residuals must name the same one.
        wider = judge_times(used, [clips] * channels)
        if wider.sure is None or wider.sure.exposure_time in suspects:
            verdict = wider
    of_all = residuals
    if verdict.sure is not None:
        agreeing = verdict.agreeing(used)
        curves, method = fit(agreeing)
        of_all, residuals = _residuals(curves, used, pool), _residuals(curves, agreeing, pool)
    report = reporting.make_report(
        samples,
        residuals,
        reporting.check_exposures(used, of_all, verdict),
        verdict,
        {
            "smoothness": smoothness,
            "weight_type": weight_type,
            "low_clip": low_clip,
            "high_clip": high_clip,
            "method": method,
            "lowest_responsive_codes": [curve.clips[0] for curve in curves],
            "highest_responsive_codes": [curve.clips[1] for curve in curves],
            "made_from": ["levels" if curve.fine else "codes" for curve in curves],
            "places_used": sum(s.count for s in used),
        },
    )
    return reporting.Calibration(_log_response(curves), report, tuple(r.cloud for r in residuals))


def response_residual(
    log_response: ArrayLike,
    samples: Sequence[BracketSamples],
    *,
    low_clip: int = 5,
    high_clip: int = 250,
) -> float:
    """Robust residual of samples against a curve, in stops, the worst channel's.

    ValueError if their numbers of channels differ, or no sample is usable.

    Parameters
    ----------
    log_response : array_like, shape (256, C)
    samples : sequence of BracketSamples
    low_clip, high_clip : int
        As in `calibrate_response`.
    """
    curve = np.asarray(log_response, dtype=np.float64)
    channels = _common_channels(samples)
    if curve.shape != (CODES, channels):
        raise ValueError(f"a curve of shape {curve.shape} for samples of {channels} channels")
    values = []
    for channel in range(channels):
        clips = responsive_range(samples, channel, (low_clip, high_clip))
        table = observe(samples, channel, clips, fine=True)
        values.append(reporting.channel_residuals(table, curve[:, channel]).spread())
    if np.isnan(values).all():
        raise ValueError("no usable samples: every place is too dark or saturated")
    return float(np.nanmax(values))


def _log_response(curves: Sequence[_Curve]) -> Floats:
    """Give the curves as one array, shape (256, C); ValueError if one does not rise."""
    g = np.stack([curve.g for curve in curves], axis=1).astype(np.float32)
    if not (np.diff(g, axis=0) > 0).all():
        raise ValueError("the samples hold too little information for a response curve")
    return g


def _residuals(
    curves: Sequence[_Curve], samples: Sequence[BracketSamples], pool: Executor | None
) -> list[reporting.ChannelResiduals]:
    """Give the residuals of samples against the curve of each channel."""
    g = _log_response(curves)

    def of_channel(channel: int) -> reporting.ChannelResiduals:
        curve = curves[channel]
        table = _table_of(samples, channel, curve.clips, fine=curve.fine)
        return reporting.channel_residuals(table, g[:, channel])

    return sampled.each(pool, of_channel, range(len(curves)))


def _table_of(
    samples: Sequence[BracketSamples], channel: int, clips: Clips, *, fine: bool
) -> Observations:
    """Collect one channel of all brackets as `observe` does; ValueError if nothing is usable."""
    table = observe(samples, channel, clips, fine=fine)
    if not table.usable.any():
        named = f" in {_BGR[channel]}" if samples[0].channels == len(_BGR) else ""
        raise ValueError(
            f"no usable samples{named}: every place is too dark or saturated in all exposures but"
            " one"
        )
    return table


def _fit_channel(
    samples: Sequence[BracketSamples], channel: int, clips: Clips, strength: float
) -> _Curve:
    """Make the robust estimate of one channel from what tells most: levels, or bare codes."""
    responsive = responsive_range(samples, channel, clips)
    ends = black_and_white(samples, channel, responsive)
    table = observe(samples, channel, responsive, fine=True)
    if not table.usable.any():
        if observe(samples, channel, responsive, fine=False).usable.any():
            clips = responsive
        codes = _table_of(samples, channel, clips, fine=False)
        return _Curve(fit_robust(codes, strength, ends), clips, fine=False)
    levels = _Curve(fit_robust(table, strength, ends), responsive, fine=True)
    if not _is_still(samples) or all(s.levels is None for s in samples):
        return levels
    few = _table_of(_thinned(samples), channel, responsive, fine=False)
    roughness = float(np.median(table.roughness[table.usable]))
    spread = reporting.channel_residuals(table, levels.g).spread()
    if spread < _EXPLAINED_STOPS and roughness < _WORTHWHILE * code_noise(few, levels.g):
        return levels
    other = _Curve(fit_robust(few, strength, ends), responsive, fine=False)
    above_noise = roughness / code_noise(few, other.g)
    clearly_less = reporting.channel_residuals(few, other.g).spread() < _CLEARLY_LESS * spread
    better = above_noise > _WORTHWHILE or (above_noise > _TEXTURE and clearly_less)
    return other if better else levels


def _best_predicting(
    samples: Sequence[BracketSamples], robust: Sequence[_Curve], weight: Vector, smoothness: float
) -> tuple[list[_Curve], str]:
    """Give the robust curves their ends; prefer plain ones where they predict far better.

    Also says by which method. Plain ones do where the images break the model for most places
    (flare, a film's base); of scenes that moved the bare codes cannot judge, there the robust
    curves stand with straight ends.
    """
    few = _thinned(samples)
    judges = [observe(few, channel, (0, CODES - 1), fine=False) for channel in range(len(robust))]
    straight, to_clip, to_white = [], [], []
    for curve, judge in zip(robust, judges, strict=True):
        low, high = curve.clips
        last = min(_HALF_SATURATED, high)
        ended = _with_mean_ends(curve.g, judge, weight, low, last)
        dark = np.where(np.arange(CODES) <= last, ended, curve.g)
        straight.append(replace(curve, g=_straight_on(dark, high)))
        to_clip.append(replace(curve, g=_straight_on(ended, high)))
        to_white.append(replace(curve, g=_straight_on(ended, CODES - 2)))
    best, method = straight, "robust"
    if not _is_still(samples):
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
    ends = [CODES - 2 if best is to_white else curve.clips[1] for curve in robust]
    plain = _with_plain(best, judges, weight, ends, smoothness, exposures)
    for candidate, name, share in plain:
        found = _joint_error(candidate, judges, weight), _joint_error(candidate, inner, weight)
        if found[0] < min(share * errors[0], error) and found[1] < share * errors[1]:
            best, method, error = candidate, name, found[0]
    return best, method


def _with_plain(
    robust: Sequence[_Curve],
    judges: Sequence[Observations],
    weight: Vector,
    ends: Sequence[int],
    smoothness: float,
    exposures: int,
) -> Iterator[tuple[list[_Curve], str, float]]:
    """The means of robust and plain curves, and the plain one; how much better they must be."""
    for factor, name in ((1.0, "plain"), (_PLAIN_FACTOR, f"plain, smoothness × {_PLAIN_FACTOR:g}")):
        plain = [
            replace(curve, g=_straight_on(fit_plain(judge, weight, smoothness * factor), high))
            for curve, judge, high in zip(robust, judges, ends, strict=True)
        ]
        both = zip(robust, plain, strict=True)
        mean = [replace(curve, g=(curve.g + other.g) / 2.0) for curve, other in both]
        yield mean, f"mean of robust and {name}", _BETTER_MEAN
        if factor > 1.0 and exposures >= _PLAIN_EXPOSURES:
            yield plain, name, _BETTER_CURVE


def _joint_error(curves: Sequence[_Curve], judges: Sequence[Observations], weight: Vector) -> float:
    pairs = zip(curves, judges, strict=True)
    errors = [_leave_one_out_error(curve.g, judge, weight) for curve, judge in pairs]
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
    ended = solve_monotone(matrix, wanted)
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


def _common_channels(samples: Sequence[BracketSamples]) -> int:
    """Number of channels of all brackets; ValueError if there is none, or they differ."""
    if not samples:
        raise ValueError("no bracket to calibrate from")
    channels = {s.channels for s in samples}
    if len(channels) != 1:
        raise ValueError(f"brackets differ in their number of channels: {sorted(channels)}")
    return channels.pop()


def _thinned(
    samples: Sequence[BracketSamples], places: int = _JUDGING_PLACES
) -> list[BracketSamples]:
    """Keep an even share of the places, at most so many."""
    stride = -(-sum(s.count for s in samples) // places)
    return [s.every(max(stride, 1)) for s in samples]


def _is_still(samples: Sequence[BracketSamples]) -> bool:
    """Tell whether nothing moved between exposures that are bright enough to tell."""
    return all(
        s.motion is None or bool((np.median(np.abs(s.motion), axis=0) < _STILL_PIXELS).all())
        for s in samples
    )
