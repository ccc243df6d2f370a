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
        self._template = template
        self._next_name = self._next_double = self._next_taken = float("-inf")
        self._doubles = self._taken = 0
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
            filename=self._template,
            names=count - self.names_told,
        )
        self._next_name, self.names_told = now + _EVERY, count

    def bracket_over(self, record: BracketRecord, now: float) -> None:
        """Look for files of one exposure time in a bracket that is over."""
        doubles = [r for r in record.rejected if r.reason.startswith("superseded")]
        self._doubles += len(doubles)
        if not doubles or now < self._next_double:
            return
        event(
            log,
            logging.WARNING,
            "two files have one exposure time in one bracket, the newer is merged",
            camera=self._camera,
            slot=record.slot,
            file=doubles[0].path,
            reason=doubles[0].reason,
            files=self._doubles,
        )
        self._next_double, self._doubles = now + _EVERY, 0

    def place_taken(self, record: BracketRecord, now: float) -> None:
        """Take note of a bracket in whose place another camera's product stands."""
        self._taken += 1
        if now < self._next_taken:
            return
        event(
            log,
            logging.WARNING,
            "another camera's products stand in the output folder, they are left alone",
            camera=self._camera,
            slot=record.slot,
            reason=record.reason,
            brackets=self._taken,
        )
        self._next_taken, self._taken = now + _EVERY, 0
