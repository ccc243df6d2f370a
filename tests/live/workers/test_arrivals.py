"""Which files go to the collector at once, without a collector."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from asi_watch.brackets import slot_of
from asi_watch.config.model import CameraConfig
from asi_watch.live.messages import Found, FoundFile
from asi_watch.live.workers import arrivals
from asi_watch.live.workers.arrivals import Arrivals
from asi_watch.live.workers.backlog import WaitingFile
from asi_watch.naming import NamePattern

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
PATTERN = NamePattern("{timestamp:%Y%m%d%H%M%S}_{exposure}", "us", {}, "UTC")


class Bench:
    """Arrivals with a collector that never finishes what it is given."""

    def __init__(self, folder: Path) -> None:
        settings = CameraConfig(watch=folder / "in", output=folder / "out")
        self.arrivals = Arrivals(settings, "oldest", self._admit)
        self.admitted: list[tuple[str, datetime]] = []

    def _admit(self, file: WaitingFile) -> None:
        slot = self.slot_of_name(file.path)
        assert slot is not None
        self.admitted.append((file.path, slot))
        self.arrivals.reading += 1

    def slot_of_name(self, path: str) -> datetime | None:
        parsed = PATTERN.parse(PurePosixPath(path).name)
        return None if parsed is None else slot_of(parsed.timestamp, STEP, timedelta(seconds=-14))

    def is_open(self, slot: datetime) -> bool:
        return False

    def write(self, moment: datetime, at: float, *, phase: int = 28) -> list[str]:
        """One bracket, an exposure every other second from `phase` on."""
        names = [
            f"{moment + timedelta(seconds=phase + 2 * i):%Y%m%d%H%M%S}_80.jpg" for i in range(4)
        ]
        for name in names:
            self.arrivals.found(Found("roof", (FoundFile(name, None, True),), at), self)
        return names


def test_an_archive_that_is_copied_in_waits_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MOST_READS", 20)
    bench = Bench(tmp_path)
    # In the order of time, so that each is the newest there is.
    for n in range(100):
        bench.write(NOON + n * STEP, 0.1 * n)
    assert len(bench.admitted) <= 2 * 20
    assert bench.arrivals.waiting == 400 - len(bench.admitted)
    # What is being taken now goes before the rest.
    bench.arrivals.reading = 39
    bench.arrivals.feed()
    newest = {slot for _, slot in bench.admitted[40:]}
    assert newest
    assert min(newest) >= NOON + 97 * STEP
    while bench.arrivals.waiting:
        bench.arrivals.reading = 0
        bench.arrivals.feed()
    assert len(bench.admitted) == len(set(bench.admitted)) == 400
