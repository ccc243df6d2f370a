"""From a folder or an archive to its brackets, in the order of time.

Names are read as asi_core reads them, a timestamp anywhere and the exposure at the end, unless
the rules bring a pattern of their own.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import PurePosixPath
from statistics import median_low
from typing import Any

from asi_watch import brackets as rules_of
from asi_watch.brackets import Exposure
from asi_watch.config.values import DEEP_EXTENSIONS, READABLE_EXTENSIONS, format_duration
from asi_watch.files import counted, shown
from asi_watch.naming import ParsedName, is_hidden, is_product_name, unclear_labels

log = logging.getLogger(__name__)

# Where nothing is configured: a camera may write raw files beside its pictures.
IMAGE_EXTENSIONS = frozenset(READABLE_EXTENSIONS) - frozenset(DEEP_EXTENSIONS)
LINEAR_EXTENSIONS = frozenset({"png", *DEEP_EXTENSIONS})
SHOWN = 6  # so many examples of one thing are logged
EXPOSURE_AT_END = re.compile(r"_([0-9]{1,10})\.[^.]+$")

# Overlapping on purpose: a counter before the timestamp must not hide it.
_TIMESTAMP = re.compile(r"(?=([0-9]{14}|[0-9]{8}_[0-9]{6}(?![0-9])))")
# As file managers and FTP servers name a second file of a name: ..._640_1.jpg beside ..._640.jpg.
_COPY = re.compile(r"_[0-9]{2,10}_[0-9]\.[^.]+")
_YEARS = range(1970, 2262)  # what pandas can hold in nanoseconds

_JITTER = timedelta(seconds=1)
_LOOKED_AT = 20  # brackets
_NAMES_HELD = 10_000
_LENGTHS = [
    timedelta(seconds=unit * number)
    for unit in (1, 60)
    for number in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
]


def exposure_of_name(name: str) -> int | None:
    """Read the number at the end of a file name, ``*_<EXPO>.<ext>``; None if there is none.

    The time of day in ``YYYYMMDD_HHMMSS.jpg`` is none.

    Parameters
    ----------
    name : str
        Folders before it are ignored.
    """
    base = name.rpartition("/")[2]
    return _find_exposure(base, _find_timestamp(base))


def _find_exposure(base: str, timestamp: tuple[datetime, int] | None) -> int | None:
    match = EXPOSURE_AT_END.search(base)
    if match is None or (timestamp is not None and match.start() < timestamp[1]):
        return None
    return int(match[1])


def parse_timestamp(name: str) -> datetime | None:
    """Read the first 14 digits of a file name that are a date and time, naive; None without any.

    Parameters
    ----------
    name : str
        Folders before it are ignored. ``YYYYMMDD_HHMMSS`` is understood as well.
    """
    found = _find_timestamp(name.rpartition("/")[2])
    return None if found is None else found[0]


def parse_name(name: str) -> ParsedName | None:
    """Read timestamp and exposure of a file name, the number taken as microseconds.

    None where one is missing or the exposure is zero, for hidden files and for copies such as
    ``..._640_1.jpg``.

    Parameters
    ----------
    name : str
    """
    base = name.rpartition("/")[2]
    found = None if is_hidden(base) else _find_timestamp(base)
    exposure = None if found is None else _find_exposure(base, found)
    if found is None or not exposure or _COPY.fullmatch(base, found[1]):
        return None
    return ParsedName(found[0], float(exposure))


def _find_timestamp(base: str) -> tuple[datetime, int] | None:
    """Return the timestamp and where it ends."""
    for match in _TIMESTAMP.finditer(base):
        digits = match[1].replace("_", "T")
        try:
            moment = datetime.fromisoformat(
                digits if "T" in digits else f"{digits[:8]}T{digits[8:]}"
            )
        except ValueError:
            continue
        if moment.year in _YEARS:
            return moment, match.end(1)
    return None


def slot_length(round_ts_to: str) -> timedelta:
    """Read the length of a slot as pandas does, such as ``30s``, ``1min`` or ``2h``.

    Parameters
    ----------
    round_ts_to : str
        ValueError if it is no fixed, positive length of time of whole microseconds.
    """
    # Loaded when asked for: it takes longer than all the rest of a command.
    import pandas as pd

    try:
        offset: Any = pd.tseries.frequencies.to_offset(round_ts_to)
        length: timedelta = pd.Timedelta(offset).to_pytimedelta()
    except ValueError as error:
        raise ValueError(
            f"round_ts_to {round_ts_to!r} is no fixed length of time; write 30s or 1min"
        ) from error
    if length <= timedelta(0):
        raise ValueError(f"round_ts_to must be longer than nothing; got {round_ts_to!r}")
    return length


@dataclass(frozen=True, slots=True)
class ArchiveRules:
    """What the names of an archive mean and which exposures belong together."""

    round_to: timedelta = timedelta(seconds=30)  # see `asi_watch.brackets.slot_of`
    offset: timedelta = timedelta(0)
    # File name to timestamp and exposure; None for a name that is not an exposure's.
    parse: Callable[[str], ParsedName | None] = parse_name
    extensions: frozenset[str] = IMAGE_EXTENSIONS  # lower case, without dot
    wants: Callable[[str], bool] = bool  # whether a file of this name may be an exposure
    times: rules_of.ExposureTimes = rules_of.BY_NAME
    # What a complete bracket holds; see `asi_watch.brackets.ExpectedExposures`.
    expected: rules_of.ExposureRule = "auto"
    min_exposures: int = 2  # a bracket with fewer is not merged
    timezone: tzinfo = UTC  # of the timestamps in the names


@dataclass(frozen=True, slots=True)
class ArchiveBracket:
    """The exposures of one slot."""

    slot: datetime  # naive, in the clock of the names
    exposures: tuple[Exposure, ...]  # each time once, rising; paths relative to the archive
    files: tuple[Exposure, ...]  # all files of the slot, repeated exposures included
    expected: int | None = None  # exposures of a complete bracket, where known
    complete: bool = False  # whether all of them are there
    missing: tuple[float, ...] = ()  # exposure times that a complete bracket has and this one lacks
    # Between the beginnings of the brackets in this slot, where it holds several.
    intervals: tuple[timedelta, ...] = ()
    # Files without a usable exposure time: paths and reasons.
    unusable: tuple[tuple[str, str], ...] = ()

    @property
    def first(self) -> Exposure:
        """The exposure taken first."""
        return min(self.exposures, key=lambda e: (e.timestamp, e.path))

    @property
    def superseded(self) -> tuple[tuple[Exposure, Exposure], ...]:
        """Files that are not used, and for each the one of the same exposure time that is."""
        chosen = {e.nominal_us: e for e in self.exposures}
        pairs = ((e, chosen[e.nominal_us]) for e in self.files)
        return tuple((e, winner) for e, winner in pairs if winner.path != e.path)

    def why_unusable(self, min_exposures: int) -> str | None:
        """Say why there is too little in it, or too much, naming a file; None if there is not.

        Parameters
        ----------
        min_exposures : int
        """
        name, count = shown(self.first.path), len(self.exposures)
        if (too_many := rules_of.why_too_many(e.nominal_us for e in self.exposures)) is not None:
            return f"{name}: {too_many}"
        if count == 1 and len(self.files) > 1:
            return (
                f"{name}: all {len(self.files)} exposures of the bracket have the same exposure"
                f" time ({self.first.exposure_us:.12g} µs)"
            )
        if count == 1:
            return f"{name}: is the only exposure of its bracket"
        if count < min_exposures:
            return f"{name}: its bracket has {count} exposures, fewer than {min_exposures}"
        return None


def walk_images(
    directory: str | os.PathLike[str], extensions: frozenset[str] = IMAGE_EXTENSIONS
) -> Iterator[str]:
    """List image files of a folder and its sub-folders, as sorted paths relative to it.

    Products, hidden folders and hidden files are left out; symbolic links are not followed.

    Parameters
    ----------
    directory : path-like
        FileNotFoundError or NotADirectoryError if it is none.
    extensions : frozenset of str
        Lower case, without dot; those of the files may be in any case.
    """
    root = os.fspath(directory)
    if not os.path.exists(root):  # noqa: PTH110 - names may hold undecodable bytes
        raise FileNotFoundError(f"{shown(root)}: no such folder")
    if not os.path.isdir(root):  # noqa: PTH112
        raise NotADirectoryError(f"{shown(root)}: is a file, not a folder")
    for folder, subfolders, names in os.walk(root, onerror=_log_unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = folder[len(root) :].strip("/")
        for name in sorted(names):
            extension = name.rpartition(".")[2].lower()
            if extension in extensions and not is_hidden(name) and not is_product_name(name):
                yield f"{below}/{name}" if below else name


def _log_unreadable(error: OSError) -> None:
    log.warning("%s is left out: %s", shown(error.filename or "a folder"), error.strerror)


def find_brackets(
    directory: str | os.PathLike[str], rules: ArchiveRules
) -> tuple[list[ArchiveBracket], list[str]]:
    """Find the brackets of a folder or an archive, in the order of time, and what is doubtful.

    Parameters
    ----------
    directory : path-like
        FileNotFoundError or NotADirectoryError if it is none.
    rules : ArchiveRules
    """
    root = os.fspath(directory)
    slots: dict[datetime, list[Exposure]] = {}
    unusable: dict[datetime, list[tuple[str, str]]] = {}
    nameless = Nameless("timestamp and exposure")
    # Labels are seen in the first names: those of all files are much to hold.
    some: dict[str, ParsedName | None] = {}
    held: dict[float, float] = {}  # each exposure time once: there may be a million files
    for path in walk_images(root, rules.extensions):
        name = path.rpartition("/")[2]
        if not rules.wants(name):
            continue
        parsed = rules.parse(name)
        if len(some) < _NAMES_HELD:
            some[path] = parsed
        if parsed is None:
            nameless.add(path)
            continue
        slot = rules_of.slot_of(parsed.timestamp, rules.round_to, rules.offset)
        try:
            time, nominal = rules.times.of(parsed.exposure_us, _stated_us(root, path, rules))
        except ValueError as error:
            unusable.setdefault(slot, []).append((path, str(error)))
            continue
        time, nominal = (held.setdefault(value, value) for value in (time, nominal))
        exposure = Exposure(path, parsed.timestamp, time, nominal_us=nominal)
        slots.setdefault(slot, []).append(exposure)
    nameless.log()
    brackets = [_bracket_of(slot, slots.pop(slot), root) for slot in sorted(slots)]
    if unusable:
        brackets = [replace(b, unusable=tuple(unusable.get(b.slot, ()))) for b in brackets]
    _log_superseded(brackets)
    doubts = [*_doubts_of_slots(brackets, rules), *_labels_taken_for_times(some)]
    if unusable:
        path, reason = next(iter(unusable.values()))[0]
        count = counted(sum(map(len, unusable.values())), "file")
        doubts.append(f"{count} cannot be used, such as {shown(path)}: {reason}")
    for doubt in doubts:
        log.warning("%s", doubt)
    _judge(brackets, rules_of.ExpectedExposures(rules.expected, rules.times.tolerance))
    return brackets, doubts


def _stated_us(root: str, path: str, rules: ArchiveRules) -> float | None:
    """Read the exposure time in a file's metadata, where that counts."""
    if rules.times.source == "name":
        return None
    from asi_watch.images import read_stated

    try:
        return read_stated(f"{root}/{path}").exposure_us
    except OSError:
        return None


def _bracket_of(slot: datetime, exposures: Sequence[Exposure], root: str) -> ArchiveBracket:
    """Build one bracket, deciding between files of the same exposure time."""
    if len({e.nominal_us for e in exposures}) == len(exposures):
        rising = tuple(sorted(exposures, key=lambda e: e.nominal_us))
        return ArchiveBracket(slot, rising, rising)
    files = tuple(_with_signature(exposure, root) for exposure in exposures)
    chosen = rules_of.chosen_files(files)
    rising = tuple(chosen[t] for t in sorted(chosen))
    # One exposure that was sent again after a pause is no second bracket.
    starts = [part[0].timestamp for part in rules_of.brackets_among(files) if len(part) > 1]
    intervals = tuple(b - a for a, b in pairwise(starts))
    return ArchiveBracket(slot, rising, files, intervals=intervals)


def _with_signature(exposure: Exposure, root: str) -> Exposure:
    """Return an exposure with the size and time that its file has now, if it is there."""
    try:
        status = os.lstat(f"{root}/{exposure.path}")
    except OSError:
        return exposure
    return replace(exposure, size=status.st_size, mtime_ns=status.st_mtime_ns)


def _judge(brackets: list[ArchiveBracket], expected: rules_of.ExpectedExposures) -> None:
    """Say of each bracket whether it is complete, by the rule that the daemon goes by."""
    judged = 0
    for number, bracket in enumerate(brackets):
        expected.observe(e.nominal_us for e in bracket.exposures)
        count = expected.count()
        if count is None:
            continue
        # In hindsight the brackets before the rule was learned are judged by it too.
        for at in range(judged, number + 1):
            present = {e.nominal_us for e in brackets[at].exposures}
            # A bracket with other times besides belongs to another set of exposures.
            lacking = expected.lacking(present)
            missing = lacking if len(lacking) + len(present) == count else ()
            complete = expected.is_complete(present)
            brackets[at] = replace(brackets[at], expected=count, complete=complete, missing=missing)
        judged = number + 1


# --- what names make doubtful ---------------------------------------------------------------------


def _doubts_of_slots(brackets: Sequence[ArchiveBracket], rules: ArchiveRules) -> list[str]:
    doubts = (
        *(_clash(brackets), _slots_too_long(brackets), _slots_cut(brackets)),
        *(_times_too_long(brackets, rules.round_to), _times_not_listed(brackets, rules)),
    )
    return [text for text in doubts if text is not None]


def _labels_taken_for_times(files: Mapping[str, ParsedName | None]) -> list[str]:
    """Name the first file whose label was read as an exposure time, or as nothing."""
    labels = unclear_labels(files)
    for path, parsed in files.items() if labels else ():
        label = path.rpartition(".")[0].rpartition("_")[2]
        if label not in labels:
            continue
        number = int(label)
        if parsed is None or parsed.exposure_us in (number, number * 1e3, number * 1e6):
            return [
                f"{shown(path)} ends in a label, it seems, and not in an exposure time; add what it"
                " means to the camera's exposure_labels in a configuration file (-c)"
            ]
    return []


def _times_too_long(brackets: Sequence[ArchiveBracket], round_to: timedelta) -> str | None:
    for bracket in brackets:
        times = [e.exposure_us / 1e6 for e in bracket.exposures]
        # The last one may end behind the slot.
        if sum(times) - max(times) > round_to.total_seconds():
            return (
                f"{shown(bracket.first.path)}: the exposures of its bracket last {sum(times):g} s"
                f" together, longer than a slot of {format_duration(round_to)}: is the unit of the"
                " exposure times right?"
            )
    return None


def _times_not_listed(brackets: Sequence[ArchiveBracket], rules: ArchiveRules) -> str | None:
    files = [e for bracket in brackets for e in bracket.exposures]
    rule = rules.expected, rules.times.tolerance
    others = [e for e in files if not rules_of.is_listed(e.nominal_us, *rule)]
    if not others:
        return None
    return (
        f"{len(others)} of {len(files)} exposures have a time that is not in bracket.exposures,"
        f" such as {shown(others[0].path)} with {others[0].exposure_us:.12g} µs; are these and"
        " exposure_unit right?"
    )


def _slots_cut(brackets: Sequence[ArchiveBracket]) -> str | None:
    slots = {e.path: bracket.slot for bracket in brackets[-_LOOKED_AT:] for e in bracket.files}
    parts = rules_of.brackets_among(e for bracket in brackets[-_LOOKED_AT:] for e in bracket.files)
    # The first and the last may be cut by what was not looked at.
    whole = [part for part in parts[1:-1] if len(part) > 1]
    cut = sum(len({slots[e.path] for e in part}) > 1 for part in whole)
    if cut < 2 or 2 * cut < len(whole):
        return None
    return (
        f"the edges of slots cut {cut} of the {len(whole)} newest brackets in two, and exposures of"
        " different brackets are merged: write bracket.offset in a configuration file, as"
        " `asi-watch check` suggests, to be given with -c"
    )


def _slots_too_long(brackets: Sequence[ArchiveBracket]) -> str | None:
    doubled = [b for b in brackets if b.intervals]
    if not doubled:
        return None
    usual = median_low([interval for b in doubled for interval in b.intervals])
    fitting = [length for length in _LENGTHS if length <= usual + _JITTER]
    several = max(len(b.intervals) + 1 for b in doubled)
    held = "two brackets" if several == 2 else f"up to {several} brackets"
    slots = "1 slot" if len(doubled) == 1 else f"{len(doubled)} slots"
    return (
        f"slots are longer than the interval between brackets: {slots} held {held}, of which one"
        f" is merged; use round_to {format_duration(max(fitting, default=_JITTER))}"
    )


def _clash(brackets: Sequence[ArchiveBracket]) -> str | None:
    for loser, winner in (pair for bracket in brackets for pair in bracket.superseded):
        theirs, ours = (PurePosixPath(e.path).parent for e in (loser, winner))
        if theirs != ours and loser.timestamp == winner.timestamp:
            return (
                f"{shown(ours)} and {shown(theirs)} hold the same exposures of the same brackets:"
                " if they are two cameras', merge each folder by itself"
            )
    return None


@dataclass(slots=True)
class Nameless:
    """Counts files whose names lack something."""

    what: str
    count: int = 0
    example: str = ""

    def add(self, path: str) -> None:
        """Count one.

        Parameters
        ----------
        path : str
        """
        self.count, self.example = self.count + 1, self.example or path

    def log(self) -> None:
        """Say how many were skipped, if there were any."""
        if self.count:
            text = "%d files skipped: no %s in their names, e.g. %s"
            log.warning(text, self.count, self.what, shown(self.example))


def _log_superseded(brackets: Sequence[ArchiveBracket]) -> None:
    """Log which files are not used for the sake of others."""
    lines = [
        f"{shown(loser.path)} is not used unless {shown(winner.path)} cannot be read, which has the"
        " same exposure time and "
        + ("was written later" if winner.written > loser.written else "is of the bracket merged")
        for bracket in brackets
        for loser, winner in bracket.superseded
    ]
    _log_first(lines, "files that are not used, for the same reasons")


def _log_first(lines: Sequence[str], others: str) -> None:
    """Warn with the first of many lines, and count the others."""
    for line in lines[:SHOWN]:
        log.warning("%s", line)
    if len(lines) > SHOWN:
        log.warning("and %d more %s", len(lines) - SHOWN, others)
