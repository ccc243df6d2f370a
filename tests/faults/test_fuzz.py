"""Thousands of damaged files: refused or read, never a crash, never a hang."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.fuzzing import SECONDS
from tests.faults.tally import DAMAGED, Tally

LONG = 20_000
CHUNK = 1000


def fuzz(first: int, count: int, folder: Path) -> Counter[str]:
    command = [sys.executable, "-m", "tests.faults.fuzzing", str(first), str(count), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Killed by a signal: a crash, or the alarm after two seconds.
    assert done.returncode == 0, f"from seed {first}: {done.returncode}, {done.stderr[-2000:]}"
    return Counter(json.loads(done.stdout))


def test_damaged_files_neither_crash_nor_hang(tmp_path: Path) -> None:
    counts = fuzz(0, 800, tmp_path)
    assert counts["refused"] + counts["accepted"] == 800
    assert counts["visible but accepted"] == 0


@pytest.mark.soak
def test_twenty_thousand_damaged_files(tmp_path: Path, tally: Tally) -> None:
    counts: Counter[str] = Counter()
    slowest = 0.0
    for first in range(0, LONG, CHUNK):
        part = fuzz(first, CHUNK, tmp_path)
        slowest = max(slowest, part.pop("slowest"))
        counts += part
    assert counts["refused"] + counts["accepted"] == LONG
    assert counts["visible but accepted"] == 0
    assert slowest < SECONDS
    tally.add(
        DAMAGED,
        files=LONG,
        visible=counts["visible"],
        visible_accepted=counts["visible but accepted"],
        refused=counts["refused"],
        crashes_or_hangs=0,
        slowest=f"{slowest} s",
    )
