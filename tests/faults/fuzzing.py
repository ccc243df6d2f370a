"""``python -m tests.faults.fuzzing FIRST COUNT FOLDER``: damaged files through `read_image`.

A process with limits: 2 s of computing per file, a minute in all, or an alarm ends it; 4 GiB of
address space. Prints counts as JSON.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asi_watch.errors import ImageError
from asi_watch.images import read_image
from tests.images.pictures import jp2, jpeg, noisy, pillow, png, sky

SECONDS = 2.0
# For what waits without computing. A host may take the cores away for a while.
SECONDS_BY_THE_CLOCK = 60.0
MEMORY = 4 << 30

Damage = Callable[[bytes, random.Random], bytes]


@cache
def originals() -> dict[str, bytes]:
    return {
        "jpeg": jpeg(),
        "noisy jpeg": jpeg(noisy()),
        "grey jpeg": jpeg(sky(channels=1)),
        "progressive jpeg": pillow("RGB", progressive=True),
        "noisy progressive jpeg": pillow("RGB", picture=noisy(), progressive=True),
        "jpeg with restarts": pillow("RGB", restart_marker_rows=1),
        "png": png(),
        "palette png": pillow("P", "PNG"),
        "jp2": jp2(),
    }


@cache
def pixels_of(name: str) -> NDArray[np.uint8]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(originals()[name])
        file.flush()
        return read_image(file.name).pixels


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def cut_and_ended(data: bytes, dice: random.Random) -> bytes:
    return cut(data, dice) + data[-2 if data.startswith(b"\xff\xd8") else -12 :]


def flip_bits(data: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8, 40])):
        damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def garble_header(data: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(dice.choice([1, 2, 4])):
        damaged[dice.randrange(min(len(data), 200))] = dice.randrange(256)
    return bytes(damaged)


def zero_hole(data: bytes, dice: random.Random) -> bytes:
    length = dice.randrange(64, 600)
    start = dice.randrange(len(data) - length)
    return data[:start] + bytes(length) + data[start + length :]


def leave_out(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    return data[:start] + data[start + dice.randrange(1, 600) :]


def repeat(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    piece = data[start : start + dice.randrange(1, 600)]
    return data[:start] + piece * dice.choice([2, 3, 50]) + data[start:]


def splice(data: bytes, dice: random.Random) -> bytes:
    other = dice.choice(list(originals().values()))
    return data[: dice.randrange(len(data))] + other[dice.randrange(len(other)) :]


DAMAGES: dict[str, Damage] = {
    f.__name__: f
    for f in (cut, cut_and_ended, flip_bits, garble_header, zero_hole, leave_out, repeat, splice)
}


# Damage that a strict reader always sees. Of the others a few make a file like any other; and
# in JPEG 2000 nothing tells a hole.
SEEN = ("cut", "cut_and_ended", "zero_hole")


def damaged(seed: int, whole: dict[str, bytes]) -> tuple[str, bytes]:
    """What was damaged in a way that a strict reader must see ("": another way), and the file.

    The seed alone decides.
    """
    dice = random.Random(seed)
    kind = dice.choice(sorted(DAMAGES))
    # Each JPEG 2000 is decoded in a process of its own: a few are enough.
    name = dice.choice(sorted(whole))
    if name == "jp2" and dice.random() < 0.8:
        name = "jpeg"
    data = DAMAGES[kind](whole[name], dice)
    return name if kind in SEEN and name != "jp2" and data != whole[name] else "", data


def run(first: int, count: int, folder: Path) -> dict[str, float]:
    whole = originals()
    counts: Counter[str] = Counter()
    slowest = 0.0
    path = folder / f"{first}.jpg"
    for seed in range(first, first + count):
        name, data = damaged(seed, whole)
        path.write_bytes(data)
        set_alarms(SECONDS, SECONDS_BY_THE_CLOCK)
        started = time.process_time()
        try:
            pixels = read_image(path).pixels
        except ImageError:
            counts["refused"] += 1
        else:
            counts["accepted"] += 1
            # Damage to what is not the picture does no harm.
            if name and not np.array_equal(pixels, pixels_of(name)):
                counts["visible but accepted"] += 1
                print(f"seed {seed} was accepted", file=sys.stderr)
        counts["visible"] += bool(name)
        slowest = max(slowest, time.process_time() - started)
        set_alarms(0, 0)
    return {"files": count, **counts, "slowest": round(slowest, 3)}


def set_alarms(computing: float, by_the_clock: float) -> None:
    """End the process after so many seconds; 0: do not."""
    signal.setitimer(signal.ITIMER_PROF, computing)
    signal.setitimer(signal.ITIMER_REAL, by_the_clock)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
