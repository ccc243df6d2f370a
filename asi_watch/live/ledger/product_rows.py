"""What the products on disk say of themselves, as rows of the ledger."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from asi_watch.brackets import Exposure
from asi_watch.config.model import CameraConfig
from asi_watch.live.records import WITHOUT_CURVE, BracketRecord, RejectedFile
from asi_watch.logs import event
from asi_watch.naming import is_product_name, slot_stem
from asi_watch.products import Provenance, ProvenanceError, Source, Unusable, read_provenance

log = logging.getLogger(__name__)

_MAX_DEPTH = 32
# A bracket that lacks a format was being published when the daemon died, if it is as young as
# this beside the youngest. Otherwise the format came later, or was deleted.
_JUST_MADE = 3600.0


@dataclass(frozen=True, slots=True)
class FoundProducts:
    """The products of one bracket: their row if they give one, and when they were made.

    `whole` if every format that is asked for is there.
    """

    record: BracketRecord | None
    changed: float
    whole: bool


def products_of(camera: CameraConfig) -> Iterator[FoundProducts]:
    """Read the products of a camera, newest folder and name first.

    A bracket of which a product is missing because the daemon died between two formats, or of
    which the products are of different revisions, gives no row: it is merged again when found. If
    its exposures went with the power, as files do that nobody forced to the disk, what there is
    gives the row.
    """
    root = os.path.realpath(camera.output)
    youngest = float("-inf")
    for folder, stem, names in _product_groups(root):
        found: dict[str, tuple[Provenance, float]] = {}
        # Texts, not paths: of an archive of 100,000 products these take a third of the time.
        for name in names:
            path = f"{root}/{folder}{name}"
            try:
                found[name] = read_provenance(path), os.lstat(path).st_mtime
            except (OSError, ProvenanceError):
                continue
        changed = max((made for _, made in found.values()), default=float("-inf"))
        youngest = max(youngest, changed)
        whole = bool(found) and _wanted(camera, stem, found) <= set(found)
        if whole or changed < youngest - _JUST_MADE or not _can_be_made_again(camera, found):
            yield FoundProducts(_row(camera, folder, stem, found), changed, whole)
        else:
            yield FoundProducts(None, changed, whole)


def reconciled(present: BracketRecord | None, found: FoundProducts) -> BracketRecord | None:
    """Say what the row of a bracket should be, now that a product of it was found.

    The product wins where they disagree: it is there. Only an older revision does not, nor a copy
    in another place.

    Parameters
    ----------
    present : BracketRecord or None
        The row as it stands.
    found : FoundProducts
        What was found, and the row that it gives.

    Returns
    -------
    BracketRecord or None
        None if the row may stay as it is.
    """
    product = found.record
    if present is None or product is None:
        return product
    known = (present.revision, _contents(present))
    if present.state != "published":
        # A failed row names the revision that was tried, a skipped one what was there before.
        wins = found.whole and product.revision >= present.revision + (present.state == "skipped")
    elif product.revision != present.revision:
        wins = product.revision > present.revision
    elif product.products == present.products:
        wins = known != (product.revision, _contents(product))
    else:
        wins = _in_its_place(product) and not _in_its_place(present)
    return _with_details(product, present) if wins else None


def row_of_products(
    camera: CameraConfig, folder: PurePosixPath, found: dict[str, Provenance]
) -> BracketRecord | None:
    """Give the row that products of one bracket and one revision make; None if they make none.

    Parameters
    ----------
    camera : CameraConfig
    folder : PurePosixPath
        Relative to the output folder.
    found : dict
        Provenances by the names of the files.
    """
    prefix = "" if folder == PurePosixPath() else f"{folder}/"
    made = {name: (p, _changed(camera.output / folder / name)) for name, p in found.items()}
    stem = min(made).rpartition(".")[0]
    return _row(camera, prefix, stem, made)


def _changed(path: Path) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _contents(record: BracketRecord) -> set[tuple[str, tuple[int, int]]]:
    return {(e.path, e.signature) for e in record.inputs}


def _in_its_place(record: BracketRecord) -> bool:
    """Tell whether the products lie in the folder of their first exposure, as they are made."""
    first = min(record.inputs, key=lambda e: (e.timestamp, e.path)).path
    return PurePosixPath(record.products[0]).parent == PurePosixPath(first).parent


def _with_details(product: BracketRecord, present: BracketRecord) -> BracketRecord:
    """Keep what only the row knew of the bracket's files."""
    merged = {e.path for e in product.inputs}
    rejected = {r.path: r for r in product.rejected}
    for known in present.rejected:
        if known.path not in merged:
            named = rejected.get(known.path)
            rejected[known.path] = replace(known, reason=named.reason) if named else known
    return replace(
        product,
        rejected=tuple(rejected.values()),
        duplicates=present.duplicates,
        late=max(present.late, product.late),
        latency=present.latency,
    )


def _product_groups(root: str) -> Iterator[tuple[str, str, list[str]]]:
    """Give folder (with its slash), stem and names of the products of each bracket."""
    pending = [("", 0)]
    while pending:
        folder, depth = pending.pop()
        subfolders: list[str] = []
        groups: dict[str, list[str]] = {}
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        subfolders.append(f"{folder}{entry.name}/")
                    elif is_product_name(entry.name) and entry.is_file(follow_symlinks=False):
                        groups.setdefault(entry.name.rpartition(".")[0], []).append(entry.name)
        except OSError as error:
            event(log, logging.DEBUG, "folder not read", folder=folder, reason=str(error))
            continue
        for stem in sorted(groups, reverse=True):
            yield folder, stem, sorted(groups[stem])
        if depth < _MAX_DEPTH:
            pending += [(sub, depth + 1) for sub in sorted(subfolders)]


Provenances = dict[str, tuple[Provenance, float]]
"""By the name of the file; with the time it was last changed."""


def _wanted(camera: CameraConfig, stem: str, found: Provenances) -> set[str]:
    newest = _newest(found)
    return {
        f"{stem}{spec.suffix}"
        for spec in camera.products
        if newest.algorithm != "mertens" or spec.kind != "radiance"
    }


def _can_be_made_again(camera: CameraConfig, found: Provenances) -> bool:
    return bool(found) and _sources_are_there(camera, _newest(found).sources)


def _sources_are_there(camera: CameraConfig, sources: tuple[Source, ...]) -> bool:
    try:
        there = [os.lstat(camera.watch / source.path) for source in sources]
    except (OSError, ValueError):
        return False
    return [(s.st_size, s.st_mtime_ns) for s in there] == [(s.size, s.mtime_ns) for s in sources]


def _newest(found: Provenances) -> Provenance:
    return max((one for one, _ in found.values()), key=lambda one: one.revision)


def _row(camera: CameraConfig, folder: str, stem: str, found: Provenances) -> BracketRecord | None:
    if not found:
        return None
    newest = _newest(found)
    changed = max(made for _, made in found.values())
    ours = newest.camera == camera.name or _was_ours(camera, folder, newest)
    ours = ours and stem == slot_stem(newest.slot)
    alike = all(one.revision == newest.revision for one, _ in found.values())
    # A name is turned into a path: none that leads out of the watch folder.
    safe = newest.sources and all(_is_inside(s.path) for s in newest.sources)
    if not (ours and alike and safe):
        return None
    order = [f"{stem}{spec.suffix}" for spec in camera.products]
    return BracketRecord(
        camera=camera.name,
        slot=newest.slot,
        state="published",
        revision=newest.revision,
        expected=newest.expected,
        complete=newest.complete,
        inputs=tuple(
            Exposure(s.path, s.timestamp, s.exposure_us, s.size, s.mtime_ns) for s in newest.sources
        ),
        rejected=tuple(
            _rejected(camera, one, changed) for one in newest.unusable if _is_inside(one.path)
        ),
        products=tuple(
            f"{folder}{name}"
            for name in sorted(found, key=lambda n: order.index(n) if n in order else len(order))
        ),
        curve_id=newest.curve_id,
        algorithm=newest.algorithm,
        reason=WITHOUT_CURVE if _is_makeshift(camera, newest) else None,
        # Every revision had an exposure that came late.
        late=newest.revision - 1,
        updated_utc=_as_utc(changed).isoformat(timespec="milliseconds"),
    )


def _was_ours(camera: CameraConfig, folder: str, one: Provenance) -> bool:
    """Tell whether a product was made of this camera's files, under another name of the camera."""
    if not one.sources or not all(_is_inside(s.path) for s in one.sources):
        return False
    first = min(one.sources, key=lambda s: (s.timestamp, s.path)).path
    in_its_place = str(PurePosixPath(first).parent / "x") == f"{folder}x"
    fit = all(_time_in_name(camera, s.path) == s.timestamp for s in one.sources)
    return in_its_place and fit and _sources_are_there(camera, one.sources)


def _time_in_name(camera: CameraConfig, path: str) -> datetime | None:
    parsed = camera.pattern.parse(PurePosixPath(path).name)
    return None if parsed is None else parsed.timestamp


def _is_makeshift(camera: CameraConfig, one: Provenance) -> bool:
    return one.algorithm == "mertens" != camera.merge.algorithm


def _is_inside(path: str) -> bool:
    return path != "" and path[0] != "/" and ".." not in path.split("/")


def _rejected(camera: CameraConfig, one: Unusable, changed: float) -> RejectedFile:
    """Give a file that was left out the signature it has, if that is older than the product."""
    try:
        status = os.lstat(camera.watch / one.path)
    except (OSError, ValueError):
        return RejectedFile(one.path, 0, 0, one.reason)
    if not stat.S_ISREG(status.st_mode) or status.st_mtime > changed:
        return RejectedFile(one.path, 0, 0, one.reason)
    return RejectedFile(one.path, status.st_size, status.st_mtime_ns, one.reason)


def _as_utc(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        # A file system's clock may say any year.
        return datetime.fromtimestamp(0, UTC)
