"""A camera with a bad connection: ``... faulty_camera OUT SEED START SIZE EXPOSURES``.

It writes brackets of a rendered sky without end. Of some brackets one frame arrives late, twice,
half at first, half for good, or never.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, cycle
from pathlib import Path

import numpy as np

from asi_watch.naming import NamePattern
from asi_watch.simulator.simulation import (
    WRITERS,
    Frame,
    RenderedSource,
    SimulatorSettings,
    write_file,
)

RATES = {"late": 0.1, "duplicate": 0.1, "completed later": 0.1, "truncated": 0.05, "missing": 0.05}
SPEED = 25.0


def arrivals(frames: list[Frame], dice: np.random.Generator) -> Iterator[tuple[datetime, Frame]]:
    """Give what arrives of a bracket, and when; each fault takes another frame."""
    faults = [fault for fault, rate in RATES.items() if dice.random() < rate]
    fault_of = dict(zip(dice.permutation(len(frames)).tolist(), faults, strict=False))
    after = frames[-1].taken + timedelta(seconds=1)
    for index, frame in enumerate(frames):
        fault = fault_of.get(index)
        half = replace(frame, data=frame.data[: len(frame.data) // 2])
        if fault == "late":
            yield after + timedelta(seconds=30), frame
        elif fault != "missing":
            yield frame.taken, half if fault in ("completed later", "truncated") else frame
        if fault == "completed later":
            yield after, frame
        if fault == "duplicate":
            yield after, replace(frame, taken=after)


def main(out: Path, seed: int, start: datetime, size: int, exposures: tuple[float, ...]) -> None:
    settings = SimulatorSettings(out, 0, seed=seed, start=start, size=size, exposures_us=exposures)
    source, pattern = RenderedSource(settings), NamePattern(settings.pattern)
    dice, kinds, never = np.random.default_rng(seed), cycle(WRITERS[:-1]), threading.Event()
    began, pending = time.monotonic(), list[tuple[datetime, Frame]]()
    for number in count():
        pending += arrivals(source.bracket(number), dice)
        pending.sort(key=lambda pair: pair[0])
        while pending and pending[0][0] < settings.slot(number + 1):
            at, frame = pending.pop(0)
            due = began + (at - start).total_seconds() / SPEED
            time.sleep(max(0.0, due - time.monotonic()))
            name = f"{pattern.format(frame.taken, frame.exposure_us)}.jpg"
            folder = out / f"{frame.taken:%Y/%m/%d/%H}"
            write_file(folder / name, frame.data, next(kinds), never, 0.002)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        datetime.fromisoformat(sys.argv[3]),
        int(sys.argv[4]),
        tuple(map(float, sys.argv[5].split(","))),
    )
