"""A world around the collector alone: files, lost events, scans, workers, crashes, and a clock.

Everything the daemon does around its collector happens here as small steps that a test may take
in any order: a worker has looked at a file long before the owner hears of it, an event may never
come, a merge may have put its product in place when the process dies.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from asi_watch.brackets import Exposure, chosen_files, slot_of
from asi_watch.config.model import BracketConfig, CameraConfig
from asi_watch.live.collecting.collector import Collector
from asi_watch.live.ledger.records import MAX_ATTEMPTS, BracketRecord
from asi_watch.live.messages import (
    Command,
    DropWork,
    MergeBracket,
    MergeOutcome,
    ProductKept,
    ReadFile,
    ReadOk,
    ReadOutcome,
    Signature,
    Unchanged,
    Unusable,
    Vanished,
    WriteRecord,
)
from asi_watch.merge_bracket import Failed, Published
from asi_watch.naming import NamePattern

EXPOSURES = (80.0, 160.0, 320.0)
STEP = timedelta(seconds=30)
NOON = datetime(2026, 6, 21, 12)
GRACE = 10.0
STABLE = 1.0
PATTERN = NamePattern("{timestamp:%Y%m%d%H%M%S}_{exposure}", "us", {}, "UTC")

Key = tuple[str, Signature]


def camera_config(rules: BracketConfig) -> CameraConfig:
    """A camera of these rules; its folders are never touched."""
    folders = {"watch": Path("/nowhere/in"), "output": Path("/nowhere/out")}
    config = CameraConfig(**folders, stable_for=timedelta(seconds=STABLE))
    return config.model_copy(update={"name": "roof", "bracket": rules})


def slot_at(number: int) -> datetime:
    return NOON + number * STEP


def number_of(slot: datetime) -> int:
    return (slot - NOON) // STEP


def path_of(slot: int, exposure: float, copy: int) -> str:
    """Name of one of the files that an exposure may come as: copies bear other seconds."""
    when = slot_at(slot) + timedelta(seconds=copy * 9)
    # In a folder of its own, so that each file tells whether its folder counts as done.
    folder = f"{when:%Y/%m/%d/%H}/{exposure:.0f}-{copy}"
    return f"{folder}/{when:%Y%m%d%H%M%S}_{exposure:.0f}.jpg"


@dataclass(frozen=True)
class Content:
    """What lies under a name: `whole`, `half` (may still grow) or `bad` (never an image)."""

    kind: str
    signature: Signature


@dataclass
class Kept:
    """What the workshop keeps of an open bracket: what went into the sum, what it is good for."""

    summed: dict[float, Key] = field(default_factory=dict)
    absorbed: set[Key] = field(default_factory=set)
    spoiled: bool = False


class World:
    """One camera; every method is one step."""

    def __init__(self, **rules: Any) -> None:
        values = {"exposures": EXPOSURES, "min_exposures": 2, "grace": timedelta(seconds=GRACE)}
        # Unchecked: brackets of a single exposure are the hardest.
        self.rules = BracketConfig().model_copy(update={"round_to": STEP, **values, **rules})
        self.config = camera_config(self.rules)
        self.now = 100.0
        self.disk: dict[str, Content] = {}
        self.rows: dict[datetime, BracketRecord] = {}
        self.products: dict[datetime, tuple[int, frozenset[Key]]] = {}
        self.standing: dict[datetime, BracketRecord] = {}
        self.made: dict[datetime, list[frozenset[Key]]] = defaultdict(list)
        self.once_whole: set[str] = set()
        self.given: set[str] = set()
        self.writes = 0
        self.restart()

    # -- the camera -------------------------------------------------------------------------

    def write(self, path: str, kind: str, mtime: int) -> None:
        """Create or rewrite a file; no two contents have one signature."""
        self.writes += 1
        if path not in self.disk:
            # A new name: the time of its folder has changed.
            self.given.discard(path)
        self.disk[path] = Content(kind, (1000 + self.writes, mtime))
        if kind == "whole":
            self.once_whole.add(path)

    def vanish(self, path: str) -> None:
        del self.disk[path]

    # -- the process ------------------------------------------------------------------------

    def restart(self) -> None:
        """Die at this point and begin again: only disk, ledger and products remain."""
        self.given.clear()
        self.events: list[tuple[str, bool]] = []
        self.reads: list[ReadFile] = []
        self.answers: list[tuple[ReadFile, ReadOutcome]] = []
        self.merges: list[MergeBracket] = []
        self.results: list[tuple[MergeBracket, MergeOutcome]] = []
        self.kept: dict[datetime, Kept] = {}
        self.scanned: dict[str, Signature] = {}
        self.collector = Collector(self.config, self)
        for slot in sorted(self.rows):
            row = self.rows[slot]
            if row.state == "failed" and row.attempts < MAX_ATTEMPTS:
                self.carry_out(self.collector.resume(row, self.now))

    def get(self, camera: str, slot: datetime) -> BracketRecord | None:
        """Look up a row, as the ledger does."""
        assert camera == self.config.name
        return self.rows.get(slot)

    def ask_again(self, slot: datetime) -> None:
        """An operator wants a bracket tried again that is not published."""
        row = self.rows[slot] = replace(self.rows[slot], attempts=0)
        self.carry_out(self.collector.resume(row, self.now))

    def event(self, path: str, settled: bool) -> None:
        self.given.add(path)
        self.carry_out(self.collector.found(path, None, settled, self.now))

    def scan(self, settled: bool) -> bool:
        """Report what is new or changed since the last scan, as `TreeScanner` does."""
        now = {path: content.signature for path, content in self.disk.items()}
        new = [path for path, sign in now.items() if self.scanned.get(path) != sign]
        self.scanned = now
        for path in sorted(new):
            self.given.add(path)
            self.carry_out(self.collector.found(path, now[path], settled, self.now))
        return bool(new)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.collector.due(self.now))

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case ReadFile():
                    self.reads.append(command)
                case MergeBracket():
                    self.merges.append(command)
                case WriteRecord(record):
                    self.rows[record.slot] = record
                case DropWork(slot):
                    self.kept.pop(slot, None)

    # -- workers ----------------------------------------------------------------------------

    def work_read(self, index: int) -> None:
        """A worker looks at a file; the owner has not heard of it yet."""
        command = self.reads.pop(index)
        self.answers.append((command, self._look(command)))

    def _look(self, command: ReadFile) -> ReadOutcome:
        content = self.disk.get(command.path)
        if content is None:
            return Vanished()
        if command.known == content.signature:
            return Unchanged()
        if content.kind != "whole":
            return Unusable(content.kind, content.kind == "half", content.signature)
        # Metadata that state another time for every file.
        time = command.exposure_us * (1 + zlib.crc32(command.path.encode()) % 90 / 1000)
        exposure = Exposure(
            command.path,
            command.timestamp,
            time,
            *content.signature,
            nominal_us=command.exposure_us,
        )
        if command.absorb:
            self._absorb(command.slot, exposure)
        return ReadOk(exposure)

    def _absorb(self, slot: datetime, exposure: Exposure) -> None:
        kept = self.kept.setdefault(slot, Kept())
        if exposure.nominal_us in kept.summed:
            kept.spoiled = True
            return
        kept.summed[exposure.nominal_us] = (exposure.path, exposure.signature)
        kept.absorbed.add((exposure.path, exposure.signature))

    def hear_read(self, index: int) -> None:
        command, outcome = self.answers.pop(index)
        done = self.collector.read_done(command.slot, command.path, outcome, self.now)
        self.carry_out(done)

    def work_merge(self, index: int, failure: Failed | None = None) -> None:
        """A worker merges and publishes; the owner has not heard of it yet."""
        command = self.merges.pop(index)
        outcome = failure or self._merge(command)
        self.results.append((command, outcome))

    def _merge(self, command: MergeBracket) -> MergeOutcome:
        wanted = frozenset((e.path, e.signature) for e in command.exposures)
        if self.products.get(command.slot) == (command.revision, wanted):
            return Published(("x.jpg",), "x", "c0ffee", adopted=True)
        standing = self.standing.get(command.slot)
        if standing is not None and len(standing.inputs) > len(command.exposures):
            return ProductKept(standing)
        if len(command.exposures) < command.min_exposures:
            return Failed("few", "too few")
        kept = self.kept.get(command.slot)
        if kept is None or kept.spoiled or kept.absorbed != wanted:
            stale = tuple(
                e.path
                for e in command.exposures
                if (there := self.disk.get(e.path)) is None
                or there.kind != "whole"
                or there.signature != e.signature
            )
            if stale:
                return Failed("inputs", "has changed", files=stale[:1])
        self.kept.pop(command.slot, None)
        row = self.rows.get(command.slot)
        if row is not None and row.state == "published":
            assert len(wanted) >= len(row.inputs), "a revision with less than the product"
        _, stood = self.products.get(command.slot, (0, frozenset()))
        assert len(wanted) >= max(len(stood), command.min_exposures), (
            "less than the product that stood"
        )
        self.standing[command.slot] = BracketRecord(
            "roof",
            command.slot,
            "published",
            revision=command.revision,
            expected=command.expected,
            complete=command.complete,
            inputs=command.exposures,
            products=("x.jpg",),
        )
        self.products[command.slot] = (command.revision, wanted)
        self.made[command.slot].append(wanted)
        return Published(("x.jpg",), "x", "c0ffee")

    def hear_merge(self, index: int) -> None:
        command, outcome = self.results.pop(index)
        made = self.made[command.slot]
        if isinstance(outcome, Failed) and made and made[-1]:
            # After a failed revision the one before it may be asked for again.
            made.append(frozenset())
        self.carry_out(self.collector.merge_done(command.slot, outcome, self.now))

    # -- the end ----------------------------------------------------------------------------

    def work_off(self) -> bool:
        """Do what lies there to be done; tell whether there was anything new or asked for."""
        while self.events:
            self.event(*self.events.pop(0))
        new = self.scan(settled=True)
        while self.reads:
            self.work_read(0)
        while self.answers:
            self.hear_read(0)
        while self.merges:
            self.work_merge(0)
        while self.results:
            self.hear_merge(0)
        return new or bool(self.reads or self.merges)

    def finish(self, rounds: int = 400) -> None:
        """Let time pass without further change until nothing is left to do."""
        for _ in range(rounds):
            if not self.work_off() and not self.collector._open:
                return
            due = self.next_due()
            self.advance(max(0.0, due - self.now) if due is not None else STABLE)
        raise AssertionError(f"never idle: {self.collector.open_slots()}")

    def next_due(self) -> float | None:
        """Monotonic time at which `Collector.due` has something to do, None if it has not."""
        return next_due(self.collector)

    def done_without_row(self) -> list[str]:
        """Files that were handed over and are in no row, though their folder counts as done."""
        pending = self.collector.unrecorded_folders()
        return [
            path
            for path in sorted(self.given & set(self.disk))
            if path.rpartition("/")[0] not in pending
            and ((row := self.rows.get(self.slot_of(path))) is None or not row.signature_of(path))
        ]

    def files_of(self, slot: datetime) -> dict[str, Content]:
        return {p: c for p, c in self.disk.items() if self.slot_of(p) == slot}

    def slot_of(self, path: str) -> datetime:
        return slot_of(_parsed(path).timestamp, STEP, self.rules.offset)

    def batch(self, slot: datetime) -> frozenset[Key]:
        """What a run over the folder would merge."""
        usable = []
        for path, content in self.files_of(slot).items():
            if content.kind == "whole":
                named = _parsed(path)
                usable.append(
                    Exposure(path, named.timestamp, named.exposure_us, *content.signature)
                )
        return frozenset((e.path, e.signature) for e in chosen_files(usable).values())


def _parsed(path: str) -> Any:
    parsed = PATTERN.parse(PurePosixPath(path).name)
    assert parsed is not None
    return parsed


def next_due(collector: Collector) -> float | None:
    brackets = collector._open.values()
    times = [collector._over_at(b) for b in brackets]
    times += [when for b in brackets for when, _ in b.settling.values()]
    soonest = min(times, default=float("inf"))
    return None if soonest == float("inf") else soonest


def inputs_of(row: BracketRecord) -> frozenset[Key]:
    return frozenset((e.path, e.signature) for e in row.inputs)
