"""Which candidate curves the daemon's gate accepts: adversarial brackets, slow drifts, a year.

    python -m benchmarks.gate [--seeds N] [--drifts N] [--days N] [--first] [--json FILE]

Every candidate is calibrated and judged by `asi_watch.live.curves.gate.calibrate_candidate`, as
the daemon's process does it, from JPEGs on disk. A candidate is bad if it is accepted and lies
more than 0.05 stops from the camera's own curve (codes 15 … 240, worst channel).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from asi_watch.calibrate_brackets import BracketFiles
from asi_watch.live.curves import gate
from asi_watch.live.curves.gate import CalibrationRequest, CalibrationVerdict, calibrate_candidate
from asi_watch.response_files import load_curve, response_bytes

BAD, CLOSE = 0.05, 0.03  # stops
TIMES = 80.0 * 2.0 ** np.arange(5)
SIZE = 160
MORNING = datetime(2026, 6, 21, 7)
CODES = np.arange(256)
Frame = np.ndarray


@dataclass(frozen=True)
class Camera:
    """A tone curve per channel: gamma with an s-shaped part."""

    gammas: tuple[float, ...] = (2.2, 2.2, 2.2)
    bend: float = 0.0

    def codes(self, exposure: np.ndarray) -> np.ndarray:
        """Codes 0 … 255 of exposures 0 … 1."""
        s = np.clip(exposure, 0.0, 1.0) ** (1.0 / np.array(self.gammas))
        return 255.0 * (s - self.bend * np.sin(2 * np.pi * s) / (2 * np.pi))

    def response(self) -> np.ndarray:
        """Give g(z), shape (256, C)."""
        x = np.exp(np.linspace(np.log(1e-7), 0.0, 20_001))[:, None] * np.ones(len(self.gammas))
        y = self.codes(x)
        columns = [np.interp(CODES, y[:, c], np.log(x[:, c])) for c in range(y.shape[1])]
        g = np.stack(columns, axis=1)
        g = np.maximum.accumulate(g + 1e-5 * CODES[:, None], axis=0)
        return (g - g[128]).astype(np.float32)


def camera_of(seed: int) -> Camera:
    rng = np.random.default_rng(seed)
    gamma = rng.uniform(1.9, 2.5)
    # One curve for all channels: else JPEG takes the little colour of dark pixels for noise.
    return Camera((gamma,) * 3, float(rng.uniform(0.0, 0.5)))


def sky(rng: np.random.Generator, cover: float, brightness: float, room: int) -> np.ndarray:
    """Irradiance, shape (SIZE, SIZE + room, 3): clouds over blue, a sun, dark ground."""
    width = SIZE + room
    rows, columns = np.mgrid[:SIZE, :width]
    field = sum(
        rng.normal(0, 1)
        / k
        * np.sin(columns * k * rng.uniform(0.01, 0.05) + rows * k * rng.uniform(0.01, 0.05) + k)
        for k in range(1, 9)
    )
    noise = cv2.resize(rng.normal(0, 1, (20, 20)), (width, SIZE), interpolation=cv2.INTER_CUBIC)
    cloud = 1 / (1 + np.exp(-4 * (field + 0.5 * noise + 2 * cover - 1)))
    sun = np.hypot(columns - rng.uniform(40, 120), rows - rng.uniform(20, 100))
    blue = 0.2 + 0.5 * np.exp(-sun / 40)
    white = (0.5 + 0.35 * np.exp(-sun / 60)) * np.exp(0.35 * noise)
    e = blue[..., None] * (1.3, 1.0, 0.6) * (1 - cloud[..., None]) + (white * cloud)[..., None]
    e += (1 - cover) * 60 * (sun < 4)[..., None]
    ground = rows > SIZE * 0.86
    e[ground] = (0.04 * np.exp(0.6 * noise[ground]))[:, None]
    return brightness * e / 450.0


def photograph(
    rng: np.random.Generator, camera: Camera, e: np.ndarray, exposure: float, quality: int = 92
) -> Frame:
    seen = e * exposure
    seen = seen + np.sqrt(4e-5 * np.maximum(seen, 0) + 1e-7) * rng.normal(size=seen.shape)
    codes = np.rint(np.clip(camera.codes(seen), 0, 255)).astype(np.uint8)
    data = cv2.imencode(".jpg", codes, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


@dataclass(frozen=True)
class Day:
    """How a day's brackets come about; the callables make it go wrong."""

    camera: Camera
    brackets: int = 10
    hours: float = 9.0
    start: datetime = MORNING
    brightness: Callable[[float], float] = lambda part: 0.45 + 0.8 * np.sin(np.pi * part)
    cover: tuple[float, float] = (0.1, 0.9)
    drift: int = 2  # pixels per exposure
    # ln of what exposure n of bracket k receives more than it should, per channel.
    light: Callable[[np.random.Generator, int, int], np.ndarray | float] = lambda _r, _k, _n: 0.0
    scene: Callable[[np.random.Generator, np.ndarray, int, int], np.ndarray] | None = None
    frame: Callable[[np.random.Generator, Frame, int, int], Frame] | None = None
    labels: Callable[[int], np.ndarray] = lambda _k: TIMES
    torn: bool = False
    stuck: bool = False

    def write(self, folder: Path, seed: int) -> tuple[BracketFiles, ...]:
        """Write the day's brackets, the newest first."""
        rng = np.random.default_rng(seed)
        folder.mkdir(parents=True, exist_ok=True)
        made = []
        for k in range(self.brackets):
            part = (k + 0.5) / self.brackets
            room = self.drift * 4
            e = sky(rng, rng.uniform(*self.cover), self.brightness(part), room)
            frames = []
            for n, exposure in enumerate(TIMES):
                seen = e[:, self.drift * n : self.drift * n + SIZE]
                if self.scene is not None:
                    seen = self.scene(rng, seen, k, n)
                frames.append(
                    photograph(rng, self.camera, seen * np.exp(self.light(rng, k, n)), exposure)
                )
            if self.stuck:
                frames = [frames[2]] * 5
            if self.torn:
                frames = [
                    np.concatenate([a[: SIZE // 2], b[SIZE // 2 :]])
                    for a, b in zip(frames, frames[1:] + frames[-1:], strict=True)
                ]
            if self.frame is not None:
                frames = [self.frame(rng, f, k, n) for n, f in enumerate(frames)]
            slot = self.start + timedelta(hours=self.hours * part)
            paths = []
            for n, frame in enumerate(frames):
                path = folder / f"{slot:%Y%m%d%H%M%S}_{n}.png"
                cv2.imwrite(str(path), frame)
                paths.append(str(path))
            times = tuple(float(t) for t in self.labels(k))
            made.append(BracketFiles(tuple(paths), times, slot.isoformat(timespec="seconds")))
        return tuple(reversed(made))


# --- what may go wrong ----------------------------------------------------------------------------


def _clahe(_rng: np.random.Generator, frame: Frame, _k: int, _n: int) -> Frame:
    engine = cv2.createCLAHE(3.0, (4, 4))
    return np.stack([engine.apply(np.ascontiguousarray(frame[..., c])) for c in range(3)], axis=2)


def _autocontrast(_rng: np.random.Generator, frame: Frame, _k: int, _n: int) -> Frame:
    low, high = np.percentile(frame, (2, 98))
    return np.clip((frame - low) * 255.0 / max(high - low, 1.0), 0, 255).astype(np.uint8)


def _autogain(_rng: np.random.Generator, frame: Frame, _k: int, _n: int) -> Frame:
    gain = (110.0 / max(float(frame.mean()), 1.0)) ** 0.4
    return np.clip(frame * gain, 0, 255).astype(np.uint8)


def _whitebalance(_rng: np.random.Generator, frame: Frame, _k: int, _n: int) -> Frame:
    means = frame.reshape(-1, 3).mean(axis=0)
    return np.clip(frame * (means.mean() / np.maximum(means, 1)) ** 0.6, 0, 255).astype(np.uint8)


def _snow(rng: np.random.Generator, frame: Frame, _k: int, _n: int) -> Frame:
    out = frame.copy()
    for x, y in rng.integers(0, SIZE, (150, 2)):
        cv2.circle(out, (int(x), int(y)), int(rng.integers(1, 5)), (235, 235, 235), -1)
    return out


def _drops(rng: np.random.Generator, e: np.ndarray, k: int, n: int) -> np.ndarray:
    own = np.random.default_rng(k if n % 2 else k + 1000)
    blurred = cv2.GaussianBlur(e, (0, 0), 7)
    out = e.copy()
    for x, y in own.integers(0, SIZE, (40, 2)):
        part = np.hypot(*(np.mgrid[:SIZE, :SIZE] - np.array([y, x])[:, None, None])) < 9
        out[part] = 1.4 * blurred[part]
    return out


def _half(_rng: np.random.Generator, e: np.ndarray, _k: int, _n: int) -> np.ndarray:
    out = e.copy()
    out[:, : SIZE // 2] = 1e-5
    return out


def _fog(_rng: np.random.Generator, e: np.ndarray, _k: int, n: int) -> np.ndarray:
    return 0.15 * e + 0.85 * e.mean() * (1 + 0.03 * n)


def _frost(rng: np.random.Generator, e: np.ndarray, k: int, n: int) -> np.ndarray:
    veil = cv2.resize(np.random.default_rng(k).uniform(0, 1, (12, 12)), (SIZE, SIZE))[..., None]
    return cv2.GaussianBlur(e, (0, 0), 5) * (1 - 0.7 * veil) + 0.3 * veil * e.mean() * 1.08**n


def adversaries(camera: Camera) -> dict[str, Day]:
    day = Day(camera)
    swapped = TIMES[[0, 2, 1, 3, 4]]
    one_false = TIMES * np.array([1, 1, 1.5, 1, 1])
    return {
        "night": replace(day, brightness=lambda _p: 6e-4),
        "night with a moon": replace(day, brightness=lambda _p: 4e-3, cover=(0.0, 0.3)),
        "dusk, light fading": replace(
            day, hours=2.5, brightness=lambda p: 0.5 * 0.02**p, light=lambda _r, _k, n: -0.12 * n
        ),
        "dawn, light rising 12 %": replace(day, light=lambda _r, _k, n: 0.113 * n),
        "dawn and dusk": replace(day, light=lambda _r, k, n: (0.1 if k < 5 else -0.1) * n),
        "brightening, each its own": replace(
            day, light=lambda _r, k, n: n * 0.1 * np.sin(1.7 * k + 1.0)
        ),
        "rain drops that run": replace(day, scene=_drops),
        "half of the dome covered": replace(day, scene=_half),
        "swapped labels": replace(day, labels=lambda _k: swapped),
        "labels swapped in half": replace(day, labels=lambda k: swapped if k % 2 else TIMES),
        "one label false": replace(day, labels=lambda _k: one_false),
        "labels to the power 1.2": replace(day, labels=lambda _k: 80 * (TIMES / 80) ** 1.2),
        "labels to the power 0.85": replace(day, labels=lambda _k: 80 * (TIMES / 80) ** 0.85),
        "fast clouds": replace(day, drift=24, cover=(0.4, 0.7)),
        "stuck sensor": replace(day, stuck=True),
        "white balance of each frame": replace(day, frame=_whitebalance),
        "white balance drifts": replace(
            day, light=lambda _r, _k, n: n * np.array([0.08, 0.0, -0.08])
        ),
        "automatic gain": replace(day, frame=_autogain),
        "local contrast": replace(day, frame=_clahe),
        "automatic contrast": replace(day, frame=_autocontrast),
        "fog": replace(day, scene=_fog),
        "frost": replace(day, scene=_frost),
        "snow flakes": replace(day, frame=_snow),
        "flicker": replace(day, light=lambda r, _k, _n: r.normal(0, 0.15)),
        "torn frames": replace(day, torn=True),
        "three brackets": replace(day, brackets=3),
        "one minute": replace(day, hours=0.1),
        "overcast evening": replace(
            day, hours=3.0, cover=(0.97, 1.0), brightness=lambda p: 0.02 * (1 - 0.9 * p)
        ),
    }


# --- judging --------------------------------------------------------------------------------------


def error(g: np.ndarray, camera: Camera) -> float:
    off = (np.asarray(g, float) - camera.response())[15:241] / np.log(2)
    return float(off.std(axis=0).max())


def keep_curve(path: Path, camera: Camera) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(response_bytes(camera.response(), {"channel_order": "BGR"}))
    return str(path)


def judged(folder: Path, day: Day, seed: int, present: tuple[str, ...]) -> CalibrationVerdict | str:
    brackets = day.write(folder / "in", seed)
    try:
        return calibrate_candidate(
            CalibrationRequest("rig", brackets, str(folder / "curves"), present, sky_disc=None)
        )
    except Exception as failure:  # noqa: BLE001 - a calibration that fails changes no curve
        return f"{type(failure).__name__}: {failure}"


def run_adversaries(seeds: range, first: bool) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = {}
    for seed in seeds:
        camera = camera_of(seed)
        for name, day in adversaries(camera).items():
            row = table.setdefault(name, {"accepted": 0, "bad": 0, "provisional": 0, "said": ""})
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                own = keep_curve(folder / "own.npz", camera)
                verdict = judged(folder, day, seed, () if first else (own,))
                said = verdict if isinstance(verdict, str) else verdict.reason
                if isinstance(verdict, str) or not verdict.accepted:
                    print(f"{name}, camera {seed}: kept; {said}", flush=True)
                    row["said"] = said
                    continue
                off = error(load_curve(verdict.path).log_response, camera)
            bad = off > BAD and not verdict.provisional
            for key, more in (("accepted", 1), ("bad", bad), ("provisional", verdict.provisional)):
                row[key] = int(str(row[key])) + more
            print(f"{name}, camera {seed}: accepted, {off:.3f} stops off; {said}", flush=True)
    return table


def drifted(camera: Camera, stops: float, rng: np.random.Generator) -> Camera:
    """The camera whose curve lies so many stops from this one's."""
    gammas = np.array(camera.gammas) * (1 + 0.02 * rng.choice([-1, 1]) * rng.uniform(0.5, 1))
    other = Camera(tuple(gammas), camera.bend + 0.02 * rng.choice([-1, 1]))
    scale = stops / max(error(other.response(), camera), 1e-9)
    moved = np.array(camera.gammas) + scale * (gammas - np.array(camera.gammas))
    return Camera(tuple(moved), camera.bend + scale * (other.bend - camera.bend))


def run_drifts(seeds: range) -> dict[str, object]:
    """Cameras that have drifted by 0.01 … 0.04 stops since the present curve was made."""
    tally = {"accepted": 0, "unchanged, within 0.03": 0, "rejected": 0}
    errors, said = [], []
    for seed in seeds:
        rng = np.random.default_rng(1000 + seed)
        old = camera_of(seed)
        camera = drifted(old, rng.uniform(0.01, 0.04), rng)
        weather = ((0.0, 0.3), (0.2, 0.9), (0.8, 1.0))[seed % 3]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            present = keep_curve(folder / "old.npz", old)
            verdict = judged(folder, Day(camera, cover=weather), seed, (present,))
            before = error(old.response(), camera)
            if isinstance(verdict, str):
                tally["rejected"] += 1
                said.append(verdict)
            elif verdict.accepted:
                tally["accepted"] += 1
                errors.append(error(load_curve(verdict.path).log_response, camera))
            elif verdict.unchanged and before <= CLOSE:
                tally["unchanged, within 0.03"] += 1
            else:
                tally["rejected"] += 1
                said.append(f"{weather} {before:.3f}: {verdict.reason}")
    worst = max(errors, default=0.0)
    return {**tally, "worst error": worst, "median": float(np.median(errors)), "said": said}


def run_year(days: int, step: int) -> list[dict[str, object]]:
    """A camera that drifts by 0.3 stops a year, in changing weather, calibrated again and again."""
    rng = np.random.default_rng(7)
    first, last = camera_of(3), drifted(camera_of(3), 0.3, rng)
    present: tuple[str, ...] = ()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(0, days, step):
            part = number / 365
            gammas = np.array(first.gammas) * (1 - part) + np.array(last.gammas) * part
            camera = Camera(tuple(gammas), first.bend * (1 - part) + last.bend * part)
            names = list(adversaries(camera))
            bad = rng.random() < 0.25
            weather = names[int(rng.integers(len(names)))] if bad else "fair"
            day = adversaries(camera)[weather] if bad else Day(camera)
            day = replace(day, start=MORNING + timedelta(days=number))
            folder = Path(place) / str(number)
            verdict = judged(folder, day, number, present)
            said = verdict if isinstance(verdict, str) else verdict.reason
            accepted = not isinstance(verdict, str) and verdict.accepted
            if not isinstance(verdict, str) and accepted:
                present = (verdict.path,)
            off = error(load_curve(present[0]).log_response, camera) if present else np.nan
            provisional = bool(present) and load_curve(present[0]).provisional
            row = {"day": number, "weather": weather, "accepted": accepted, "error": off}
            rows.append({**row, "provisional": provisional, "said": said})
            print(number, weather, accepted, f"{off:.4f}", said[:100], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=6, help="cameras; 28 situations each")
    parser.add_argument("--drifts", type=int, default=100)
    parser.add_argument("--begin", type=int, default=0, help="number of the first camera")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--step", type=int, default=5)
    parser.add_argument("--first", action="store_true", help="without a present curve")
    parser.add_argument("--samples", type=int, default=1500, help="of each bracket; small pictures")
    parser.add_argument("--json", type=Path, default=Path("bench-results/gate.json"))
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    gate._SAMPLES_PER_BRACKET = options.samples
    cv2.setNumThreads(1)
    results: dict[str, object] = {}
    begin = options.begin
    start = time.monotonic()
    if options.seeds:
        table = run_adversaries(range(begin, begin + options.seeds), options.first)
        results["adversaries"] = table
        print("| situation | accepted | bad | provisional | last said |\n|---|---|---|---|---|")
        for name, row in table.items():
            print(f"| {name} | " + " | ".join(str(v) for v in row.values()) + " |")
        print(f"bad: {sum(int(str(r['bad'])) for r in table.values())} of {28 * options.seeds}")
    if options.drifts:
        results["drifts"] = run_drifts(range(begin, begin + options.drifts))
        print(results["drifts"])
    if options.days:
        results["year"] = run_year(options.days, options.step)
    print(f"{time.monotonic() - start:.0f} s")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
