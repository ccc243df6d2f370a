"""A whole archive merged: all brackets, on any executor, none stopping the others.

A run may be interrupted and repeated, and several may work on one archive: what stands already,
made in the same way of the same files, is left, and each bracket in work is claimed by one run.
"""

import logging
import os
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from asi_watch import errors
from asi_watch.brackets import Exposure, chosen_files, why_superseded
from asi_watch.buffers import BufferPool
from asi_watch.errors import AsiWatchError, BracketError, ImageError
from asi_watch.files import counted, shown
from asi_watch.frames import Frames
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.response import ResponseCurve
from asi_watch.merge_bracket import Bracket, Failed, Kept, MergePlan, Published, merge_bracket
from asi_watch.pipeline import find_brackets as found
from asi_watch.pipeline.claims import Claims
from asi_watch.pipeline.curves import CurveHistory, _calibrated_for
from asi_watch.pipeline.find_brackets import SHOWN, ArchiveBracket, ArchiveRules
from asi_watch.pipeline.run_report import BracketOutcome, ReportFile, progress
from asi_watch.processes import usable_cores
from asi_watch.products.provenance import Unusable
from asi_watch.products.publish import OutputFolder
from asi_watch.products.spec import ProductSpec

log = logging.getLogger(__name__)

_LOOK_AGAIN_AFTER = 1.0  # seconds, for brackets that another run has claimed
_buffers = BufferPool(1 << 30)  # shared by the threads of all runs in this process


@dataclass(slots=True)
class ArchiveSummary:
    """What became of an archive."""

    brackets: int
    # What the names alone make doubtful: slots with several brackets, two cameras, labels.
    doubts: list[str] = field(default_factory=list)
    merged: int = 0
    stood: int = 0  # their products were there already
    products: int = 0  # files written
    left_out: int = 0  # exposures
    incomplete: list[tuple[datetime, tuple[float, ...]]] = field(default_factory=list)
    doubtful: int = 0  # brackets whose products are noted to be doubtful
    failures: list[tuple[datetime, str]] = field(default_factory=list)
    seconds: float = 0.0
    calibrating: float | None = None  # seconds; None if a curve was given
    curve: ResponseCurve | None = None  # what most brackets were merged with
    skipped: int = 0  # brackets that the run was interrupted before
    dry_run: bool = False  # nothing was written; `merged` counts what would be

    def _add(self, outcome: BracketOutcome) -> None:
        self.merged += outcome.state == "published"
        self.stood += outcome.stood
        self.skipped += outcome.skipped
        if outcome.missing:
            self.incomplete.append((outcome.slot, outcome.missing))
        self.products += 0 if outcome.stood else len(outcome.products)
        self.left_out += len(outcome.left_out)
        self.doubtful += bool(outcome.notes)
        if outcome.error is not None:
            self.failures.append((outcome.slot, str(outcome.error)))

    @property
    def flawless(self) -> bool:
        """Whether every bracket was merged from all of its exposures."""
        flaws = self.failures or self.left_out or self.incomplete or self.doubts
        return not (flaws or self.skipped)

    def sentence(self) -> str:
        """Say it in one sentence."""
        text = f"{self.merged} of {counted(self.brackets, 'bracket')} "
        text += "would be merged" if self.dry_run else f"merged in {self.seconds:.1f} s"
        if self.merged and self.seconds > 0 and not self.dry_run:
            text += f" ({self.merged / self.seconds:.1f} per second)"
        if self.calibrating is not None:
            text += f", after {self.calibrating:.1f} s of calibration"
        text += f", {counted(self.products, 'file')} {'to write' if self.dry_run else 'written'}"
        counts = (
            ("interrupted before {}", self.skipped, "bracket"),
            ("the products of {} stood already", self.stood, "bracket"),
            ("{} not merged", len(self.failures), "bracket"),
            ("{} left out", self.left_out, "exposure"),
            ("{} with missing exposures", len(self.incomplete), "bracket"),
            ("{} with doubtful products", self.doubtful, "bracket"),
        )
        parts = [what.format(counted(number, unit)) for what, number, unit in counts if number]
        return "; ".join((text, *parts, *self.doubts))


@dataclass(frozen=True)
class RunChoices:
    """Which brackets of an archive a run works on, by the clock of their names, and how."""

    since: datetime | None = None  # slots from this one on
    until: datetime | None = None  # and before this one
    slots: frozenset[datetime] = frozenset()  # these alone, where there are any
    dry_run: bool = False  # say what would be merged, and write nothing
    report: Path | None = None  # where a table of these brackets goes, .csv or .json
    # When set, the brackets in work are finished and no other is begun.
    stop: threading.Event = field(default_factory=threading.Event)

    def holds(self, slot: datetime) -> bool:
        """Tell whether a slot is one of them.

        Parameters
        ----------
        slot : datetime
        """
        after = self.since is None or self.since <= slot
        before = self.until is None or slot < self.until
        return after and before and (not self.slots or slot in self.slots)


def merge_archive(
    directory: str | os.PathLike[str],
    save_dir: str | os.PathLike[str],
    *,
    rules: ArchiveRules,
    settings: MergeSettings,
    curves: Sequence[ResponseCurve] = (),
    products: Sequence[ProductSpec],
    camera: str | None = None,
    geometry: Mapping[str, str | float] | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    leave_out_unreadable: bool = False,
    without_response: Literal["mertens", "refuse"] = "refuse",
    force: bool = False,
    run: RunChoices | None = None,
) -> ArchiveSummary:
    """Merge every bracket of a folder or an archive.

    Raises FileNotFoundError or NotADirectoryError without a folder, BracketError without exposures
    or a curve that explains them, ValueError if settings and products do not go together.

    Parameters
    ----------
    directory, save_dir : path-like
        They may be the same, or one inside the other: products are never taken for exposures.
    rules : ArchiveRules
    settings : MergeSettings
    curves : sequence of ResponseCurve
        One for each number of channels, or a `CurveHistory`, from which each bracket takes those
        of its time. Without any, unless the algorithm is `mertens`, curves are calibrated from the
        archive, in memory.
    products : sequence of ProductSpec
    camera, geometry : str, mapping, optional
        Noted in the products; the camera is the folder's name by default.
    workers : int, optional
        Threads; 0 merges in the calling thread, None takes one per core.
    executor : concurrent.futures.Executor, optional
        In place of threads: processes, or a cluster that sees the same folders; `workers` of it.
    leave_out_unreadable : bool
        Merge what is left of a bracket with unreadable images; else it is refused.
    without_response : {"mertens", "refuse"}
        What becomes of brackets whose images have other channels than every curve.
    force : bool
        Replace whatever stands, and merge even with a calibrated curve that cannot explain the
        images.
    run : RunChoices, optional
    """
    run = run or RunChoices()
    count = _checked_workers(usable_cores() if workers is None else workers)
    report, root = ReportFile(run.report) if run.report else None, os.fspath(Path(directory))
    all_brackets, doubts = _found(root, rules)
    brackets = [b for b in all_brackets if run.holds(b.slot)]
    summary, started = ArchiveSummary(len(brackets), doubts, dry_run=run.dry_run), time.monotonic()
    if not curves and settings.algorithm not in ("mertens", "linear"):
        curves = _calibrated_for(all_brackets, root, settings, force)
        summary.calibrating, started = time.monotonic() - started, time.monotonic()
    summary.curve = curves[0] if curves else None
    _check_products(settings, curves, products)
    _log_gaps(brackets)
    plan = MergePlan(
        camera=Path(root).resolve().name if camera is None else camera,
        root=root,
        output=OutputFolder(save_dir),
        settings=settings,
        # All of them go below one folder here.
        products=tuple(replace(spec, output=None) for spec in products),
        timezone=rules.timezone,
        geometry=geometry or {},
        without_response=without_response,
        replace=force,
        memory_limit=_memory_of_one(count),
        threads=1 if count > 1 else usable_cores(),
        dry_run=run.dry_run,
    )
    merger = BracketMerger(plan, curves, rules.min_exposures, not leave_out_unreadable)
    _count(summary, report, _merge_all(brackets, merger, count, executor, run.stop))
    summary.seconds = time.monotonic() - started
    return summary


def _count(
    summary: ArchiveSummary, report: ReportFile | None, outcomes: Iterator[BracketOutcome]
) -> None:
    with report or nullcontext():
        for outcome in outcomes:
            summary._add(outcome)
            if report is not None:
                report.add(outcome)


def _found(root: str, rules: ArchiveRules) -> tuple[list[ArchiveBracket], list[str]]:
    brackets, doubts = found.find_brackets(root, rules)
    if not brackets:
        raise BracketError(f"{shown(root)}: no images with timestamp and exposure in their names")
    return brackets, doubts


def _memory_of_one(workers: int) -> int:
    """Give a worker its share of half of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 // max(1, workers)


def _log_gaps(brackets: Sequence[ArchiveBracket]) -> None:
    lines = [f"bracket {b.slot}: {_missing(b.missing)}" for b in brackets if b.missing]
    found._log_first(lines, "brackets with missing exposures")


def _missing(times_us: Sequence[float]) -> str:
    listed = ", ".join(f"{time:.12g}" for time in times_us)
    verb = "exposure of {} µs is" if len(times_us) == 1 else "exposures of {} µs are"
    return f"the {verb.format(listed)} missing"


@dataclass(frozen=True)
class BracketMerger:
    """Merges the brackets of one archive, in any thread."""

    plan: MergePlan
    curves: Sequence[ResponseCurve]  # see `merge_archive`
    min_exposures: int = 2
    # Refuse a bracket with an unreadable exposure, unless another file of the slot has the same
    # exposure time.
    strict: bool = True

    def merge(self, bracket: ArchiveBracket) -> BracketOutcome:
        """Merge one bracket and publish its products.

        Parameters
        ----------
        bracket : ArchiveBracket
        """
        return replace(self._merged(bracket), missing=bracket.missing)

    def _merged(self, bracket: ArchiveBracket) -> BracketOutcome:
        if (reason := bracket.why_unusable(max(2, self.min_exposures))) is not None:
            return BracketOutcome(bracket.slot, error=BracketError(reason))
        files = [found._with_signature(exposure, self.plan.root) for exposure in bracket.files]
        frames = Frames(self.plan.root, _buffers, linear=self.plan.settings.sensor is not None)
        try:
            result, unreadable = self._merge(bracket, files, frames)
        finally:
            frames.drop()
        if isinstance(result, Failed):
            return BracketOutcome(bracket.slot, error=self._error(bracket, result, unreadable))
        output = self.plan.output.path
        if isinstance(result, Kept):
            kept = tuple(output / target for target in result.found)
            return BracketOutcome(bracket.slot, kept, stood=True, notes=(result.reason,))
        notes = (*result.notes, *(f"not written: {one}" for one in result.missing))
        return BracketOutcome(
            bracket.slot,
            tuple(output / target for target in result.products),
            (*unreadable, *result.left_out),
            stood=result.adopted,
            notes=notes if not result.fallback else ("no response curve fits", *notes),
        )

    def _merge(
        self, bracket: ArchiveBracket, files: list[Exposure], frames: Frames
    ) -> tuple[Published | Kept | Failed, list[Unusable]]:
        """Merge what is readable: each file that turns out not to be is left out."""
        unreadable = [
            Unusable(path, (not self.plan.dry_run and self._damage(path, frames)) or reason)
            for path, reason in bracket.unusable
        ]
        curves: Sequence[ResponseCurve] = self.curves
        if isinstance(curves, CurveHistory):
            curves = curves.at(self.plan.in_utc(bracket.slot))
        # As the daemon does: whether a file is superseded or damaged is known once it is read.
        chosen = {e.path for e in self._bracket(bracket, files, unreadable).exposures}
        spare = [e.path for e in files if not (e.path in chosen or self.plan.dry_run)]
        reasons = ((path, self._damage(path, frames)) for path in spare)
        unreadable += [Unusable(path, reason) for path, reason in reasons if reason]
        while True:
            asked = self._bracket(bracket, files, unreadable)
            result = merge_bracket(self.plan, asked, frames, curves)
            if not (isinstance(result, Failed) and result.kind == "inputs"):
                return result, unreadable
            unreadable += [Unusable(path, result.reason) for path in result.files]
            after = self._bracket(bracket, files, unreadable)
            if self.strict and len(after.exposures) < len(asked.exposures):
                return result, unreadable

    @staticmethod
    def _damage(path: str, frames: Frames) -> str | None:
        """Say why a file cannot be read; None if it can."""
        try:
            frames.buffers.give(frames.read(path).pixels)
        except ImageError as error:
            return error.reason
        return None

    def _bracket(
        self, bracket: ArchiveBracket, files: Sequence[Exposure], unreadable: Sequence[Unusable]
    ) -> Bracket:
        gone = {one.path for one in unreadable}
        usable = [e for e in files if e.path not in gone]
        chosen = chosen_files(usable)
        superseded = (
            Unusable(e.path, why_superseded(e, chosen[e.nominal_us]))
            for e in usable
            if chosen[e.nominal_us].path != e.path
        )
        return Bracket(
            slot=bracket.slot,
            exposures=tuple(chosen[time] for time in sorted(chosen)),
            expected=bracket.expected,
            complete=bracket.complete and len(chosen) == len(bracket.exposures),
            left_out=(*unreadable, *superseded),
            min_exposures=max(2, self.min_exposures),
        )

    def _error(
        self, bracket: ArchiveBracket, failed: Failed, unreadable: Sequence[Unusable]
    ) -> AsiWatchError:
        root = self.plan.root
        if failed.kind == "inputs":
            return ImageError(f"{root}/{failed.files[0]}", failed.reason)
        if failed.kind == "few":
            worst, whole = unreadable[0], len(bracket.exposures)
            count = f"{whole - len(unreadable)} of {whole} exposures are usable, too few"
            return ImageError(f"{root}/{worst.path}", f"{worst.reason}; of its bracket {count}")
        if failed.kind in ("output", "retry"):
            return errors.PublishError(failed.reason)
        kind = errors.ResponseFileError if failed.kind == "curve" else BracketError
        return kind(f"{shown(f'{root}/{bracket.first.path}')} and its bracket: {failed.reason}")


def _merge_all(
    brackets: Sequence[ArchiveBracket],
    merger: BracketMerger,
    workers: int,
    executor: Executor | None = None,
    stop: threading.Event | None = None,
) -> Iterator[BracketOutcome]:
    """Merge brackets, showing and logging what becomes of them, in the order they are done."""
    logged: Counter[str] = Counter()
    count = _checked_workers(workers)
    own = ThreadPoolExecutor(count, "merge") if count > 1 else _CallingThread()
    with own, Claims(None if merger.plan.dry_run else merger.plan.output.path) as claims:
        run = _Run(brackets, merger, executor or own, claims, stop or threading.Event())
        # Some brackets wait, not the whole archive: an interrupt ends the run after those in work.
        window = (
            2 * max(count, getattr(executor, "_max_workers", 1)) if executor or count > 1 else 1
        )
        for outcome in progress(run.outcomes(window), "merging", len(brackets)):
            _log_outcome(outcome, logged)
            yield outcome
    if claims.freed:
        merger.plan.output.sweep()
    for note, times in logged.items():
        if times > SHOWN:
            log.warning("and %s: %s", counted(times - SHOWN, "more bracket"), note)


class _CallingThread(Executor):
    """Does each job where it is submitted."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Run:
    """Hands brackets to an executor, a few at a time, each with a claim."""

    def __init__(
        self,
        brackets: Sequence[ArchiveBracket],
        merger: BracketMerger,
        executor: Executor,
        claims: Claims,
        stop: threading.Event,
    ) -> None:
        self._fresh, self._left = iter(brackets), deque[ArchiveBracket]()
        self._merger, self._executor, self._claims, self._stop = merger, executor, claims, stop
        self._in_work: dict[Future[BracketOutcome], tuple[ArchiveBracket, bool]] = {}

    def outcomes(self, window: int) -> Iterator[BracketOutcome]:
        """Give the outcome of each bracket as it is done; those not begun come last."""
        try:
            while True:
                while len(self._in_work) < window and (bracket := self._next()) is not None:
                    self._submit(bracket, again=False)
                if self._in_work:
                    yield from self._done()
                elif self._left and not self._stop.is_set():
                    self._stop.wait(_LOOK_AGAIN_AFTER)
                else:
                    break
        finally:
            for future in self._in_work:
                future.cancel()
        for bracket in (*self._left, *self._fresh):
            yield BracketOutcome(bracket.slot, missing=bracket.missing, skipped=True)

    def _next(self) -> ArchiveBracket | None:
        """Claim a bracket; None while there is none to be had."""
        if self._stop.is_set():
            return None
        for bracket in self._fresh:
            if self._claims.take(_key(bracket)):
                return bracket
            self._left.append(bracket)
        if self._left:
            self._claims.free_those_of_dead_runs()
        for _ in range(len(self._left)):
            bracket = self._left.popleft()
            # Where another run has done it meanwhile, its products are found to stand.
            if self._claims.take(_key(bracket)):
                return bracket
            self._left.append(bracket)
        return None

    def _submit(self, bracket: ArchiveBracket, *, again: bool) -> None:
        try:
            self._in_work[self._executor.submit(self._merger.merge, bracket)] = bracket, again
        except futures.BrokenExecutor as error:
            if not self._stop.is_set():
                log.error("no other bracket is begun, the executor is broken: %s", error)
            self._stop.set()
            self._claims.release(_key(bracket))
            self._left.append(bracket)

    def _done(self) -> Iterator[BracketOutcome]:
        timeout = _LOOK_AGAIN_AFTER if self._left else None
        done, _ = futures.wait(self._in_work, timeout, futures.FIRST_COMPLETED)
        for future in done:
            bracket, again = self._in_work.pop(future)
            error = future.exception()
            if error is not None and not again:
                # Its worker was lost, perhaps with other work.
                log.warning("bracket %s is tried once more: %r", bracket.slot, error)
                self._submit(bracket, again=True)
                continue
            self._claims.release(_key(bracket))
            if error is None:
                yield future.result()
                continue
            log.error("bracket %s failed twice", bracket.slot, exc_info=error)
            text = f"{shown(bracket.first.path)} and its bracket: {type(error).__name__}: {error}"
            yield BracketOutcome(bracket.slot, error=BracketError(text), missing=bracket.missing)


def _key(bracket: ArchiveBracket) -> str:
    return f"{bracket.slot:%Y%m%d%H%M%S%f}"


def _log_outcome(outcome: BracketOutcome, logged: Counter[str]) -> None:
    """Log what became of a bracket; of each kind of note the first only."""
    if outcome.error is not None:
        log.warning("bracket %s not merged: %s", outcome.slot, outcome.error)
    for unusable in outcome.left_out:
        name = shown(unusable.path)
        log.warning("bracket %s merged without %s: %s", outcome.slot, name, unusable.reason)
    for note in outcome.notes:
        kind = re.sub(r"[0-9.]+", "…", note)
        logged[kind] += 1
        if logged[kind] <= SHOWN:
            log.warning("bracket %s: %s", outcome.slot, note)


def _checked_workers(workers: int) -> int:
    if not isinstance(workers, int) or workers < 0:
        raise ValueError(f"the number of workers is 0 or more, a whole number; got {workers!r}")
    return workers


def _check_products(
    settings: MergeSettings, curves: Sequence[ResponseCurve], products: Sequence[ProductSpec]
) -> None:
    """Refuse (ValueError) what does not go together."""
    if not products:
        raise ValueError("no product to write")
    radiance = [spec.suffix for spec in products if spec.kind == "radiance"]
    if settings.algorithm == "mertens" and radiance:
        raise ValueError(
            f"'mertens' gives a picture without radiance, so no {' or '.join(radiance)};"
            " use debevec_custom with a response curve"
        )
    if settings.algorithm in ("debevec_custom", "debevec_exact") and not curves:
        raise ValueError(f"'{settings.algorithm}' needs a response curve")
