"""How accurate response curves are: ours beside OpenCV, colour-hdri and the plain equations.

    python benchmarks/accuracy.py [--full] [--json FILE]

Scenes and tone curves are rendered here. With ASI_WATCH_DATA set to a folder that holds
`dorf_curves_even.npz` and sets of photographs (`NAME/exposures.csv`), those are used as well.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from asi_watch.hdr.calibration import calibrate_response, sample_bracket
from asi_watch.hdr.calibration.estimate import fit_plain
from asi_watch.hdr.calibration.samples import observe
from asi_watch.hdr.lookup_tables import weight_table

_START = time.monotonic()
LN2 = float(np.log(2.0))
_SLOW = ("colour-hdri", "plain equations, dense, 100")  # on the first curve alone unless --full
_MOVING_CURVES = 6  # moving scenes are shown through this many curves unless --full
_LEAST_SHARE = 3e-4  # of a channel's pixels at a code for its error to count; even: 4e-3
_MEDIAN_BRIGHTNESS = 0.45
TIMES = 80.0 * 2.0 ** np.arange(5)
CASES: dict[str, dict[str, float]] = {
    "static": {},
    "drift 6 px": {"drift": 6},
    "drift 6 px, q75 and wrong pixels": {"drift": 6, "wrong": 0.02, "poor": 0.01},
}


# --- tone curves and scenes -----------------------------------------------------------------


def tone_curves(full: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name → (exposure 0…1, brightness 0…1), both rising."""
    x = np.linspace(0.0, 1.0, 4097)
    s = x ** (1 / 2.2)
    curves = {
        "gamma 1.8": x ** (1 / 1.8),
        "gamma 2.2": s,
        "sRGB": np.where(x < 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055),
        "logarithm": np.log1p(100 * x) / np.log1p(100),
        "s-curve": s - 0.5 * np.sin(2 * np.pi * s) / (2 * np.pi),
        "shoulder": 1.25 * s / (s + 0.25),
    }
    out = {name: (x, y) for name, y in curves.items()}
    data = os.environ.get("ASI_WATCH_DATA")
    if data and (Path(data) / "dorf_curves_even.npz").exists():
        table = np.load(Path(data) / "dorf_curves_even.npz")
        # Every second one, from the second: the others were looked at while the method was tuned.
        for i in range(1, len(table["index"]), 2 if full else 8):
            y = np.maximum.accumulate(table["brightness"][i].astype(float))
            y = (y - y[0]) / (y[-1] - y[0])
            out[f"DoRF {table['index'][i]}"] = (table["irradiance"][i].astype(float), y)
    if full:
        return out
    names = list(out)
    return {name: out[name] for name in [*names[1:3], names[4], *names[6:]]}


def true_response(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    values, first = np.unique(y, return_index=True)
    last = len(y) - 1 - np.unique(y[::-1], return_index=True)[1]
    middle = (x[first] + x[last]) / 2
    return np.log(np.maximum(np.interp(np.arange(256) / 255.0, values, middle), 1e-9))


def fractal(rng: np.random.Generator, height: int, width: int, power: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) * frequency**-power
    field = np.fft.irfft2(spectrum, s=(height, width))
    return (field - field.mean()) / field.std()


def log_scene(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Every other scene a sky with sun, clouds and horizon, else a textured wall."""
    if rng.random() < 0.5:
        colour = np.stack([0.25 * fractal(rng, height, width, 1.4) for _ in range(3)], axis=2)
        return 1.3 * fractal(rng, height, width, 1.5)[:, :, None] + colour - 0.4
    rows, columns = np.mgrid[0:height, 0:width]
    place = rng.uniform(0.2, 0.8, 2) * (height, width)
    distance = np.hypot(rows - place[0], columns - place[1]) / height
    clear = 0.25 + 0.9 * np.exp(-distance / 0.12) + 25 * np.exp(-((distance / 0.025) ** 2))
    cover = 1 / (1 + np.exp(-3 * (fractal(rng, height, width, 1.5) - rng.uniform(-0.3, 0.6))))
    cloud = np.exp(0.45 * fractal(rng, height, width, 1.3)) * (0.5 + 0.8 * np.exp(-distance / 0.3))
    sky = clear[:, :, None] * (1.25, 0.75, 0.45) * (1 - cover[:, :, None])
    sky = sky + (cloud * cover)[:, :, None] * (1.2, 1.15, 1.1)
    ground = np.exp(0.8 * fractal(rng, height, width, 1.0))[:, :, None] * (0.03, 0.05, 0.045)
    return np.log(np.where((rows > height * 0.88)[:, :, None], ground, sky))


def render(
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    drift: float = 0,
    wrong: float = 0.0,
    poor: float = 0.0,
    size: tuple[int, int] = (360, 480),
) -> tuple[list[np.ndarray], np.ndarray]:
    """A bracket as JPEG leaves it, and ln irradiance in the middle exposure's position."""
    height, width = size
    room = int(drift * (len(TIMES) - 1)) + 1
    scene = log_scene(rng, height, width + room)
    # As automatic exposure would have it: the middle picture's median at the middle codes.
    scene += np.log(np.interp(_MEDIAN_BRIGHTNESS, y, x) / TIMES[2]) - np.median(scene)
    frames = []
    for number, exposure in enumerate(TIMES):
        offset = int(drift * number)
        seen = np.exp(scene[:, offset : offset + width]) * exposure
        seen = seen + np.sqrt(3e-5 * seen + 3e-7) * rng.normal(size=seen.shape)
        codes = np.rint(255 * np.interp(np.clip(seen, 0, 1), x, y)).astype(np.uint8)
        bad = rng.random(codes.shape[:2]) < wrong
        codes[bad] = rng.integers(0, 256, (int(bad.sum()), 3))
        quality = 75 if rng.random() < poor else 92
        data = cv2.imencode(".jpg", codes, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        frames.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
    offset = int(drift * 2)
    return frames, scene[:, offset : offset + width]


# --- methods ----------------------------------------------------------------------------------

Brackets = list[list[np.ndarray]]
Method = Callable[[Brackets, np.ndarray, np.ndarray | None], np.ndarray]


def ours(technique: str) -> Method:
    def run(brackets: Brackets, times: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        rng = np.random.default_rng(1)
        samples = [
            sample_bracket(b, times, technique=technique, count=1000, rng=rng, mask=mask)
            for b in brackets
        ]
        return calibrate_response(samples).log_response.astype(float)

    return run


def plain(brackets: Brackets, times: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    rng = np.random.default_rng(1)
    samples = [
        sample_bracket(b, times, technique="random", count=1000, rng=rng, mask=mask)
        for b in brackets
    ]
    weight = weight_table("triangle")[:, 0]
    tables = (observe(samples, channel, (5, 250), fine=False) for channel in range(3))
    return np.stack([fit_plain(table, weight, 50.0) for table in tables], axis=1)


def dense(brackets: Brackets, times: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The published equations as one dense matrix: few samples, or memory runs out."""
    rng = np.random.default_rng(1)
    codes = np.concatenate(
        [
            sample_bracket(b, times, technique="random", count=100, rng=rng, mask=mask).codes
            for b in brackets
        ]
    )
    order = np.sort(times)
    hat = np.minimum(np.arange(256), 255 - np.arange(256)).astype(float)
    places, exposures, channels = codes.shape
    curves = []
    for channel in range(channels):
        z = codes[:, :, channel].ravel()
        weight = np.where((z >= 5) & (z <= 250), hat[z], 0.0)
        row = np.arange(z.size)
        matrix = np.zeros((z.size + 255, 256 + places))
        matrix[row, z] = weight
        matrix[row, 256 + row // exposures] = -weight
        values = np.zeros(len(matrix))
        values[: z.size] = weight * np.tile(np.log(order), places)
        for code in range(1, 255):
            matrix[z.size + code - 1, code - 1 : code + 2] = 50 * hat[code] * np.array([1, -2, 1])
        matrix[-1, 128] = 1.0
        curves.append(np.linalg.lstsq(matrix, values, rcond=None)[0][:256])
    return np.stack(curves, axis=1)


def opencv(brackets: Brackets, times: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    response = cv2.createCalibrateDebevec().process(brackets[0], times.astype(np.float32))
    return np.log(np.maximum(response[:, 0].astype(float), 1e-12))


def colour_hdri_method() -> Method | None:
    try:
        from colour_hdri import camera_response_functions_Debevec1997
        from colour_hdri.utilities import Image, ImageStack, Metadata
    except ImportError:
        return None

    def run(brackets: Brackets, times: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        stack = ImageStack()
        for image, exposure in zip(brackets[0], times, strict=True):
            metadata = Metadata(
                f_number=np.array(8.0), exposure_time=np.array(exposure), iso=np.array(100.0)
            )
            stack.append(Image(data=image[:, :, ::-1] / 255.0, metadata=metadata))
        curves = camera_response_functions_Debevec1997(
            stack, sampling_function_kwargs={"samples": 300}
        )
        return np.log(np.maximum(np.asarray(curves)[:, ::-1], 1e-12))

    return run


def methods() -> dict[str, Method]:
    table: dict[str, Method] = {
        "asi-watch, flat": ours("flat"),
        "asi-watch, random": ours("random"),
        "plain equations, 1000 places": plain,
        "plain equations, dense, 100": dense,
        "OpenCV CalibrateDebevec": opencv,
    }
    colour = colour_hdri_method()
    if colour:
        table["colour-hdri"] = colour
    return table


# --- measures ---------------------------------------------------------------------------------


def covered_codes(brackets: Brackets) -> np.ndarray:
    """Codes 15…240 per channel that the brackets show: no method can know the others."""
    counts = np.zeros((256, 3))
    for frame in (f for bracket in brackets for f in bracket):
        for channel in range(3):
            counts[:, channel] += np.bincount(frame[..., channel].ravel(), minlength=256)
    covered = counts > _LEAST_SHARE * counts.sum(axis=0)
    covered[:15] = covered[241:] = False
    return covered


def curve_error(response: np.ndarray, truth: np.ndarray, covered: np.ndarray) -> float:
    difference = (response - truth[:, None]) / LN2
    return float(np.mean([difference[covered[:, c], c].std() for c in range(3)]))


def merge(
    response: np.ndarray, frames: list[np.ndarray], times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of weights and of weighted ln E, with the triangle."""
    hat = np.minimum(np.arange(256), 255 - np.arange(256)).astype(float)
    weights = np.stack([hat[f] for f in frames])
    channels = np.arange(frames[0].shape[2])
    values = np.stack([response[f, channels] for f in frames]) - np.log(times)[:, None, None, None]
    return weights, weights * values


def radiance_error(response: np.ndarray, frames: list[np.ndarray], scene: np.ndarray) -> float:
    weights, values = merge(response, frames, TIMES)
    total = weights.sum(axis=0)
    error = (values.sum(axis=0) / np.maximum(total, 1e-9) - scene) / LN2
    valid = total > 60
    return float(np.mean([error[..., c][valid[..., c]].std() for c in range(3)]))


def leave_one_out(
    response: np.ndarray, frames: list[np.ndarray], times: np.ndarray, mask: np.ndarray
) -> float:
    response = np.maximum.accumulate(response + 1e-9 * np.arange(256)[:, None], axis=0)
    weights, values = merge(response, frames, times)
    total, total_values = weights.sum(axis=0), values.sum(axis=0)
    squares, count = 0.0, 0
    for n, frame in enumerate(frames):
        rest = total - weights[n]
        judged = (rest > 0.5) & mask[..., None] & (frame > 10) & (frame < 245)
        for c in range(frame.shape[2]):
            at = judged[..., c]
            exposure = (total_values - values[n])[..., c][at] / rest[..., c][at] + np.log(times[n])
            predicted = np.interp(exposure, response[:, c], np.arange(256))
            squares += float(((predicted - frame[..., c][at]) ** 2).sum())
            count += int(at.sum())
    return (squares / max(count, 1)) ** 0.5


def real_sets() -> dict[str, tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
    data = os.environ.get("ASI_WATCH_DATA")
    found = {}
    for table in sorted(Path(data).glob("*/exposures.csv")) if data else []:
        rows = list(csv.DictReader(table.open()))
        if not all(r["exposure_seconds"] for r in rows):
            continue
        column = "relative_exposure_from_list"
        times = np.array([float(r.get(column) or r["exposure_seconds"]) for r in rows])
        order = np.argsort(times)
        frames = [cv2.imread(str(table.parent / rows[i]["file"])) for i in order]
        step = max(1, round(max(frames[0].shape) / 800))
        frames = [np.ascontiguousarray(f[::step, ::step]) for f in frames]
        # Pure blue marks borders without picture.
        blue = np.any([(f[..., 0] > 200) & (f[..., 1:] < 20).all(axis=2) for f in frames], axis=0)
        mask = cv2.erode((~blue).astype(np.uint8), np.ones((5, 5))) > 0
        found[table.parent.name] = (frames, times[order], mask)
    return found


# --- the table --------------------------------------------------------------------------------


def note(text: str) -> None:
    print(f"{time.monotonic() - _START:6.0f} s  {text}", file=sys.stderr, flush=True)


def one_curve(
    case: str,
    number: int,
    curve_name: str,
    curve: tuple[np.ndarray, np.ndarray],
    settings: dict[str, float],
    full: bool,
) -> dict[str, tuple[float, float, int]]:
    """Curve error, radiance error and codes where g does not rise, of every method."""
    rng = np.random.default_rng(number)
    made = [render(rng, *curve, **settings) for _ in range(3)]  # type: ignore[arg-type]
    brackets = [frames for frames, _ in made]
    covered = covered_codes(brackets)
    note(f"{case}: {curve_name}, {covered.sum() / 6.78:.0f} % of codes covered")
    out = {}
    for name, method in methods().items():
        if name in _SLOW and number and not full:
            continue
        response = method(brackets, TIMES, None)
        out[name] = (
            curve_error(response, true_response(*curve), covered),
            radiance_error(response, *made[0]),
            int((np.diff(response, axis=0) <= 0).sum()),
        )
    return out


def summary(values: list[tuple[float, float, int]]) -> dict[str, float]:
    error, radiance, falls = (np.array(column) for column in zip(*values, strict=True))
    return {
        "mean": float(error.mean()),
        "median": float(np.median(error)),
        "radiance": float(np.median(radiance)),
        "not rising": int(falls.sum()),
        "curves": len(values),
    }


def measure(full: bool) -> dict[str, dict[str, object]]:
    results: dict[str, dict[str, object]] = {name: {} for name in methods()}
    curves = tone_curves(full)
    for case, settings in CASES.items():
        some = len(curves) if full or not settings else _MOVING_CURVES
        shown = dict(list(curves.items())[:some])
        rows = [
            one_curve(case, number, name, curve, settings, full)
            for number, (name, curve) in enumerate(shown.items())
        ]
        for name in results:
            results[name][case] = summary([row[name] for row in rows if name in row])
            if not settings:
                dorf = [
                    r[name]
                    for r, curve in zip(rows, shown, strict=True)
                    if name in r and "DoRF" in curve
                ]
                results[name][f"{case}, DoRF alone"] = summary(dorf) if dorf else "–"
    for set_name, (frames, times, mask) in real_sets().items():
        for name, method in methods().items():
            note(f"{set_name}: {name}")
            response = method([frames], times, mask)
            results[name][f"leave one out, {set_name}"] = leave_one_out(
                response, frames, times, mask
            )
    return results


def show(results: dict[str, dict[str, object]]) -> None:
    columns = list(next(iter(results.values())))
    print("| method | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in results.items():
        cells = []
        for value in row.values():
            if isinstance(value, dict):
                cells.append(
                    f"{value['mean']:.4f} / {value['median']:.4f}; {value['radiance']:.3f};"
                    f" {value['not rising']}"
                )
            else:
                cells.append(value if isinstance(value, str) else f"{value:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        "\nCell: curve error in stops over the codes 15…240 that the scenes show, mean / median;\n"
        "radiance error in stops; codes where g does not rise. Leave one out: RMSE in codes.\n"
        f"Unless --full, {' and '.join(_SLOW)} run on the first curve only."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="more curves: about an hour")
    parser.add_argument("--json", type=Path, default=Path("bench-results/accuracy.json"))
    options = parser.parse_args()
    results = measure(options.full)
    show(results)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
