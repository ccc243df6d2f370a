"""The real daemon as its own process, and a camera that writes into its folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.response_files import response_bytes
from tests.skies import EXPOSURES_US, jpeg_bracket, sky_bracket

START = datetime(2026, 6, 21, 9, 0, 0)
STEP = timedelta(seconds=30)
SIZE = 96
# Only how long a test that fails takes to say so.
PATIENCE = 100.0
EXPOSURES = [int(t) for t in EXPOSURES_US]
# Longer than a disk or a host may keep a test from writing the rest of a bracket.
GRACE = "10min"
# For brackets that end without being complete.
SHORT = {"exposures": EXPOSURES, "grace": "2s"}

Writer = Callable[[Path, bytes], None]


def slot(number: int) -> datetime:
    return START + number * STEP


def file_name(number: int, index: int) -> str:
    return f"{slot(number) + timedelta(seconds=index):%Y%m%d%H%M%S}_{EXPOSURES[index]}.jpg"


@cache
def frames(seed: int = 1) -> list[bytes]:
    """JPEG files of one bracket, shortest exposure first."""
    by_exposure = jpeg_bracket(SIZE, seed=seed)
    return [by_exposure[t] for t in EXPOSURES]


def write_plain(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_chunked(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        for start in range(0, len(content), len(content) // 4 + 1):
            file.write(content[start : start + len(content) // 4 + 1])
            file.flush()
            time.sleep(0.02)


def write_renamed(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.rename(path)


def write_moved_in(path: Path, content: bytes) -> None:
    outside = path.parents[len(path.parents) - 3] / f"elsewhere-{path.name}"
    outside.write_bytes(content)
    outside.rename(path)


class Site:
    """One camera's folders, a configuration, and the daemon that runs on them."""

    def __init__(self, folder: Path, **camera: Any) -> None:
        self.folder = folder
        self.watch = folder / "in"
        self.output = folder / "out"
        self.state = folder / "state"
        self.config = folder / "asi-watch.yaml"
        self.log = folder / "log"
        self.watch.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.camera: dict[str, Any] = {
            "watch": str(self.watch),
            "output": str(self.output),
            "response": str(self.response()),
            "bracket": {"exposures": EXPOSURES, "grace": GRACE},
            "scan": {"every": "2s"},
            "stable_for": "200ms",
            "recalibrate": {"every": "never"},
            **camera,
        }
        self.configure()

    def response(self) -> Path:
        path = self.folder / "response.npz"
        if not path.exists():
            path.write_bytes(response_bytes(sky_bracket(SIZE).log_response))
        return path

    def configure(self, **top: Any) -> None:
        document = {
            "state_dir": str(self.state),
            # A machine that tests run on may be full.
            "disk": {"keep_free": "1MiB"},
            "cameras": {"roof": self.camera},
            **top,
        }
        self.config.write_text(yaml.safe_dump(document))

    # -- the daemon -------------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        name, *rest = arguments
        return [sys.executable, "-m", "asi_watch", name, "-c", str(self.config), *rest]

    def start(self) -> None:
        with self.log.open("ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(self.command("run"), stdout=log, stderr=log)
        self.until(lambda: "msg=ready" in self.log_text(before), "ready")

    def reload(self) -> None:
        """Ask the daemon to start again with its configuration, and wait until it has."""
        assert self.process is not None
        starts = self.log_text().count("msg=ready")
        self.process.send_signal(signal.SIGHUP)
        self.until(lambda: self.log_text().count("msg=ready") > starts, "reloaded")

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def status(self) -> dict[str, Any]:
        roof: dict[str, Any] = self.until_answered()["cameras"]["roof"]
        return roof

    def until_answered(self) -> dict[str, Any]:
        """Ask for the state until the daemon answers."""
        state: dict[str, Any] = json.loads(self.run_until_answered("status", "--json").stdout)
        return state

    def run_until_answered(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command until the daemon answers it: it may be kept from it for seconds."""
        answers: list[subprocess.CompletedProcess[str]] = []

        def answered() -> bool:
            answers.append(self.run(*arguments))
            return answers[-1].returncode in (0, 4)  # 4: answered, and something needs a look

        self.until(answered, f"answering {arguments}")
        return answers[-1]

    def log_text(self, start: int = 0) -> str:
        return self.log.read_bytes()[start:].decode()

    # -- the camera -------------------------------------------------------------------------

    def take(
        self,
        number: int,
        which: Iterable[int] = range(5),
        *,
        writer: Writer = write_plain,
        seed: int = 1,
    ) -> None:
        """Write frames `which` of bracket `number` as the camera would."""
        folder = self.watch / f"{slot(number):%Y/%m/%d/%H}"
        folder.mkdir(parents=True, exist_ok=True)
        for index in which:
            writer(folder / file_name(number, index), frames(seed)[index])

    # -- what came of it --------------------------------------------------------------------

    def product(self, number: int, suffix: str = "jpg") -> Path:
        return (
            self.output
            / f"{slot(number):%Y/%m/%d/%H}"
            / f"{slot(number):%Y%m%d%H%M%S}_hdr.{suffix}"
        )

    def rows(self) -> dict[datetime, BracketRecord]:
        if not (self.state / "ledger.sqlite3").exists():
            return {}
        with Ledger(self.state, read_only=True) as ledger:
            return {r.slot: r for r in ledger.history()}

    def row(self, number: int) -> BracketRecord | None:
        return self.rows().get(slot(number))

    def until_published(self, number: int, revision: int = 1) -> BracketRecord:
        def published() -> bool:
            row = self.row(number)
            return row is not None and row.state == "published" and row.revision >= revision

        self.until(published, f"bracket {number} revision {revision} published")
        row = self.row(number)
        assert row is not None
        return row

    def until_made_of(self, number: int, count: int) -> BracketRecord:
        """Wait until a bracket's product has so many inputs: a writer may be held up meanwhile."""

        def made() -> bool:
            row = self.row(number)
            return row is not None and row.state == "published" and len(row.inputs) == count

        self.until(made, f"bracket {number} made of {count}")
        row = self.row(number)
        assert row is not None
        return row

    def until(self, reached: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while not reached():
            dead = self.process is not None and self.process.poll() is not None
            assert not dead, f"the daemon ended: {self.log_text()}"
            assert time.monotonic() < deadline, f"not {what}: {self.log_text()}"
            time.sleep(0.05)

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.output.rglob(".*") if not path.is_dir()]
