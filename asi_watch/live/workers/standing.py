"""What stands already where a bracket's products are to be: this one, a better, or a stranger's.

A product is never replaced by a lesser one, nor by another camera's. It is asked itself: the row
that knew of it may be that of a revision which failed, or of a camera's earlier name, or be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from asi_watch.config.model import CameraConfig
from asi_watch.files import shown
from asi_watch.live.ledger.kinship import files_of, is_product_of
from asi_watch.live.ledger.rebuild import row_of_products
from asi_watch.live.messages import MergeBracket, MergeFailed, ProductKept, Published
from asi_watch.live.records import TAKEN
from asi_watch.products import Provenance, ProvenanceError, read_provenance

MADE_WITH_CURVE = "the product that stands was made with a response curve, and there is none now"

Targets = Callable[[MergeBracket, str | None], tuple[str, ...]]


class Standing:
    """The products that stand in a bracket's place.

    Parameters
    ----------
    settings : CameraConfig
    command : MergeBracket
        The bracket.
    targets : callable
        Where its products go when they are merged by an algorithm; by any, for None.
    """

    def __init__(self, settings: CameraConfig, command: MergeBracket, targets: Targets) -> None:
        self._settings = settings
        self._command = command
        self._targets = targets
        self._ours: dict[str, Provenance] = {}
        self._strangers: dict[str, Provenance] = {}
        exposures = (*command.exposures, *command.earlier)
        for target in targets(command, None):
            found = self._read(target)
            if found is None:
                continue
            if is_product_of(found, settings.name, command.slot, exposures):
                self._ours[target] = replace(found, camera=settings.name)
            elif found.camera != settings.name:
                self._strangers[target] = found

    def verdict(self) -> Published | ProductKept | MergeFailed | None:
        """Say why nothing need or may be merged: it is there, or better, or the place is taken."""
        if self._strangers:
            return MergeFailed(self._taken(), permanent=True)
        newest = self._newest()
        if any(len(p.sources) > len(self._command.exposures) for p in newest.values()):
            return self._stands(newest)
        return self._adopted()

    def outranks_makeshift(self) -> ProductKept | None:
        """Give the products that were made with a curve, which no makeshift replaces."""
        newest = self._newest()
        if all(p.curve_id is None for p in newest.values()):
            return None
        return self._stands(newest, MADE_WITH_CURVE)

    def _taken(self) -> str:
        target, found = next(iter(self._strangers.items()))
        return (
            f"{TAKEN}{shown(target)} was made by camera {shown(found.camera)!r} of other files;"
            f" give {self._settings.name!r} an output folder of its own, or move these products"
            " away, and ask for it with: asi-watch retry"
        )

    def _newest(self) -> dict[str, Provenance]:
        revision = max((p.revision for p in self._ours.values()), default=0)
        return {t: p for t, p in self._ours.items() if p.revision == revision}

    def _stands(self, found: dict[str, Provenance], *why: str) -> ProductKept | None:
        folder = PurePosixPath(next(iter(found))).parent
        by_name = {PurePosixPath(target).name: p for target, p in found.items()}
        record = row_of_products(self._settings, folder, by_name)
        return None if record is None else ProductKept(record, *why)

    def _adopted(self) -> Published | None:
        """Find this very product, from before a crash that lost its row, or under another name."""
        found = next(iter(self._ours.values()), None)
        if found is None:
            return None
        targets = self._targets(self._command, found.algorithm)
        if not all(target in self._ours and self._same(self._ours[target]) for target in targets):
            return None
        return Published(targets, found.curve_id, found.algorithm, None, {}, adopted=True)

    def _same(self, found: Provenance) -> bool:
        # Higher where the row that counted the revisions is lost.
        revision_fits = found.revision >= self._command.revision
        return revision_fits and files_of(found.sources) == files_of(self._command.exposures)

    def _read(self, target: str) -> Provenance | None:
        try:
            return read_provenance(self._settings.output / target)
        except (OSError, ProvenanceError):
            return None
