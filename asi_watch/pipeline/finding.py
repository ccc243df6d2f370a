"""From a folder or an archive to its brackets, in the order of time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal

from asi_watch.brackets import ExpectedExposures, Exposure, brackets_among, chosen_files, slot_of
from asi_watch.files import shown
from asi_watch.naming import ParsedName, is_hidden, is_product_name, unclear_labels
from asi_watch.pipeline.archive_bracket import ArchiveBracket
from asi_watch.pipeline.doubles import log_superseded
from asi_watch.pipeline.naming import parse_name

__all__ = [
    "IMAGE_EXTENSIONS",
    "ArchiveRules",
    "bracket_of",
    "find_brackets",
    "label_taken_for_time",
    "walk_images",
]

log = logging.getLogger(__name__)

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "jp2"})


def _as_utc(timestamp: datetime) -> datetime:
    return timestamp.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ArchiveRules:
    """What the names of an archive mean and which exposures belong together.

    Parameters
    ----------
    round_to, offset : timedelta
        See `asi_watch.brackets.slot_of`.
    parse : callable
        File name to timestamp and exposure; None for a name that is not an exposure's.
    extensions : frozenset of str
        Lower case, without dot.
    expected : tuple of float, int or "auto"
        What a complete bracket holds; see `asi_watch.brackets.ExpectedExposures`.
    min_exposures : int
        A bracket with fewer is not merged.
    to_utc : callable
        From the clock of the names to UTC.
    configured : bool
        True when a configuration file says all this.
    """

    round_to: timedelta = timedelta(seconds=30)
    offset: timedelta = timedelta(0)
    parse: Callable[[str], ParsedName | None] = parse_name
    extensions: frozenset[str] = IMAGE_EXTENSIONS
    expected: tuple[float, ...] | int | Literal["auto"] = "auto"
    min_exposures: int = 2
    to_utc: Callable[[datetime], datetime] = field(default=_as_utc)
    configured: bool = False

    def slot_of(self, timestamp: datetime) -> datetime:
        """Slot of a timestamp under these rules."""
        return slot_of(timestamp, self.round_to, self.offset)


def walk_images(
    directory: str | os.PathLike[str], extensions: frozenset[str] = IMAGE_EXTENSIONS
) -> Iterator[str]:
    """List image files of a folder and its sub-folders, products left out.

    Parameters
    ----------
    directory : path-like
        Symbolic links below it and hidden folders are not followed.
    extensions : frozenset of str
        Lower case, without dot; those of the files may be in any case.

    Yields
    ------
    str
        Paths relative to `directory`, sorted folder by folder.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder, or it is a file.
    """
    root = os.fspath(directory)
    if not os.path.exists(root):  # noqa: PTH110 - names may hold undecodable bytes
        raise FileNotFoundError(f"{shown(root)}: no such folder")
    if not os.path.isdir(root):  # noqa: PTH112
        raise NotADirectoryError(f"{shown(root)}: is a file, not a folder")
    for folder, subfolders, names in os.walk(root, onerror=_unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = folder[len(root) :].strip("/")
        for name in sorted(names):
            extension = name.rpartition(".")[2].lower()
            if extension in extensions and not is_hidden(name) and not is_product_name(name):
                yield f"{below}/{name}" if below else name


def find_brackets(directory: str | os.PathLike[str], rules: ArchiveRules) -> list[ArchiveBracket]:
    """Find the brackets of a folder or an archive.

    Parameters
    ----------
    directory : path-like
    rules : ArchiveRules

    Returns
    -------
    list of ArchiveBracket
        Rising slots. Of several files of one exposure time in a slot, one counts
        (`asi_watch.brackets.chosen_files`), and the log names the others. Files whose name is
        not an exposure's are counted there.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder, or it is a file.
    """
    root = os.fspath(directory)
    slots: dict[datetime, list[Exposure]] = {}
    nameless: list[str] = []
    named: list[tuple[str, ParsedName | None]] = []
    for path in walk_images(root, rules.extensions):
        parsed = rules.parse(path.rpartition("/")[2])
        named.append((path, parsed))
        if parsed is None:
            nameless.append(path)
            continue
        slot = rules.slot_of(parsed.timestamp)
        exposure = Exposure(path, parsed.timestamp, parsed.exposure_us)
        slots.setdefault(slot, []).append(exposure)
    log_nameless(nameless, "timestamp and exposure")
    labelled = label_taken_for_time(named)
    if labelled is not None:
        log.warning(
            "%s ends in a label, it seems, and not in an exposure time; %s",
            shown(labelled),
            "add what it means to the camera's exposure_labels"
            if rules.configured
            else "exposure_labels in a configuration file says what labels mean, to be given with"
            " -c",
        )
    brackets = [bracket_of(slot, slots[slot], root) for slot in sorted(slots)]
    log_superseded(brackets)
    return _judged(brackets, ExpectedExposures(rules.expected))


def bracket_of(slot: datetime, exposures: Sequence[Exposure], root: str) -> ArchiveBracket:
    """Build one bracket, deciding between files of the same exposure time."""
    if len({e.exposure_us for e in exposures}) == len(exposures):
        rising = sorted(exposures, key=lambda e: e.exposure_us)
        return ArchiveBracket(slot, tuple(rising), len(exposures))
    dated = [_dated(exposure, root) for exposure in exposures]
    chosen = chosen_files(dated)
    starts = [bracket[0].timestamp for bracket in brackets_among(dated)]
    return ArchiveBracket(
        slot,
        tuple(chosen[t] for t in sorted(chosen)),
        len(exposures),
        superseded=tuple(
            (e, winner) for e in dated if (winner := chosen[e.exposure_us]).path != e.path
        ),
        intervals=tuple(b - a for a, b in pairwise(starts)),
    )


def label_taken_for_time(
    files: Iterable[tuple[str, ParsedName | Exposure | None]],
) -> str | None:
    """Find a name whose label was read as an exposure time, or as nothing.

    Parameters
    ----------
    files : iterable of (str, ParsedName, Exposure or None)
        Paths of one camera, and what their names were read as.

    Returns
    -------
    str or None
        The first such path.
    """
    given = list(files)
    labels = unclear_labels(path for path, _ in given)
    if not labels:
        return None
    for path, parsed in given:
        label = path.rpartition(".")[0].rpartition("_")[2]
        if label not in labels:
            continue
        number = int(label)
        if parsed is None or parsed.exposure_us in (number, number * 1e3, number * 1e6):
            return path
    return None


def log_nameless(paths: Sequence[str], what: str) -> None:
    """Log how many files were skipped for their names."""
    if paths:
        log.warning(
            "%d files skipped: no %s in their names, e.g. %s", len(paths), what, shown(paths[0])
        )


def _dated(exposure: Exposure, root: str) -> Exposure:
    if exposure.mtime_ns:
        return exposure
    try:
        status = os.lstat(f"{root}/{exposure.path}")
    except OSError:
        return exposure
    return replace(exposure, mtime_ns=status.st_mtime_ns)


def _judged(brackets: list[ArchiveBracket], expected: ExpectedExposures) -> list[ArchiveBracket]:
    """Say of each bracket whether it is complete, by the rule that the daemon goes by."""
    judged: list[ArchiveBracket] = []
    unknown: list[ArchiveBracket] = []
    for bracket in brackets:
        times = [e.exposure_us for e in bracket.exposures]
        expected.observe(times)
        if expected.count() is None:
            unknown.append(bracket)
            continue
        # In hindsight the brackets before the rule was learned are judged by it too.
        for one in (*unknown, bracket):
            complete = expected.is_complete(e.exposure_us for e in one.exposures)
            judged.append(replace(one, expected=expected.count(), complete=complete))
        unknown.clear()
    return judged + unknown


def _unreadable(error: OSError) -> None:
    log.warning("%s is left out: %s", shown(error.filename or "a folder"), error.strerror)
