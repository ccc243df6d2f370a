"""A camera's newest files, read as the daemon would read them: for `asi-watch check`.

Every question yields pairs of key and text; nothing here fails for want of an answer.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING

from asi_watch.brackets import Exposure, brackets_among, slot_of
from asi_watch.config.document import Way
from asi_watch.config.model import CameraConfig
from asi_watch.config.values import format_duration
from asi_watch.files import answered, shown
from asi_watch.naming import (
    MICROSECONDS_PER_UNIT,
    NamePattern,
    ParsedName,
    is_hidden,
    is_product_name,
    unclear_labels,
)

if TYPE_CHECKING:
    from asi_watch.hdr.frame_checks import Sample
    from asi_watch.hdr.response import ResponseCurve
    from asi_watch.images.headers import Header

__all__ = [
    "NewestFiles",
    "better_offset",
    "find_newest",
    "frame_warnings",
    "header_of",
    "lines_of_names",
    "name_warnings",
    "slot_warnings",
]

_MOST_FILES = 200
_MOST_OF_A_FOLDER = 50
_MOST_FOLDERS = 300
_MOST_HEADER = 1 << 20
_ANSWER_WITHIN, _FRAMES_WITHIN = 5.0, 30.0
_FRAME_BRACKETS = 3
_OTHER_TEMPLATES = (
    "{timestamp:%Y%m%d%H%M%S}_{exposure}",
    "{timestamp:%Y%m%d_%H%M%S}_{exposure}",
    "{timestamp:%Y-%m-%d_%H-%M-%S}_{exposure}",
    "{timestamp:%Y%m%dT%H%M%S}_{exposure}",
)
_FUTURE = timedelta(days=1)
_SOME_DATES, _DAY = 10, 86_400.0
# One slot may be odd, as after a clock was set back.
_SOME = 2
_MANY = 0.25


@dataclass(frozen=True, slots=True)
class NewestFiles:
    """Some of the newest files of a watch folder: what their names say, and which say nothing.

    Paths are relative to the folder.
    """

    fitting: tuple[tuple[str, ParsedName], ...]
    misfits: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Files with extensions that are not among the camera's, and no products."""

    @property
    def count(self) -> int:
        """How many were looked at."""
        return len(self.fitting) + len(self.misfits)


def find_newest(camera: CameraConfig) -> NewestFiles:
    """Read the names of some of a camera's newest files; none where its folder gives no answer.

    Parameters
    ----------
    camera : CameraConfig
    """
    (names,) = answered(_ANSWER_WITHIN, lambda: list(_newest_names(camera)))
    wanted = [path for path in names or [] if camera.wants(path.rpartition("/")[2])]
    parsed = [(path, camera.pattern.parse(path)) for path in wanted]
    fitting = [(path, name) for path, name in parsed if name is not None]
    fitting.sort(key=lambda item: item[1].timestamp, reverse=True)
    misfits = (path for path, name in parsed if name is None)
    others = (path for path in names or [] if path not in set(wanted))
    return NewestFiles(tuple(fitting), tuple(misfits), tuple(others))


def lines_of_names(name: str, found: NewestFiles) -> Iterator[str]:
    """Say how the newest names are understood, a line each.

    Parameters
    ----------
    name : str
        The camera's.
    found : NewestFiles
    """
    if not found.count:
        return
    yield f"{name}: {len(found.fitting)} of the {found.count} newest files fit `filename`"
    for path, parsed in found.fitting[:3]:
        yield f"  {shown(path)} is from {parsed.timestamp}, exposed {parsed.exposure_us:.12g} µs"


def header_of(camera: CameraConfig, found: NewestFiles) -> Header | None:
    """Read the header of the newest picture; None where there is none, or none that is read.

    Parameters
    ----------
    camera : CameraConfig
    found : NewestFiles
    """
    if not found.fitting:
        return None
    (header,) = answered(_ANSWER_WITHIN, partial(_header, camera.watch / found.fitting[0][0]))
    return header


# -- names -----------------------------------------------------------------------------------


def name_warnings(camera: CameraConfig, found: NewestFiles) -> Iterator[tuple[Way, str]]:
    """Find names that do not fit, labels, dates in the future, and unexpected exposures.

    Parameters
    ----------
    camera : CameraConfig
    found : NewestFiles
    """
    if found.others and not found.count:
        text = f"none of the {len(found.others)} newest files has one of these, such as"
        yield ("extensions",), f"{text} {shown(found.others[0])!r}"
    yield from _misfits(camera, found)
    yield from _labels(camera, found)
    yield from _dates(camera, found)
    yield from _exposures(camera, found)


def _misfits(camera: CameraConfig, found: NewestFiles) -> Iterator[tuple[Way, str]]:
    if not found.misfits:
        return
    which = "none" if not found.fitting else f"{len(found.misfits)}"
    fit = "fits" if not found.fitting else "do not fit"
    example = found.misfits[0].rpartition("/")[2]
    text = f"{which} of the {found.count} newest files {fit} {camera.filename!r}, such as"
    better = ""
    for template in _OTHER_TEMPLATES:
        labels = camera.exposure_labels
        if NamePattern(template, camera.exposure_unit, labels, camera.timezone).parse(example):
            better = f"; did you mean {template!r}?" if template != camera.filename else ""
            break
    yield ("filename",), f"{text} {shown(example)!r}{better}"


def _labels(camera: CameraConfig, found: NewestFiles) -> Iterator[tuple[Way, str]]:
    names = [path for path, _ in found.fitting] + list(found.misfits)
    if not camera.exposure_labels:
        expected = camera.bracket.exposures
        times = {f"{time:.15g}" for time in expected} if isinstance(expected, tuple) else set()
        labels = {end for end in unclear_labels(names) if end.lstrip("0") not in times}
        if labels:
            some = ", ".join(repr(label) for label in sorted(labels)[:3])
            text = f"the newest names end in {some}: labels, it seems, not times; say what they"
            yield ("exposure_labels",), f'{text} mean, such as {{"0": 2000, "02": 500}}'
        return
    if not camera.exposure_labels_only:
        return
    numbers = NamePattern(camera.filename, camera.exposure_unit, {}, camera.timezone)
    missing = [(path, name) for path in found.misfits if (name := numbers.parse(path))]
    if missing:
        path, name = missing[0]
        text = f"{len(missing)} of the {found.count} newest files are left out: their labels, as in"
        unit = MICROSECONDS_PER_UNIT[camera.exposure_unit]
        yield (
            ("exposure_labels",),
            f"{text} {shown(path)!r}, are not among them; add what they mean, or write"
            f" exposure_labels_only: false if {name.exposure_us / unit:.12g} is a time",
        )


def _dates(camera: CameraConfig, found: NewestFiles) -> Iterator[tuple[Way, str]]:
    """Find dates in the future, and days that are read as months."""
    if not found.fitting:
        return
    newest, parsed = found.fitting[0]
    if camera.pattern.to_utc(parsed.timestamp) > datetime.now(UTC) + _FUTURE:
        why = "which is in the future"
    elif _days_for_months(camera, found):
        why = "but was written when day and month were the other way round"
    else:
        return
    text = f"{shown(newest)} is read as {parsed.timestamp}, {why}"
    yield ("filename",), f"{text}; are %d and %m where the names have day and month?"


def _days_for_months(camera: CameraConfig, found: NewestFiles) -> bool:
    """Tell whether all dates fit the times of the files once day and month are swapped."""
    some = found.fitting[:_SOME_DATES]
    (written,) = answered(
        _ANSWER_WITHIN, lambda: [(camera.watch / path).lstat().st_mtime for path, _ in some]
    )
    for (_, parsed), mtime in zip(some, written or (), strict=False):
        stated = camera.pattern.to_utc(parsed.timestamp)
        if stated.day > 12 or abs(stated.timestamp() - mtime) < 3 * _DAY:
            return False
        swapped = stated.replace(day=stated.month, month=stated.day)
        if abs(swapped.timestamp() - mtime) > 2 * _DAY:
            return False
    return bool(written)


def _exposures(camera: CameraConfig, found: NewestFiles) -> Iterator[tuple[Way, str]]:
    """Compare `bracket.exposures` and `bracket.min_exposures` with the newest brackets."""
    slots: defaultdict[datetime, set[float]] = defaultdict(set)
    for _, parsed in found.fitting:
        slot = slot_of(parsed.timestamp, camera.bracket.round_to, camera.bracket.offset)
        slots[slot].add(parsed.exposure_us)
    # The newest bracket may be in the making, the oldest be cut by what was looked at.
    inner = [slots[slot] for slot in sorted(slots)[1:-1]]
    usual = median_low(map(len, inner)) if inner else None
    if usual is not None and usual < camera.bracket.min_exposures:
        text = f"the newest slots have {usual} exposure{'s' if usual > 1 else ''}: none is merged"
        yield ("bracket", "min_exposures"), text
    expected = camera.expected_exposures_us
    if isinstance(expected, tuple) and slots:
        for text in _times_that_differ(camera, found, expected, inner):
            yield ("bracket", "exposures"), text
    elif isinstance(expected, int) and usual not in (None, expected):
        more = "each is merged twice" if usual and usual > expected else "none is ever complete"
        text = f"the newest brackets have {usual} exposures, not {expected}: {more}; write {usual}"
        yield ("bracket", "exposures"), text


def _times_that_differ(
    camera: CameraConfig,
    found: NewestFiles,
    expected: tuple[float, ...],
    brackets: Sequence[set[float]],
) -> Iterator[str]:
    times = {parsed.exposure_us for _, parsed in found.fitting}
    unit = MICROSECONDS_PER_UNIT[camera.exposure_unit]
    if times.isdisjoint(expected):
        some = ", ".join(f"{time:.12g}" for time in sorted(times)[:6])
        yield f"none of them is in the newest files' names, which say {some} µs"
        return
    if len(brackets) < _SOME:
        return
    never = [time for time in expected if time not in times]
    if never:
        text = f"{_listed_times(never, unit)} is in none of the {len(found.fitting)} newest names"
        yield f"{text}: no bracket is ever complete, and each waits for bracket.grace"
    counts = Counter(time for bracket in brackets for time in bracket)
    unlisted = [t for t in sorted(times.difference(expected)) if counts[t] >= len(brackets) / 2]
    if unlisted:
        text = f"{_listed_times(unlisted, unit)} is missing here but usual in the newest brackets"
        yield f"{text}: they are merged without it, and again when it comes; add it"


def _listed_times(times_us: Sequence[float], unit_us: int) -> str:
    return ", ".join(f"{time / unit_us:.12g}" for time in times_us)


# -- slots -----------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1)
# All in parts of a slot: the smallest pause between brackets that the edge is moved into; a pause
# of so many parts of the longest, which may as well be the one between brackets; the distance
# from the edge to the next exposure that is no reason to move.
_SMALLEST_PAUSE, _AS_LONG, _CLEARANCE = 0.2, 0.7, 0.02
_BINS = 60
# Neighbours grouped wrongly that make the edge a harm.
_HARMFUL = 2


def slot_warnings(camera: CameraConfig, found: NewestFiles) -> Iterator[tuple[Way, str]]:
    """Find slots that hold two brackets, brackets cut in two, and times longer than a slot.

    Parameters
    ----------
    camera : CameraConfig
    found : NewestFiles
    """
    files = [Exposure(path, name.timestamp, name.exposure_us) for path, name in found.fitting]
    round_to, offset = camera.bracket.round_to, camera.bracket.offset
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
    for file in files:
        by_slot[slot_of(file.timestamp, round_to, offset)].append(file)
    crowded = sum(map(_holds_several, by_slot.values()))
    cut = sum(len({slot_of(f.timestamp, round_to, offset) for f in b}) > 1 for b in brackets)
    if crowded >= max(_SOME, _MANY * len(by_slot)):
        yield ("bracket", "round_to"), _too_long(round_to, interval, crowded, len(by_slot))
    elif cut >= max(_SOME, _MANY * len(brackets)):
        yield ("bracket", "round_to"), _cuts(camera, brackets, interval, cut)


def _holds_several(files: Sequence[Exposure]) -> bool:
    repeated = len(files) - len({file.exposure_us for file in files})
    # One exposure that was taken twice is no other bracket.
    return repeated >= _SOME and len(brackets_among(files)) > 1


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
    remedy = "" if length == round_to else f"; write {format_duration(length)}"
    if better is not None:
        remedy += f"{' with' if remedy else '; write'} bracket.offset: {format_duration(better)}"
    return (
        f"slots of {format_duration(round_to)} cut {cut} of the {len(brackets)} newest brackets,"
        f" which last {format_duration(_whole_seconds(lasts))} and begin every"
        f" {format_duration(interval)}{remedy}"
    )


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
        pause that is long enough.
    """
    times = sorted(set(timestamps))
    counts = Counter((t - _EPOCH) % round_to // (round_to / _BINS) for t in times)
    # A phase that does not come again is a straggler's, and says nothing of the brackets.
    regular = [t for t in times if counts[(t - _EPOCH) % round_to // (round_to / _BINS)] > 1]
    phases = sorted({(t - _EPOCH) % round_to for t in regular})
    if not phases:
        return None
    following = [*phases[1:], phases[0] + round_to]
    pauses = [(b - a, a) for a, b in zip(phases, following, strict=True)]
    pause, start = max(pauses)
    if pause < round_to * _SMALLEST_PAUSE:
        return None
    if any(_lies_in(present, *p, round_to) for p in pauses if p[0] >= pause * _AS_LONG):
        return None
    wrong = sum(
        (after - before < pause)
        != (slot_of(before, round_to, present) == slot_of(after, round_to, present))
        for before, after in pairwise(regular)
    )
    if wrong < _HARMFUL:
        return None
    middle = _whole_seconds(start + pause / 2) % round_to
    return middle if middle < round_to / 2 else middle - round_to


def _lies_in(edge: timedelta, pause: timedelta, start: timedelta, round_to: timedelta) -> bool:
    into = (edge - start) % round_to
    clearance = round_to * _CLEARANCE
    # Exposures exactly on the edge belong to the bracket that begins there: no harm.
    return clearance <= into <= pause and (into <= pause - clearance or into == pause)


def _whole_seconds(span: timedelta) -> timedelta:
    second = timedelta(seconds=1)
    return span if span < second else round(span / second) * second


# -- pictures ------------------------------------------------------------------------------


def frame_warnings(
    camera: CameraConfig, found: NewestFiles, curves: Mapping[int, ResponseCurve]
) -> Iterator[tuple[Way, str]]:
    """Compare the newest brackets with their exposure times, the curve and `merge.high_clip`.

    Parameters
    ----------
    camera : CameraConfig
    found : NewestFiles
    curves : mapping of int to ResponseCurve
        By number of channels.
    """
    if not found.fitting:
        return
    (brackets,) = answered(_FRAMES_WITHIN, lambda: list(_samples(camera, found)))
    from asi_watch.hdr.frame_checks import check_frames, fits_high_clip

    clip = camera.merge.high_clip
    fitting = fits_high_clip([list(b.values()) for b in brackets or []], clip)
    if fitting is not None and camera.merge.algorithm != "mertens":
        text = f"{clip} does not fit the newest images, which saturate at a lower code"
        yield ("merge", "high_clip"), f"{text}; write {fitting}"
    notes: dict[str, int] = defaultdict(int)
    for bracket in brackets or []:
        curve = curves.get(next(iter(bracket.values())).shape[1])
        findings = check_frames(
            list(bracket.values()),
            list(bracket),
            None if curve is None else curve.log_response,
            high_clip=clip,
            exclude=False,
        )
        if findings.curve_misfit is not None:
            notes[findings.notes("µs")[-1 if findings.white is None else -2]] += 1
        for one in findings.contradictions:
            notes[f"the exposure of {one.exposure_time:g} µs contradicts its exposure time"] += 1
    for note, count in notes.items():
        if count == len(brackets or []):
            yield ("bracket", "exposures"), f"in each of the newest {count} brackets {note}"


def _samples(camera: CameraConfig, found: NewestFiles) -> Iterator[dict[float, Sample]]:
    """Read the newest brackets that have several exposures of one size."""
    from asi_watch.errors import ImageError
    from asi_watch.hdr.frame_checks import sample_frame
    from asi_watch.images.reading import read_image

    slots: defaultdict[datetime, dict[float, str]] = defaultdict(dict)
    for path, parsed in found.fitting:
        slot = slot_of(parsed.timestamp, camera.bracket.round_to, camera.bracket.offset)
        slots[slot].setdefault(parsed.exposure_us, path)
    several = [slots[slot] for slot in sorted(slots, reverse=True) if len(slots[slot]) > 1]
    for files in several[:_FRAME_BRACKETS]:
        samples: dict[float, Sample] = {}
        for exposure_us, path in files.items():
            try:
                samples[exposure_us] = sample_frame(read_image(camera.watch / path).pixels)
            except ImageError:
                continue  # the daemon reports it
        if len(samples) > 1 and len({sample.shape for sample in samples.values()}) == 1:
            yield samples


# -- files -----------------------------------------------------------------------------------


def _header(path: Path) -> Header | None:
    from asi_watch.images.headers import HeaderError, read_header

    try:
        with path.open("rb") as file:
            return read_header(file.read(_MOST_HEADER))
    except (OSError, HeaderError):
        return None


def _newest_names(camera: CameraConfig) -> Iterator[str]:
    """Go through a bounded part of the folder, in falling order of names: dates come last."""
    left, folders = _MOST_FILES, [""]
    for _ in range(_MOST_FOLDERS):
        if not folders or left <= 0:
            return
        below = folders.pop()
        subfolders, names = _listed(camera, below)
        folders += [f"{below}{name}/" for name in subfolders]
        for name in names[: min(left, _MOST_OF_A_FOLDER)]:
            left -= 1
            yield f"{below}{name}"


def _listed(camera: CameraConfig, below: str) -> tuple[list[str], list[str]]:
    subfolders, names = [], []
    try:
        with os.scandir(camera.watch / below) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    subfolders += [] if entry.name.startswith(".") else [entry.name]
                elif not is_hidden(entry.name) and not is_product_name(entry.name):
                    names.append(entry.name)
    except OSError:
        return [], []
    return sorted(subfolders), sorted(names, reverse=True)
