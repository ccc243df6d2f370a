"""The ways in which cameras and their upload programs write a file."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Protocol

PIECES = 6


class Clock(Protocol):
    """Real time, as the simulator sees it; tests hand in one that does not wait."""

    def now(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; returns early when the simulation is told to stop."""
        ...


class WallClock:
    """The clock on the wall.

    Parameters
    ----------
    stop : threading.Event
        Ends every wait.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the stop."""
        if seconds > 0:
            self._stop.wait(seconds)


def write_plain(path: Path, data: bytes) -> None:
    """Open, write, close: the file is there before its content is.

    Parameters
    ----------
    path : Path
    data : bytes
    """
    with path.open("wb") as file:
        file.write(data)


def write_chunked(path: Path, data: bytes, clock: Clock, pause_s: float) -> None:
    """Write in place and slowly, piece by piece, as an upload over a thin line does.

    Parameters
    ----------
    path : Path
    data : bytes
    clock : Clock
    pause_s : float
        Real seconds between two pieces.
    """
    step = max(1, -(-len(data) // PIECES))
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), step):
            if start:
                clock.sleep(pause_s)
            file.write(data[start : start + step])


def write_rename(path: Path, data: bytes) -> None:
    """Write under another name, then rename: the file appears whole.

    Parameters
    ----------
    path : Path
    data : bytes
    """
    part = path.with_name(path.name + ".part")
    write_plain(part, data)
    part.replace(path)


def write_frame(path: Path, data: bytes, kind: str, clock: Clock, pause_s: float) -> None:
    """Write one file in the given way; its folder is made when it is not there.

    Parameters
    ----------
    path : Path
    data : bytes
    kind : {"plain", "chunked", "rename"}
    clock : Clock
    pause_s : float
        For chunked: real seconds between two pieces.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "chunked":
        write_chunked(path, data, clock, pause_s)
    elif kind == "rename":
        write_rename(path, data)
    else:
        write_plain(path, data)


def make_fifo(path: Path) -> None:
    """Put a named pipe where an image should be: opening it blocks whoever is careless.

    Parameters
    ----------
    path : Path
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
