"""Which files go to the collector at once, and how slots are learned, without a collector."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from asi_watch.brackets import Exposure
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
            " bracket: {offset: auto}}}"
        )
        config = parse_config(text.encode(), "x", folder).config
        settings = config.cameras["roof"]
        self.ledger = ledger
        self.arrivals = Arrivals(settings, "oldest", ledger, self._admit)
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
        return parsed.timestamp, self.arrivals.slots.slot(parsed.timestamp)

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


def test_slots_of_what_has_a_row_never_change(tmp_path: Path, ledger: OwingLedger) -> None:
    bench = Bench(tmp_path, ledger)
    for n in range(30):
        bench.write(NOON + n * STEP, 30.0 * n, phase=18)
    first = dict(bench.admitted)
    # Set back by 20 minutes, and by half a slot: brackets are cut, and the daemon starts anew.
    bench = Bench(tmp_path, ledger)
    for n in range(80):
        bench.write(NOON - timedelta(minutes=20) + n * STEP, 5000 + 30.0 * n)
    assert ledger.offsets("roof")
    again = Bench(tmp_path, ledger)
    seen = {**first, **dict(bench.admitted)}
    for name in seen:
        named = again.slot_of_name(name)
        assert named is not None
        assert named[1] == seen[name], name


def test_a_future_that_was_a_mistake_keeps_its_slots(tmp_path: Path, ledger: OwingLedger) -> None:
    bench = Bench(tmp_path, ledger)
    for n in range(5):
        bench.write(datetime(2099, 1, 1) + n * STEP, 30.0 * n)
    future = dict(bench.admitted)
    for n in range(60):
        bench.write(NOON + n * STEP, 1000 + 30.0 * n)
    assert bench.arrivals.slots.offset_at(NOON + 59 * STEP) == timedelta(seconds=-14)
    again = Bench(tmp_path, ledger)
    assert again.arrivals.slots.history == bench.arrivals.slots.history
    for name, slot in future.items():
        named = again.slot_of_name(name)
        assert named is not None
        assert named[1] == slot


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
