"""Which files make a bracket when a slot has several of one exposure time: for live and batch.

A slot that is longer than the interval between brackets holds two of them. Taken exposure by
exposure, the newest files could come from both, half a minute of moving clouds apart; so one
bracket goes first, and another lends only what that one lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise

from asi_watch.brackets import Exposure

__all__ = ["SUPERSEDED", "brackets_among", "chosen_files", "why_superseded"]

SUPERSEDED = "superseded by "
"""How the reason of a file begins that is not used for the sake of another."""

# Names count whole seconds: a gap of one may be any between nothing and two.
_UNCERTAIN = timedelta(seconds=1)
_CLEARLY_WIDER = 2
_ALIKE = 2


def chosen_files(files: Iterable[Exposure]) -> dict[float, Exposure]:
    """Choose one file for each exposure time.

    Parameters
    ----------
    files : iterable of Exposure
        The usable files of one slot, in any order.

    Returns
    -------
    dict of float to Exposure
        All exposure times that there are. Of several brackets (`brackets_among`) the one with the
        most exposures goes first, among equals the later. Within a bracket, and for exposure times
        that the first one lacks, the file written last is taken.
    """
    given = list(files)
    chosen = _newest(given)
    if len(chosen) == len(given):
        return chosen
    brackets = brackets_among(given)
    if len(brackets) > 1:
        first = max(brackets, key=_rank)
        chosen |= _newest(first)
    return chosen


def brackets_among(files: Iterable[Exposure]) -> list[list[Exposure]]:
    """Tell apart the brackets of one slot, by the timestamps of their names.

    They are told apart where an exposure time comes twice with different timestamps, and either
    the pause between brackets is clearly longer than those within, or brackets without a pause
    repeat at least two exposure times. A single exposure that was repeated makes no bracket.

    Parameters
    ----------
    files : iterable of Exposure
        The files of one slot, in any order.

    Returns
    -------
    list of list of Exposure
        In the order of time; one alone where nothing tells them apart.
    """
    rising = sorted(files, key=lambda e: (e.timestamp, e.exposure_us, e.path))
    if not _repeats(rising):
        return [rising]
    moments = [list(group) for _, group in groupby(rising, key=lambda e: e.timestamp)]
    return _apart_by_pauses(moments) or _apart_by_repetition(moments) or [rising]


def why_superseded(exposure: Exposure, winner: Exposure) -> str:
    """Say why a file is not used for the sake of another of the same exposure time."""
    if winner.newer_than(exposure):
        return f"{SUPERSEDED}the newer {winner.path}"
    return f"{SUPERSEDED}{winner.path}: the slot holds two brackets, and that one goes first"


def _apart_by_pauses(moments: Sequence[list[Exposure]]) -> list[list[Exposure]] | None:
    """Cut at the shortest of the long pauses that leave no bracket with a repeated exposure."""
    gaps = [b[0].timestamp - a[0].timestamp for a, b in pairwise(moments)]
    for shortest in sorted(set(gaps), reverse=True):
        within = max((g for g in gaps if g < shortest), default=timedelta(0))
        if shortest <= _CLEARLY_WIDER * within + _UNCERTAIN:
            continue
        parts = [list(moments[0])]
        for gap, moment in zip(gaps, moments[1:], strict=True):
            if gap >= shortest:
                parts.append([])
            parts[-1] += moment
        if not any(map(_repeats, parts)):
            return parts
    return None


def _apart_by_repetition(moments: Sequence[list[Exposure]]) -> list[list[Exposure]] | None:
    """Cut where an exposure time comes again; for cameras that never pause."""
    parts: list[list[Exposure]] = [[]]
    for moment in moments:
        if _times(parts[-1]) & _times(moment):
            parts.append([])
        parts[-1] += moment
    alike = all(len(_times(a) & _times(b)) >= _ALIKE for a, b in pairwise(parts))
    return parts if alike else None


def _repeats(files: Iterable[Exposure]) -> bool:
    """Tell whether an exposure time comes with different timestamps."""
    seen = {(e.exposure_us, e.timestamp) for e in files}
    return len(seen) > len({time for time, _ in seen})


def _times(files: Iterable[Exposure]) -> set[float]:
    return {e.exposure_us for e in files}


def _rank(bracket: list[Exposure]) -> tuple[int, datetime]:
    return len(_times(bracket)), bracket[0].timestamp


def _newest(files: Iterable[Exposure]) -> dict[float, Exposure]:
    newest: dict[float, Exposure] = {}
    for exposure in files:
        present = newest.get(exposure.exposure_us)
        if present is None or exposure.newer_than(present):
            newest[exposure.exposure_us] = exposure
    return newest
