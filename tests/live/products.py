"""Small products of a camera, with the provenance that a ledger is made up from."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from asi_watch.config import parse_config
from asi_watch.config.model import CameraConfig
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.products import OutputFolder, ProductSpec, Provenance, Source, Unusable, encode

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
PIXELS = np.zeros((8, 8, 3), np.uint8)


def camera_at(folder: Path) -> CameraConfig:
    text = f"cameras: {{roof: {{watch: {folder}/in, output: {folder}/out}}}}"
    config = parse_config(text.encode(), "x", folder).config
    return config.cameras["roof"]


def product(
    camera: CameraConfig,
    number: int,
    *,
    revision: int = 1,
    phase: float = 0,
    slot: datetime | None = None,
    algorithm: str = "debevec_custom",
    name: str = "roof",
    curve: str | None = None,
    suffix: str = "jpg",
    folder: str | None = None,
    unusable: tuple[Unusable, ...] = (),
    sources: tuple[Source, ...] | None = None,
    age: float = 0,
) -> Path:
    """Publish a product of bracket `number`, made `age` seconds ago."""
    slot = slot or NOON + number * STEP
    times = [NOON + number * STEP + timedelta(seconds=phase + i) for i in range(3)]
    provenance = Provenance(
        camera=name,
        slot=slot,
        slot_utc=slot.replace(tzinfo=UTC),
        sources=sources
        or tuple(
            Source(
                f"{times[0]:%Y/%m/%d}/{t:%Y%m%d%H%M%S}_{80 * 2**i}.jpg", 80.0 * 2**i, t, 100 + i, 7
            )
            for i, t in enumerate(times)
        ),
        unusable=unusable,
        algorithm=algorithm,
        parameters={},
        curve_id=curve,
        expected=3,
        complete=True,
        revision=revision,
        software="test",
    )
    target = camera.output / (folder or f"{slot:%Y/%m/%d}") / f"{slot:%Y%m%d%H%M%S}_hdr.{suffix}"
    dtype = np.uint8 if suffix == "jpg" else np.uint16
    spec = ProductSpec("jpg") if suffix == "jpg" else ProductSpec("png")
    data = encode(spec, PIXELS.astype(dtype), provenance)
    OutputFolder(camera.output).publish(data, target.relative_to(camera.output))
    made = time.time() - age
    os.utime(target, (made, made))
    return target


def totals(ledger: Ledger, camera: str = "roof") -> dict[str, int]:
    """Count a camera's brackets by state."""
    sql = "SELECT state, count(*) FROM brackets WHERE camera = ? GROUP BY state"
    return dict(ledger._db.execute(sql, (camera,)).fetchall())
