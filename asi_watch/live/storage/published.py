"""What has to be true before anything is deleted: the products say it, not only the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from asi_watch.brackets import slot_of
from asi_watch.config.model import CameraConfig
from asi_watch.images import looks_complete
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.messages import Signature
from asi_watch.live.records import BracketRecord
from asi_watch.products import Provenance, ProvenanceError, read_provenance
from asi_watch.products.provenance import is_product_of


class Witness:
    """Answers for one camera; one run's, not to be kept.

    Parameters
    ----------
    camera : CameraConfig
    cameras : iterable of CameraConfig
        All there are.
    ledger : Ledger
        Only read.
    """

    def __init__(
        self, camera: CameraConfig, cameras: Iterable[CameraConfig], ledger: Ledger
    ) -> None:
        self._camera = camera
        self._ledger = ledger
        self._root = root = Path(os.path.realpath(camera.watch))
        self._others = [
            (other, there)
            for other in cameras
            if other.name != camera.name
            for there in [Path(os.path.realpath(other.watch))]
            if there.is_relative_to(root) or root.is_relative_to(there)
        ]

    def products_stand(self, record: BracketRecord) -> bool:
        """Tell whether every product of a bracket is there, whole, and made of its inputs."""
        inputs = {(e.path, e.size, e.mtime_ns) for e in record.inputs}
        for path in record.products:
            provenance = self._provenance(record, path)
            if provenance is None or not looks_complete(self._camera.output / path):
                return False
            if not inputs <= {(s.path, s.size, s.mtime_ns) for s in provenance.sources}:
                return False
        return bool(record.products)

    def is_product_of(self, record: BracketRecord, path: str) -> bool:
        """Tell whether a file says itself that it is this bracket's product."""
        return self._provenance(record, path) is not None

    def others_want(self, path: str, signature: Signature) -> bool:
        """Tell whether the file is an exposure of another camera's too, not yet published there."""
        here = self._root / path
        return any(
            not _is_published(other, there, self._ledger, here, signature)
            for other, there in self._others
            if here.is_relative_to(there)
        )

    def _provenance(self, record: BracketRecord, path: str) -> Provenance | None:
        try:
            found = read_provenance(self._camera.output / path)
        except (OSError, ProvenanceError):
            return None
        ours = is_product_of(found, record.camera, record.slot, record.inputs)
        return found if ours else None


def _is_published(
    camera: CameraConfig,
    root: Path,
    ledger: Ledger,
    path: Path,
    signature: Signature,
) -> bool:
    parsed = camera.pattern.parse(path.name)
    if parsed is None or path.suffix[1:].lower() not in camera.extensions:
        return True
    rules = camera.bracket
    slot = slot_of(parsed.timestamp, rules.round_to, rules.offset)
    record = ledger.get(camera.name, slot)
    if record is None or record.state != "published":
        return False
    relative = str(path.relative_to(root))
    return any(e.path == relative and e.signature == signature for e in record.inputs)
