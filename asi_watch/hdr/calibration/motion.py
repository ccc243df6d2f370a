"""Following the places of a bracket from exposure to exposure while clouds drift.

Neighbouring exposures are brought to one tone scale by their histograms alone, which motion hardly
changes (M. Grossberg, S. Nayar: Determining the camera response from images: what is knowable?,
PAMI 25, 2003), so that no response curve is needed; then dense inverse search (T. Kroeger et al.:
Fast optical flow using dense inverse search, ECCV 2016) follows every place.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import cv2
import numpy as np

from asi_watch.hdr.calibration.samples import CODES, Codes, Floats, Vector, each

# Flow is computed on at most this many pixels; larger pictures are reduced first, by whole numbers.
FLOW_PIXELS = 1_600_000
_DARK, _BRIGHT = 5, 250
_SMALLEST_SIDE = 32
_LEAST_CONTRAST = 16.0
_PROOF = 0.75
_REMAP_WIDTH = 1 << 12  # OpenCV's remap takes maps of at most 32767 in either direction


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
    low = max(float(mapped[_DARK]), _DARK)
    high = max(min(float(mapped[_BRIGHT]), _BRIGHT), low + 1.0)
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
    resolved = np.cumsum(_counts(picture)[:_BRIGHT])
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
