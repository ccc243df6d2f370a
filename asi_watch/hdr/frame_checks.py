"""Whether the frames of a bracket fit their times and each other, and where the camera saturates.

Answered from a small sample of each frame, in about a millisecond for a bracket of five. Every
merge asks `check_frames` before it gives a result, so that live and batch come to one answer.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.response import as_log_response

Sample = NDArray[np.uint8]

_SAMPLED_PIXELS = 40_000
_COMPARED_PIXELS = 2_000
_STRIPS = 16  # of blocks that `fine_detail` looks at
# Codes of `fine_detail`, and of the error that frames with so little of it share.
_CODEC_ERRORS = (0.1, 0.2, 0.27, 0.31, 0.36, 0.45, 0.6), (1.3, 1.15, 0.95, 0.65, 0.3, 0.1, 0.0)
_LEAST_COMPARED = 100  # samples, for a pair of frames to count
_RANKS_APART = 2  # only frames that are close in exposure time are compared
_TOLERANCE = 0.35  # stops: nominal times are off by up to 10 %, curves by up to 0.25 stops
_DARKEST, _BRIGHTEST = 40, 215  # codes at which a curve is trusted
_MISFIT = 0.2  # stops per stop of exposure, above which a curve is wrong although times may be too
_FLAT = 0.1  # from a misfit of -1, where all frames are equally bright
# Of two frames of one scene, however its clouds move, few samples are this far from the others.
_FAR = 0.5  # stops
_FAR_SHARE, _FAR_FACTOR = 0.1, 2.2
_LEAST_FOR_SHARE = 200  # samples
_VISIBLE = 60  # codes whose order shows whether one frame is darker than another
_LEAST_RATIO = 1.2  # of two exposure times, to expect that the longer frame is brighter
_CLEAR_RATIO = 1.8  # ... to expect that it is clearly brighter

_DIMMEST_WHITE = 200
_RISE = 8  # codes by which a pixel must differ between exposures not to be an overlay
_LEAST_WHITE = 24  # samples at the camera's white
_TOP_SHARE = 0.2  # of what is at white, above which codes beyond it are no ringing
_SPREAD = 16  # codes of a darker frame that all end at the same code of a brighter one
WHITE_MARGIN = 5
"""Codes below the camera's white that count as saturated too: JPEG blurs the edge."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A frame that does not fit its stated exposure time, or the scene of the others."""

    index: int  # position of the frame in the order in which the frames were given
    exposure_time: float  # its stated time
    fitting_time: float | None  # that would fit the other frames; None where it cannot be told
    other_scene: bool = False
    excluded: bool = False  # from the merge: the settings ask for it, and the others agree

    def reason(self, unit: str) -> str:
        """Say what is wrong.

        Parameters
        ----------
        unit : str
            Of the exposure times, e.g. "µs".
        """
        if self.other_scene:
            return "contradicts the other exposures: it does not show their scene"
        text = f"contradicts its exposure time of {self.exposure_time:.12g} {unit}"
        if self.fitting_time is None:
            return text
        rounded = float(f"{self.fitting_time:.3g}")  # 1260, not 1.26e+03
        return f"{text}: {rounded:.15g} {unit} would fit the other exposures"

    def _note(self, unit: str) -> str:
        """Say in a sentence what is wrong and what became of the frame."""
        time = f"{self.exposure_time:.12g} {unit}"
        outcome = "left out" if self.excluded else "merged nevertheless"
        return f"the exposure of {time} {self.reason(unit).replace(f' of {time}', '')}; {outcome}"


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look at the frames of a bracket has found."""

    contradictions: tuple[Contradiction, ...] = ()  # in the order of the frames
    # The camera's white code, where it is so low that codes from `saturated_from` on count as
    # saturated although they are below `high_clip`; None where `high_clip` fits.
    white: int | None = None
    # Where the curve, not one time, contradicts the frames: stops of error per stop of exposure.
    curve_misfit: float | None = None

    @property
    def saturated_from(self) -> int | None:
        """Lowest code that counts as saturated because of `white`."""
        return None if self.white is None else self.white - WHITE_MARGIN

    @property
    def excluded(self) -> tuple[Contradiction, ...]:
        """The contradictions whose frames are left out of the merge."""
        return tuple(found for found in self.contradictions if found.excluded)

    def notes(self, unit: str) -> tuple[str, ...]:
        """Give one sentence per finding, for the log and the product's provenance.

        Parameters
        ----------
        unit : str
            Of the exposure times, e.g. "µs".
        """
        unclear = [
            found
            for found in self.contradictions
            if found.fitting_time is None and not (found.excluded or found.other_scene)
        ]
        notes = [found._note(unit) for found in self.contradictions if found not in unclear]
        if unclear:
            times = ", ".join(f"{found.exposure_time:.12g}" for found in unclear)
            notes.append(
                f"the exposures of {times} {unit} contradict each other, and none can be blamed;"
                " merged nevertheless: are the exposure times right and in order?"
            )
        if self.curve_misfit is not None and abs(self.curve_misfit + 1) <= _FLAT:
            notes.append(
                "the images do not get brighter as their exposure times rise: are they different"
                " exposures, and are the times right?"
            )
        elif self.curve_misfit is not None and self.curve_misfit < -1:
            notes.append(
                "the images get darker as their exposure times rise: are the times in the right"
                " order?"
            )
        elif self.curve_misfit is not None:
            notes.append(
                f"the response curve does not fit the exposures: {self.curve_misfit:+.2f} stops"
                " per stop of exposure time; calibrate the camera again"
            )
        if self.white is not None:
            notes.append(
                f"the camera saturates at code {self.white}: codes from {self.saturated_from} on"
                f" are flagged as over-exposed; set merge.high_clip to {self.saturated_from}"
            )
        return tuple(notes)


def sample_frame(pixels: NDArray[np.uint8], disc: SkyDisc | None = None) -> Sample:
    """Take about 40,000 pixels, at the same places of every frame of one size: shape (n, C).

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C), uint8
    disc : SkyDisc, optional
        Only pixels inside are taken.
    """
    height, width, channels = pixels.shape
    # Odd, so that all places within the 8 × 8 blocks of JPEG occur.
    step = math.ceil(math.sqrt(height * width / _SAMPLED_PIXELS)) | 1
    sample = np.ascontiguousarray(pixels[::step, ::step]).reshape(-1, channels)
    return sample if disc is None else sample[disc.mask(pixels.shape)[::step, ::step].ravel()]


def fine_detail(pixels: NDArray[np.uint8]) -> float | None:
    """How strong the finest detail of a frame is: codes, None where all is dark or saturated.

    The noise of a sensor is in it. JPEG with its blocks of 8 × 8 pixels takes nearly all away.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C), uint8
    """
    height, width = (side // 8 for side in pixels.shape[:2])
    step = max(1, height // _STRIPS)
    strips = [pixels[8 * row : 8 * row + 8, : 8 * width] for row in range(step // 2, height, step)]
    if not strips or not width:
        return None
    # Of brightness as JPEG has it; channels are BGR.
    shares = np.array([1.0] if pixels.shape[2] == 1 else [0.114, 0.587, 0.299], np.float32)
    blocks = (np.stack(strips) @ shares).reshape(len(strips), 8, width, 8).transpose(0, 2, 1, 3)
    mean = blocks.mean(axis=(2, 3))
    blocks = blocks[(mean > _VISIBLE) & (mean < _BRIGHTEST)]
    if len(blocks) < _LEAST_COMPARED:
        return None
    waves = np.cos((np.arange(8) + 0.5) * np.arange(5, 8)[:, np.newaxis] * np.pi / 8) / 2
    found = np.einsum("bxy,kx,ky->kb", blocks, waves.astype(np.float32), waves.astype(np.float32))
    return float(np.median(np.abs(found))) / 0.6745


def codec_error(details: Sequence[float | None]) -> float:
    """Standard error of a pixel that all exposures share, by lossy compression: codes.

    Measured on rendered skies: none for frames with noise, 0.1 at JPEG q98, 1.1 at q75.

    Parameters
    ----------
    details : sequence of float or None
        `fine_detail` of each exposure.
    """
    known = [detail for detail in details if detail is not None]
    return float(np.interp(min(known), *_CODEC_ERRORS)) if known else 0.0


def check_frames(
    samples: Sequence[Sample],
    exposure_times: Sequence[float],
    log_response: ArrayLike | None,
    *,
    high_clip: int,
    exclude: bool,
) -> Findings:
    """Look for frames that contradict their times, and for the camera's white.

    Parameters
    ----------
    samples : sequence of ndarray, shape (n, C), uint8
        From `sample_frame`, one per frame, in any order: it does not change the answer.
    exposure_times : sequence of float
        Stated times, positive, any unit.
    log_response : array_like, shape (256, C), or None
        g(z). None: only the order of the frames' brightness is compared with that of the times.
    high_clip : int
        Codes above are known to be saturated.
    exclude : bool
        Mark frames as excluded where the others agree without them.
    """
    if len(samples) < 2:
        return Findings()
    order = sorted(range(len(samples)), key=lambda i: float(exposure_times[i]))
    if len(set(exposure_times)) < len(order):
        # Frames of equal time in the order of their content, so that arrival cannot matter.
        order.sort(key=lambda i: (float(exposure_times[i]), zlib.crc32(samples[i].data)))
    times = [float(exposure_times[i]) for i in order]
    samples = [samples[i] for i in order]
    white = camera_white(samples)
    if white is not None and white >= high_clip + WHITE_MARGIN - 2:
        white = None
    step = max(1, len(samples[0]) // _COMPARED_PIXELS)
    small = [sample[::step] for sample in samples]
    if log_response is None:
        found, agreed, misfit = *_compare_order(small, times), None
    else:
        ceiling = min(_BRIGHTEST, high_clip, 255 if white is None else white - WHITE_MARGIN)
        curve = as_log_response(log_response)
        found, agreed, misfit = _compare_through_curve(small, times, curve, ceiling)
    if exclude and agreed and len(samples) - len(found) >= 2:
        found = [replace(one, excluded=True) for one in found]
    found = sorted((replace(one, index=order[one.index]) for one in found), key=lambda c: c.index)
    return Findings(tuple(found), white, misfit)


def fits_high_clip(brackets: Sequence[Sequence[Sample]], high_clip: int) -> int | None:
    """Give the `high_clip` that would fit a camera, where that is lower than the configured one.

    Parameters
    ----------
    brackets : sequence of sequence of ndarray, shape (n, C), uint8
        Samples (`sample_frame`) of the frames of several brackets.
    high_clip : int
        The configured value.
    """
    whites = [white for samples in brackets if (white := camera_white(samples)) is not None]
    if not whites:
        return None
    fitting = int(np.median(whites)) - WHITE_MARGIN
    return fitting if fitting < high_clip - 2 else None


def camera_white(samples: Sequence[Sample]) -> int | None:
    """Find the code at which a camera saturates, the lowest over the channels, if below 254.

    That is where pixels of different brightness in a darker frame end at one code in a brighter.

    Parameters
    ----------
    samples : sequence of ndarray, shape (n, C), uint8
    """
    order = sorted(range(len(samples)), key=lambda i: float(samples[i].mean()))
    found: list[int] = []
    for channel in range(samples[0].shape[1]):
        planes = [samples[i][:, channel].astype(np.int16) for i in order]
        for brighter in range(len(planes) - 1, 0, -1):
            white = _pile_up(planes[:brighter], planes[brighter])
            if white is not None:
                found.append(white)
                break
    return min(found) if found and min(found) < 254 else None


def _pile_up(darker: list[NDArray[np.int16]], brighter: NDArray[np.int16]) -> int | None:
    """Find the code at which pixels of one channel pile up in the brighter frame."""
    # Overlays (text) look the same in every frame: they show no saturation.
    varying = brighter >= np.minimum.reduce(darker) + _RISE
    counts = np.bincount(brighter[varying], minlength=256)
    around = np.convolve(counts, [1, 1, 1], "same")
    white = _DIMMEST_WHITE + int(np.argmax(counts[_DIMMEST_WHITE:]))
    piled = int(around[white])
    if piled < _LEAST_WHITE or counts[min(white + 4, 254) :].sum() > _TOP_SHARE * piled:
        return None
    if white >= 254:
        return 255
    here = varying & (np.abs(brighter - white) <= 3)
    codes = brighter[here]
    for plane in darker:
        before = plane[here]
        low, high = np.percentile(before, (20, 80))
        if high - low >= _SPREAD:
            # Through any rising curve the lighter ones would be lighter here too.
            rise = codes[before >= high].mean() - codes[before <= low].mean()
            if abs(rise) <= 1.0:
                return white
    return None


def _compare_through_curve(
    samples: Sequence[Sample], times: list[float], curve: NDArray[np.float32], ceiling: int
) -> tuple[list[Contradiction], bool, float | None]:
    """Compare frames through g; gives contradictions, whether the others agree, and a misfit."""
    ln_t = np.log(times)
    compared = _compared_pairs(samples, ln_t, curve, ceiling)
    found = []
    if (other := _of_another_scene(compared, len(times))) is not None:
        found = [Contradiction(other, times[other], None, other_scene=True)]
        compared = [pair for pair in compared if other not in pair[:2]]
    pairs, frames = _connecting(compared, len(times))
    # The usual case: the offsets cannot add up to more than the tolerance.
    if all(abs(pair.offset) * len(times) <= _TOLERANCE * math.log(2) for pair in pairs):
        return found, True, None
    offset = _offsets(len(times), pairs) / math.log(2)  # stops
    here, x = offset[frames], ln_t[frames] / math.log(2)
    members = _agreeing(here)
    if len(members) == len(frames):
        return found, True, None
    slope = _trend(x, here)
    along = len(_agreeing(here - slope * x))
    if len(frames) > 2 and along > (len(members) if abs(slope) > _MISFIT else len(frames) - 1):
        return found, False, slope
    centre = float(np.median(here[members]))
    agreed = 2 * len(members) > len(frames) and 2 * len(members) > len(times) - len(frames)
    for place, frame in enumerate(frames):
        stops = float(here[place]) - centre
        if agreed and place in members:
            continue
        exact = any(pair.exact for pair in pairs if frame in (pair.first, pair.second))
        known = exact and (agreed or len(frames) == 2)
        fitting = times[frame] * 2.0**stops if known else None
        found.append(Contradiction(frame, times[frame], fitting))
    return found, agreed, None


class _Pair(NamedTuple):
    """Two frames: median of ln E seen by the first minus ln E seen by the second."""

    first: int
    second: int
    offset: float
    # False where the offset is a lower bound: no pixel has codes in both frames that the curve can
    # be trusted at.
    exact: bool
    far: float  # share of the samples far from the median; NaN where they are too few


def _close_pairs(count: int) -> list[tuple[int, int]]:
    """Pairs of frames, of rising exposure time, that are close enough in it to be compared."""
    return [(i, j) for i, j in combinations(range(count), 2) if j - i <= _RANKS_APART]


def _compared_pairs(
    samples: Sequence[Sample], ln_t: NDArray[np.float64], curve: NDArray[np.float32], ceiling: int
) -> list[_Pair]:
    """Compare close frames through the curve."""
    channels = curve.shape[1]
    if channels != samples[0].shape[1]:
        return []
    g = np.ascontiguousarray(curve.T)
    index = [(s + 256 * np.arange(channels, dtype=np.uint16)).ravel() for s in samples]
    pairs = []
    for i, j in _close_pairs(len(ln_t)):
        step = float(ln_t[j] - ln_t[i])
        found = (
            _seen_from(index[i], index[j], g, step, ceiling, -1),
            _seen_from(index[j], index[i], g, -step, ceiling, 1),
        )
        for exact in (True, False):
            seen = [one for one in found if one is not None and one[1] == exact]
            if seen:
                offset, _, far = np.mean(seen, axis=0).tolist()
                pairs.append(_Pair(i, j, offset, exact, far))
                break
    return pairs


def _of_another_scene(pairs: list[_Pair], count: int) -> int | None:
    """Find the frame that differs from all others from pixel to pixel, while those are alike.

    An upside-down frame, one of another place, with its channels swapped or partly without image
    may have a median that fits. Clouds that move make all frames differ.
    """
    known = [pair for pair in pairs if pair.far >= 0]
    if all(pair.far <= _FAR_SHARE for pair in known):
        return None
    excess = {frame: _excess(frame, known) for frame in range(count)}
    worst = max(excess, key=lambda frame: excess[frame])
    return worst if excess[worst] > 0 else None


def _excess(frame: int, pairs: list[_Pair]) -> float:
    """How much more a frame differs from its neighbours than the others from theirs."""
    own = [pair for pair in pairs if frame in pair[:2]]
    others = [pair for pair in pairs if frame not in pair[:2]]
    if not (own and others):
        return -1.0
    nearest, usual = (min(p.second - p.first for p in some) for some in (own, others))
    least = min(p.far for p in own if p.second - p.first == nearest)
    most = max(p.far for p in others if p.second - p.first == usual)
    return least - _FAR_SHARE - _FAR_FACTOR * most


def _seen_from(
    seen: NDArray[np.uint16],
    other: NDArray[np.uint16],
    g: NDArray[np.float32],
    step: float,
    ceiling: int,
    sign: int,
) -> tuple[float, bool, float] | None:
    """Compare what a frame shows with what another lets expect: offset, exact, far of a `_Pair`.

    `step` is ln of the ratio of their times. Pixels are chosen by the one frame alone, and by what
    is expected of the other: choosing by both would favour noise that lifts dark pixels.
    """
    z = np.arange(256)
    trusted = (z >= _DARKEST) & (z <= ceiling)
    low, high = g[:, [_DARKEST]], g[:, [max(ceiling, _DARKEST)]]
    expected = g + np.float32(step)
    useful = trusted & (expected >= low) & (expected <= high)
    in_one = np.flatnonzero(np.tile(trusted, len(g)).take(seen))
    chosen = np.flatnonzero(useful.ravel().take(seen))
    exact = len(chosen) >= _LEAST_COMPARED
    if not exact:
        # Expected to be darker or brighter than what can be trusted: is it at least that?
        if len(in_one) < _LEAST_COMPARED:
            return None
        chosen, g, expected = in_one, np.clip(g, low, high), np.clip(expected, low, high)
    difference = g.ravel().take(other[chosen]) - expected.ravel().take(seen[chosen])
    middle = len(difference) // 2  # np.median takes twice the time
    median = np.partition(difference, middle)[middle]
    far = math.nan
    if len(in_one) >= _LEAST_FOR_SHARE:
        actual, expected = (np.clip(one, low, high).ravel() for one in (g, expected + median))
        difference = actual.take(other[in_one]) - expected.take(seen[in_one])
        far = float((np.abs(difference) > _FAR * math.log(2)).mean())
    return sign * float(median), exact, far


def _connecting(compared: list[_Pair], count: int) -> tuple[list[_Pair], list[int]]:
    """Pairs to be used, and the largest group of frames that they connect.

    Bounds are used only where nothing better connects two frames.
    """
    pairs: list[_Pair] = []
    group = list(range(count))
    for pair in sorted(compared, key=lambda pair: (not pair.exact, -abs(pair.offset))):
        old, new = group[pair.second], group[pair.first]
        if pair.exact or old != new:
            pairs.append(pair)
            group = [new if g == old else g for g in group]
    largest = max(group, key=group.count)
    return pairs, [i for i, g in enumerate(group) if g == largest]


def _offsets(count: int, pairs: Sequence[_Pair]) -> NDArray[np.float64]:
    """Offset of each frame from the differences of pairs, least absolute deviations."""
    rows = np.zeros((len(pairs), count))
    for row, pair in zip(rows, pairs, strict=True):
        row[pair.first], row[pair.second] = 1.0, -1.0
    wanted, weight = np.array([pair.offset for pair in pairs]), np.ones(len(pairs))
    offset: NDArray[np.float64] = np.zeros(count)
    for _ in range(8):
        solved = np.linalg.lstsq(rows * weight[:, None], wanted * weight, rcond=None)[0]
        offset = np.asarray(solved, dtype=np.float64)
        weight = 1.0 / np.sqrt(np.maximum(np.abs(rows @ offset - wanted), 0.02))
    return offset


def _agreeing(offset: NDArray[np.float64]) -> list[int]:
    """Give the largest group of offsets that lie within the tolerance of one of them."""
    near = np.abs(offset[:, None] - offset[None, :]) <= _TOLERANCE
    return [int(i) for i in np.flatnonzero(near[int(near.sum(axis=1).argmax())])]


def _trend(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Median slope over all pairs (Theil & Sen)."""
    i, j = np.triu_indices(len(x), 1)
    apart = np.abs(x[i] - x[j]) > 1e-6
    if not apart.any():
        return 0.0
    return float(np.median((y[i] - y[j])[apart] / (x[i] - x[j])[apart]))


def _compare_order(
    samples: Sequence[Sample], times: list[float]
) -> tuple[list[Contradiction], bool]:
    """Look for frames that are not brighter although their time is longer."""
    wrong = [
        (i, j)
        for i, j in _close_pairs(len(times))
        if _is_darker(samples[i], samples[j], times[j] / times[i])
    ]
    if not wrong:
        return [], True
    blamed = [i for i in range(len(times)) if all(i in pair for pair in wrong)]
    agreed = len(blamed) == 1 and len(times) > 2
    frames = blamed if agreed else sorted({i for pair in wrong for i in pair})
    return [Contradiction(i, times[i], None) for i in frames], agreed


def _is_darker(shorter: Sample, longer: Sample, ratio: float) -> bool:
    """Whether a frame is not brighter than another, although its time is `ratio` times as long."""
    if ratio < _LEAST_RATIO:
        return False
    a, b = shorter.ravel().astype(np.int16), longer.ravel().astype(np.int16)
    # In the dark, noise and stray light hide what a longer exposure adds.
    useful = ((a >= _VISIBLE) & (a <= _BRIGHTEST)) | ((b >= _VISIBLE) & (b <= _BRIGHTEST))
    if np.count_nonzero(useful) < _LEAST_COMPARED:
        return False
    rise = float(np.median((b - a)[useful]))
    return rise <= -2.0 or (ratio >= _CLEAR_RATIO and rise <= 1.0)
