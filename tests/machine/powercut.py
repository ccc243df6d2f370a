"""The power of a camera PC is cut, again and again, while the daemon works."""

from __future__ import annotations

import json
import logging
import random
import re
import subprocess
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from asi_watch.response_files import response_bytes
from tests.machine.image import System, code_disk, disk
from tests.machine.mounted import MountedDisk
from tests.machine.place import EXPOSURES, SIZE, Place
from tests.machine.vm import Machine, MachineError
from tests.machine.volatile_disk import VolatileDisk
from tests.machine.writers import WAYS
from tests.skies import sky_bracket

log = logging.getLogger(__name__)

START = datetime(2026, 6, 21, 0, 0)
DISK_BYTES = 1 << 30
PATIENCE = 180.0
WORK_SECONDS = 10.0
_PUBLISHED = re.compile(
    r'msg="bracket published".*? slot=(\S+)(?:.*? revision=(\d+))?.*? latency=(\S+)'
)
AnyMachine = Machine | MountedDisk
_WRITTEN = re.compile(r"^written (\w+) (\d+)$", re.MULTILINE)


@dataclass
class Report:
    """What was counted in all rounds."""

    cuts: int = 0
    unflushed: int = 0
    lost_blocks: int = 0
    promised: dict[str, int] = field(default_factory=dict)
    latencies: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    written: dict[str, set[str]] = field(default_factory=lambda: {way: set() for way in WAYS})
    states: dict[str, Counter[str]] = field(default_factory=dict)
    rounds_seen: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    counts: Counter[str] = field(default_factory=Counter)
    torn: set[str] = field(default_factory=set)
    rows_lost: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """True if nothing is wrong, and the control shows that something could have been."""
        return not self.faults and self.control_lost > 0

    @property
    def control_lost(self) -> int:
        """How many files the naive way lost or spoilt: it must be some."""
        return sum(
            n for state, n in self.states.get("naive", Counter()).items() if state != "whole"
        )


class PowerCuts:
    """One run.

    Parameters
    ----------
    system : System or None
        Of the machine; None mounts the disk on this computer instead.
    folder : Path
        For disks and logs.
    rounds, seed : int
    eager : bool
        Run the daemon that forces nothing to the disk.
    """

    def __init__(
        self, system: System | None, folder: Path, *, rounds: int, seed: int, eager: bool = False
    ) -> None:
        self._system = system
        self._folder = folder
        self._rounds = rounds
        self._dice = random.Random(seed)
        self._seed = seed
        self._daemon = "tests.machine.eager" if eager else "asi_watch"
        self.report = Report()

    def run(self) -> Report:
        """Go through all rounds, let the daemon finish, and judge."""
        image = disk(self._folder / "data.img", "asi-data", DISK_BYTES)
        with VolatileDisk(image, self._folder / "disk") as medium, self._machine(medium) as machine:
            self._place = Place(machine.data)
            self._prepare(machine)
            for number in range(self._rounds):
                self._round(machine, medium, number)
            self._finish(machine)
            log.info("%d flushes in all", medium.flushes)
        self._check_disk(image)
        return self.report

    def _machine(self, medium: VolatileDisk) -> AnyMachine:
        if self._system is None:
            return MountedDisk(self._folder, medium)
        code = code_disk(self._folder / "code.img")
        return Machine("pc", self._system, code, self._folder, data=medium.address)

    # -- rounds -------------------------------------------------------------------------------

    def _prepare(self, machine: AnyMachine) -> None:
        machine.boot()
        place = self._place
        machine.write(str(place.config), place.configuration())
        machine.write(str(place.response), response_bytes(sky_bracket(SIZE).log_response))
        machine.run("mkdir", "-p", str(self._place.watch))
        machine.shut_down()

    def _round(self, machine: AnyMachine, medium: VolatileDisk, number: int) -> None:
        began = time.monotonic()
        machine.boot()
        left = self._aftermath(machine, number)
        self._start(machine, number)
        self._wait(machine)
        if not machine.running("daemon"):
            raise MachineError(f"the daemon ended:\n{machine.log_text()[-3000:]}")
        if self._dice.random() < 0.7:
            # In the middle of writing, not in one of the long pauses.
            medium.freeze(after=self._dice.randrange(100))
            medium.frozen(5)
        machine.cut()
        unflushed, lost = medium.cut(self._dice, self._dice.choice([0.0, 0.5, 1.0]))
        self.report.cuts += 1
        self.report.unflushed += unflushed
        self.report.lost_blocks += lost
        self._hear(machine)
        log.info(
            "round %d: %d products, %d empty inputs found; %d of %d unflushed blocks lost; %.0f s",
            number + 1, len(left["products"]), left["empty_inputs"], lost, unflushed,
            time.monotonic() - began,
        )  # fmt: skip

    def _wait(self, machine: AnyMachine) -> None:
        """Let a random time pass: from the first moments of the daemon to far into its work."""
        if self._dice.random() < 0.25:
            time.sleep(self._dice.uniform(0.1, 3.0))
            return
        deadline = time.monotonic() + PATIENCE
        while "msg=ready" not in machine.log_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(self._dice.uniform(0.2, WORK_SECONDS))

    def _start(self, machine: AnyMachine, number: int) -> None:
        machine.start(
            "daemon", machine.python_path, "-m", self._daemon, "run", "-c", str(self._place.config)
        )
        begin = START + timedelta(hours=number)
        machine.start(
            "camera", machine.python_path, "-m", "tests.machine.faulty_camera",
            str(self._place.watch), str(self._seed + number), begin.isoformat(), str(SIZE),
            ",".join(str(e) for e in EXPOSURES),
        )  # fmt: skip
        writers = ["tests.machine.writers", str(self._place.writers), str(10_000 * number)]
        machine.start("writers", machine.python_path, "-m", *writers)

    def _aftermath(self, machine: AnyMachine, number: int) -> dict[str, Any]:
        """Compare what is there with what had been promised before the cut."""
        left = _asked(machine, "aftermath")
        report = self.report
        for product, flaw in left["flaws"].items():
            if product not in report.torn:
                report.faults.append(f"after cut {number}: {product}: {flaw}")
            report.torn.add(product)
        report.counts["empty_inputs"] = max(report.counts["empty_inputs"], left["empty_inputs"])
        report.counts["temporaries_seen"] += left["temporaries"]
        if left["ledger"] not in {"ok", "none"}:
            report.faults.append(f"after cut {number}: ledger: {left['ledger']}")
        self._compare_promised(left["published"], f"after cut {number}")
        return left

    def _compare_promised(self, published: dict[str, int], when: str) -> None:
        for slot, revision in self.report.promised.items():
            if published.get(slot, 0) < revision:
                self.report.faults.append(f"{when}: row of {slot} revision {revision} is lost")
                self.report.rows_lost += 1
        # What is lost is told once.
        self.report.promised = published

    def _hear(self, machine: AnyMachine) -> None:
        """Take note of what the daemon and the control said they had done."""
        text = machine.log_text()
        for line in text.splitlines():
            if "crashed" in line or "Traceback" in line:
                self.report.faults.append(line)
            if match := _PUBLISHED.search(line):
                slot, revision = match[1], int(match[2] or 1)
                known = self.report.promised.get(slot, 0)
                self.report.promised[slot] = max(known, revision)
                self.report.latencies[slot, revision].add(match[3])
        for way, number in _WRITTEN.findall(text):
            self.report.written[way].add(number)

    # -- the end ------------------------------------------------------------------------------

    def _finish(self, machine: AnyMachine) -> None:
        machine.boot()
        self._aftermath(machine, self._rounds)
        machine.start(
            "daemon", machine.python_path, "-m", self._daemon, "run", "-c", str(self._place.config)
        )
        deadline = time.monotonic() + PATIENCE
        while not self._idle(machine):
            if time.monotonic() > deadline or not machine.running("daemon"):
                self.report.faults.append("the daemon did not come to rest")
                break
            time.sleep(1)
        machine.python("-m", "asi_watch", "check", "-c", str(self._place.config))
        machine.python("-m", "asi_watch", "status", "-c", str(self._place.config))
        if (code := machine.stop("daemon")) != 0:
            self.report.faults.append(f"the daemon ended with code {code} at SIGTERM")
        self._hear(machine)
        self._judge(machine)
        machine.shut_down()

    def _idle(self, machine: AnyMachine) -> bool:
        answer = machine.python(
            "-m", "asi_watch", "status", "-c", str(self._place.config), "--json", code=None
        )
        if not answer.startswith("{"):
            return False  # not up yet
        camera = json.loads(answer)["cameras"]["roof"]
        if camera["open_count"] or camera["backlog"]:
            return False
        return not _asked(machine, "settled")["unsettled"]

    def _judge(self, machine: AnyMachine) -> None:
        report = self.report
        verdict = _asked(machine, "verdict")
        report.faults += verdict["faults"]
        report.counts.update(verdict["counts"])
        self._compare_promised(verdict["published"], "at the end")
        for (slot, revision), latencies in report.latencies.items():
            # A row that is amended is told again, with the latency it had.
            if len(latencies) > 1:
                report.faults.append(f"{slot} was merged {len(latencies)} times as {revision}")
                report.counts["merged_twice"] += 1
        found = _asked(machine, "writers")
        for way, told in report.written.items():
            states = {name: found.get(way, {}).get(name, "missing") for name in told}
            report.states[way] = Counter(states.values())
            for name, state in states.items():
                if state != "whole":
                    report.rounds_seen[way].add(int(name) // 10_000)
        if broken := {s: n for s, n in report.states["durable"].items() if s != "whole"}:
            report.faults.append(f"files written durably: {broken}")

    def _check_disk(self, image: Path) -> None:
        seen = subprocess.run(
            ["e2fsck", "-fn", image], capture_output=True, text=True, check=False, timeout=120
        )
        if seen.returncode:
            self.report.faults.append(f"file system: {seen.stdout[-500:]}")


def _asked(machine: AnyMachine, what: str) -> dict[str, Any]:
    answer = machine.python("-m", "tests.machine.judging", what, str(machine.data), limit=300)
    document: dict[str, Any] = json.loads(answer)
    return document
