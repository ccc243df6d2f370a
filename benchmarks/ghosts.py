"""Clouds that drift between the exposures: error of ln E at their edges, velocity, and cost.

The truth is the sky of the middle exposure. "oracle" leaves out every sample whose own truth
differs by more than 5 %, which no program can know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.hdr import engine
from asi_watch.hdr.lookup_tables import weight_table
from asi_watch.hdr.merge_settings import VALID, MergeSettings
from asi_watch.hdr.merging import open_merge
from asi_watch.hdr.weighted_merge import Merge
from asi_watch.simulator.sensor import Camera
from benchmarks.reporting import interleaved, median, save, show

TIMES = (80.0, 160.0, 320.0, 640.0, 1280.0)
MIDDLE, SIDE, MARGIN = 2, 1024, 128
DRIFTS = (0.0, 2.0, 4.0, 8.0)
EDGE = 0.15  # what counts as an edge: a change of ln E over the bracket at 4 pixels of drift
MERGE = MergeSettings("debevec_exact", contradiction="warn")
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A bracket whose truth is known."""

    frames: list[NDArray[np.uint8]]
    skies: list[Floats]
    log_response: Floats


def scene(response: str, drift: float, quality: int) -> Scene:
    """Take a bracket of clouds that drift by so many pixels per exposure."""
    camera, frames = Camera(response, 1, quality=quality), []
    skies = [_sky(drift * (i - MIDDLE)) for i in range(len(TIMES))]
    for sky, time in zip(skies, TIMES, strict=True):
        coded = camera.encode(camera.expose(sky, time))
        frames.append(simplejpeg.decode_jpeg(coded, colorspace="BGR"))
    return Scene(frames, skies, camera.log_response)


def _noise(seed: int, slope: float) -> Floats:
    side = SIDE + 2 * MARGIN
    rng = np.random.default_rng(seed)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    radius[0, 0] = np.inf
    field = np.fft.ifft2(radius**-slope * np.exp(2j * np.pi * rng.random((side, side)))).real
    return np.asarray(field / field.std(), np.float32)


_COVER, _DETAIL = _noise(3, 1.8), _noise(4, 1.2)


def _sky(moved: float) -> Floats:
    shift = np.array([[1.0, 0.0, moved], [0.0, 1.0, 0.3 * moved]])
    inside = slice(MARGIN, -MARGIN)
    cover, detail = (
        cv2.warpAffine(f, shift, f.shape, flags=cv2.INTER_CUBIC)[inside, inside]
        for f in (_COVER, _DETAIL)
    )
    alpha = (1.0 / (1.0 + np.exp(-12.0 * (cover - 0.2))))[..., None]
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    blue = np.stack([1 + 0.3 * y, 0.62 + 0.2 * y, 0.42 + 0.15 * y], -1) * 1.25
    cloud = np.maximum(0.75 + 0.12 * detail, 0.1)[..., None] * np.array([4.0, 3.96, 3.92])
    glow = 30.0 * np.exp(-np.hypot(x - 0.6, y - 0.4) / 0.08)[..., None]
    return np.asarray(blue * (1 - alpha) + cloud * alpha + glow * (1 - 0.9 * alpha), np.float32)


def merged(bracket: Scene, how: MergeSettings) -> Merge:
    """Give the frames to a merge."""
    merge = open_merge(how, bracket.log_response, bracket.frames[0].shape)
    for frame, time in zip(bracket.frames, TIMES, strict=True):
        merge.add(frame, time)
    return merge


def stops(bracket: Scene, ln_radiance: NDArray[Any], used: NDArray[np.bool_]) -> float:
    """RMS of ln E against the middle sky, in stops."""
    error = ln_radiance - np.log(bracket.skies[MIDDLE] / 1000.0)
    return float(np.sqrt(np.mean(error[used] ** 2)) / np.log(2.0))


def by_hand(bracket: Scene, keep: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Merge the samples that are kept; the middle exposure where none is."""
    g, weights = bracket.log_response, weight_table("triangle")
    total, weight = 0.0, 1e-6
    for frame, time, kept in zip(bracket.frames, TIMES, keep, strict=True):
        w = weights[frame, 0] * kept
        total = total + w * (
            np.take_along_axis(g, frame.reshape(-1, 3).astype(int), 0).reshape(frame.shape)
            - np.log(time)
        )
        weight = weight + w
    return np.asarray(total / weight)


def accuracy(response: str, quality: int) -> list[list[object]]:
    """A row per drift: edges without, with weights, aligned, the middle alone, the oracle."""
    edges = np.ptp([np.log(s) for s in scene(response, 4.0, quality).skies], axis=0).max(-1) > EDGE
    rows = []
    for drift in DRIFTS:
        bracket = scene(response, drift, quality)
        results = {
            d: merged(bracket, replace(MERGE, deghost=d)) for d in ("off", "weights", "align")
        }
        maps = {name: merge.radiance() for name, merge in results.items()}
        used = edges[..., None] & (maps["off"].validity == VALID)
        found = [f"{stops(bracket, one.ln_radiance, used):.3f}" for one in maps.values()]
        truth = np.log(bracket.skies[MIDDLE])
        alone = [np.full(truth.shape, i == MIDDLE) for i in range(len(TIMES))]
        same = [np.abs(np.log(sky) - truth) < 0.05 for sky in bracket.skies]
        usable = used & (bracket.frames[MIDDLE] > 0) & (bracket.frames[MIDDLE] < 250)
        found += [f"{stops(bracket, by_hand(bracket, keep), usable):.3f}" for keep in (alone, same)]
        motion = results["align"].cloud_motion([float(i) for i in range(len(TIMES))])
        miss = (
            "none"
            if motion is None
            else f"{np.hypot(motion[0] - drift, motion[1] - 0.3 * drift):.2f}"
        )
        rows.append([f"{response}, q{quality}, {drift:g} px", *found, miss])
    return rows


def cost() -> list[list[object]]:
    """Milliseconds of a picture of 5 × 2048², two threads, by instruction set."""
    small = scene("film", 4.0, 92)
    bracket = replace(small, frames=[np.tile(frame, (2, 2, 1)) for frame in small.frames])
    out = np.empty(bracket.frames[0].shape, np.uint8)
    rows = []
    for vectors in ("avx512", "avx2"):
        if engine._kernel is not None and engine._kernel.vectors(vectors) != vectors:
            continue
        jobs = {}
        for deghost in ("off", "weights", "align"):
            how = replace(MERGE, deghost=deghost)
            jobs[deghost] = lambda how=how: merged(bracket, how).picture(out=out)
        times = interleaved(jobs, 9)
        rows.append([vectors, *(f"{median(times[name]) * 1000:.0f}" for name in jobs)])
    return rows


def main() -> None:
    """Print both tables."""
    columns = [
        "clouds",
        "off",
        "weights",
        "align",
        "middle alone",
        "oracle",
        "velocity off by (px)",
    ]
    rows = [row for one in (("film", 92), ("srgb", 92), ("film", 75)) for row in accuracy(*one)]
    show("RMS of ln E at cloud edges, stops", columns, rows)
    costs = cost()
    show("a picture of 5 × 2048², ms", ["instructions", "off", "weights", "align"], costs)
    save("ghosts", {"accuracy": rows, "cost": costs})


if __name__ == "__main__":
    main()
