"""A camera's newest files, read as the daemon would read them: for `asi-watch check`.

Every question yields pairs of key and text; nothing here fails for want of an answer.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Literal

from asi_watch import naming
from asi_watch.brackets import Exposure, brackets_among, is_listed, slot_of
from asi_watch.config.model import CameraConfig
from asi_watch.config.values import READABLE_EXTENSIONS, Way, format_duration
from asi_watch.files import answered, counted, shown

if TYPE_CHECKING:
    from asi_watch.hdr.frame_checks import Sample
    from asi_watch.hdr.response import ResponseCurve

_MOST_FILES, _MOST_FOLDERS = 200, 300
_ANSWER_WITHIN, _FRAMES_WITHIN = 5.0, 30.0
_FRAME_BRACKETS = 3
_SOME_FILES, _STEADY = 20, 120.0  # seconds
# One slot may be odd, as after a clock was set back.
_SOME, _MANY = 2, 0.25
_EPOCH = datetime(1970, 1, 1)
# In parts of a slot: the smallest pause between brackets that an edge is moved into.
_SMALLEST_PAUSE, _PHASES = 0.2, 60

Warnings = Iterator[tuple[Way, str]]


@dataclass(frozen=True, slots=True)
class NewestFiles:
    """Some of a camera's newest files: what their names say, and which say nothing.

    Paths are relative to its watch folder.
    """

    camera: CameraConfig
    fitting: tuple[tuple[str, naming.ParsedName], ...]
    """Newest first."""
    misfits: tuple[str, ...]
    others: tuple[str, ...]
    """Files with extensions that are not among the camera's, and no products."""
    untimed: Mapping[str, str] = field(default_factory=dict)
    """Files whose exposure time their metadata do not tell, and why."""

    @property
    def count(self) -> int:
        """How many were looked at."""
        return len(self.fitting) + len(self.misfits) + len(self.untimed)

    def lines(self) -> Iterator[str]:
        """Say how the names are understood."""
        if self.count:
            fit = f"{len(self.fitting)} of the {self.count} newest files fit `filename`"
            yield f"{self.camera.name}: {fit}"
        for path, name in self.fitting[:3]:
            yield f"  {shown(path)} is from {name.timestamp}, exposed {name.exposure_us:.12g} µs"

    def ahead(self) -> timedelta | None:
        """Tell how far names are ahead of the times the files were written at; None if it varies.

        Where files were copied later the two have nothing to do with each other.
        """
        some = self.fitting[:_SOME_FILES]
        folder, to_utc = self.camera.watch, self.camera.pattern.to_utc
        (written,) = answered(
            _ANSWER_WITHIN, lambda: [(folder / path).lstat().st_mtime for path, _ in some]
        )
        spans = [
            to_utc(parsed.timestamp).timestamp() - mtime
            for (_, parsed), mtime in zip(some, written or (), strict=False)
        ]
        steady = len(spans) > 1 and max(spans) - min(spans) <= _STEADY
        return timedelta(seconds=sorted(spans)[len(spans) // 2]) if steady else None

    def warnings(self) -> Warnings:
        """Find what contradicts the configuration in names, dates, exposures and slots."""
        if self.others and not self.count:
            text = f"none of the {len(self.others)} newest files has one of these, such as"
            suffix = self.others[0].rpartition(".")[2].lower()
            known = f"files can be read of the kinds {', '.join(READABLE_EXTENSIONS)}"
            remedy = f"write [{suffix}]" if suffix in READABLE_EXTENSIONS else known
            yield ("extensions",), f"{text} {shown(self.others[0])!r}; {remedy}"
        for path, reason in tuple(self.untimed.items())[:1]:
            text = f"{len(self.untimed)} of the {self.count} newest files are left out, such as"
            yield ("exposure_from",), f"{text} {shown(path)!r}: {reason}"
        for question in (_misfits, _labels, _dates, _exposures, _slots):
            yield from question(self)


def find_newest(camera: CameraConfig) -> NewestFiles:
    """Read the names of some of a camera's newest files; none where its folder gives no answer."""
    (names,) = answered(_ANSWER_WITHIN, lambda: list(newest_names(camera.watch, camera)))
    wanted = {path: camera.wants(path.rpartition("/")[2]) for path in names or ()}
    parsed = {path: camera.pattern.parse(path) for path, ours in wanted.items() if ours}
    fitting = {path: name for path, name in parsed.items() if name is not None}
    untimed: dict[str, str] = {}
    if camera.exposure_from != "name":
        (stated,) = answered(_FRAMES_WITHIN, lambda: stated_times(camera.watch, fitting))
        for path, name in tuple(fitting.items()):
            try:
                time = camera.exposure_times.of(name.exposure_us, (stated or {}).get(path))[1]
                fitting[path] = name._replace(exposure_us=time)
            except ValueError as error:
                untimed[path] = str(error)
                del fitting[path]
    newest = sorted(fitting.items(), key=lambda item: item[1].timestamp, reverse=True)
    misfits = (path for path, name in parsed.items() if name is None)
    others = (p for p, ours in wanted.items() if not (ours or camera.is_known(p)))
    return NewestFiles(camera, tuple(newest), tuple(misfits), tuple(others), untimed)


def stated_times(watch: Path, paths: Iterable[str]) -> dict[str, float]:
    """Read the exposure times, in µs, that files state themselves, where they do."""
    from asi_watch.images import read_stated

    found = {}
    for path in paths:
        with suppress(OSError):
            time = read_stated(watch / path).exposure_us
            if time is not None:
                found[path] = time
    return found


def newest_names(
    watch: Path, camera: CameraConfig | None = None, most: int = _MOST_FILES
) -> Iterator[str]:
    """Go through a bounded part of the folder, in falling order of names: dates come last."""
    is_product = naming.is_product_name if camera is None else camera.is_product
    left, of_a_folder, folders = most, most // 4, [""]
    for _ in range(_MOST_FOLDERS):
        if not folders or not left:
            return
        below = folders.pop()
        try:
            with os.scandir(watch / below) as entries:
                found = {e.name: e.is_dir(follow_symlinks=False) for e in entries}
        except OSError:
            continue
        names = sorted(name for name in found if not naming.is_hidden(name))
        folders += [f"{below}{name}/" for name in names if found[name]]
        files = [n for n in reversed(names) if not found[n] and not is_product(n)]
        for name in files[: min(left, of_a_folder)]:
            left -= 1
            yield f"{below}{name}"


# -- names -----------------------------------------------------------------------------------


def _misfits(found: NewestFiles) -> Warnings:
    if not found.misfits:
        return
    camera, example = found.camera, found.misfits[0].rpartition("/")[2]
    which = len(found.misfits) if found.fitting else "none"
    fit = "do not fit" if found.fitting else "fits"
    text = f"{which} of the {found.count} newest files {fit} {camera.filename!r}, such as"
    guess, hint = guess_names(found.misfits), ""
    if guess is not None and guess.filename != camera.filename:
        unit = "" if guess.unit == camera.exposure_unit else f" with exposure_unit: {guess.unit}"
        hint = f"; did you mean {guess.filename!r}{unit}?"
    yield ("filename",), f"{text} {shown(example)!r}{hint}"


def _labels(found: NewestFiles) -> Warnings:
    camera = found.camera
    if "{exposure}" not in camera.filename:
        return
    if not camera.exposure_labels:
        names = [path for path, _ in found.fitting] + list(found.misfits)
        expected = camera.bracket.exposures
        times = {f"{time:.15g}" for time in expected} if isinstance(expected, tuple) else set()
        labels = {end for end in naming.unclear_labels(names) if end.lstrip("0") not in times}
        if labels:
            some = ", ".join(repr(label) for label in sorted(labels)[:3])
            text = f"the newest names end in {some}: labels, it seems, not times; say what they"
            yield ("exposure_labels",), f'{text} mean, such as {{"0": 2000, "02": 500}}'
    elif camera.exposure_labels_only:
        numbers = naming.NamePattern(camera.filename, camera.exposure_unit, {}, camera.timezone)
        missing = [(path, name) for path in found.misfits if (name := numbers.parse(path))]
        if missing:
            path, name = missing[0]
            time = f"{name.exposure_us / naming.MICROSECONDS_PER_UNIT[camera.exposure_unit]:.12g}"
            text = (
                f"{len(missing)} of the {found.count} newest files are left out: their labels, as"
                f" in {shown(path)!r}, are not among them; add what they mean, or write"
                f" exposure_labels_only: false if {time} is a time"
            )
            yield ("exposure_labels",), text


def _dates(found: NewestFiles) -> Warnings:
    """Find dates that lie in the future, or after the file was written."""
    if not found.fitting:
        return
    newest, parsed = found.fitting[0]
    path = found.camera.watch / newest
    (written,) = answered(_ANSWER_WITHIN, lambda: path.lstat().st_mtime)
    latest = min(written or math.inf, time.time()) + 86_400
    if found.camera.pattern.to_utc(parsed.timestamp).timestamp() > latest:
        text = f"{shown(newest)} is read as {parsed.timestamp}, which is in the future, or after"
        text += " it was written; are %d and %m where the names have day and month?"
        yield ("filename",), text


def _exposures(found: NewestFiles) -> Warnings:
    """Compare `bracket.exposures` and `bracket.min_exposures` with the newest brackets."""
    camera = found.camera
    slots: defaultdict[datetime, set[float]] = defaultdict(set)
    for _, parsed in found.fitting:
        slots[_slot(camera, parsed.timestamp)].add(parsed.exposure_us)
    # The newest bracket may be in the making, the oldest be cut by what was looked at.
    inner = [slots[slot] for slot in sorted(slots)[1:-1]]
    usual = median_low(map(len, inner)) if inner else None
    if usual is not None and usual < camera.bracket.min_exposures:
        text = f"the newest slots have {usual} exposure{'s' if usual > 1 else ''}: none is merged"
        yield ("bracket", "min_exposures"), text
    expected = camera.expected_exposures_us
    if isinstance(expected, tuple) and slots:
        for text in _times_that_differ(found, expected, inner):
            yield ("bracket", "exposures"), text
    elif isinstance(expected, int) and usual not in (None, expected):
        more = "each is merged twice" if usual and usual > expected else "none is ever complete"
        text = f"the newest brackets have {usual} exposures, not {expected}: {more}; write {usual}"
        yield ("bracket", "exposures"), text


def _times_that_differ(
    found: NewestFiles, expected: tuple[float, ...], brackets: Sequence[set[float]]
) -> Iterator[str]:
    times = {parsed.exposure_us for _, parsed in found.fitting}
    unit = naming.MICROSECONDS_PER_UNIT[found.camera.exposure_unit]
    tolerance = found.camera.exposure_tolerance
    listed = {time for time in times if is_listed(time, expected, tolerance)}
    if not listed:
        some = _listed(sorted(times)[:6])
        yield f"none of them is in the newest files' names, which say {some} µs"
    elif len(brackets) >= _SOME:
        counts = Counter(time for bracket in brackets for time in bracket)
        never = [
            t / unit for t in expected if not any(is_listed(one, (t,), tolerance) for one in times)
        ]
        extra = sorted(t / unit for t in times - listed if 2 * counts[t] >= len(brackets))
        if never:
            text = f"{_listed(never)} is in none of the {len(found.fitting)} newest names"
            yield f"{text}: no bracket is ever complete, and each waits for bracket.grace"
        if extra:
            text = f"{_listed(extra)} is missing here but usual in the newest brackets"
            yield f"{text}: they are merged without it, and again when it comes; add it"


def _listed(times: Iterable[float]) -> str:
    return ", ".join(f"{time:.12g}" for time in times)


# -- slots -----------------------------------------------------------------------------------


def _slot(camera: CameraConfig, timestamp: datetime) -> datetime:
    return slot_of(timestamp, camera.bracket.round_to, camera.bracket.offset)


def _slots(found: NewestFiles) -> Warnings:
    """Find slots that hold two brackets, brackets cut in two, and times longer than a slot."""
    camera, round_to = found.camera, found.camera.bracket.round_to
    files = [Exposure(path, name.timestamp, name.exposure_us) for path, name in found.fitting]
    lasts = sum({file.exposure_us for file in files}) / 1e6
    if lasts > round_to.total_seconds():
        text = (
            f"the exposures in the newest names last {lasts:g} s together, longer than"
            f" bracket.round_to ({format_duration(round_to)}); is {camera.exposure_unit!r} their"
            " unit?"
        )
        yield ("exposure_unit",), text
        return
    brackets = brackets_among(files)
    if len(brackets) <= _SOME:
        return
    interval = _whole_seconds(
        median_low(b[0].timestamp - a[0].timestamp for a, b in pairwise(brackets))
    )
    by_slot: defaultdict[datetime, list[Exposure]] = defaultdict(list)
    for file in files:
        by_slot[_slot(camera, file.timestamp)].append(file)
    crowded = sum(map(_holds_several, by_slot.values()))
    cut = sum(len({_slot(camera, f.timestamp) for f in b}) > 1 for b in brackets)
    # The newest files may all lie in one slot that is far too long.
    many = crowded >= max(_SOME, _MANY * len(by_slot)) or len(brackets) > _SOME * len(by_slot)
    slots, every = f"slots of {format_duration(round_to)}", format_duration(interval)
    if crowded and many:
        text = (
            f"{slots} are longer than the {every} between brackets in the newest names: {crowded}"
            f" of {len(by_slot)} hold more than one, of which only one is merged; write {every}"
        )
        yield ("bracket", "round_to"), text
    elif cut >= max(_SOME, _MANY * len(brackets)):
        longest = max(files[-1].timestamp - files[0].timestamp for files in brackets)
        length = round_to if longest < round_to and not interval % round_to else interval
        offset = slot_offset([f.timestamp for b in brackets for f in b], length)
        remedies = [] if length == round_to else [format_duration(length)]
        remedies += [f"bracket.offset: {format_duration(offset)}"] if offset else []
        text = (
            f"{slots} cut {cut} of the {len(brackets)} newest brackets, which last"
            f" {format_duration(_whole_seconds(longest))} and begin every {every}"
        )
        yield (
            ("bracket", "round_to"),
            text + (f"; write {' with '.join(remedies)}" if remedies else ""),
        )


def _holds_several(files: Sequence[Exposure]) -> bool:
    repeated = len(files) - len({file.exposure_us for file in files})
    # One exposure that was taken twice is no other bracket.
    return repeated >= _SOME and len(brackets_among(files)) > 1


def slot_offset(timestamps: Sequence[datetime], round_to: timedelta) -> timedelta | None:
    """Find the offset that puts the edge of slots into the pause; None if that is too short."""
    phases = [(t - _EPOCH) % round_to for t in timestamps]
    counts = Counter(phase * _PHASES // round_to for phase in phases)
    # A phase that does not come again is a straggler's, and says nothing of the brackets.
    regular = sorted({phase for phase in phases if counts[phase * _PHASES // round_to] > 1})
    if not regular:
        return None
    pauses = [(b - a, a) for a, b in pairwise([*regular, regular[0] + round_to])]
    pause, start = max(pauses)
    if pause < round_to * _SMALLEST_PAUSE:
        return None
    middle = _whole_seconds(start + pause / 2) % round_to
    return middle if middle < round_to / 2 else middle - round_to


def _whole_seconds(span: timedelta) -> timedelta:
    second = timedelta(seconds=1)
    return span if span < second else round(span / second) * second


# -- pictures --------------------------------------------------------------------------------


def frame_warnings(found: NewestFiles, curves: Mapping[int, ResponseCurve]) -> Warnings:
    """Compare the newest brackets with their exposure times, the curves and `merge.high_clip`."""
    if not found.fitting or found.camera.merge.algorithm == "linear":
        return
    from asi_watch.hdr.frame_checks import check_frames, fits_high_clip

    brackets = answered(_FRAMES_WITHIN, lambda: list(_samples(found)))[0] or []
    merge = found.camera.merge
    alike = [b for b in brackets if len({sample.shape for sample in b.values()}) == 1]
    fitting = fits_high_clip([list(b.values()) for b in alike], merge.high_clip)
    if fitting is not None and merge.needs_curve:
        text = f"{merge.high_clip} does not fit the newest images, which saturate at a lower code"
        yield ("merge", "high_clip"), f"{text}; write {fitting}"
    mixed = "the images differ in size or channels: such brackets cannot be merged"
    notes = Counter({mixed: len(brackets) - len(alike)})
    for bracket in alike:
        samples = list(bracket.values())
        channels = samples[0].shape[1]
        curve = curves.get(channels)
        if curves and curve is None:
            have = counted(channels, "channel")
            notes[f"the images have {have}, and no curve in use has"] += 1
        response = None if curve is None else curve.log_response
        findings = check_frames(
            samples, list(bracket), response, high_clip=merge.high_clip, exclude=False
        )
        if findings.curve_misfit is not None:
            notes[findings.notes("µs")[-1 if findings.white is None else -2]] += 1
        for one in findings.contradictions:
            notes[f"the exposure of {one.exposure_time:.12g} µs contradicts its exposure time"] += 1
    for note, count in notes.items():
        if count and count == len(brackets):
            yield ("bracket", "exposures"), f"in each of the newest {count} brackets {note}"


def _samples(found: NewestFiles) -> Iterator[dict[float, Sample]]:
    """Read the newest brackets that have several exposures."""
    from asi_watch.errors import ImageError
    from asi_watch.hdr.frame_checks import sample_frame
    from asi_watch.images import read_image

    slots: defaultdict[datetime, dict[float, str]] = defaultdict(dict)
    for path, parsed in found.fitting:
        slots[_slot(found.camera, parsed.timestamp)].setdefault(parsed.exposure_us, path)
    several = [slots[slot] for slot in sorted(slots, reverse=True) if len(slots[slot]) > 1]
    for files in several[:_FRAME_BRACKETS]:
        samples: dict[float, Sample] = {}
        for exposure_us, path in files.items():
            with suppress(ImageError):  # the daemon reports it
                samples[exposure_us] = sample_frame(read_image(found.camera.watch / path).pixels)
        if len(samples) > 1:
            yield samples


# -- names of an unknown kind -----------------------------------------------------------------

_STAMP = re.compile(
    r"(?<![0-9])(?:19|20)[0-9]{2}(?P<day>[-_.]?)(?:0[1-9]|1[0-2])(?P=day)(?:0[1-9]|[12][0-9]|3[01])"
    r"(?P<between>[-_T. ]?)(?:[01][0-9]|2[0-3])(?P<hour>[-_:.]?)[0-5][0-9]"
    r"(?P<minute>[-_:.]?)(?P<second>[0-5][0-9])"
    r"(?P<point>[.,][0-9]{1,6})?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?(?![0-9])"
)
_UNIT = r"[0-9]+(?:\.[0-9]+)?(?:[mu]?s|µs)"
# In the order of trust. A fraction with `_` is one only behind a `_` of its own, as in `_1_500`.
_SHAPES = (
    ("unit", rf"(.*?)(?<![0-9])(?<![0-9]\.)({_UNIT})([^0-9]*)"),
    ("fraction", r"(.*?)(?<![0-9A-Za-z.])(1[-d][0-9]+|(?<=^_)1_[0-9]+)([^0-9]*)"),
    ("number", r"(.*?)(?<![0-9])(?<![0-9]\.)([0-9]+(?:\.[0-9]+)?)([^0-9]*)"),
    ("label", r"(.*?[-_.])([A-Za-z0-9]+)()"),
)
_MOST_LABELS = 16
_MOST_NAMES = 0.8

Kind = Literal["unit", "fraction", "number", "label", "none"]


@dataclass(frozen=True, slots=True)
class NameGuess:
    """What the names of a folder seem to say."""

    filename: str
    """The template."""
    kind: Kind
    """How exposures are written; none: names hold no exposure, or one only."""
    tokens: tuple[str, ...]
    """What stands for exposures, in the order of their lengths."""
    unit: naming.ExposureUnit
    zone: bool
    """Whether timestamps state their offset from UTC."""


def guess_names(paths: Collection[str]) -> NameGuess | None:
    """Find the template that most of the names follow; None where they hold no time of day."""
    stems = [path.rpartition("/")[2].rpartition(".")[0] for path in paths]
    found = [(stem, match) for stem in stems if (match := _STAMP.search(stem))]
    if not found or len(found) < _MOST_NAMES * len(stems):
        return None
    # What follows the seconds may be an offset or a fraction of them; else it is the exposure.
    ((offset, count),) = Counter(match["zone"] for _, match in found).most_common(1)
    zones = (True, False) if offset and count >= _MOST_NAMES * len(found) else (False,)
    guesses = [_guess(found, zone, point) for zone in zones for point in (True, False)]
    return next((guess for guess in guesses if guess.kind != "none"), guesses[0])


def _guess(found: Collection[tuple[str, re.Match[str]]], zone: bool, point: bool) -> NameGuess:
    """Guess what most names say, whose stamps may end in an offset or in parts of a second."""
    kinds = Counter(_directives(match, zone, point)[0] for _, match in found)
    ((directives, _),) = kinds.most_common(1)
    heads, tails = [], []
    for stem, match in found:
        own, end = _directives(match, zone, point)
        if own == directives:
            heads.append(stem[: match.start()])
            tails.append(stem[end:])
    stamp = f"{{timestamp:{directives}}}"
    (head, _), (tail, _) = (Counter(texts).most_common(1)[0] for texts in (heads, tails))
    for texts, form in ((tails, f"{_text(head)}{stamp}{{}}"), (heads, f"{{}}{stamp}{_text(tail)}")):
        if (exposure := _exposure(texts)) is not None:
            kind, before, tokens, after = exposure
            name = f"{_text(before)}{{exposure}}{_text(after)}"
            unit = _unit(kind, tokens)
            return NameGuess(form.replace("{}", name), kind, tokens, unit, "%z" in directives)
    return NameGuess(f"{_text(head)}{stamp}{_text(tail)}", "none", (), "us", "%z" in directives)


def _directives(match: re.Match[str], zone: bool, point: bool) -> tuple[str, int]:
    """Return the directives that a timestamp is written by, and where it ends."""
    day, between, hour, minute = match.group("day", "between", "hour", "minute")
    text, end = f"%Y{day}%m{day}%d{between}%H{hour}%M{minute}%S", match.end("second")
    if point and match["point"]:
        text, end = f"{text}{match['point'][0]}%f", match.end("point")
    if zone and match["zone"] and end == match.start("zone"):
        text, end = f"{text}%z", match.end("zone")
    return text, end


def _text(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


def _exposure(texts: list[str]) -> tuple[Kind, str, tuple[str, ...], str] | None:
    """Find what varies as exposures do: its kind, the text before, what stands there, and after."""
    if len(set(texts)) < 2:
        return None
    for kind, shape in _SHAPES:
        matches = [match.groups() for text in texts if (match := re.fullmatch(shape, text))]
        places = Counter((before, after) for before, _, after in matches)
        if not places:
            continue
        ((place, count),) = places.most_common(1)
        tokens = {token for before, token, after in matches if (before, after) == place}
        if count < _MOST_NAMES * len(texts) or len(tokens) < 2:
            continue
        if kind == "number" and naming.unclear_labels(f"_{token}.jpg" for token in tokens):
            kind = "label"
        if kind == "label" and len(tokens) > _MOST_LABELS:
            return None
        return kind, place[0], tuple(sorted(tokens, key=_number)), place[1]  # type: ignore[return-value]
    return None


def _number(token: str) -> tuple[float, str]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)?", token)
    return (float(match[0]) if match else 0.0, token)


def _unit(kind: Kind, tokens: Iterable[str]) -> naming.ExposureUnit:
    """Guess what bare numbers count: decimals are seconds, or ms where there is none below one."""
    if kind == "fraction":
        return "s"
    if kind != "number" or not any("." in token for token in tokens):
        return "us"
    return "s" if min(map(float, tokens)) < 0.1 else "ms"
