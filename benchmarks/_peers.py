"""The merges that others do, as a benchmark calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.lookup_tables import remap_codes, weight_table

Frames = Sequence[NDArray[np.uint8]]


def opencv_debevec(frames: Frames, times: Sequence[float], g: NDArray[np.float32]) -> object:
    """OpenCV's MergeDebevec.process, with nothing before or after it."""
    response = np.exp(g.astype(np.float64)).astype(np.float32).reshape(256, 1, -1)
    return cv2.createMergeDebevec().process(list(frames), np.asarray(times, np.float32), response)


def opencv_robertson(frames: Frames, times: Sequence[float], g: NDArray[np.float32]) -> object:
    """OpenCV's MergeRobertson.process."""
    response = np.exp(g.astype(np.float64)).astype(np.float32).reshape(256, 1, -1)
    return cv2.createMergeRobertson().process(list(frames), np.asarray(times, np.float32), response)


def opencv_mertens(frames: Frames, times: Sequence[float], g: NDArray[np.float32]) -> object:
    """OpenCV's MergeMertens.process."""
    return cv2.createMergeMertens().process(list(frames))


def formula_in_numpy(frames: Frames, times: Sequence[float], g: NDArray[np.float32]) -> object:
    """The weighted mean and its 8-bit picture, written down in numpy the straightforward way."""
    ln_t = np.log(times)
    stretch, hat = remap_codes(5, 250), weight_table("triangle")[:, 0]
    codes = [stretch[frame] for frame in frames]
    numerator, total = np.zeros(frames[0].shape), np.zeros(frames[0].shape)
    for z, ln in zip(codes, ln_t, strict=True):
        weight = hat[z]
        value = np.stack([g[z[..., c], c] for c in range(z.shape[2])], axis=-1)
        numerator += weight * (value - ln)
        total += weight
    high, low = g.max(axis=0) - ln_t.min(), g.min(axis=0) - ln_t.max()
    empty = total <= 1e-12
    ln_e = np.minimum(numerator / np.where(empty, 1.0, total), high)
    ln_e = np.where(empty & (codes[int(np.argmin(ln_t))] == 0), low, ln_e)
    ln_e = np.where(empty & (codes[int(np.argmax(ln_t))] == 255), high, ln_e)
    level = (np.exp(ln_e) - np.exp(low)) / (np.exp(high) - np.exp(low))
    return (np.clip(level, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


PEERS: dict[str, Callable[[Frames, Sequence[float], NDArray[np.float32]], object]] = {
    "OpenCV MergeDebevec.process": opencv_debevec,
    "OpenCV MergeRobertson.process": opencv_robertson,
    "OpenCV MergeMertens.process": opencv_mertens,
    "formula in plain numpy": formula_in_numpy,
}
