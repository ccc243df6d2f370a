"""A camera as unreliable as can be: all kinds of writers, half files, duplicates, late frames."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from tests.integration.daemon import (
    EXPOSURES,
    frames,
    slot,
    write_chunked,
    write_moved_in,
    write_plain,
    write_renamed,
)

WRITERS = (write_plain, write_chunked, write_renamed, write_moved_in)
SCENES = 4


def scene(number: int) -> list[bytes]:
    """Frames of one of a few skies, shortest exposure first."""
    return frames(1 + number % SCENES)


class UnreliableCamera:
    """Writes brackets, each in its own way, in a thread of its own.

    Parameters
    ----------
    watch : Path
        The watch folder.
    brackets : int
        How many.
    pause : float
        Mean seconds between two brackets.
    seed : int
        Decides all but the moments.
    """

    def __init__(self, watch: Path, brackets: int, pause: float, seed: int) -> None:
        self._watch = watch
        self._brackets = brackets
        self._pause = pause
        self._dice = random.Random(seed)
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self.done = 0

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    @property
    def working(self) -> bool:
        return self._thread.is_alive()

    # -- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        for number in range(self._brackets):
            self._bracket(number)
            self.done += 1
            self._wait(time.monotonic() + self._dice.expovariate(1 / self._pause))
        self._wait(None)

    def _wait(self, until: float | None) -> None:
        """Do what was planned for later, up to a moment or to its end."""
        while self._later and (until is None or self._later[0][0] <= until):
            when, _, action = heapq.heappop(self._later)
            time.sleep(max(0.0, when - time.monotonic()))
            action()
        if until is not None:
            time.sleep(max(0.0, until - time.monotonic()))

    def _plan(self, seconds: float, action: Callable[[], None]) -> None:
        self._planned += 1
        heapq.heappush(self._later, (time.monotonic() + seconds, self._planned, action))

    def _bracket(self, number: int) -> None:
        dice, content = self._dice, scene(number)
        kept = sorted(dice.sample(range(5), dice.choice([5, 5, 5, 5, 4, 3, 2])))
        late = {dice.choice(kept)} if dice.random() < 0.15 else set()
        half = {dice.choice(kept)} if dice.random() < 0.2 else set()
        for index in kept:
            path = self._path(number, index, index)
            writer = dice.choice(WRITERS)
            if index in late:
                self._plan(dice.uniform(2.5, 6.0), _writing(writer, path, content[index]))
            elif index in half:
                write_plain(path, content[index][: dice.randrange(len(content[index]))])
                self._plan(dice.uniform(0.05, 4.0), _writing(writer, path, content[index]))
            else:
                writer(path, content[index])
        if dice.random() < 0.15:
            index = dice.choice(kept)
            again = self._path(number, index, 10 + index)
            self._plan(dice.uniform(0.0, 5.0), _writing(write_renamed, again, content[index]))

    def _path(self, number: int, index: int, second: int) -> Path:
        start = slot(number)
        folder = self._watch / f"{start:%Y/%m/%d/%H}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{start + timedelta(seconds=second):%Y%m%d%H%M%S}_{EXPOSURES[index]}.jpg"


def _writing(
    writer: Callable[[Path, bytes], None], path: Path, content: bytes
) -> Callable[[], None]:
    return lambda: writer(path, content)
