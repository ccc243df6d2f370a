"""From a finished merge to its products on disk, with their provenance."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import PurePosixPath

from asi_watch import __version__
from asi_watch.buffers import BufferPool
from asi_watch.config.model import CameraConfig
from asi_watch.files import answered
from asi_watch.hdr.merging import Merge, MergeSettings
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.messages import MergeBracket
from asi_watch.live.workers.standing import Standing
from asi_watch.naming import slot_stem
from asi_watch.products import (
    Provenance,
    Source,
    Unusable,
    encode_merge,
    publish,
    sweep_temporaries,
)

# Seconds that the output folder's file system may take to answer at the start.
_PATIENCE = 5.0


class Publisher:
    """Names, encodes and publishes the products of one camera.

    Parameters
    ----------
    settings : CameraConfig
    buffers : BufferPool
        Pictures are made in its memory.
    """

    def __init__(self, settings: CameraConfig, buffers: BufferPool) -> None:
        self._settings = settings
        self._buffers = buffers

    def clean_up(self) -> int:
        """Remove what an earlier life left half-written; returns how many files were removed."""
        output = self._settings.output
        # A dead share must not keep the other cameras waiting; what is left then goes later.
        (swept,) = answered(
            _PATIENCE,
            lambda: sweep_temporaries(output, recursive=True) if output.is_dir() else 0,
        )
        return swept or 0

    def standing(self, command: MergeBracket) -> Standing:
        """Look at what stands already where a bracket's products are to be."""
        return Standing(self._settings, command, self._targets)

    def publish(
        self,
        command: MergeBracket,
        merge: Merge,
        curve: ResponseCurve | None,
        merged_by: MergeSettings,
    ) -> tuple[tuple[str, ...], dict[str, float]]:
        """Encode and publish every product.

        Returns
        -------
        products : tuple of str
            Paths relative to the output folder.
        timings : dict
            Seconds spent encoding (finishing the merge included) and publishing.

        Raises
        ------
        PublishError
            If a product could not be put durably in its place.
        """
        provenance = self._provenance(command, curve, merged_by)
        encoding = publishing = 0.0
        targets = self._targets(command, merged_by.algorithm)
        for target in targets:
            spec = next(s for s in self._settings.products if target.endswith(s.suffix))
            started = time.monotonic()
            with self._buffers.lent() as allocate:
                data = encode_merge(spec.spec, merge, provenance, allocate=allocate)
            encoded = time.monotonic()
            publish(data, self._settings.output / target, root=self._settings.output)
            encoding += encoded - started
            publishing += time.monotonic() - encoded
        return targets, {"encode": round(encoding, 4), "publish": round(publishing, 4)}

    def _targets(self, command: MergeBracket, algorithm: str | None) -> tuple[str, ...]:
        # Exposure fusion gives a picture but no radiance.
        wanted = [
            s for s in self._settings.products if algorithm != "mertens" or s.kind != "radiance"
        ]
        if command.products:
            folder = PurePosixPath(command.products[0]).parent
        else:
            folder = PurePosixPath(_first(command)).parent
        stem = slot_stem(command.slot)
        return tuple(str(folder / f"{stem}{spec.suffix}") for spec in wanted)

    def _provenance(
        self, command: MergeBracket, curve: ResponseCurve | None, merged_by: MergeSettings
    ) -> Provenance:
        return Provenance(
            camera=self._settings.name,
            slot=command.slot,
            slot_utc=self._utc(command.slot),
            sources=tuple(
                Source(e.path, e.exposure_us, e.timestamp, e.size, e.mtime_ns)
                for e in command.exposures
            ),
            algorithm=merged_by.algorithm,
            parameters=merged_by.parameters(),
            curve_id=None if curve is None else curve.curve_id,
            expected=command.expected,
            complete=command.complete,
            revision=command.revision,
            software=f"asi-watch {__version__}",
            unusable=tuple(Unusable(r.path, r.reason) for r in command.rejected),
        )

    def _utc(self, slot: datetime) -> datetime:
        return self._settings.pattern.to_utc(slot)


def _first(command: MergeBracket) -> str:
    return min(command.exposures, key=lambda e: (e.timestamp, e.path)).path
