"""An existing archive, written again as if it were taken now."""

from __future__ import annotations

import datetime as dt
import os
from collections import defaultdict
from pathlib import Path

from asi_watch.brackets import slot_of
from asi_watch.naming import NamePattern
from asi_watch.simulator.faults import Frame
from asi_watch.simulator.settings import SimulatorSettings


class ReplaySource:
    """Brackets of an archive with new timestamps; the files' content is untouched.

    The archive's frames are grouped into slots of the interval; within a slot they keep their
    distances in time.

    Parameters
    ----------
    settings : SimulatorSettings
        With `replay` set.

    Raises
    ------
    ValueError
        If no file in the archive has a name that follows the pattern.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._slots = _find_brackets(settings)

    @property
    def count(self) -> int | None:
        """Brackets in the archive, or as many of them as are asked for."""
        asked = self._settings.brackets
        return min(asked, len(self._slots)) if asked else len(self._slots)

    def bracket(self, number: int) -> list[Frame]:
        """Read one bracket.

        Parameters
        ----------
        number : int
            From 0.

        Returns
        -------
        list of Frame

        Raises
        ------
        OSError
            If a file cannot be read.
        """
        old_slot, files = self._slots[number]
        slot = self._settings.slot(number)
        return [
            Frame(number, slot, slot + (taken - old_slot), us, path.read_bytes(), path.suffix)
            for taken, us, path in files
        ]


_Slot = tuple[dt.datetime, list[tuple[dt.datetime, float, Path]]]


def _find_brackets(settings: SimulatorSettings) -> list[_Slot]:
    """Slots of the archive in order of time, each with its files."""
    archive = settings.replay
    if archive is None or not archive.is_dir():
        raise ValueError(f"replay: {archive} is not a folder")
    pattern = NamePattern(settings.pattern)
    length = dt.timedelta(seconds=settings.interval_s)
    slots: defaultdict[dt.datetime, list[tuple[dt.datetime, float, Path]]] = defaultdict(list)
    for folder, _, names in os.walk(archive):
        for name in names:
            parsed = pattern.parse(name)
            path = Path(folder, name)
            # A named pipe would stop the replay for good.
            if parsed is None or not path.is_file():
                continue
            slots[slot_of(parsed.timestamp, length)].append((*parsed, path))
    if not slots:
        raise ValueError(f"replay: no file in {archive} has a name like {settings.pattern!r}")
    return [(slot, sorted(slots[slot])) for slot in sorted(slots)]
