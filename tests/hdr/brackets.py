"""Scenes, curves and settings for the tests of the merge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.merging import open_merge
from asi_watch.hdr.weighted_merge import Merge
from tests.hdr.formula import ReferenceRadiance, reference_radiance

TIMES = (80.0, 160.0, 320.0, 640.0, 1280.0)


def curve(channels: int = 3) -> NDArray[np.float32]:
    """Make a gamma-like g(z) per channel with g(128) = 0."""
    z = np.arange(256, dtype=np.float64)
    g = np.stack([gamma * np.log((z + 2) / 258) for gamma in (1.6, 1.9, 2.2)[:channels]], axis=1)
    return (g - g[128]).astype(np.float32)


def shoot(
    times: Sequence[float],
    *,
    shape: tuple[int, int, int] = (37, 53, 3),
    noise: float = 0.05,
    seed: int = 1,
) -> list[NDArray[np.uint8]]:
    """Photograph one random scene, from darker than the longest to brighter than the shortest."""
    rng = np.random.default_rng(seed)
    g = curve(shape[2]).astype(np.float64)
    low, high = g.min() - np.log(max(times)) - 0.5, g.max() - np.log(min(times)) + 0.5
    scene = rng.uniform(low, high, shape)
    frames = []
    for time in times:
        seen = scene + np.log(time) + rng.normal(0.0, noise, shape)
        planes = [np.searchsorted(g[:, c], seen[..., c]) for c in range(shape[2])]
        frames.append(np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8))
    return frames


def settings(**changes: Any) -> MergeSettings:
    """Give the usual settings, with changes."""
    values: dict[str, Any] = {
        "algorithm": "debevec_custom",
        "weight_type": "triangle",
        "low_clip": 5,
        "high_clip": 250,
        "gamma": 2.2,
        "lnE_range": None,
        "saturation": 255,
        "apply_tonemapping": True,
    }
    return MergeSettings(**(values | changes))


def opened(
    how: MergeSettings,
    frames: Sequence[NDArray[np.uint8]],
    times: Sequence[float] = TIMES,
    g: NDArray[np.float32] | None = None,
) -> Merge:
    """Open a merge, by the curve of the scenes unless given, and add the frames."""
    shape = frames[0].shape
    merge = open_merge(how, curve(shape[2]) if g is None else g, shape)
    for pixels, time in zip(frames, times, strict=True):
        merge.add(pixels, time)
    return merge


def merge_frames(
    frames: Sequence[NDArray[np.uint8]],
    times: Sequence[float],
    how: MergeSettings,
    g: NDArray[np.float32] | None,
    dtype: type[Any] = np.uint8,
    *,
    threads: int = 2,
) -> NDArray[Any]:
    """Merge decoded frames into a display picture."""
    merge = open_merge(how, g, np.shape(frames[0]), threads=threads)
    for pixels, time in zip(frames, times, strict=True):
        merge.add(pixels, time)
    return merge.picture(dtype)


def by_formula(
    frames: Sequence[NDArray[np.uint8]],
    times: Sequence[float],
    how: MergeSettings,
    g: NDArray[np.float32] | None = None,
) -> ReferenceRadiance:
    """Merge with the float64 formula."""
    return reference_radiance(
        frames,
        times,
        curve(frames[0].shape[2]) if g is None else g,
        weight_type=how.weight_type,
        low_clip=how.low_clip,
        high_clip=how.high_clip,
        remap=how.algorithm == "debevec_custom",
    )
