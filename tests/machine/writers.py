"""``python -m tests.machine.writers FOLDER FIRST``: the control of the power cuts.

Writes the same file by way of every second program in the world (temporary file, renamed, nothing
forced to the disk) and by asi-watch's own way, and says so once each is "done". Now and then it has
the whole disk written out, as the system does by itself at longer intervals: so some of the inputs
and of the control's files are there after a cut, and some are not.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from asi_watch.products import OutputFolder

PACE = 0.2
SYNC_EVERY = 4.0
KILOBYTES = 48
WAYS = {"naive": False, "durable": True}


def content(number: int) -> bytes:
    """What the file of this number holds: its own checksum, and noise."""
    noise = np.random.default_rng(number).bytes(KILOBYTES << 10)
    return zlib.crc32(noise).to_bytes(4, "big") + noise


def state_of(path: Path) -> str:
    """Tell "whole", "missing", "zero bytes" or "torn"."""
    if not path.exists():
        return "missing"
    data = path.read_bytes()
    if not data:
        return "zero bytes"
    sound = len(data) == 4 + (KILOBYTES << 10) and zlib.crc32(data[4:]) == int.from_bytes(data[:4])
    return "whole" if sound else "torn"


def write_without_sync(data: bytes, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    aside = target.with_name(".aside")
    aside.write_bytes(data)
    aside.rename(target)


def main(folder: Path, number: int) -> None:
    dice = random.Random(number)
    while True:
        data = content(number)
        for way, durable in WAYS.items():
            if durable:
                OutputFolder(folder).publish(data, f"{way}/{number}")
            else:
                write_without_sync(data, folder / way / str(number))
            print(f"written {way} {number}")
        if dice.random() < PACE / SYNC_EVERY:
            subprocess.run(["sync", "-f", folder], check=True)
        number += 1
        time.sleep(PACE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
