"""Choosing the places of a bracket that a response curve is calibrated from, and reading them.

A place is read twice: the code of its pixel, and its level, finer than one code: the mean of the
surroundings without what does not belong. Clouds drift meanwhile: neighbouring exposures are
brought to one tone scale by their histograms alone, which motion hardly changes (M. Grossberg, S.
Nayar: Determining the camera response from images: what is knowable?, PAMI 25, 2003), so that no
response curve is needed; then dense inverse search (T. Kroeger et al.: Fast optical flow using
dense inverse search, ECCV 2016) follows every place.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.hdr.calibration.samples import (
    CODES,
    WHITE,
    BracketSamples,
    Codes,
    Flags,
    Floats,
    Vector,
    check_times,
    each,
    white_codes,
)

SampleTechnique = Literal["random", "histogram", "flat"]

# Far fewer already leave the noise below every systematic error.
MOST_PLACES = 60_000
_MOTION_PLACES = 10_000
_CROWD = 20  # candidates for each place that "flat" chooses
_LARGEST_CROWD = 200_000
_BANDS, _CELLS = 32, 4
_GROUPS = _BANDS * _CELLS**2
_DARK, _BRIGHT = 8, 247
_ENOUGH = 3  # exposures that tell something of a place; more are no better
# What surrounds a place is _RADIUS pixels each way; it tells no level when more than a tenth of it
# is clipped (codes up to _BLACK, or from WHITE on).
_RADIUS = 2
_SIDE = 2 * _RADIUS + 1
_BLACK = 1
_CLIPPED_SHARE = 0.1
_CHUNK = 1 << 12  # places read at once

# Flow is computed on at most this many pixels; larger pictures are reduced first, by whole numbers.
FLOW_PIXELS = 1_600_000
_DARKEST, _BRIGHTEST = 5, 250
_SMALLEST_SIDE = 32
_LEAST_CONTRAST = 16.0
_PROOF = 0.75
_REMAP_WIDTH = 1 << 12  # OpenCV's remap takes maps of at most 32767 in either direction

Indices = NDArray[np.int64]


def sample_bracket(
    images: Sequence[Codes],
    exposure_times: ArrayLike,
    *,
    technique: SampleTechnique,
    count: int,
    rng: np.random.Generator,
    mask: Flags | None = None,
    pool: Executor | None = None,
) -> BracketSamples:
    """Choose places and read them in every exposure of one bracket.

    ValueError for unusable exposure times, images of several shapes, a mask that allows nothing.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, C), uint8
        One per exposure, any order.
    exposure_times : array_like, shape (N,)
        Positive, any unit.
    technique : {"random", "histogram", "flat"}
        "random": anywhere with equal chance. "flat" (recommended): of every intensity and every
        part of the picture the places that are locally flat, neither dark nor saturated in most
        exposures. "histogram", asi_core's name for places of every intensity, is "flat".
    count : int
        Number of places; at most 60,000 are taken.
    rng : numpy.random.Generator
    mask : ndarray, shape (H, W), bool, optional
        True where places may be taken from (the sky disc).
    pool : Executor, optional
        Threads to work in.
    """
    times = np.asarray(exposure_times, dtype=np.float64)
    order = np.argsort(times, kind="stable")
    times = times[order]
    check_times(times)
    frames = _checked_frames(images, times, mask)
    if count < 1:
        raise ValueError(f"at least one sample per bracket is needed, got {count}")
    frames = [frames[i] for i in order]
    chosen = _chosen(frames, technique, min(count, MOST_PLACES), rng, mask, pool)
    positions = np.stack(np.divmod(chosen, frames[0].shape[1]), axis=1).astype(np.int32)
    places = positions.astype(np.float32)
    shape = (chosen.size, len(frames), frames[0].shape[2])
    codes = np.empty(shape, dtype=np.uint8)
    levels = np.empty(shape, dtype=np.float32)
    roughness = np.empty(shape, dtype=np.float16)
    motion = np.empty((len(frames), 2), dtype=np.float32)
    white = white_codes(frames, times)
    few = slice(None, None, max(1, len(places) // _MOTION_PLACES))
    for n, track in follow(frames, places, pool):
        codes[:, n] = frames[n].reshape(-1, shape[2]).take(chosen, axis=0)
        levels[:, n], roughness[:, n] = read_levels(frames[n], track, white, pool)
        motion[n] = np.median(track[few] - places[few], axis=0)
    return BracketSamples(codes, times, positions, levels, roughness, motion, white)


def _checked_frames(images: Sequence[Codes], times: Vector, mask: Flags | None) -> list[Codes]:
    if len(images) != len(times):
        raise ValueError(f"{len(images)} images but {len(times)} exposure times")
    shape = images[0].shape
    for image in images:
        if image.shape != shape:
            raise ValueError(f"images of a bracket differ in shape: {shape} and {image.shape}")
    if mask is not None and mask.shape != shape[:2]:
        raise ValueError(f"the mask has shape {mask.shape}, the images {shape[:2]}")
    return [np.ascontiguousarray(image) for image in images]


def _chosen(
    frames: Sequence[Codes],
    technique: SampleTechnique,
    count: int,
    rng: np.random.Generator,
    mask: Flags | None,
    pool: Executor | None,
) -> Indices:
    """Flat indices of the places, ascending."""
    allowed = np.arange(frames[0][:, :, 0].size) if mask is None else np.flatnonzero(mask)
    if allowed.size == 0:
        raise ValueError("the mask leaves no pixel to sample")
    if technique == "random":
        chosen = _by_chance(allowed, count, rng)
    elif technique in ("flat", "histogram"):
        chosen = _by_flatness(frames, allowed, count, rng, pool)
    else:
        names = ", ".join(get_args(SampleTechnique))
        raise ValueError(f"sample technique '{technique}' is unknown: use one of {names}")
    return np.sort(chosen)


def _by_chance(allowed: Indices, count: int, rng: np.random.Generator) -> Indices:
    if count >= allowed.size:
        return allowed
    chosen: Indices = rng.choice(allowed, size=count, replace=False, shuffle=False)
    return chosen


def _by_flatness(
    frames: Sequence[Codes],
    allowed: Indices,
    count: int,
    rng: np.random.Generator,
    pool: Executor | None,
) -> Indices:
    """The flattest places of a random crowd, of every intensity and part of the picture.

    As many from each as the picture has: a curve must serve the picture as it is, and where a
    camera breaks the model (flare, film) places spread evenly over intensities do not stand for it.
    """
    crowd = _by_chance(allowed, min(_CROWD * count, max(_LARGEST_CROWD, count)), rng)
    if count >= crowd.size:
        return crowd
    crowd = rng.permutation(crowd)  # the order decides between equals
    height, width, channels = frames[0].shape
    rows, columns = np.divmod(crowd, width)
    totals = np.stack([_total(frame, crowd) for frame in frames])
    useful = ((totals > channels * _DARK) & (totals < channels * _BRIGHT)).sum(axis=0)
    # The mean over all exposures rises with the irradiance from the deepest shade to the sun.
    band = totals.sum(axis=0) * _BANDS // (CODES * channels * len(frames))
    cell = (rows * _CELLS // height) * _CELLS + columns * _CELLS // width
    group = (band * _CELLS**2 + cell).astype(np.uint16)
    places = np.stack([rows, columns], axis=1).astype(np.float32)
    roughness = read_levels(frames[len(frames) // 2], places, pool=pool)[1].max(axis=1)
    wanted = _in_proportion(np.bincount(group, minlength=_GROUPS), count)
    # The best first: seen in enough exposures, then flat.
    best = np.lexsort((roughness, -np.minimum(useful, _ENOUGH)))
    return np.asarray(crowd[best[_rank(group[best]) < wanted[group[best]]]])


def _total(frame: Codes, index: Indices) -> NDArray[np.int64]:
    """Sum of the channels."""
    pixels = frame.reshape(-1, frame.shape[2]).take(index, axis=0)
    return np.asarray(pixels.sum(axis=1, dtype=np.int64))


def _in_proportion(sizes: Indices, count: int) -> Indices:
    """How many of each class make `count` when every class gives the same share of its size."""
    exact = sizes * min(1.0, count / max(int(sizes.sum()), 1))
    wanted: Indices = np.floor(exact).astype(np.int64)
    missing = min(count, int(sizes.sum())) - int(wanted.sum())
    wanted[np.argsort(wanted - exact, kind="stable")[: max(0, missing)]] += 1
    return wanted


def _rank(classes: NDArray[np.unsignedinteger]) -> Indices:
    """How many members of its class come before each member, in the order given."""
    sizes = np.bincount(classes)
    rank = np.empty(classes.size, dtype=np.int64)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank[np.argsort(classes, kind="stable")] = np.arange(classes.size) - first
    return rank


def read_levels(
    frame: Codes, places: Floats, white: Codes | None = None, pool: Executor | None = None
) -> tuple[Floats, NDArray[np.float16]]:
    """Read the level around places that may lie between pixels, and its roughness: (P, C) each.

    The level is NaN where the surroundings leave the picture or are clipped; the roughness is the
    standard deviation. Pixels far from the median of their surroundings (hot pixels, glints, birds)
    are left out, and the mean is moved along the local slope to the exact place.

    Parameters
    ----------
    frame : ndarray, shape (H, W, C), uint8
    places : ndarray, shape (P, 2), float32
        Row and column.
    white : ndarray, shape (C,), uint8, optional
        Codes from which on pixels are clipped; without it only those near 255.
    pool : Executor, optional
    """
    height, width, channels = frame.shape
    levels = np.full((len(places), channels), np.nan, dtype=np.float32)
    roughness = np.zeros((len(places), channels), dtype=np.float16)
    if min(height, width) < _SIDE:
        return levels, roughness
    frame = np.ascontiguousarray(frame)
    limit = np.full(channels, WHITE, dtype=np.uint8) if white is None else white

    def work(start: int) -> None:
        part = slice(start, start + _CHUNK)
        levels[part], roughness[part] = _read_chunk(frame, places[part], limit)

    each(pool, work, range(0, len(places), _CHUNK))
    return levels, roughness


def _read_chunk(frame: Codes, places: Floats, white: Codes) -> tuple[Vector, Vector]:
    height, width, channels = frame.shape
    nearest = np.rint(places).astype(np.int64)
    centre = np.clip(nearest, _RADIUS, np.array([height, width]) - 1 - _RADIUS)
    outside = (centre != nearest).any(axis=1)
    patches = _patches(frame, centre)
    middle = _median(patches)
    distance = np.maximum(patches, middle) - np.minimum(patches, middle)
    # Wide enough that the upper tail of a texture stays: without it the mean would be too low.
    belongs = distance <= 6 + 5 * _median(distance).astype(np.uint16)
    number, down_number, right_number = _moments(belongs)
    values = patches * belongs.astype(np.float32)
    total, down_total, right_total = _moments(values)
    mean = total / number
    square = (values * values).sum(axis=(0, 1)) / number
    roughness = np.sqrt(np.maximum(square - mean * mean, 0.0))
    # Slope of a plane through the pixels used, as the plain sums give it.
    spread = float(_SIDE * sum(k * k for k in range(-_RADIUS, _RADIUS + 1)))
    offset = np.repeat(places - centre, channels, axis=0)
    level = mean + (down_total - mean * down_number) / spread * offset[:, 0]
    level += (right_total - mean * right_number) / spread * offset[:, 1]
    unusable = (patches >= np.tile(white, len(places))) | (patches <= _BLACK)
    clipped = unusable.sum(axis=(0, 1), dtype=np.uint8)
    level[(clipped > _CLIPPED_SHARE * _SIDE**2) | np.repeat(outside, channels)] = np.nan
    shape = (len(places), channels)
    return level.reshape(shape), roughness.reshape(shape)


def _patches(frame: Codes, centre: Indices) -> Codes:
    """Surroundings of places, shape (5, 5, P · C): the long axis last, where numpy is fast."""
    height, width, channels = frame.shape
    span = np.arange(-_RADIUS, _RADIUS + 1)
    steps = span[:, np.newaxis] * width + span
    index = steps[:, :, np.newaxis] + (centre[:, 0] * width + centre[:, 1])
    pixels = frame.reshape(height * width, channels).take(index, axis=0)
    return np.asarray(pixels.reshape(_SIDE, _SIDE, -1), dtype=np.uint8)


def _median(patches: Codes) -> Codes:
    columns = np.ascontiguousarray(patches.reshape(_SIDE**2, -1).T)
    half = _SIDE**2 // 2
    columns.partition(half, axis=1)
    return np.ascontiguousarray(columns[:, half])


def _moments(values: NDArray[Any]) -> tuple[Vector, ...]:
    """Sum over each patch, and the sums weighted by the step down and to the right."""
    down = values.sum(axis=1, dtype=np.float32).astype(np.float64)
    right = values.sum(axis=0, dtype=np.float32).astype(np.float64)
    weighted = partial(np.tensordot, np.arange(-_RADIUS, _RADIUS + 1.0), axes=1)
    return down.sum(axis=0), weighted(down), weighted(right)


def follow(
    frames: Sequence[Codes], places: Floats, pool: Executor | None = None
) -> Iterator[tuple[int, Floats]]:
    """Find the places of the middle exposure in all others.

    Yields the number of every exposure once, the middle one first, and the places there, which may
    lie outside the picture.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        Ascending exposure time.
    places : ndarray, shape (P, 2), float32
        Row and column in the middle exposure, `frames[len(frames) // 2]`.
    pool : Executor, optional
        Threads to work in.
    """
    middle, last = len(frames) // 2, len(frames) - 1
    steps = [(n, n + 1) for n in range(middle, last)] + [(n, n - 1) for n in range(middle, 0, -1)]
    height, width = frames[0].shape[:2]
    factor = math.ceil((height * width / FLOW_PIXELS) ** 0.5)
    small = each(pool, lambda frame: _grey(frame, factor), frames)
    # All before the first place is read: the memory for one is given back before the other.
    flows = each(pool, lambda step: _flow(small[step[0]], small[step[1]]), steps)
    tracks = {middle: places}
    yield middle, places
    for (before, now), flow in zip(steps, flows, strict=True):
        track = tracks[before]
        tracks = {middle: places, now: track if flow is None else _moved(track, flow, factor)}
        yield now, tracks[now]


def match_tones(first: Codes, second: Codes) -> tuple[Codes, Codes]:
    """Bring two exposures of one scene to the tones that both resolve, spread over 0…255.

    Parameters
    ----------
    first, second : ndarray, shape (H, W), uint8
    """
    codes = np.arange(CODES, dtype=np.float64)
    share_first, share_second = _share_below(first), _share_below(second)
    mapped = np.interp(share_first, share_second, codes)
    low = max(float(mapped[_DARKEST]), _DARKEST)
    high = max(min(float(mapped[_BRIGHTEST]), _BRIGHTEST), low + 1.0)
    edges = np.interp([low, high], codes, share_second)

    def tone(value: Vector) -> Codes:
        # Half by code, half by share of the picture: contrast where the scene has its structure.
        value = np.clip(value, low, high)
        share = np.interp(value, codes, share_second)
        by_share = (share - edges[0]) / max(edges[1] - edges[0], 1e-6)
        by_code = (value - low) / (high - low)
        return np.asarray(127.5 * (by_share + by_code) + 0.5, dtype=np.uint8)

    tones = tone(mapped), tone(codes)
    return np.asarray(cv2.LUT(first, tones[0])), np.asarray(cv2.LUT(second, tones[1]))


def _counts(picture: Codes) -> Vector:
    counts = cv2.calcHist([picture], [0], None, [CODES], [0, CODES])
    return np.asarray(counts, dtype=np.float64).ravel()


def _share_below(picture: Codes) -> Vector:
    # A trace of a rise everywhere keeps the inverse defined where no pixel has a code.
    counts = _counts(picture) + 1e-6 * picture.size / CODES
    return np.asarray((np.cumsum(counts) - counts / 2) / counts.sum())


def _grey(frame: Codes, factor: int) -> Codes:
    height, width, channels = frame.shape
    grey = (
        cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if channels == 3 else frame.reshape(height, width)
    )
    if factor > 1:
        size = width // factor, height // factor
        whole = grey[: size[1] * factor, : size[0] * factor]
        grey = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.uint8)


def _flow(first: Codes, second: Codes) -> Floats | None:
    """Displacement (x, y) from one exposure to the next, 0 where none is proven; None: nowhere."""
    if min(first.shape) < _SMALLEST_SIDE or _contrast(first) < _LEAST_CONTRAST:
        return None
    before, after = match_tones(first, second)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    start = np.zeros((*first.shape, 2), dtype=np.float32)
    flow = np.asarray(search.calc(before, after, start), dtype=np.float32)
    columns = flow[:, :, 0] + np.arange(first.shape[1], dtype=np.float32)
    rows = flow[:, :, 1] + np.arange(first.shape[0], dtype=np.float32)[:, np.newaxis]
    moved = cv2.remap(after, columns, rows, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    del columns, rows
    # Any flow explains a little noise; motion explains most of the difference around a place.
    window = (max(first.shape) // 12 | 1,) * 2
    still = cv2.boxFilter(cv2.absdiff(before, after), cv2.CV_32F, window)
    followed = cv2.boxFilter(cv2.absdiff(before, moved), cv2.CV_32F, window)
    idle = followed >= _PROOF * still
    if idle.all():
        return None
    flow[idle] = 0.0
    return flow


def _contrast(picture: Codes) -> float:
    """Range of codes, extremes left out: motion cannot be told in a picture without any."""
    resolved = np.cumsum(_counts(picture)[:_BRIGHTEST])
    ends = np.searchsorted(resolved, [0.01 * resolved[-1], 0.99 * resolved[-1]])
    return float(ends[1] - ends[0])


def _moved(places: Floats, flow: Floats, factor: int) -> Floats:
    """Places of the full picture, displaced by the flow (nearest value) of the reduced one."""
    there = places * np.float32(1.0 / factor)
    missing = -len(there) % _REMAP_WIDTH
    rows, columns = (np.pad(axis, (0, missing)).reshape(-1, _REMAP_WIDTH) for axis in there.T)
    found = cv2.remap(flow, columns, rows, cv2.INTER_NEAREST, None, cv2.BORDER_REPLICATE)
    step = np.asarray(found, dtype=np.float32).reshape(-1, 2)[: len(places), ::-1]
    return np.asarray(places + step * np.float32(factor))
