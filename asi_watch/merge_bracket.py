"""The files of one bracket become its products: one function, for the daemon and for archives.

What is published is a function of the input files, the curve and the settings alone: not of when
a file arrived, nor of what was held in memory. What stands already is never replaced by a lesser
product, nor when another camera made it. Whatever makes a product doubtful is noted in it.
"""

import errno
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from pathlib import PurePosixPath
from typing import Any, Literal

import cv2
from numpy.typing import NDArray

from asi_watch import __version__
from asi_watch.brackets import Exposure, why_too_many
from asi_watch.buffers import Allocate
from asi_watch.errors import BracketError, ImageError, PublishError
from asi_watch.files import counted, shown
from asi_watch.frames import BandedMerge, Frames
from asi_watch.hdr.linear_merge import LinearMerge, completed
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.merging import merge_memory, open_merge
from asi_watch.hdr.response import ResponseCurve
from asi_watch.hdr.weighted_merge import Merge
from asi_watch.images import Levels
from asi_watch.products.embed import camera_header, provenance_of_open_file
from asi_watch.products.encode import Product, encode_merge
from asi_watch.products.provenance import (
    Provenance,
    ProvenanceError,
    Scalar,
    Source,
    Unusable,
    files_of,
    first_examples,
    is_product_of,
    plain_reason,
)
from asi_watch.products.publish import OutputFolder
from asi_watch.products.spec import ProductSpec

FailureKind = Literal["inputs", "output", "retry", "curve", "few", "taken", "permanent"]

_LEVELS = ("sensor_black", "sensor_white")
HAS_MORE = "the product that stands has more exposures"
MADE_WITH_CURVE = (
    "the product that stands was made with a response curve, and none fits the exposures there are"
)

# What a tone operator takes beside the frames that needs the whole radiance map, in their size.
_MAPPED = 24
# Faults of the place that products are written to, which no bracket can help.
_BLOCKED = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT),
    *(errno.ENODEV, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT),
    *(errno.ENOTDIR, errno.ELOOP),
}


@dataclass(frozen=True)
class MergePlan:
    """How the brackets of one camera are merged."""

    camera: str  # noted in the products
    root: str  # folder that the paths of exposures are relative to
    # Products go below it, in the sub-folder of their bracket's first exposure.
    output: OutputFolder
    settings: MergeSettings
    products: tuple[ProductSpec, ...]
    timezone: tzinfo = UTC  # of the slots
    # What becomes of a bracket that no curve fits: merged by mertens, not merged yet, or refused
    # (`debevec` then calibrates from the bracket itself, where there is no curve).
    without_response: Literal["mertens", "wait", "refuse"] = "refuse"
    # Products that stand under an earlier name of the camera are taken whatever curve and settings
    # they were made with, as those are that have a row: a new name is no reason to merge again.
    adopt_renamed: bool = False
    # Merge whatever stands: products of the same inputs, better ones, and other cameras'.
    replace: bool = False
    memory_limit: int | None = None  # bytes that the frames of one bracket and its merge may take
    threads: int = 2  # of one merge; see `open_merge`
    dry_run: bool = False  # look at what stands, and say what would be written
    geometry: Mapping[str, Scalar] = field(default_factory=dict)  # noted in the products

    def in_utc(self, slot: datetime) -> datetime:
        """Return a slot in UTC; an hour that comes twice is the first."""
        return slot.replace(tzinfo=self.timezone, fold=0).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Bracket:
    """One bracket to merge."""

    slot: datetime  # naive, in the clock of the names
    # Each exposure time once, with the signature under which the file was read.
    exposures: tuple[Exposure, ...]
    expected: int | None = None  # exposures of a complete bracket, None while unknown
    complete: bool = False  # whether all of them are there
    left_out: tuple[Unusable, ...] = ()  # files of the slot that are not merged, and why
    revision: int = 1  # 1 for the first product of the slot
    folder: str | None = None  # sub-folder of the output where an earlier revision lies
    earlier: tuple[Exposure, ...] = ()  # what the earlier revision was made of
    min_exposures: int = 1  # with fewer, nothing is merged


@dataclass(frozen=True, slots=True)
class Published:
    """The products are durably in place."""

    products: tuple[str, ...]  # relative to the output folder
    algorithm: str
    curve_id: str | None
    notes: tuple[str, ...] = ()  # what makes them doubtful; also in their provenance
    missing: tuple[str, ...] = ()  # formats that could not be written, each with the reason
    fallback: bool = False  # merged by mertens because no curve fits
    channels: int | None = None  # of the images; None where adopted
    adopted: bool = False  # they stood already, made of the same inputs: nothing was merged
    left_out: tuple[Unusable, ...] = ()  # exposures that the merge itself left out
    timings: dict[str, float] = field(default_factory=dict)  # seconds per step
    # Where it is higher than was asked for: the row that counted is lost, or the camera renamed.
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Nothing was merged: what stands is better. `found`: its provenance by path of the product."""

    reason: str
    found: dict[str, Provenance]


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no product."""

    # inputs: `files` changed, vanished or are damaged; output: the place products go to is at fault
    # (full, read-only, gone), not the bracket; curve: no response curve fits; few: too few
    # exposures; permanent: the same inputs will fail again; retry: they may not.
    kind: FailureKind
    reason: str
    files: tuple[str, ...] = ()  # the inputs at fault
    channels: int | None = None  # of the images, where no curve fits them


class MergeRefusedError(BracketError):
    """A bracket that cannot be merged."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.reason)
        self.failed = replace(failed, reason=plain_reason(failed.reason))


def _never(error: Exception) -> MergeRefusedError:
    return MergeRefusedError(Failed("permanent", str(error)))


def merge_bracket(
    plan: MergePlan, bracket: Bracket, frames: Frames, curves: Sequence[ResponseCurve] = ()
) -> Published | Kept | Failed:
    """Merge a bracket and publish its products; never raises for what files, curves or disks do.

    Parameters
    ----------
    plan : MergePlan
    bracket : Bracket
    frames : Frames
        What is held there is not read again.
    curves : sequence of ResponseCurve
        The first that has the channels of the images is used.
    """
    try:
        standing = _Standing(plan, bracket)
        if not plan.replace and (settled := standing.settled(curves)) is not None:
            return settled
        if (count := len(bracket.exposures)) < max(1, bracket.min_exposures):
            needed = f"{counted(count, 'usable exposure')}, {bracket.min_exposures} are needed"
            return Failed("few", needed)
        if plan.dry_run:
            targets = tuple(_target(plan, bracket, spec) for spec in plan.products)
            return Published(targets, plan.settings.algorithm, curve_id=None)
        asked = bracket.revision
        bracket = replace(bracket, revision=standing.next_revision())
        started = time.monotonic()
        composed = _compose_files(plan, bracket, frames, curves)
        if composed.fallback and not plan.replace and (kept := standing.made_with_curve()):
            return kept
        timings = {"read": round(time.monotonic() - started, 4)}
        made = _publish(plan, bracket, composed, standing, frames, timings)
        if isinstance(made, Published) and bracket.revision != asked:
            made = replace(made, revision=bracket.revision)
        return made
    except MergeRefusedError as error:
        return error.failed
    except PublishError as error:
        return Failed("output" if error.errno in _BLOCKED else "retry", str(error))


@dataclass(frozen=True)
class Composed:
    """A merge that is ready to be encoded, and the provenance of all its products.

    `fallback` and `left_out` as in `Published`.
    """

    merge: Merge
    provenance: Provenance
    fallback: bool
    left_out: tuple[Unusable, ...] = ()


def compose(
    plan: MergePlan,
    bracket: Bracket,
    images: Sequence[NDArray[Any]],
    curves: Sequence[ResponseCurve] = (),
    notes: tuple[str, ...] = (),
    levels: Levels | None = None,
) -> Composed:
    """Merge the images of a bracket, and say where the result comes from; else MergeRefusedError.

    Parameters
    ----------
    plan, bracket, curves
        As for `merge_bracket`.
    images : sequence of ndarray, shape (H, W, C), uint8, BGR
        One per exposure of the bracket; left as they are while the result is used. Of a linear
        camera also uint16 or float32.
    notes : tuple of str
        What is doubtful beyond what the merge finds.
    levels : (float or None, float or None), optional
        Black and white level as the files of a linear camera state them.
    """
    settings, curve = _how(plan, images[0].shape, curves)
    try:
        merge: Merge
        shape, threads = images[0].shape, plan.threads
        if settings.sensor is not None:
            sensor = completed(settings.sensor, levels, images[0].dtype)
            settings = replace(settings, sensor=sensor)
            merge = LinearMerge(settings, shape, threads)
        else:
            log_response, scale = (
                (None, None) if curve is None else (curve.log_response, curve.tone_scale)
            )
            merge = open_merge(settings, log_response, shape, threads=threads, scale=scale)
        for exposure, pixels in zip(bracket.exposures, images, strict=True):
            # Handed over, not copied: nobody else writes to it.
            merge.add(pixels, exposure.exposure_us)
        return _composed(plan, bracket, merge, settings, curve, notes)
    except (ValueError, cv2.error) as error:
        raise _never(error) from error


def _composed(
    plan: MergePlan,
    bracket: Bracket,
    merge: Merge,
    settings: MergeSettings,
    curve: ResponseCurve | None,
    notes: tuple[str, ...],
) -> Composed:
    # Asked here, once, before several threads use the merge.
    findings = merge.findings()
    excluded = {bracket.exposures[f.index]: f.reason("µs") for f in findings.excluded}
    left_out = tuple(Unusable(e.path, why, e.size, e.mtime_ns) for e, why in excluded.items())
    if left_out:
        exposures = tuple(e for e in bracket.exposures if e not in excluded)
        unusable = (*bracket.left_out, *left_out)
        bracket = replace(bracket, exposures=exposures, left_out=unusable, complete=False)
    notes = (*findings.notes("µs"), *notes)
    provenance = _provenance(plan, bracket, settings, curve, notes)
    return Composed(merge, provenance, settings.algorithm != plan.settings.algorithm, left_out)


def _compose_files(
    plan: MergePlan, bracket: Bracket, frames: Frames, curves: Sequence[ResponseCurve]
) -> Composed:
    """Merge the files of a bracket: whole, or in bands where memory is short."""
    exposures = bracket.exposures
    if (reason := why_too_many(e.exposure_us for e in exposures)) is not None:
        raise MergeRefusedError(Failed("permanent", reason))
    frames.keep_only({exposure.path for exposure in exposures})
    try:
        first = frames.get(exposures[0])
        try:
            settings, curve = _how(plan, first.shape, curves)
        except MergeRefusedError:
            with suppress(ImageError):  # the frames that can be read fit no curve
                frames.get_all(exposures)  # grey and colour mixed: no other curve would help
            raise
        room = _room_for_bands(plan, settings, curve, first, len(exposures))
        if room is None:
            images = frames.get_all(exposures)
            notes, levels = frames.odd_orientations(exposures), frames.levels(exposures)
            return compose(plan, bracket, images, curves, notes, levels)
        assert curve is not None
        frames.keep_only(())
        shape = (first.shape[0], first.shape[1], first.shape[2])
        how = settings, curve.log_response
        merge = BandedMerge(*how, frames, exposures, shape, room, plan.threads)
        merge.use_scale(curve.tone_scale)
        notes = frames.odd_orientations(exposures)
        return _composed(plan, bracket, merge, settings, curve, notes)
    except ImageError as error:
        raise _unreadable(plan, error) from error
    except MergeRefusedError:
        raise
    except ValueError as error:
        raise _never(error) from error


def _room_for_bands(
    plan: MergePlan,
    settings: MergeSettings,
    curve: ResponseCurve | None,
    first: NDArray[Any],
    count: int,
) -> int | None:
    """Bytes for the frames of one band; None where the whole frames fit into memory."""
    limit, frame = plan.memory_limit, first.nbytes
    beside = max(spec.memory for spec in plan.products)
    if settings.maps_whole:
        beside += _MAPPED
    needed = merge_memory(settings.algorithm, first.shape, count, first.itemsize)
    if settings.is_weighted:
        copies = 2 if settings.deghost == "align" else 1
        needed = (copies * count + beside) * frame
    if limit is None or needed <= limit:
        return None
    if curve is None or not settings.works_by_rows:
        reason = (
            f"merging {count} exposures of {_mib(frame)} by {settings.algorithm} takes"
            f" {_mib(needed)}, the limit is {_mib(limit)} (memory_budget); a weighted mean with a"
            " response curve, and without `deghost: align`, takes less"
        )
        raise MergeRefusedError(Failed("permanent", reason))
    return limit - (beside + 1) * frame


def _unreadable(plan: MergePlan, error: ImageError) -> MergeRefusedError:
    path = error.path.removeprefix(f"{plan.root}/")
    return MergeRefusedError(Failed("inputs", error.reason, (path,)))


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.0f} MiB"


def _how(
    plan: MergePlan, shape: tuple[int, ...], curves: Sequence[ResponseCurve]
) -> tuple[MergeSettings, ResponseCurve | None]:
    """Choose algorithm and curve for images of a shape."""
    settings = plan.settings
    if settings.algorithm in ("mertens", "linear"):
        return settings, None
    curve = next((one for one in curves if one.channels == shape[2]), None)
    if curve is not None:
        return settings, curve
    reason = "there is no response curve"
    if curves:
        there = ", ".join(str(one.channels) for one in curves)
        reason = f"the images have {counted(shape[2], 'channel')}, the response curve {there}"
    if plan.without_response == "mertens":
        if any(spec.kind != "radiance" for spec in plan.products):
            return replace(settings, algorithm="mertens"), None
        reason = f"{reason}; without one there is no radiance"
    elif plan.without_response == "refuse" and settings.algorithm == "debevec" and not curves:
        return settings, None
    raise MergeRefusedError(Failed("curve", reason, channels=shape[2]))


def _source(exposure: Exposure) -> Source:
    same = exposure.nominal_us == exposure.exposure_us
    return Source(
        exposure.path,
        exposure.exposure_us,
        exposure.timestamp,
        exposure.size,
        exposure.mtime_ns,
        None if same else exposure.nominal_us,
    )


def _provenance(
    plan: MergePlan,
    bracket: Bracket,
    settings: MergeSettings,
    curve: ResponseCurve | None,
    notes: tuple[str, ...],
) -> Provenance:
    unusable, more = first_examples(bracket.left_out)
    return Provenance(
        camera=plan.camera,
        slot=bracket.slot,
        slot_utc=plan.in_utc(bracket.slot),
        sources=tuple(
            _source(e) for e in sorted(bracket.exposures, key=lambda e: (e.exposure_us, e.path))
        ),
        algorithm=settings.algorithm,
        parameters=settings.parameters(),
        curve_id=None if curve is None else curve.curve_id,
        provisional=curve is not None and curve.provisional,
        expected=bracket.expected,
        complete=bracket.complete,
        revision=bracket.revision,
        software=f"asi-watch {__version__}",
        unusable=unusable,
        unusable_more=more,
        notes=notes,
        geometry=dict(plan.geometry),
    )


class _Standing:
    """The products that stand in a bracket's place: asked themselves, as rows may be lost."""

    def __init__(self, plan: MergePlan, bracket: Bracket) -> None:
        self._plan = plan
        self._bracket = bracket
        self.ours: dict[str, Provenance] = {}
        self._renamed = False
        self._strangers: dict[str, Provenance] = {}
        exposures = (*bracket.exposures, *bracket.earlier)
        for spec in plan.products:
            target = _target(plan, bracket, spec)
            found = _read_provenance(plan.output, target)
            if found is None:
                continue
            if is_product_of(found, plan.camera, bracket.slot, exposures):
                self._renamed |= found.camera != plan.camera
                self.ours[target] = replace(found, camera=plan.camera)
            elif (found.camera, found.slot) != (plan.camera, bracket.slot):
                self._strangers[target] = found

    def settled(self, curves: Sequence[ResponseCurve]) -> Published | Kept | Failed | None:
        """Say why nothing need or may be merged: it is there, or better, or the place is taken."""
        if self._strangers:
            target, found = next(iter(self._strangers.items()))
            who, remedy = f"by camera {shown(found.camera)!r}", "an output folder of its own"
            if found.camera == self._plan.camera:
                who, remedy = f"of slot {found.slot}", "a name that tells its slots apart"
            return Failed(
                "taken",
                f"{shown(target)} was made {who} of other files; give {self._plan.camera!r}"
                f" {remedy}, or move these products away",
            )
        newest = self._newest()
        exposures = self._bracket.exposures
        for found in newest.values():
            # What the merge left out once, it would leave out again.
            if len(found.sources) > len(exposures) - len(found.excluded_of(exposures)):
                return Kept(HAS_MORE, newest)
        return self._adopted(curves)

    def next_revision(self) -> int:
        """Count on from what stands under an earlier name of the camera, which has no row."""
        asked = self._bracket.revision
        renamed = self._renamed and self._plan.adopt_renamed
        return max(asked, *(p.revision + 1 for p in self.ours.values())) if renamed else asked

    def made_with_curve(self) -> Kept | None:
        """Give the products that were made with a curve, which no fallback replaces."""
        newest = self._newest()
        has_curve = any(p.curve_id is not None for p in newest.values())
        return Kept(MADE_WITH_CURVE, newest) if has_curve else None

    def _newest(self) -> dict[str, Provenance]:
        revision = max((p.revision for p in self.ours.values()), default=0)
        return {t: p for t, p in self.ours.items() if p.revision == revision}

    def _adopted(self, curves: Sequence[ResponseCurve]) -> Published | None:
        """Find these very products, from before a crash that lost their row, or an earlier run."""
        first = next(iter(self.ours.values()), None)
        if first is None or not self._could_be_made_now(first, curves):
            return None
        specs = [s for s in self._plan.products if s.made_by(first.algorithm)]
        targets = tuple(_target(self._plan, self._bracket, spec) for spec in specs)
        made = [self.ours.get(target) for target in targets]
        if not all(p is not None and self._same(p, first) for p in made):
            return None
        notes = tuple(dict.fromkeys(note for p in made if p for note in p.notes))
        fallback = first.algorithm != self._plan.settings.algorithm
        return Published(
            targets,
            first.algorithm,
            first.curve_id,
            notes,
            fallback=fallback,
            adopted=True,
            left_out=first.excluded_of(self._bracket.exposures),
            revision=first.revision,
        )

    def _could_be_made_now(self, found: Provenance, curves: Sequence[ResponseCurve]) -> bool:
        wanted = self._plan.settings.algorithm
        if self._renamed and self._plan.adopt_renamed:
            # A picture that was made for want of a curve may get its radiance now.
            return found.algorithm != "mertens" or not curves or wanted == "mertens"
        asked = self._plan.settings.parameters()
        # What the configuration leaves open came from the files, which are compared themselves.
        left_open = {key: None for key in _LEVELS if key in asked and asked[key] is None}
        if {**found.parameters, **left_open} != asked:
            return False
        if found.algorithm == wanted and found.curve_id is not None:
            return found.curve_id in {curve.curve_id for curve in curves}
        return wanted == found.algorithm == "mertens" or not curves

    def _same(self, found: Provenance, first: Provenance) -> bool:
        alike = (found.algorithm, found.curve_id) == (first.algorithm, first.curve_id)
        # Higher where the row that counted the revisions is lost.
        if not alike or found.revision < self._bracket.revision:
            return False
        excluded = {u.path for u in found.excluded_of(self._bracket.exposures)}
        merged = [e for e in self._bracket.exposures if e.path not in excluded]
        return files_of(found.sources) == files_of(merged)


def _target(plan: MergePlan, bracket: Bracket, spec: ProductSpec) -> str:
    folder = bracket.folder
    if folder is None:
        taken_first = min(bracket.exposures, key=lambda e: (e.timestamp, e.path), default=None)
        folder = "" if taken_first is None else str(PurePosixPath(taken_first.path).parent)
    return spec.target(plan.camera, folder, bracket.slot, plan.in_utc(bracket.slot))


def _read_provenance(output: OutputFolder, target: str) -> Provenance | None:
    try:
        descriptor = output.open_file(target)
    except (OSError, ValueError):
        return None
    try:
        return provenance_of_open_file(descriptor)
    except (OSError, ProvenanceError):
        return None
    finally:
        os.close(descriptor)


def _publish(
    plan: MergePlan,
    bracket: Bracket,
    composed: Composed,
    standing: _Standing,
    frames: Frames,
    timings: dict[str, float],
) -> Published | Failed:
    provenance, merge = composed.provenance, composed.merge
    products: list[str] = []
    missing: list[str] = []
    notes = dict.fromkeys(provenance.notes)
    encoding = publishing = 0.0
    for spec in plan.products:
        if not spec.made_by(provenance.algorithm):
            continue
        target = _target(plan, bracket, spec)
        if not plan.replace and _is_same(standing.ours.get(target), provenance):
            products.append(target)
            continue
        started = time.monotonic()
        with frames.buffers.lent() as allocate:
            try:
                made = _encoded(plan, bracket, spec, composed, frames, allocate)
            except (ValueError, cv2.error) as error:
                if isinstance(error, ImageError):
                    # An exposure that is read again, and is gone meanwhile.
                    raise _unreadable(plan, error) from error
                missing.append(f"{spec.format}: {plain_reason(str(error))}")
                continue
        encoded = time.monotonic()
        plan.output.publish(made.data, target)
        products.append(target)
        notes.update(dict.fromkeys(made.notes))
        encoding += encoded - started
        publishing += time.monotonic() - encoded
        if spec.latest and _is_newest(plan, spec, provenance):
            plan.output.publish(made.data, spec.latest_target)
    if not products:
        return Failed("permanent", "no product can be written: " + "; ".join(missing))
    steps = {"encode": round(encoding, 4), "publish": round(publishing, 4)}
    return Published(
        products=tuple(products),
        algorithm=provenance.algorithm,
        curve_id=provenance.curve_id,
        notes=tuple(notes),
        missing=tuple(missing),
        fallback=composed.fallback,
        channels=merge.shape[2],
        left_out=composed.left_out,
        timings={**timings, **steps},
    )


def _encoded(
    plan: MergePlan,
    bracket: Bracket,
    spec: ProductSpec,
    composed: Composed,
    frames: Frames,
    allocate: Allocate,
) -> Product:
    if (reason := spec.refusal(composed.merge.shape)) is not None:
        raise ValueError(reason)
    header = None
    if spec.keep_camera_header and spec.format == "jpg":
        rising = sorted(bracket.exposures, key=lambda e: (e.exposure_us, e.path))
        header = camera_header(frames.read_head(rising[len(rising) // 2]))
    return encode_merge(spec, composed.merge, composed.provenance, allocate=allocate, header=header)


def _is_newest(plan: MergePlan, spec: ProductSpec, provenance: Provenance) -> bool:
    """Tell whether a product may be the latest: a backlog replaces no newer one."""
    found = _read_provenance(plan.output, spec.latest_target)
    return found is None or found.slot_utc <= provenance.slot_utc


def _is_same(found: Provenance | None, provenance: Provenance) -> bool:
    """Tell whether a product that stands is the one to be made, from before an interruption."""
    if found is None:
        return False
    return replace(found, pixels={}, notes=provenance.notes) == provenance
