"""Whether folders can be written to, and whose products lie there: for `asi-watch check`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from asi_watch.config.document import Way
from asi_watch.config.model import CameraConfig, Config
from asi_watch.files import answered, shown
from asi_watch.naming import is_product_name

__all__ = ["place_faults", "strangers"]

_PATIENCE = 5.0
_MOST_FOLDERS = 50
_MOST_PRODUCTS = 3


def place_faults(config: Config) -> Iterator[tuple[Way, str]]:
    """Find state and output folders that can never be written to, whoever the daemon runs as."""
    places: list[tuple[Way, Path]] = [(("state_dir",), config.state_dir)]
    places += [(("cameras", name, "output"), c.output) for name, c in config.cameras.items()]
    faults = answered(_PATIENCE, *(partial(_fault, folder) for _, folder in places))
    for (way, folder), fault in zip(places, faults, strict=True):
        if fault:
            yield way, f"{str(folder)!r} {fault}"


def strangers(name: str, camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    """Find products of another camera among the newest in a camera's output folder."""
    (found,) = answered(_PATIENCE, lambda: list(_newest_products(camera.output)))
    for path, maker in found or []:
        if maker != name:
            text = (
                f"{shown(path)} is of camera {shown(maker)!r}; such products are taken for this"
                " camera's where they were made of its files, as after it was renamed, and"
                " otherwise left alone: no bracket is published in their place"
            )
            yield ("output",), text
            return


def _fault(folder: Path) -> str:
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if there.exists() and not there.is_dir():
        return "is a file, not a folder" if there == folder else f"lies below {there}, a file"
    try:
        room = os.statvfs(there)
    except OSError:
        return ""
    return "" if room.f_blocks else "lies on a file system that has no room for files"


def _newest_products(output: Path) -> Iterator[tuple[str, str]]:
    """Give some of the newest products and the cameras they name; dates come last in names."""
    left, folders = _MOST_PRODUCTS, [""]
    for _ in range(_MOST_FOLDERS):
        if not folders or not left:
            return
        below = folders.pop()
        try:
            entries = sorted(os.scandir(output / below), key=lambda entry: entry.name)
        except OSError:
            continue
        folders += [f"{below}{e.name}/" for e in entries if e.is_dir(follow_symlinks=False)]
        products = [e.name for e in reversed(entries) if is_product_name(e.name)]
        for name in products[:left]:
            left -= 1
            if (maker := _maker(output / below / name)) is not None:
                yield f"{below}{name}", maker


def _maker(product: Path) -> str | None:
    # Only where there are products: a check must not wait for NumPy and OpenCV.
    from asi_watch.products import ProvenanceError, read_provenance

    try:
        return read_provenance(product).camera
    except (OSError, ProvenanceError):
        return None
