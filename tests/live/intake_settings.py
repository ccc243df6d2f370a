"""A camera's settings for tests of watching alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from asi_watch.config.model import CameraConfig, ScanConfig


def watching(root: Path, mode: Any = "auto", every: float = 60.0) -> CameraConfig:
    """Settings that look back a day and let files lie for a second; `every` in seconds."""
    return CameraConfig(
        watch=root,
        output=root.parent / "out",
        watch_mode=mode,
        scan=ScanConfig(lookback=timedelta(days=1), every=timedelta(seconds=every)),
        stable_for=timedelta(seconds=1),
    )
