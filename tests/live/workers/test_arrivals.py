"""Which files go to the collector at once, without a collector."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from asi_watch.brackets import Exposure, slot_of
from asi_watch.config import parse_config
from asi_watch.live.ledger.owed_rows import OwingLedger
from asi_watch.live.messages import Found, FoundFile
from asi_watch.live.records import BracketRecord
from asi_watch.live.workers import arrivals
from asi_watch.live.workers.arrivals import Arrivals
from asi_watch.live.workers.backlog import WaitingFile
from asi_watch.naming import NamePattern

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
PATTERN = NamePattern("{timestamp:%Y%m%d%H%M%S}_{exposure}", "us", {}, "UTC")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[OwingLedger]:
    ledger = OwingLedger(tmp_path)
    yield ledger
    ledger.close()


class Bench:
    """Arrivals with a collector that gives every file a row at once, or never."""

    def __init__(self, folder: Path, ledger: OwingLedger, *, rows: bool = True) -> None:
        text = (
            f"cameras: {{roof: {{watch: {folder}/in, output: {folder}/out,"
            " bracket: {offset: -14s}}}"
        )
        config = parse_config(text.encode(), "x", folder).config
        settings = config.cameras["roof"]
        self.ledger = ledger
        self.arrivals = Arrivals(settings, "oldest", self._admit)
        self.rows = rows
        self.admitted: list[tuple[str, datetime]] = []

    def _admit(self, file: WaitingFile) -> None:
        named = self.slot_of_name(file.path)
        assert named is not None
        timestamp, slot = named
        self.admitted.append((file.path, slot))
        if not self.rows:
            self.arrivals.reading += 1
            return
        before = self.ledger.get("roof", slot)
        inputs = (*(before.inputs if before else ()), Exposure(file.path, timestamp, 80.0))
        self.ledger.record(BracketRecord("roof", slot, "published", inputs=inputs))

    def slot_of_name(self, path: str) -> tuple[datetime, datetime] | None:
        parsed = PATTERN.parse(PurePosixPath(path).name)
        assert parsed is not None
        return parsed.timestamp, slot_of(parsed.timestamp, STEP, timedelta(seconds=-14))

    def is_open(self, slot: datetime) -> bool:
        return False

    def open_slots(self) -> list[datetime]:
        return []

    def write(self, moment: datetime, at: float, *, phase: int = 28) -> list[str]:
        """One bracket, an exposure every other second from `phase` on."""
        names = [
            f"{moment + timedelta(seconds=phase + 2 * i):%Y%m%d%H%M%S}_80.jpg" for i in range(4)
        ]
        for name in names:
            self.arrivals.found(Found("roof", (FoundFile(name, None, True),), at), self)
        return names


def test_an_archive_that_is_copied_in_waits_its_turn(
    tmp_path: Path, ledger: OwingLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MOST_READS", 20)
    bench = Bench(tmp_path, ledger, rows=False)
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
