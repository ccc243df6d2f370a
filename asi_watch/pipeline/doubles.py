"""Slots with more files than a bracket has: what an operator should hear of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from statistics import median_low
from typing import TYPE_CHECKING

from asi_watch.config.values import format_duration
from asi_watch.files import shown

if TYPE_CHECKING:
    from asi_watch.brackets import Exposure
    from asi_watch.pipeline.archive_bracket import ArchiveBracket

__all__ = ["folders_that_clash", "log_superseded", "slots_too_long"]

log = logging.getLogger(__name__)

_SHOWN = 6
_JITTER = timedelta(seconds=1)
_LENGTHS = [
    timedelta(seconds=unit * number)
    for unit in (1, 60)
    for number in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
]


def slots_too_long(brackets: Iterable[ArchiveBracket]) -> tuple[int, str] | None:
    """Count the slots that held several brackets, and say which length would part them.

    Parameters
    ----------
    brackets : iterable of ArchiveBracket

    Returns
    -------
    (int, str) or None
        None where no slot did.
    """
    doubled = [b for b in brackets if b.intervals]
    if not doubled:
        return None
    usual = median_low([interval for b in doubled for interval in b.intervals])
    fitting = [length for length in _LENGTHS if length <= usual + _JITTER]
    several = max(len(b.intervals) + 1 for b in doubled)
    held = "two brackets" if several == 2 else f"up to {several} brackets"
    slots = "1 slot" if len(doubled) == 1 else f"{len(doubled)} slots"
    text = f"slots are longer than the interval between brackets: {slots} held {held}, of which"
    text += " one is merged"
    return len(doubled), f"{text}; use round_to {format_duration(max(fitting, default=_JITTER))}"


def folders_that_clash(brackets: Iterable[ArchiveBracket]) -> tuple[str, str] | None:
    """Find two folders that hold the same exposures of the same brackets: two cameras, it seems.

    Returns
    -------
    (str, str) or None
        The first such pair: the folder whose file is used, and the other.
    """
    for loser, winner in _pairs(brackets):
        theirs, ours = (PurePosixPath(e.path).parent for e in (loser, winner))
        if theirs != ours and loser.timestamp == winner.timestamp:
            return str(ours), str(theirs)
    return None


def log_superseded(brackets: Sequence[ArchiveBracket]) -> None:
    """Log which files are not used for the sake of others, and what helps against it."""
    pairs = list(_pairs(brackets))
    for loser, winner in pairs[:_SHOWN]:
        log.warning("%s is not used: %s", shown(loser.path), _reason(loser, winner))
    if len(pairs) > _SHOWN:
        log.warning("and %d files more that are not used for the like", len(pairs) - _SHOWN)
    clash = folders_that_clash(brackets)
    if clash is not None:
        log.warning(
            "%s and %s hold the same exposures of the same brackets: if they are two cameras',"
            " merge each folder by itself",
            *(shown(folder) for folder in clash),
        )
    too_long = slots_too_long(brackets)
    if too_long is not None:
        log.warning("%s", too_long[1])


def _pairs(brackets: Iterable[ArchiveBracket]) -> Iterator[tuple[Exposure, Exposure]]:
    return (pair for bracket in brackets for pair in bracket.superseded)


def _reason(loser: Exposure, winner: Exposure) -> str:
    name = shown(winner.path)
    if loser.path == winner.path:
        return "it is listed twice"
    if winner.newer_than(loser):
        return f"{name} has the same exposure time and was written later"
    return f"{name} has the same exposure time and is of the bracket that goes first"
