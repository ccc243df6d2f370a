"""An intake in a process of its own, which says again and again what it has found so far.

``python -m tests.faults.watching FOLDER [MODE [EVERY]]``
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asi_watch.live.messages import Found, Inbox
from asi_watch.live.watching.intake import Intake
from tests.live.intake_settings import watching

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 100.0


def main(folder: str, mode: Any = "auto", every: str = "60") -> None:
    inbox = Inbox()
    rules = watching(Path(folder), mode, float(every))
    intake = Intake(rules, {}, inbox)
    intake.start()
    found: set[str] = set()
    told = 0.0
    # Until the other end of standard input is closed.
    while not select.select([sys.stdin], [], [], 0)[0]:
        intake.tick(time.monotonic())
        message = inbox.get(0.05)
        dropped = inbox.take_dropped()
        if dropped:
            intake.request_scan()
        if isinstance(message, Found):
            found.update(file.path for file in message.files)
        if time.monotonic() - told > 0.1:
            told = time.monotonic()
            state = intake.facts() | {"state": intake.state, "found": len(found)}
            print(json.dumps(state | {"cpu": time.process_time()}), flush=True)
    intake.stop()


class Watching:
    """The process, seen from the test."""

    def __init__(self, folder: Path, *arguments: str, wrapper: tuple[str, ...] = ()) -> None:
        command = [*wrapper, sys.executable, "-m", "tests.faults.watching", str(folder), *arguments]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def until(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until what the process says of itself fulfils a condition."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        state: dict[str, Any] = {}
        for line in self.process.stdout:
            state = json.loads(line)
            if reached(state):
                return state
            if time.monotonic() > deadline:
                break
        raise AssertionError(state)

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.process.kill()
        self._stop(0 if kind is None else -signal.SIGKILL)

    def _stop(self, code: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        assert self.process.wait(PATIENCE) == code


if __name__ == "__main__":
    main(*sys.argv[1:])
