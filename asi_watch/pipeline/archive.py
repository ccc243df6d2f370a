"""A whole archive merged: all brackets, in several threads, none stopping the others."""

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal

from asi_watch import errors
from asi_watch.brackets import Exposure, chosen_files, why_superseded
from asi_watch.buffers import BufferPool
from asi_watch.calibrate_brackets import CalibrationChoices
from asi_watch.errors import AsiWatchError, BracketError, ImageError
from asi_watch.files import counted, open_regular, shown
from asi_watch.frames import Frames
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.response import ResponseCurve
from asi_watch.images.headers import HeaderError, read_header
from asi_watch.merge_bracket import Bracket, Failed, Kept, MergePlan, Published, merge_bracket
from asi_watch.pipeline import find_brackets as found
from asi_watch.pipeline.curves import _calibrate_found, _log_warnings
from asi_watch.pipeline.find_brackets import SHOWN, ArchiveBracket, ArchiveRules
from asi_watch.pipeline.progress import progress
from asi_watch.processes import usable_cores
from asi_watch.products.provenance import Unusable
from asi_watch.products.publish import OutputFolder
from asi_watch.products.spec import ProductSpec

log = logging.getLogger(__name__)

_buffers = BufferPool(1 << 30)  # shared by the threads of all runs in this process


@dataclass(frozen=True, slots=True)
class BracketOutcome:
    """What became of one bracket."""

    slot: datetime
    products: tuple[Path, ...] = ()
    left_out: tuple[Unusable, ...] = ()  # exposures: unreadable, or they contradict the others
    stood: bool = False  # the products were there already
    notes: tuple[str, ...] = ()  # what makes them doubtful, and which are missing
    error: AsiWatchError | None = None  # why there are none


@dataclass(slots=True)
class ArchiveSummary:
    """What became of an archive."""

    brackets: int
    merged: int = 0
    stood: int = 0  # their products were there already
    products: int = 0  # files written
    left_out: int = 0  # exposures
    incomplete: list[tuple[datetime, tuple[float, ...]]] = field(default_factory=list)
    doubtful: int = 0  # brackets whose products are noted to be doubtful
    failures: list[tuple[datetime, str]] = field(default_factory=list)
    seconds: float = 0.0
    calibrating: float | None = None  # seconds; None if a curve was given
    # What the names alone make doubtful: slots with several brackets, two cameras, labels.
    doubts: list[str] = field(default_factory=list)
    curve: ResponseCurve | None = None  # what most brackets were merged with

    def _add(self, outcome: BracketOutcome) -> None:
        self.merged += outcome.error is None and not outcome.stood
        self.stood += outcome.stood
        self.products += 0 if outcome.stood else len(outcome.products)
        self.left_out += len(outcome.left_out)
        self.doubtful += bool(outcome.notes)
        if outcome.error is not None:
            self.failures.append((outcome.slot, str(outcome.error)))

    @property
    def flawless(self) -> bool:
        """Whether every bracket was merged from all of its exposures."""
        return not (self.failures or self.left_out or self.incomplete or self.doubts)

    def sentence(self) -> str:
        """Say it in one sentence."""
        text = (
            f"{self.merged} of {counted(self.brackets, 'bracket')} merged in {self.seconds:.1f} s"
        )
        if self.merged and self.seconds > 0:
            text += f" ({self.merged / self.seconds:.1f} per second)"
        if self.calibrating is not None:
            text += f", after {self.calibrating:.1f} s of calibration"
        text += f", {counted(self.products, 'file')} written"
        counts = (
            ("the products of {} stood already", self.stood, "bracket"),
            ("{} not merged", len(self.failures), "bracket"),
            ("{} left out", self.left_out, "exposure"),
            ("{} with missing exposures", len(self.incomplete), "bracket"),
            ("{} with doubtful products", self.doubtful, "bracket"),
        )
        parts = [what.format(counted(number, unit)) for what, number, unit in counts if number]
        return "; ".join((text, *parts, *self.doubts))


def merge_archive(
    directory: str | os.PathLike[str],
    save_dir: str | os.PathLike[str],
    *,
    rules: ArchiveRules,
    settings: MergeSettings,
    curves: Sequence[ResponseCurve] = (),
    products: Sequence[ProductSpec],
    camera: str | None = None,
    workers: int | None = None,
    leave_out_unreadable: bool = False,
    without_response: Literal["mertens", "refuse"] = "refuse",
    force: bool = False,
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
        One for each number of channels. Without any, unless the algorithm is `mertens`, curves
        are calibrated from the archive, in memory.
    products : sequence of ProductSpec
    camera : str, optional
        Noted in the products; the folder's name by default.
    workers : int, optional
        Threads; 0 merges in the calling thread, None takes one per core.
    leave_out_unreadable : bool
        Merge what is left of a bracket with unreadable images; else it is refused.
    without_response : {"mertens", "refuse"}
        What becomes of brackets whose images have other channels than every curve.
    force : bool
        Replace whatever stands, and merge even with a calibrated curve that cannot explain the
        images.
    """
    count = _checked_workers(usable_cores() if workers is None else workers)
    root = os.fspath(Path(directory))
    brackets, doubts = found.find_brackets(root, rules)
    if not brackets:
        raise BracketError(f"{shown(root)}: no images with timestamp and exposure in their names")
    summary = ArchiveSummary(len(brackets), doubts=doubts)
    started = time.monotonic()
    if not curves and settings.algorithm != "mertens":
        curves = _calibrated(brackets, root, settings, force)
        summary.calibrating = time.monotonic() - started
        started = time.monotonic()
    summary.curve = curves[0] if curves else None
    _check_products(settings, curves, products)
    plan = MergePlan(
        camera=Path(root).resolve().name if camera is None else camera,
        root=root,
        output=OutputFolder(save_dir),
        settings=settings,
        products=tuple(products),
        timezone=rules.timezone,
        without_response=without_response,
        replace=force,
        # Half of the machine's memory, shared among the workers.
        memory_limit=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 // max(1, count),
        threads=1 if count > 1 else usable_cores(),
    )
    merger = BracketMerger(plan, tuple(curves), rules.min_exposures, not leave_out_unreadable)
    summary.incomplete = [(b.slot, b.missing) for b in brackets if b.missing]
    lines = [f"bracket {slot}: {_missing(times)}" for slot, times in summary.incomplete]
    found._log_first(lines, "brackets with missing exposures")
    for outcome in _merge_all(brackets, merger, count):
        summary._add(outcome)
    summary.seconds = time.monotonic() - started
    return summary


def _missing(times_us: Sequence[float]) -> str:
    listed = ", ".join(f"{time:.12g}" for time in times_us)
    verb = "exposure of {} µs is" if len(times_us) == 1 else "exposures of {} µs are"
    return f"the {verb.format(listed)} missing"


@dataclass(frozen=True)
class BracketMerger:
    """Merges the brackets of one archive, in any thread."""

    plan: MergePlan
    curves: tuple[ResponseCurve, ...]  # see `asi_watch.merge_bracket.merge_bracket`
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
        if (reason := bracket.why_unusable(max(2, self.min_exposures))) is not None:
            return BracketOutcome(bracket.slot, error=BracketError(reason))
        files = [found._with_signature(exposure, self.plan.root) for exposure in bracket.files]
        frames = Frames(self.plan.root, _buffers)
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
        unreadable: list[Unusable] = []
        # As the daemon does: whether a file is superseded or damaged is known once it is read.
        chosen = {e.path for e in self._bracket(bracket, files, unreadable).exposures}
        for spare in (e for e in files if e.path not in chosen):
            try:
                frames.buffers.give(frames.read(spare.path).pixels)
            except ImageError as error:
                unreadable.append(Unusable(spare.path, error.reason))
        while True:
            asked = self._bracket(bracket, files, unreadable)
            result = merge_bracket(self.plan, asked, frames, self.curves)
            if not (isinstance(result, Failed) and result.kind == "inputs"):
                return result, unreadable
            unreadable += [Unusable(path, result.reason) for path in result.files]
            after = self._bracket(bracket, files, unreadable)
            if self.strict and len(after.exposures) < len(asked.exposures):
                return result, unreadable

    def _bracket(
        self, bracket: ArchiveBracket, files: Sequence[Exposure], unreadable: Sequence[Unusable]
    ) -> Bracket:
        gone = {one.path for one in unreadable}
        usable = [e for e in files if e.path not in gone]
        chosen = chosen_files(usable)
        superseded = (
            Unusable(e.path, why_superseded(e, chosen[e.exposure_us]))
            for e in usable
            if chosen[e.exposure_us].path != e.path
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
    brackets: Sequence[ArchiveBracket], merger: BracketMerger, workers: int
) -> Iterator[BracketOutcome]:
    """Merge brackets, showing and logging what becomes of them, in the order they are done."""
    logged: Counter[str] = Counter()
    outcomes: Iterator[BracketOutcome] = map(merger.merge, brackets)
    if _checked_workers(workers) > 1:
        outcomes = _in_threads(merger.merge, brackets, workers)
    for outcome in progress(outcomes, "merging", len(brackets)):
        _log_outcome(outcome, logged)
        yield outcome
    for note, times in logged.items():
        if times > SHOWN:
            log.warning("and %s: %s", counted(times - SHOWN, "more bracket"), note)


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
) -> list[ResponseCurve]:
    """Calibrate from the archive itself: a curve for each number of channels that it has."""
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
    curves: list[ResponseCurve] = []
    failed: list[BracketError] = []
    for group in _by_channels(brackets, root):
        try:
            done = _calibrate_found(group, root, choices)
        except BracketError as error:
            failed.append(error)
            continue
        _log_warnings(done, shown(root))
        if done.calibration.report.fits or force:
            curves.append(done.curve(shown(root)))
            continue
        text = "not merged: the curve calibrated from it cannot explain the images, see the"
        advice = "warnings; give a response curve, or --force (force=True)"
        failed.append(BracketError(f"{shown(root)}: {text} {advice}"))
    if not curves:
        raise failed[0]
    for reason in failed:
        log.warning("%s", reason)
    return curves


def _by_channels(brackets: Sequence[ArchiveBracket], root: str) -> list[list[ArchiveBracket]]:
    """Part brackets by the channels of their images (grey by night), the most numerous first."""
    groups: dict[int, list[ArchiveBracket]] = {}
    for bracket in brackets:
        groups.setdefault(_channels(f"{root}/{bracket.exposures[0].path}"), []).append(bracket)
    unknown = groups.pop(0, [])
    rising = sorted(groups.values(), key=len, reverse=True) or [[]]
    rising[0].extend(unknown)
    return rising


def _channels(path: str) -> int:
    """Read how many channels an image has from its beginning; 0 if that does not say."""
    try:
        descriptor, _ = open_regular(path)
    except OSError:
        return 0
    try:
        return read_header(os.pread(descriptor, 1 << 16, 0)).channels
    except (OSError, HeaderError):
        return 0
    finally:
        os.close(descriptor)
