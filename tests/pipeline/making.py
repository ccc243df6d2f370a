"""Small archives on disk, rendered once per process."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from asi_watch.hdr.response import ResponseCurve
from asi_watch.pipeline import save_response_curve
from tests.skies import jpeg_bracket, sky_bracket

START = datetime(2026, 6, 21, 8, 59, 30)
EXPOSURES = (80, 160, 320, 640, 1280)
FOLDERS = "%Y/%m/%d/%H"


@lru_cache(maxsize=8)
def files_of(number: int, size: int = 96) -> dict[int, bytes]:
    return jpeg_bracket(size, t_seconds=30.0 * number)


def slot(number: int) -> datetime:
    return START + timedelta(seconds=30 * number)


def write_bracket(root: Path, number: int, *, folders: str = FOLDERS, size: int = 96) -> list[Path]:
    """One bracket: exposures a second apart, as a camera takes them, brackets of 30 s."""
    paths = []
    for k, (us, data) in enumerate(sorted(files_of(number, size).items())):
        taken = slot(number) + timedelta(seconds=k)
        path = root / taken.strftime(folders) / f"{taken:%Y%m%d%H%M%S}_{us}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        paths.append(path)
    return paths


def write_archive(root: Path, brackets: int = 3) -> list[list[Path]]:
    return [write_bracket(root, number) for number in range(brackets)]


def true_curve() -> ResponseCurve:
    return ResponseCurve(sky_bracket(96).log_response, {"channel_order": "BGR"})


def write_curve(path: Path) -> ResponseCurve:
    curve = true_curve()
    save_response_curve(path, curve.log_response, save_plot=False)
    return curve


def series_of(paths: list[list[Path]], root: Path) -> pd.Series:
    rows = [
        (pd.Timestamp(slot(n)), int(path.stem.rpartition("_")[2]), str(path.relative_to(root)))
        for n, bracket in enumerate(paths)
        for path in bracket
    ]
    index = pd.MultiIndex.from_tuples([r[:2] for r in rows], names=["timestamp", "exposure"])
    return pd.Series([r[2] for r in rows], index=index)


def stops_apart(g: np.ndarray, truth: np.ndarray) -> float:
    """RMS difference over the codes 15 … 240, each channel's free constant removed."""
    difference = (g - truth)[15:241] / np.log(2)
    return float(np.sqrt(((difference - difference.mean(axis=0)) ** 2).mean()))


def products(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*_hdr.*"))
