"""Following the places of a bracket from exposure to exposure while clouds drift.

Neighbouring exposures are brought to one tone scale by their histograms alone, which motion hardly
changes (M. Grossberg, S. Nayar: Determining the camera response from images: what is knowable?,
PAMI 25, 2003), so that no response curve is needed; then dense inverse search (T. Kroeger et al.:
Fast optical flow using dense inverse search, ECCV 2016) follows every place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration.samples import CODES

# Flow is computed on at most this many pixels; larger pictures are reduced first.
FLOW_PIXELS = 1_200_000
_DARK, _BRIGHT = 5, 250
_SMALLEST_SIDE = 32
_LEAST_CONTRAST = 16.0
_PROOF = 0.75


def follow(
    frames: Sequence[NDArray[np.uint8]], places: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Find the places of the middle exposure in all others.

    Parameters
    ----------
    frames : sequence of ndarray, shape (H, W, C), uint8
        Ascending exposure time.
    places : ndarray, shape (P, 2), float32
        Row and column in the middle exposure, `frames[len(frames) // 2]`.

    Yields
    ------
    exposure : int
        Every exposure once, the middle one first.
    track : ndarray, shape (P, 2), float32
        Row and column there; may lie outside the picture.
    """
    small, factor = _reduced(frames)
    middle = len(frames) // 2
    yield middle, places
    for path in (range(middle + 1, len(frames)), range(middle - 1, -1, -1)):
        before, track = middle, places
        for current in path:
            flow = _flow(small[before], small[current])
            track = track + _look_up(flow, track, factor)
            before = current
            yield current, track


def match_tones(
    first: NDArray[np.uint8], second: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bring two exposures of one scene to a common tone scale by their histograms.

    Parameters
    ----------
    first, second : ndarray, shape (H, W), uint8

    Returns
    -------
    tuple of ndarray, shape (H, W), uint8
        Both clipped to the tones that both exposures resolve, spread over 0…255.
    """
    codes = np.arange(CODES, dtype=np.float64)
    share_first, share_second = _share_below(first), _share_below(second)
    mapped = np.interp(share_first, share_second, codes)
    low = max(float(mapped[_DARK]), _DARK)
    high = max(min(float(mapped[_BRIGHT]), _BRIGHT), low + 1.0)

    def tone(value: NDArray[np.float64]) -> NDArray[np.uint8]:
        # Half by code, half by share of the picture: contrast where the scene has its structure.
        value = np.clip(value, low, high)
        edges = np.interp([low, high], codes, share_second)
        by_share = (np.interp(value, codes, share_second) - edges[0]) / max(
            edges[1] - edges[0], 1e-6
        )
        by_code = (value - low) / (high - low)
        return np.asarray(127.5 * (by_share + by_code) + 0.5, dtype=np.uint8)

    return tone(mapped)[first], tone(codes)[second]


def _share_below(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    counts = np.bincount(picture.ravel(), minlength=CODES).astype(np.float64)
    # A trace of a rise everywhere keeps the inverse defined where no pixel has a code.
    counts += 1e-6 * picture.size / CODES
    share: NDArray[np.float64] = (np.cumsum(counts) - counts / 2) / counts.sum()
    return share


def _reduced(frames: Sequence[NDArray[np.uint8]]) -> tuple[list[NDArray[np.uint8]], float]:
    height, width = frames[0].shape[:2]
    factor = max(1.0, (height * width / FLOW_PIXELS) ** 0.5)
    size = (round(width / factor), round(height / factor))
    return [_grey(frame, size) for frame in frames], factor


def _grey(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width, channels = frame.shape
    grey = (
        cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if channels == 3 else frame.reshape(height, width)
    )
    if size != (width, height):
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.uint8)


def _flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Displacement (rows, columns) from one exposure to the next, 0 where none is proven."""
    nothing = np.zeros((*first.shape, 2), dtype=np.float32)
    if min(first.shape) < _SMALLEST_SIDE or _contrast(first) < _LEAST_CONTRAST:
        return nothing
    before, after = match_tones(first, second)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = np.asarray(search.calc(before, after, nothing), dtype=np.float32)
    columns, rows = np.meshgrid(
        np.arange(first.shape[1], dtype=np.float32), np.arange(first.shape[0], dtype=np.float32)
    )
    moved = cv2.remap(
        after,
        columns + flow[:, :, 0],
        rows + flow[:, :, 1],
        cv2.INTER_LINEAR,
        None,
        cv2.BORDER_REPLICATE,
    )
    # Any flow explains a little noise; motion explains most of the difference around a place.
    window = (max(first.shape) // 12 | 1,) * 2
    still = cv2.blur(cv2.absdiff(before, after).astype(np.float32), window)
    followed = cv2.blur(cv2.absdiff(before, moved).astype(np.float32), window)
    proven = followed < _PROOF * still
    return np.where(proven[:, :, np.newaxis], flow[:, :, ::-1], nothing)  # x, y → row, column


def _contrast(picture: NDArray[np.uint8]) -> float:
    """Range of codes, extremes left out: motion cannot be told in a picture without any."""
    resolved = picture[picture < _BRIGHT]
    return float(np.ptp(np.quantile(resolved, [0.01, 0.99]))) if resolved.size else 0.0


def _look_up(
    flow: NDArray[np.float32], places: NDArray[np.float32], factor: float
) -> NDArray[np.float32]:
    """Displacement at places of the full picture, from the flow of the reduced one."""
    scale = np.float32(1.0 / factor)
    rows = np.clip(np.rint(places[:, 0] * scale), 0, flow.shape[0] - 1).astype(np.int32)
    columns = np.clip(np.rint(places[:, 1] * scale), 0, flow.shape[1] - 1).astype(np.int32)
    return np.asarray(flow[rows, columns] * np.float32(factor), dtype=np.float32)
