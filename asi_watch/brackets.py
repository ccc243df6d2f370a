"""Exposures, time-rounded slots, complete brackets and duplicates: pure code, for live and batch.

A slot that is longer than the interval between brackets holds two of them. Taken exposure by
exposure, the newest files could come from both, half a minute of moving clouds apart; so one
bracket is preferred, and another only supplies exposure times that it lacks.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Final, Literal

MAX_EXPOSURES: Final = 64  # more are no bracket, and cost memory
# How the reason of a file begins that gives way to another, and of one that the merge left out.
SUPERSEDED: Final = "superseded by "
CONTRADICTS: Final = "contradicts "
TOLERANCE: Final = 0.1  # names round exposure times
# Exposure times in µs that a camera may state.
_SHORTEST, _LONGEST = 0.1, 3.6e9
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)

# How many closed brackets `exposures: auto` looks back on, and how many must agree.
_RECENT_BRACKETS, _AGREEING_BRACKETS = 7, 2
# Names count whole seconds: a gap of one may be any between nothing and two.
_UNCERTAIN = timedelta(seconds=1)
_CLEARLY_WIDER = 2
_ALIKE = 2


@dataclass(frozen=True, slots=True)
class Exposure:
    """One frame of a bracket."""

    path: str  # the file, relative to the camera's watch folder (undecodable bytes as surrogates)
    timestamp: datetime  # naive, in the clock of the file name
    exposure_us: float  # exposure time in microseconds
    size: int = 0  # the state of the file when it was read
    mtime_ns: int = 0
    inode: int = 0
    # What it counts as among the exposures of its bracket: `exposure_us`, unless that comes from
    # the file's metadata, which differ a little from bracket to bracket.
    nominal_us: float = 0.0

    def __post_init__(self) -> None:
        if not self.nominal_us:
            object.__setattr__(self, "nominal_us", self.exposure_us)

    @property
    def signature(self) -> tuple[int, int]:
        """What distinguishes one state of a file from another; a moved archive keeps it."""
        return (self.size, self.mtime_ns)

    @property
    def written(self) -> tuple[int, datetime, str]:
        """What decides which of two files of the same exposure wins: the one written later."""
        return (self.mtime_ns, self.timestamp, self.path)


def slot_of(timestamp: datetime, round_to: timedelta, offset: timedelta = timedelta(0)) -> datetime:
    """Floor `timestamp - offset` to a multiple of `round_to` since 1970, as pandas' floor does.

    Parameters
    ----------
    timestamp : datetime
        Naive time of the file name.
    round_to : timedelta
        Length of a slot, positive.
    offset : timedelta
        For cameras whose brackets straddle the slot's edge.
    """
    ticks = (timestamp - offset - _EPOCH) // _MICROSECOND
    step = round_to // _MICROSECOND
    return _EPOCH + (ticks - ticks % step) * _MICROSECOND


ExposureRule = tuple[float, ...] | int | Literal["auto"]
"""`bracket.exposures`: the times of a complete bracket in µs, their number, or to be learned."""


def is_listed(exposure_us: float, rule: ExposureRule, tolerance: float = TOLERANCE) -> bool:
    """Tell whether a time is one of those that a rule lists; True if it lists none.

    Parameters
    ----------
    exposure_us : float
    rule : ExposureRule
    tolerance : float
        How far it may lie from a listed time, as a share of that.
    """
    return not isinstance(rule, tuple) or any(_alike(exposure_us, t, tolerance) for t in rule)


def _alike(exposure_us: float, nominal_us: float, tolerance: float) -> bool:
    return abs(exposure_us - nominal_us) <= tolerance * nominal_us


@dataclass(frozen=True, slots=True)
class ExposureTimes:
    """Where a camera's exposure times come from, and how far they may lie from nominal ones."""

    source: Literal["name", "metadata", "auto"] = "name"
    tolerance: float = TOLERANCE
    rule: ExposureRule = "auto"

    def of(self, named_us: float, stated_us: float | None) -> tuple[float, float]:
        """Return a file's exposure time and what it counts as; ValueError says why it has none.

        Parameters
        ----------
        named_us : float
            What its name says, 0 if nothing.
        stated_us : float or None
            What its metadata state, in µs.
        """
        if self.source == "name" or (self.source == "auto" and stated_us is None and named_us):
            return named_us, named_us
        if stated_us is None:
            raise ValueError("its metadata do not state its exposure time")
        if not _SHORTEST <= stated_us <= _LONGEST:
            raise ValueError(f"its metadata state an exposure time of {stated_us:.12g} µs")
        if not named_us:
            return stated_us, self._nominal(stated_us)
        if not _alike(stated_us, named_us, self.tolerance):
            raise ValueError(
                f"its metadata state an exposure time of {stated_us:.12g} µs, its name"
                f" {named_us:.12g} µs: more apart than exposure_tolerance, {self.tolerance:g}"
            )
        return stated_us, named_us

    def _nominal(self, stated_us: float) -> float:
        """Give the listed time that a time of the metadata stands for, or else a round one."""
        times = self.rule if isinstance(self.rule, tuple) else ()
        near = [time for time in times if _alike(stated_us, time, self.tolerance)]
        if near:
            return min(near, key=lambda time: abs(stated_us - time))
        step = math.log1p(2 * self.tolerance)
        if not step:
            return stated_us
        return float(f"{math.exp(step * round(math.log(stated_us) / step)):.3g}")


BY_NAME: Final = ExposureTimes()


@dataclass(slots=True)
class ExpectedExposures:
    """What a complete bracket of one camera holds; learns it where the rules say ``auto``."""

    rule: ExposureRule
    tolerance: float = TOLERANCE
    _recent: deque[frozenset[float]] = field(
        default_factory=lambda: deque(maxlen=_RECENT_BRACKETS), init=False
    )

    def observe(self, exposures: Iterable[float]) -> None:
        """Learn from a bracket that is over; one without any usable exposure teaches nothing.

        Parameters
        ----------
        exposures : Iterable[float]
            In µs.
        """
        if present := frozenset(exposures):
            self._recent.append(present)

    def expected(self) -> frozenset[float] | None:
        """Return the expected exposure times, or None where only a count is, or nothing yet."""
        if isinstance(self.rule, tuple):
            return frozenset(self.rule)
        return self._learned() if self.rule == "auto" else None

    def count(self) -> int | None:
        """Return how many exposures a complete bracket has; None while that is unknown."""
        if isinstance(self.rule, int):
            return self.rule
        expected = self.expected()
        return None if expected is None else len(expected)

    def is_complete(self, exposures: Iterable[float]) -> bool:
        """Tell whether these exposure times make a complete bracket.

        Parameters
        ----------
        exposures : Iterable[float]
            In µs.
        """
        present = frozenset(exposures)
        if isinstance(self.rule, int):
            return len(present) >= self.rule
        expected = self.expected()
        return expected is not None and not self.lacking(present)

    def lacking(self, exposures: Iterable[float]) -> tuple[float, ...]:
        """Return the expected times that are not there; of a list, with tolerance.

        Parameters
        ----------
        exposures : Iterable[float]
            In µs.
        """
        if not isinstance(self.rule, tuple):
            return tuple(sorted((self.expected() or frozenset()).difference(exposures)))
        present, lacking = deque(sorted(exposures)), []
        for time in sorted(self.rule):
            # Each exposure stands for one listed time, the shortest that it can.
            while present and present[0] < (1 - self.tolerance) * time:
                present.popleft()
            if present and _alike(present[0], time, self.tolerance):
                present.popleft()
            else:
                lacking.append(time)
        return tuple(lacking)

    def _learned(self) -> frozenset[float] | None:
        # The commonest set wins, among equals the newest: a camera that changes its exposures at
        # dusk is followed after four brackets, which wait for their grace. If it was part of a
        # larger one twice, that is waited for: closing too early costs a second merge.
        counts = Counter(self._recent)
        agreeing = [s for s in reversed(self._recent) if counts[s] >= _AGREEING_BRACKETS]
        if not agreeing:
            return None
        commonest = max(agreeing, key=lambda s: counts[s])
        return max((s for s in agreeing if s >= commonest), key=len)


def chosen_files(files: Iterable[Exposure]) -> dict[float, Exposure]:
    """Choose one file for each exposure time.

    Of several brackets (`brackets_among`) the one with the most exposures is preferred, among
    equals the later. Within a bracket, and for exposure times that the preferred one lacks, the
    file written last is taken.

    Parameters
    ----------
    files : iterable of Exposure
        The usable ones of one slot.
    """
    given = sorted(files, key=lambda e: e.written)
    newest = {e.nominal_us: e for e in given}  # the last one of each time
    if len(newest) == len(given):
        return newest
    preferred = max(brackets_among(given), key=lambda b: (len(_times(b)), b[0].timestamp))
    return newest | {e.nominal_us: e for e in sorted(preferred, key=lambda e: e.written)}


def brackets_among(files: Iterable[Exposure]) -> list[list[Exposure]]:
    """Find the brackets of one slot, by the timestamps of their names, in their order.

    There are several where an exposure time comes twice with different timestamps, and either
    the pause between brackets is clearly longer than those within, or brackets without a pause
    repeat at least two exposure times in the same order. A single exposure that was repeated makes
    no bracket, nor do exposures that go up and down again.

    Parameters
    ----------
    files : iterable of Exposure
    """
    rising = sorted(files, key=lambda e: (e.timestamp, e.nominal_us, e.path))
    if not _repeats(rising):
        return [rising]
    moments = [list(group) for _, group in groupby(rising, key=lambda e: e.timestamp)]
    return _apart_by_pauses(moments) or _apart_by_repetition(moments) or [rising]


def why_superseded(exposure: Exposure, winner: Exposure) -> str:
    """Say why a file is not used, the winner having been chosen instead.

    Parameters
    ----------
    exposure, winner : Exposure
    """
    if winner.written > exposure.written:
        return f"{SUPERSEDED}the newer {winner.path}"
    return f"{SUPERSEDED}{winner.path}: the slot holds two brackets, and that one is preferred"


def why_too_many(exposures_us: Iterable[float]) -> str | None:
    """Say why a slot has too many exposure times to be a bracket; None if it has not.

    Parameters
    ----------
    exposures_us : iterable of float
        Those of one slot.
    """
    count = len(set(exposures_us))
    if count <= MAX_EXPOSURES:
        return None
    return (
        f"{count} exposure times in one slot, at most {MAX_EXPOSURES} are merged; do the names give"
        " the exposure where `filename` says, and is round_to as long as the camera's interval?"
    )


def _apart_by_pauses(moments: Sequence[list[Exposure]]) -> list[list[Exposure]] | None:
    """Cut at the shortest of the long pauses that leave brackets which repeat no exposure.

    Or that leave brackets which repeat the same ones in the same order: up and down each.
    """
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
        orders = {tuple(e.nominal_us for e in part) for part in parts}
        if not all(_times(a) & _times(b) for a, b in pairwise(parts)) or max(map(len, parts)) == 1:
            continue  # pieces of one bracket
        if not any(map(_repeats, parts)) or (len(orders) == 1 and len(parts) > 1):
            return parts
    return None


def _apart_by_repetition(moments: Sequence[list[Exposure]]) -> list[list[Exposure]] | None:
    """Cut where an exposure time comes again in the same order; for cameras that never pause."""
    parts: list[list[Exposure]] = [[]]
    for moment in moments:
        if _times(parts[-1]) & _times(moment):
            parts.append([])
        parts[-1] += moment
    return parts if all(_same_order(a, b) for a, b in pairwise(parts)) else None


def _same_order(first: Sequence[Exposure], second: Sequence[Exposure]) -> bool:
    """Tell whether two parts share exposure times, and have these in the same order."""
    common = _times(first) & _times(second)
    a, b = ([e for e in part if e.nominal_us in common] for part in (first, second))
    # With one timestamp for all of them, as names count whole seconds, their order is not known.
    known = all(len({e.timestamp for e in part}) > 1 for part in (a, b))
    same = [e.nominal_us for e in a] == [e.nominal_us for e in b]
    return len(common) >= _ALIKE and known and same


def _repeats(files: Iterable[Exposure]) -> bool:
    """Tell whether an exposure time comes with different timestamps."""
    seen = {(e.nominal_us, e.timestamp) for e in files}
    return len(seen) > len({time for time, _ in seen})


def _times(files: Iterable[Exposure]) -> set[float]:
    return {e.nominal_us for e in files}
