"""Pictures of rendered skies and photographs: brightness, clipping and TMQI of every operator.

    python -m benchmarks.pictures [--sheet FILE.png] [--size PIXELS]

With ASI_WATCH_DATA set to a folder of sets of photographs (`NAME/exposures.csv`), those are shown
too. Peers are OpenCV's operators on the same radiance.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.hdr.calibration import calibrate_response, sample_bracket
from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.frame_checks import sample_frame
from asi_watch.hdr.merge_settings import MergeSettings, Tone
from asi_watch.hdr.merging import open_merge
from asi_watch.hdr.tone import ToneScale
from asi_watch.hdr.weighted_merge import bracket_scale, curve_scale
from asi_watch.simulator.clouds import Weather
from asi_watch.simulator.sensor import Camera
from asi_watch.simulator.sky import Sky
from benchmarks._tmqi import luminance, tmqi
from benchmarks.reporting import save, show

TIMES = (80.0, 160.0, 320.0, 640.0, 1280.0)
NOON = dt.datetime(2026, 6, 21, 11, 30)
MERGE = MergeSettings("debevec_exact", tone=Tone("photographic"))
HOW: dict[str, MergeSettings] = {
    "photographic": MERGE,
    "local": replace(MERGE, tone=Tone("local")),
    "gamma": replace(MERGE, tone=Tone("gamma")),
    "reinhard": replace(MERGE, tone=Tone("reinhard")),
    "drago": replace(MERGE, tone=Tone("drago")),
    "mantiuk": replace(MERGE, tone=Tone("mantiuk")),
    "mertens": MergeSettings("mertens"),
}
PEERS: dict[str, Callable[[], Any]] = {
    "OpenCV Reinhard": lambda: cv2.createTonemapReinhard(2.2, 0, 0, 0),
    "OpenCV Drago": lambda: cv2.createTonemapDrago(2.2, 1.0),
    "OpenCV Mantiuk": lambda: cv2.createTonemapMantiuk(2.2, 0.85, 1.2),
}


@dataclass(frozen=True)
class Scene:
    """A bracket to be shown, and the curve it is merged with."""

    frames: list[NDArray[np.uint8]]
    times: Sequence[float]
    curve: NDArray[np.float32]
    disc: SkyDisc | None
    sun: tuple[int, int] | None = None  # row and column


def skies(size: int) -> Iterator[tuple[str, Scene]]:
    """Rendered skies of one camera."""
    camera = Camera("film", 1, quality=92)
    disc = SkyDisc(size / 2 - 0.5, size / 2 - 0.5, size * 0.485)
    for name, start, weather, light in (
        ("noon, clear", NOON, Weather(cover=9.0, cirrus=0.1), 1.0),
        ("noon, broken", NOON, Weather(), 1.0),
        ("noon, many clouds", NOON, Weather(cover=-0.3, cirrus=1.0), 1.0),
        ("overcast", NOON, Weather(cover=-9.0, cirrus=9.0), 0.5),
        ("late afternoon", dt.datetime(2026, 6, 21, 17), Weather(), 0.6),
        ("dawn", dt.datetime(2026, 6, 21, 4, 30), Weather(cover=1.0), 0.08),
    ):
        radiance = Sky(size, 5, start=start, weather=weather).radiance(0.0) * np.float32(light)
        files = [camera.encode(camera.expose(radiance, t)) for t in TIMES]
        frames = [simplejpeg.decode_jpeg(f, colorspace="BGR", strict=True) for f in files]
        grey = np.where(disc.mask(radiance.shape), radiance.sum(axis=2), 0)
        row, column = np.unravel_index(int(grey.argmax()), grey.shape)
        sun = (int(row), int(column)) if grey.max() > 3e3 * light else None
        yield name, Scene(frames, TIMES, camera.log_response, disc, sun)


def photographs() -> Iterator[tuple[str, Scene]]:
    """Sets of photographs, each with a curve calibrated from itself."""
    for listed in sorted(
        Path(os.environ.get("ASI_WATCH_DATA", "/nowhere")).glob("*/exposures.csv")
    ):
        rows = [r for r in csv.DictReader(listed.open()) if r["exposure_seconds"]]
        times = [float(r["exposure_seconds"]) * 1e6 for r in rows]
        images = [cv2.imread(str(listed.parent / r["file"])) for r in rows]
        if len(images) > 2:
            rng = np.random.default_rng(0)
            chosen = sample_bracket(images, times, technique="flat", count=3000, rng=rng)
            curve = calibrate_response([chosen]).log_response.astype(np.float32)
            yield listed.parent.name, Scene(images, times, curve, None)


def pictures(scene: Scene, scale: ToneScale | None) -> dict[str, NDArray[np.uint8]]:
    """The scene by every operator."""
    made, ln = {}, np.zeros(0)
    for name, how in HOW.items():
        settings = replace(how, sky_disc=scene.disc)
        merge = open_merge(settings, scene.curve, scene.frames[0].shape, scale=scale)
        for frame, time in zip(scene.frames, scene.times, strict=True):
            merge.add(frame, time)
        made[name] = merge.picture()
        if name == "photographic":
            ln = merge.radiance().ln_radiance
    light = np.exp(ln - np.median(ln))
    for name, peer in PEERS.items():
        level = np.nan_to_num(np.asarray(peer().process(light)))
        made[name] = (np.clip(level, 0, 1) * 255).astype(np.uint8)
    return made


def measured(scene: Scene, picture: NDArray[np.uint8], truth: NDArray[np.float64]) -> list[float]:
    """Median luma, mean luma, share of clipped pixels, and TMQI, of what is inside the disc."""
    luma = luminance(picture)
    inside = np.ones(luma.shape, bool) if scene.disc is None else scene.disc.mask(luma.shape)
    half = int(min(luma.shape) * (0.5 if scene.disc is None else 0.485 / np.sqrt(2)))
    middle = tuple(slice(side // 2 - half, side // 2 + half) for side in luma.shape)
    white = float((luma[inside] >= 254).mean())
    quality = tmqi(truth[middle], luma[middle])
    return [float(np.median(luma[inside])), float(luma[inside].mean()), 100 * white, quality]


def sheet(rows: list[dict[str, NDArray[np.uint8]]], path: Path) -> None:
    """Write all pictures, a row for each scene."""
    small = [
        np.hstack([cv2.resize(p, (320, 320), interpolation=cv2.INTER_AREA) for p in row.values()])
        for row in rows
    ]
    cv2.imwrite(str(path), np.vstack(small))


def main() -> None:
    """Show and measure every scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--size", type=int, default=768)
    options = parser.parse_args()
    scenes = [*skies(options.size), *photographs()]
    # As at a calibration: by day, in any weather.
    brackets = [
        ([sample_frame(f, s.disc) for f in s.frames], s.times) for _, s in scenes[:5] if s.disc
    ]
    stored = curve_scale(brackets, scenes[0][1].curve)
    table, rows, result = [], [], {}
    for name, scene in scenes:
        samples = [sample_frame(f, scene.disc) for f in scene.frames]
        own = bracket_scale(samples, scene.times, scene.curve)
        made = pictures(scene, stored if scene.disc else own)
        merge = open_merge(MERGE, scene.curve, scene.frames[0].shape)
        for frame, time in zip(scene.frames, scene.times, strict=True):
            merge.add(frame, time)
        ln = merge.radiance().ln_radiance
        truth = luminance(np.exp(ln - ln.min()))
        rows.append(made)
        for how, picture in made.items():
            values = measured(scene, picture, truth)
            core = "" if scene.sun is None else str(int(picture[scene.sun].min()))
            result[f"{name}: {how}"] = values
            numbers = (f"{v:.{d}f}" for v, d in zip(values, (0, 0, 2, 3), strict=True))
            table.append((name, how, *numbers, core))
    show("Pictures", ("scene", "operator", "median", "mean", "white %", "TMQI", "sun"), table)
    for how in rows[0]:
        of_all = [v[3] for key, v in result.items() if key.endswith(f": {how}")]
        print(f"TMQI {how:16} {np.mean(of_all):.3f}  skies {np.mean(of_all[:6]):.3f}")
    save("pictures", result)
    if options.sheet:
        sheet(rows, options.sheet)


if __name__ == "__main__":
    main()
