"""What the product tests are made from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.products import ProductSpec, Provenance, RadianceLayers, Source, Unusable

FORMATS = ("jpg", "png", "jp2", "exr", "tiff", "hdr")


def provenance(**changes: Any) -> Provenance:
    """A provenance in which everything is set, with names no terminal can show."""
    values: dict[str, Any] = {
        "camera": "dach süd",
        "slot": datetime(2024, 5, 1, 12, 0, 30),
        "slot_utc": datetime(2024, 5, 1, 11, 0, 30, tzinfo=UTC),
        "sources": tuple(
            Source(
                path=f"2024/05/01/20240501120{i:03d}\udcff_{time}.jpg",
                exposure_us=float(time),
                timestamp=datetime(2024, 5, 1, 12, 0, 30 + i, 250000),
                size=150_000 + i,
                mtime_ns=1_714_561_230_123_456_789 + i,
            )
            for i, time in enumerate((80, 160, 320.5))
        ),
        "algorithm": "debevec_custom",
        "parameters": {"gamma": 2.2, "weight_type": "triangle", "low_clip": 5, "tone": True},
        "curve_id": "0123456789abcdef",
        "expected": 5,
        "complete": False,
        "revision": 2,
        "software": "asi-watch 0.1.0",
        "created_utc": datetime(2024, 5, 1, 11, 1, 2, tzinfo=UTC),
        "unusable": (Unusable("2024/05/01/x_640.jpg", "is damaged (…)"),),
    }
    return Provenance(**(values | changes))


def picture(shape: tuple[int, int, int], dtype: type[np.generic]) -> NDArray[Any]:
    """A smooth picture over the whole range of `dtype`."""
    rng = np.random.default_rng(3)
    height, width, channels = shape
    noise = rng.random((max(1, height // 8), max(1, width // 8), channels), dtype=np.float32)
    smooth = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    top = np.iinfo(dtype).max
    return np.asarray(smooth * top).reshape(shape).astype(dtype)


def layers(shape: tuple[int, int, int], *, spread: float = 1.0) -> RadianceLayers:
    rng = np.random.default_rng(4)
    ln = rng.normal(-4, spread, shape).astype(np.float32)
    validity = rng.integers(0, 3, shape, dtype=np.uint8)
    return RadianceLayers(ln, validity, rng.random(shape, dtype=np.float32))


def pixels_for(spec: ProductSpec, shape: tuple[int, int, int]) -> Any:
    if spec.kind == "radiance":
        return layers(shape)
    return picture(shape, np.uint8 if spec.kind == "picture8" else np.uint16)
