"""What an operator should hear of once, not for every file: odd names, doubled files, strangers."""

from __future__ import annotations

import logging

from asi_watch.live.records import BracketRecord
from asi_watch.logs import event

log = logging.getLogger(__name__)

_EVERY = 3600.0


class Oddities:
    """Tells them at most once an hour each, with an example. Owner thread only.

    Parameters
    ----------
    camera : str
    template : str
        The pattern of the camera's names.
    """

    def __init__(self, camera: str, template: str) -> None:
        self._camera = camera
        self.template = template
        self._next_name = float("-inf")
        self._doubles, self._taken = _Hourly(), _Hourly()
        self.names_told = 0
        """How many of the names that do not fit have been told of."""

    def name_ignored(self, path: str, count: int, now: float) -> None:
        """Take note of a file whose name is no exposure's; `count` of them have been so far."""
        if now < self._next_name or count == self.names_told:
            return
        event(
            log,
            logging.WARNING,
            "file names do not fit the pattern, such files are ignored",
            camera=self._camera,
            example=path,
            filename=self.template,
            names=count - self.names_told,
        )
        self._next_name, self.names_told = now + _EVERY, count

    def bracket_over(self, record: BracketRecord, now: float) -> None:
        """Look for files of one exposure time in a bracket that is over."""
        doubles = [r for r in record.rejected if r.is_superseded]
        files = self._doubles.add(len(doubles), now)
        if not files:
            return
        event(
            log,
            logging.WARNING,
            "two files have one exposure time in one bracket, the newer is merged",
            camera=self._camera,
            slot=record.slot,
            file=doubles[0].path,
            reason=doubles[0].reason,
            files=files,
        )

    def place_taken(self, record: BracketRecord, now: float) -> None:
        """Take note of a bracket in whose place another camera's product stands."""
        brackets = self._taken.add(1, now)
        if not brackets:
            return
        event(
            log,
            logging.WARNING,
            "another camera's products stand in the output folder, they are left alone",
            camera=self._camera,
            slot=record.slot,
            reason=record.reason,
            brackets=brackets,
        )


class _Hourly:
    """A count that is given out at most once an hour, when something comes to it."""

    def __init__(self) -> None:
        self._next, self._count = float("-inf"), 0

    def add(self, count: int, now: float) -> int:
        """Give what has come together since it was given out last; 0: nothing to tell now."""
        self._count += count
        if not count or now < self._next:
            return 0
        given, self._count = self._count, 0
        self._next = now + _EVERY
        return given
