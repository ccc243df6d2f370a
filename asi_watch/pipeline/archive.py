"""A whole archive merged: all brackets, in several threads, none stopping the others."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from asi_watch.calibrate_brackets import CalibrationChoices
from asi_watch.cores import usable_cores
from asi_watch.errors import AsiWatchError, BracketError
from asi_watch.files import shown
from asi_watch.hdr.merging import MergeSettings
from asi_watch.hdr.response import ResponseCurve
from asi_watch.pipeline.archive_bracket import ArchiveBracket
from asi_watch.pipeline.curves import calibrate_found
from asi_watch.pipeline.doubles import folders_that_clash, slots_too_long
from asi_watch.pipeline.finding import (
    ArchiveRules,
    find_brackets,
    label_taken_for_time,
)
from asi_watch.pipeline.merging import BracketMerger, MergePlan
from asi_watch.pipeline.progress import progress
from asi_watch.products import ProductSpec

__all__ = ["ArchiveSummary", "BracketOutcome", "check_workers", "merge_all", "merge_archive"]

log = logging.getLogger(__name__)

_WARNINGS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class BracketOutcome:
    """What became of one bracket.

    Parameters
    ----------
    slot : datetime
    products : tuple of Path
        Empty where the bracket could not be merged.
    left_out : int
        Exposures left out because they could not be read.
    error : AsiWatchError or None
        Why there is no product.
    """

    slot: datetime
    products: tuple[Path, ...]
    left_out: int
    error: AsiWatchError | None


@dataclass(slots=True)
class ArchiveSummary:
    """What became of an archive.

    Parameters
    ----------
    brackets, merged, products, left_out : int
        Brackets found and merged, files written, exposures left out as unreadable.
    failures : list of (datetime, str)
        Slots without product and the reason.
    seconds : float
        Wall time of merging.
    too_long : str or None
        Where slots held several brackets: how many, and what helps.
    clash : tuple of str or None
        Two folders with the same exposures of the same brackets, if there are any.
    labelled : str or None
        A file whose label was taken for an exposure time, it seems.
    calibrating : float or None
        Wall time of the calibration before, if there was one.
    curve : ResponseCurve or None
        What was merged with.
    """

    brackets: int
    merged: int = 0
    products: int = 0
    left_out: int = 0
    failures: list[tuple[datetime, str]] = field(default_factory=list)
    seconds: float = 0.0
    too_long: str | None = None
    clash: tuple[str, str] | None = None
    labelled: str | None = None
    calibrating: float | None = None
    curve: ResponseCurve | None = None

    def add(self, outcome: BracketOutcome) -> None:
        """Count one bracket."""
        self.merged += outcome.error is None
        self.products += len(outcome.products)
        self.left_out += outcome.left_out
        if outcome.error is not None:
            self.failures.append((outcome.slot, str(outcome.error)))

    @property
    def flawless(self) -> bool:
        """Whether every bracket was merged from all of its exposures, beyond doubt."""
        doubtful = self.too_long or self.clash or self.labelled
        return not (self.failures or self.left_out or doubtful)

    def sentence(self) -> str:
        """Say it in one sentence."""
        text = f"{self.merged} of {self.brackets} brackets merged in {self.seconds:.1f} s"
        if self.merged and self.seconds > 0:
            text += f" ({self.merged / self.seconds:.1f} per second)"
        if self.calibrating is not None:
            text += f", after {self.calibrating:.1f} s of calibration"
        text += f", {_count(self.products, 'file')} written"
        if self.failures:
            text += f"; {_count(len(self.failures), 'bracket')} not merged"
        if self.left_out:
            text += f"; {_count(self.left_out, 'unreadable exposure')} left out"
        if self.too_long:
            text += f"; {self.too_long}"
        if self.clash:
            ours, theirs = (shown(folder) for folder in self.clash)
            text += f"; {ours} and {theirs} hold the same exposures: one folder per camera"
        if self.labelled:
            text += f"; {shown(self.labelled)} ends in a label, it seems, not in an exposure time"
        return text


def merge_archive(
    directory: str | os.PathLike[str],
    save_dir: str | os.PathLike[str],
    *,
    rules: ArchiveRules,
    settings: MergeSettings,
    curve: ResponseCurve | None,
    products: Sequence[ProductSpec],
    camera: str | None = None,
    workers: int | None = None,
    leave_out_unreadable: bool = False,
    force: bool = False,
) -> ArchiveSummary:
    """Merge every bracket of a folder or an archive.

    Parameters
    ----------
    directory, save_dir : path-like
        They may be the same, or one inside the other: products are never taken for exposures.
    rules : ArchiveRules
    settings : MergeSettings
    curve : ResponseCurve or None
        None with any algorithm but `mertens`: a curve is calibrated from the archive, in memory.
    products : sequence of ProductSpec
        Written for every bracket.
    camera : str, optional
        Noted in the products; the folder's name by default.
    workers : int, optional
        Threads; 0 merges in the calling thread, None takes one per core.
    leave_out_unreadable : bool
        See `asi_watch.pipeline.merging.BracketMerger`.
    force : bool
        Merge even with a calibrated curve that cannot explain the images.

    Returns
    -------
    ArchiveSummary

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder, or it is a file.
    BracketError
        If it holds no exposures, or no curve could be calibrated that explains them.
    ValueError
        If settings and products do not go together.
    """
    root = os.fspath(Path(directory))
    brackets = find_brackets(root, rules)
    if not brackets:
        raise BracketError(f"{shown(root)}: no images with timestamp and exposure in their names")
    calibrating = None
    if curve is None and settings.algorithm != "mertens":
        started = time.monotonic()
        curve = _calibrated(brackets, root, settings, force)
        calibrating = time.monotonic() - started
    count = usable_cores() if workers is None else workers
    plan = MergePlan(
        root=root,
        output=Path(save_dir),
        settings=settings,
        curve=curve,
        products=tuple(products),
        camera=Path(root).resolve().name if camera is None else camera,
        to_utc=rules.to_utc,
        min_exposures=rules.min_exposures,
        leave_out_unreadable=leave_out_unreadable,
        threads=1 if count > 1 else usable_cores(),
    )
    too_long = slots_too_long(brackets)
    summary = ArchiveSummary(
        len(brackets),
        too_long=None if too_long is None else too_long[1],
        clash=folders_that_clash(brackets),
        labelled=label_taken_for_time((e.path, e) for b in brackets for e in b.exposures),
        calibrating=calibrating,
        curve=curve,
    )
    started = time.monotonic()
    with progress("merging", len(brackets)) as advance:
        for outcome in merge_all(brackets, BracketMerger(plan), count):
            summary.add(outcome)
            advance()
    summary.seconds = time.monotonic() - started
    return summary


def merge_all(
    brackets: Iterable[ArchiveBracket], merger: BracketMerger, workers: int
) -> Iterator[BracketOutcome]:
    """Merge brackets one after the other or in threads; failures are logged and handed on.

    Parameters
    ----------
    brackets : iterable of ArchiveBracket
    merger : BracketMerger
    workers : int
        Threads; 0 and 1 merge in the calling thread.

    Yields
    ------
    BracketOutcome
        In the order in which they are done.
    """

    def one(bracket: ArchiveBracket) -> BracketOutcome:
        try:
            merged = merger.merge(bracket)
        except AsiWatchError as error:
            log.warning("bracket %s not merged: %s", bracket.slot, error)
            return BracketOutcome(bracket.slot, (), 0, error)
        for unusable in merged.left_out:
            name = shown(unusable.path)
            log.warning("bracket %s merged without %s: %s", bracket.slot, name, unusable.reason)
        return BracketOutcome(bracket.slot, merged.products, len(merged.left_out), None)

    check_workers(workers)
    if workers <= 1:
        yield from map(one, brackets)
        return
    yield from _in_threads(one, brackets, workers)


def check_workers(workers: int) -> None:
    """Refuse what is no number of threads.

    Raises
    ------
    ValueError
        If it is not a whole number, or negative.
    """
    if not isinstance(workers, int) or workers < 0:
        raise ValueError(f"the number of workers is 0 or more, a whole number; got {workers!r}")


def _in_threads(
    work: Callable[[ArchiveBracket], BracketOutcome],
    brackets: Iterable[ArchiveBracket],
    workers: int,
) -> Iterator[BracketOutcome]:
    # A few jobs wait, not the whole archive: an interrupt ends the run after those in work.
    source = iter(brackets)
    executor = ThreadPoolExecutor(workers, thread_name_prefix="merge")
    try:
        pending: set[Future[BracketOutcome]] = {
            executor.submit(work, b) for b in islice(source, 2 * workers)
        }
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            pending |= {executor.submit(work, b) for b in islice(source, len(done))}
            for future in done:
                yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _calibrated(
    brackets: Sequence[ArchiveBracket], root: str, settings: MergeSettings, force: bool
) -> ResponseCurve:
    log.warning(
        "no response curve given: calibrating one from %s itself, for this run only", shown(root)
    )
    choices = CalibrationChoices(
        sample_technique="flat",
        low_clip=settings.low_clip,
        high_clip=settings.high_clip,
        seed=0,
        sky_disc=settings.sky_disc or "auto",
    )
    done = calibrate_found(brackets, root, choices)
    warnings = done.calibration.report.warnings
    for warning in warnings[:_WARNINGS_SHOWN]:
        log.warning("the curve calibrated from %s: %s", shown(root), warning)
    if len(warnings) > _WARNINGS_SHOWN:
        log.warning("and %d warnings more; calibrate shows all", len(warnings) - _WARNINGS_SHOWN)
    if not (done.calibration.report.fits or force):
        raise BracketError(
            f"{shown(root)}: not merged: the curve calibrated from it cannot explain the images,"
            " see the warnings; give a response curve, or --force (force=True)"
        )
    return done.curve(shown(root))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
