"""Two cameras, and the share of one of them dies: its files open, and then give nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asi_watch.config import parse_config
from asi_watch.live import reporting
from asi_watch.live.daemon import Daemon
from asi_watch.live.messages import ReadFile, ReadOutcome
from asi_watch.live.sdnotify import Notifier
from asi_watch.live.workers.pool import JobPool
from tests.live.products import totals
from tests.skies import jpeg_bracket

NOON = datetime(2026, 6, 21, 12)
EXPOSURES = (80, 320, 1280)
PATIENCE = 0.3


class Observatory:
    """A daemon whose owner is the test, with two cameras and two workers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.back = threading.Event()
        self.frames = jpeg_bracket(64)
        cameras = ""
        for name in ("dead", "alive"):
            (folder / name).mkdir()
            cameras += (
                f"  {name}: {{watch: {folder}/{name}, output: {folder}/out-{name}, watch_mode:"
                f" polling, scan: {{every: 1s}}, stable_for: 100ms, merge: {{algorithm: mertens}},"
                f" bracket: {{exposures: {list(EXPOSURES)}}}}}\n"
            )
        text = f"state_dir: {folder}/state\nworkers: 2\ndisk: {{keep_free: null}}\ncameras:\n"
        settings = parse_config((text + cameras).encode(), "x", folder).config
        monkeypatch.setattr(
            "asi_watch.live.daemon.JobPool", lambda workers: JobPool(workers, PATIENCE)
        )
        monkeypatch.setattr(reporting, "_SURELY_HANGING", PATIENCE)
        self.daemon = Daemon(folder / "x.yaml", settings, Notifier.from_environment())
        self.open = ExitStack()
        self.daemon._lock_state_folder(self.open)
        self.daemon._open(self.open)
        self._break(self.daemon._cameras["dead"])
        self.daemon._begin()

    def _break(self, camera: Any) -> None:
        worker = camera._scheduler._worker
        read = worker.read

        def wait_for_the_server(command: ReadFile) -> ReadOutcome:
            self.back.wait(60)
            outcome: ReadOutcome = read(command)
            return outcome

        worker.read = wait_for_the_server

    def take(self, camera: str, number: int) -> None:
        slot = NOON + number * timedelta(seconds=30)
        for exposure in EXPOSURES:
            name = f"{slot:%Y%m%d%H%M%S}_{exposure}.jpg"
            (self.folder / camera / name).write_bytes(self.frames[exposure])

    def published(self, camera: str) -> int:
        return totals(self.daemon._ledger, camera).get("published", 0)

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < deadline
            self.daemon._step(self.daemon._inbox.get(timeout=0.02), time.monotonic())

    def shown(self, camera: str) -> dict[str, Any]:
        return self.daemon._cameras[camera].snapshot()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Observatory]:
    place = Observatory(tmp_path, monkeypatch)
    yield place
    place.back.set()
    place.daemon._finish_work()
    place.open.close()


def test_the_other_camera_goes_on_and_what_waited_is_made_up_for(
    place: Observatory, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        place.take("dead", number)
    place.until(lambda: place.daemon._pool.busy()[0] >= 2)
    for number in range(5):
        place.take("alive", number)
        place.until(lambda number=number: place.published("alive") == number + 1)  # type: ignore[misc]
    place.until(lambda: "waited" in str(place.shown("dead")["hanging"]))
    assert place.shown("alive")["hanging"] is None
    assert place.published("dead") == 0
    place.until(lambda: "waited" in str(place.shown("dead")["last_error"]))
    told = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len([line for line in told if line.startswith("workers wait")]) == 1
    place.back.set()
    place.until(lambda: place.published("dead") == 5)
    place.until(lambda: place.shown("dead")["hanging"] is None)
    assert len(list((place.folder / "out-dead").rglob("*.jpg"))) == 5
