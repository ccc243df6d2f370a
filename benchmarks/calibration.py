"""A response curve from very many places: time and memory against the peers.

    python -m benchmarks.calibration [--places 1000000] [--rounds 3] [--without-peers]

One bracket of five exposures of 2048², in memory; reading the places and solving are told apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.calibration import (
    BracketSamples,
    SampleTechnique,
    calibrate_response,
    sample_bracket,
)
from benchmarks.frames import EXPOSURES_US, decoded, jpeg_frames, log_response
from benchmarks.kernel import peak_mb
from benchmarks.reporting import save, show

SIZE = 2048
PEER_PLACES = 2000  # with more of them the peers' dense matrices outgrow the machine
TECHNIQUES: tuple[SampleTechnique, ...] = ("flat", "random")
Frames = list[NDArray[np.uint8]]


def read(frames: Frames, technique: SampleTechnique, places: int) -> BracketSamples:
    """Choose and read the places."""
    rng = np.random.default_rng(1)
    return sample_bracket(frames, EXPOSURES_US, technique=technique, count=places, rng=rng)


def ours(frames: Frames, technique: SampleTechnique, places: int) -> NDArray[np.float32]:
    """From images to a curve."""
    return calibrate_response([read(frames, technique, places)]).log_response


def opencv(frames: Frames) -> NDArray[np.float64]:
    """OpenCV's CalibrateDebevec at the places that it can do."""
    peer = cv2.createCalibrateDebevec(samples=PEER_PLACES)
    response = peer.process(frames, np.array(EXPOSURES_US, dtype=np.float32))
    return np.log(np.maximum(np.asarray(response, dtype=np.float64)[:, 0], 1e-12))


def colour_hdri(frames: Frames) -> NDArray[np.float64]:
    """colour-hdri's Debevec at as many places."""
    from colour_hdri import camera_response_functions_Debevec1997
    from colour_hdri.utilities import Image, ImageStack, Metadata

    stack = ImageStack()
    for image, exposure in zip(frames, EXPOSURES_US, strict=True):
        metadata = Metadata(f_number=8.0, exposure_time=exposure, iso=100.0)
        stack.append(Image(data=image[:, :, ::-1] / 255.0, metadata=metadata))
    curves = camera_response_functions_Debevec1997(
        stack, sampling_function_kwargs={"samples": PEER_PLACES}
    )
    return np.log(np.maximum(np.asarray(curves)[:, ::-1], 1e-12))


def timed(job: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall and CPU seconds of a call, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = job()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def error_stops(response: NDArray[Any]) -> float:
    """RMS error over the codes 15…240, the mean of the channels, the free constants removed."""
    difference = (np.asarray(response, dtype=np.float64) - log_response())[15:241] / np.log(2.0)
    return float(difference.std(axis=0).mean())


def measure_ours(frames: Frames, places: int, rounds: int) -> dict[str, dict[str, float]]:
    """Time and memory of each technique, the rounds interleaved."""
    runs: dict[SampleTechnique, list[tuple[float, float, float, float]]]
    runs = {technique: [] for technique in TECHNIQUES}
    error: dict[SampleTechnique, float] = {}
    for _ in range(rounds):
        for technique in TECHNIQUES:
            reading = timed(lambda chosen=technique: read(frames, chosen, places))  # type: ignore[misc]
            solving = timed(lambda samples=reading[2]: calibrate_response([samples]))  # type: ignore[misc]
            runs[technique].append((*reading[:2], *solving[:2]))
            error[technique] = error_stops(solving[2].log_response)
    names = ("read_wall", "read_cpu", "solve_wall", "solve_cpu")
    result = {}
    for technique, rows in runs.items():
        result[f"asi-watch, {technique}"] = {
            "places": float(places),
            **dict(zip(names, np.median(rows, axis=0).tolist(), strict=True)),
            "least_wall": min(row[0] + row[2] for row in rows),
            "peak_extra_mb": peak_mb(lambda chosen=technique: ours(frames, chosen, places)),  # type: ignore[misc]
            "error_stops": error[technique],
        }
    return result


def measure_peers(frames: Frames) -> dict[str, dict[str, float]]:
    """Time of the peers, once: they take long."""
    result = {}
    for name, peer in {"OpenCV": opencv, "colour-hdri": colour_hdri}.items():
        try:
            wall, cpu, response = timed(lambda run=peer: run(frames))  # type: ignore[misc]
        except ImportError:
            continue
        result[name] = {
            "places": float(PEER_PLACES),
            "wall": wall,
            "cpu": cpu,
            "error_stops": error_stops(response),
        }
    return result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="A response curve from very many places.")
    parser.add_argument("--places", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    frames = decoded(jpeg_frames(SIZE))
    result = measure_ours(frames, options.places, options.rounds)
    if not options.without_peers:
        result |= measure_peers(frames)
    show(
        f"calibration: 5 × {SIZE}² × 3, seconds (medians of {options.rounds}; peers once)",
        ("", "places", "read", "solve", "both", "CPU", "peak extra MB", "error, stops"),
        [_row(name, values) for name, values in result.items()],
    )
    print("written:", save("calibration", result))


def _row(name: str, values: dict[str, float]) -> tuple[str, ...]:
    places, error = f"{values['places']:.0f}", f"{values['error_stops']:.4f}"
    if "wall" in values:
        return name, places, "", "", f"{values['wall']:.1f}", f"{values['cpu']:.1f}", "", error
    read_wall, solve_wall = values["read_wall"], values["solve_wall"]
    return (
        name,
        places,
        f"{read_wall:.2f}",
        f"{solve_wall:.2f}",
        f"{read_wall + solve_wall:.2f}",
        f"{values['read_cpu'] + values['solve_cpu']:.2f}",
        f"{values['peak_extra_mb']:.0f}",
        error,
    )


if __name__ == "__main__":
    main()
