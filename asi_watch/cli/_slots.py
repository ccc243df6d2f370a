"""Whether slots fit the brackets that the newest names show: for `asi-watch check`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median_low

from asi_watch.brackets import Exposure, brackets_among, slot_of
from asi_watch.cli._looking import FilesFound
from asi_watch.config.document import Way
from asi_watch.config.model import CameraConfig
from asi_watch.config.values import format_duration

__all__ = ["better_offset", "slot_warnings"]

# One slot may be odd, as after a clock was set back.
_SOME = 2
_MANY = 0.25

_EPOCH = datetime(1970, 1, 1)
_SMALLEST_PAUSE = 0.2
"""Smallest pause between brackets, in parts of a slot, that the edge is moved into."""
_AS_LONG = 0.7
"""A pause of so many parts of the longest may as well be the one between brackets."""
_CLEARANCE = 0.02
"""Distance from the edge to the next exposure, in parts of a slot, that is no reason to move."""
_BINS = 60
_HARMFUL = 2
"""Neighbours grouped wrongly that make the edge a harm."""


def slot_warnings(camera: CameraConfig, found: FilesFound) -> Iterator[tuple[Way, str]]:
    """Find slots that hold two brackets, brackets cut in two, and times longer than a slot.

    Parameters
    ----------
    camera : CameraConfig
    found : FilesFound
        Its newest names.
    """
    files = [Exposure(path, name.timestamp, name.exposure_us) for path, name in found.fitting]
    round_to = camera.bracket.round_to
    lasts = timedelta(microseconds=sum({file.exposure_us for file in files}))
    if lasts > round_to:
        text = (
            f"the exposures in the newest names last {lasts.total_seconds():g} s together, longer"
            f" than bracket.round_to ({format_duration(round_to)}); is {camera.exposure_unit!r}"
            " their unit?"
        )
        yield ("exposure_unit",), text
        return
    brackets = brackets_among(files)
    if len(brackets) < _SOME + 1:
        return
    interval = _whole_seconds(
        median_low(b[0].timestamp - a[0].timestamp for a, b in pairwise(brackets))
    )
    by_slot: defaultdict[datetime, list[Exposure]] = defaultdict(list)
    offset = camera.bracket.offset
    for file in files:
        by_slot[slot_of(file.timestamp, round_to, offset)].append(file)
    crowded = sum(map(_holds_several, by_slot.values()))
    cut = sum(
        len({slot_of(file.timestamp, round_to, offset) for file in files}) > 1 for files in brackets
    )
    if _is_usual(crowded, by_slot):
        yield ("bracket", "round_to"), _too_long(round_to, interval, crowded, len(by_slot))
    elif _is_usual(cut, brackets):
        yield ("bracket", "round_to"), _cuts(camera, brackets, interval, cut)


def _holds_several(files: Sequence[Exposure]) -> bool:
    repeated = len(files) - len({file.exposure_us for file in files})
    # One exposure that was taken twice is no other bracket.
    return repeated >= _SOME and len(brackets_among(files)) > 1


def _is_usual(count: int, among: Sequence[object] | dict[datetime, list[Exposure]]) -> bool:
    return count >= _SOME and count >= _MANY * len(among)


def _too_long(round_to: timedelta, interval: timedelta, crowded: int, slots: int) -> str:
    return (
        f"{format_duration(round_to)} is longer than the {format_duration(interval)} between"
        f" brackets in the newest names: {crowded} of {slots} slots hold more than one, of which"
        f" only one is merged; write {format_duration(interval)}"
    )


def _cuts(
    camera: CameraConfig, brackets: Sequence[Sequence[Exposure]], interval: timedelta, cut: int
) -> str:
    round_to, times = camera.bracket.round_to, [f.timestamp for b in brackets for f in b]
    lasts = max(files[-1].timestamp - files[0].timestamp for files in brackets)
    length = round_to if lasts < round_to and not interval % round_to else interval
    present = camera.bracket.offset if length == round_to else timedelta(0)
    better = better_offset(times, length, present)
    remedy = "" if length == round_to else f"write {format_duration(length)}"
    if better is not None:
        remedy += f"{' with' if remedy else 'write'} bracket.offset: {format_duration(better)}"
    return (
        f"slots of {format_duration(round_to)} cut {cut} of the {len(brackets)} newest brackets,"
        f" which last {format_duration(_whole_seconds(lasts))} and begin every"
        f" {format_duration(interval)}{'; ' if remedy else ''}{remedy}"
    )


def _whole_seconds(span: timedelta) -> timedelta:
    second = timedelta(seconds=1)
    return span if span < second else round(span / second) * second


def better_offset(
    timestamps: Iterable[datetime], round_to: timedelta, present: timedelta
) -> timedelta | None:
    """Find an offset that cuts no bracket, if the present one does.

    The edge of the slots is moved to the middle of the longest pause between exposures.

    Parameters
    ----------
    timestamps : iterable of datetime
        Of recent exposures, in any order.
    round_to, present : timedelta

    Returns
    -------
    timedelta or None
        At least minus a half, less than half a slot. None when the present offset is as good as
        any: its edge lies in the longest pause, or does no harm where it lies, or there is no
        pause to speak of.
    """
    times = sorted(set(timestamps))
    usual = _usual(((t - _EPOCH) % round_to for t in times), round_to / _BINS)
    if not usual:
        return None
    pauses = _pauses(sorted(usual), round_to)
    pause, start = max(pauses)
    if pause < round_to * _SMALLEST_PAUSE:
        return None
    long_enough = [p for p in pauses if p[0] >= pause * _AS_LONG]
    if any(_lies_in(present, *p, round_to) for p in long_enough):
        return None
    regular = [t for t in times if (t - _EPOCH) % round_to in usual]
    if _wrong_pairs(regular, pause, round_to, present) < _HARMFUL:
        return None
    middle = _whole_seconds(start + pause / 2) % round_to
    return middle if middle < round_to / 2 else middle - round_to


def _pauses(phases: Sequence[timedelta], round_to: timedelta) -> list[tuple[timedelta, timedelta]]:
    """Length of the pause after each phase, and the phase."""
    following = [*phases[1:], phases[0] + round_to]
    return [(b - a, a) for a, b in zip(phases, following, strict=True)]


def _lies_in(edge: timedelta, pause: timedelta, start: timedelta, round_to: timedelta) -> bool:
    into = (edge - start) % round_to
    clearance = round_to * _CLEARANCE
    # Exposures exactly on the edge belong to the bracket that begins there: no harm.
    return clearance <= into <= pause and (into <= pause - clearance or into == pause)


def _wrong_pairs(
    times: Sequence[datetime], pause: timedelta, round_to: timedelta, offset: timedelta
) -> int:
    """Count neighbours of one bracket in two slots, and of two brackets in one slot."""
    return sum(
        (after - before < pause)
        != (slot_of(before, round_to, offset) == slot_of(after, round_to, offset))
        for before, after in pairwise(times)
    )


def _usual(phases: Iterable[timedelta], width: timedelta) -> set[timedelta]:
    """Keep the phases that come again; a straggler says nothing of the brackets."""
    found = list(phases)
    counts = Counter(phase // width for phase in found)
    return {phase for phase in found if counts[phase // width] > 1}
