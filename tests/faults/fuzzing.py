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
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

from asi_watch.errors import ImageError
from asi_watch.images import read_image
from tests.images.pictures import jp2, jpeg, pillow, png, sky

SECONDS = 2.0
# For what waits without computing. A host may take the cores away for a while.
SECONDS_BY_THE_CLOCK = 60.0
MEMORY = 4 << 30

Damage = Callable[[bytes, random.Random], bytes]


@cache
def originals() -> dict[str, bytes]:
    return {
        "jpeg": jpeg(),
        "grey jpeg": jpeg(sky(channels=1)),
        "progressive jpeg": pillow("RGB", progressive=True),
        "jpeg with restarts": pillow("RGB", restart_marker_rows=1),
        "png": png(),
        "palette png": pillow("P", "PNG"),
        "jp2": jp2(),
    }


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def cut_and_ended(data: bytes, dice: random.Random) -> bytes:
    return cut(data, dice) + data[-12:]


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
    start = dice.randrange(len(data))
    length = dice.randrange(1, 600)
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


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
    for f in (
        cut,
        cut_and_ended,
        flip_bits,
        garble_header,
        zero_hole,
        leave_out,
        repeat,
        splice,
    )
}


def damaged(seed: int, whole: dict[str, bytes]) -> tuple[str, bytes]:
    """What kind of damage, and the file; the seed alone decides."""
    dice = random.Random(seed)
    kind = dice.choice(sorted(DAMAGES))
    return kind, DAMAGES[kind](whole[dice.choice(sorted(whole))], dice)


def run(first: int, count: int, folder: Path) -> dict[str, float]:
    whole = originals()
    counts: Counter[str] = Counter()
    slowest = 0.0
    path = folder / f"{first}.jpg"
    for seed in range(first, first + count):
        kind, data = damaged(seed, whole)
        path.write_bytes(data)
        set_alarms(SECONDS, SECONDS_BY_THE_CLOCK)
        started = time.process_time()
        try:
            read_image(path)
        except ImageError:
            counts["refused"] += 1
        else:
            counts["accepted"] += 1
            # A strict decoder sees every cut but those of bytes after the picture's end.
            counts["cut but accepted"] += kind == "cut"
        counts["cut"] += kind == "cut"
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
