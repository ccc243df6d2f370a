"""Whether slots fit the brackets that the newest names show: for `asi-watch check`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median_low

from asi_watch.brackets import Exposure
from asi_watch.cli._looking import FilesFound
from asi_watch.config.document import Way
from asi_watch.config.model import CameraConfig
from asi_watch.duplicates import brackets_among
from asi_watch.durations import format_duration
from asi_watch.phase_learning import better_offset
from asi_watch.phases import Slots

__all__ = ["slot_warnings"]

# One slot may be odd, as after a clock was set back.
_SOME = 2
_MANY = 0.25


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
    slots = _slots(camera, files)
    for file in files:
        by_slot[slots.slot(file.timestamp)].append(file)
    crowded = sum(map(_holds_several, by_slot.values()))
    cut = sum(len({slots.slot(file.timestamp) for file in files}) > 1 for files in brackets)
    if _is_usual(crowded, by_slot):
        yield ("bracket", "round_to"), _too_long(round_to, interval, crowded, len(by_slot))
    elif _is_usual(cut, brackets):
        yield ("bracket", "round_to"), _cuts(camera, brackets, interval, cut)


def _holds_several(files: Sequence[Exposure]) -> bool:
    repeated = len(files) - len({file.exposure_us for file in files})
    # One exposure that was taken twice is no other bracket.
    return repeated >= _SOME and len(brackets_among(files)) > 1


def _slots(camera: CameraConfig, files: Sequence[Exposure]) -> Slots:
    """Give the slots as the daemon would have them, once it has learned what it can."""
    bracket = camera.bracket
    if bracket.offset != "auto":
        return Slots(bracket.round_to, bracket.offset)
    learned = better_offset((f.timestamp for f in files), bracket.round_to, timedelta(0))
    return Slots(bracket.round_to, learned or timedelta(0))


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
    round_to = camera.bracket.round_to
    lasts = max(files[-1].timestamp - files[0].timestamp for files in brackets)
    if lasts < round_to and not interval % round_to and camera.bracket.offset != "auto":
        remedy = "write bracket.offset: auto"
    else:
        remedy = f"write {format_duration(interval)}, with bracket.offset: auto"
    return (
        f"slots of {format_duration(round_to)} cut {cut} of the {len(brackets)} newest brackets,"
        f" which last {format_duration(_whole_seconds(lasts))} and begin every"
        f" {format_duration(interval)}; {remedy}"
    )


def _whole_seconds(span: timedelta) -> timedelta:
    second = timedelta(seconds=1)
    return span if span < second else round(span / second) * second
