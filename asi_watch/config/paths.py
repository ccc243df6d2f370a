"""Folders that must not meet: who may watch, write and keep state where."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from asi_watch.config.document import Way
from asi_watch.patience import answered

__all__ = ["folder_problems"]

# Seconds that the file systems of all folders together may take to answer.
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class _Folders:
    """One camera's folders, with links resolved; None where the file gives no path."""

    name: str
    watch: Path | None
    output: Path | None
    filename: object


def folder_problems(data: Any, base: Path, default_state_dir: Path) -> Iterator[tuple[Way, str]]:
    """Find folders that would feed a camera its own or another's products.

    Works on the values as read, before they are validated, so that these problems are told
    together with all the others.

    Parameters
    ----------
    data : object
        The document's data, of any shape.
    base : pathlib.Path
        Where relative paths count from.
    default_state_dir : pathlib.Path
        The state folder when the file names none.

    Yields
    ------
    tuple of way and str
        The key at fault and what is wrong with it.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("cameras"), Mapping):
        return
    described = {n: c for n, c in data["cameras"].items() if isinstance(c, Mapping)}
    state = data.get("state_dir", str(default_state_dir))
    named = [state, *(c.get(key) for c in described.values() for key in ("watch", "output"))]
    state_dir, *folders = _real(named, base)
    cameras = [
        _Folders(name, folders[2 * number], folders[2 * number + 1], camera.get("filename"))
        for number, (name, camera) in enumerate(described.items())
    ]
    for camera in cameras:
        yield from _problems_of_one(camera, state_dir)
    for first, second in combinations(cameras, 2):
        yield from _problems_of_two(first, second)


def _problems_of_one(camera: _Folders, state_dir: Path | None) -> Iterator[tuple[Way, str]]:
    if camera.output is not None and camera.output == camera.watch:
        text = f"{str(camera.output)!r} is the watched folder itself; give the products their own"
        yield ("cameras", camera.name, "output"), text
    if state_dir is not None and camera.watch is not None and _within(state_dir, camera.watch):
        text = (
            f"{str(state_dir)!r} lies in the folder that camera {camera.name} watches; "
            "give the state its own"
        )
        yield ("state_dir",), text


def _problems_of_two(first: _Folders, second: _Folders) -> Iterator[tuple[Way, str]]:
    way: Way = ("cameras", second.name)
    if first.output is not None and first.output == second.output:
        text = f"camera {first.name} writes there too; give every camera its own"
        yield (*way, "output"), f"{str(second.output)!r}: {text}"
    for one, other in ((first, second), (second, first)):
        # A folder that two cameras watch is told below.
        if _within(other.output, one.watch) and other.output != other.watch:
            text = f"{str(other.output)!r} lies in the folder that camera {one.name} watches"
            yield ("cameras", other.name, "output"), f"{text}; its products would be seen there"
    nested = _within(first.watch, second.watch) or _within(second.watch, first.watch)
    if nested and first.filename == second.filename:
        text = f"camera {first.name} watches the same files; give them separate folders or "
        text += "a filename that tells them apart"
        yield (*way, "watch"), f"{str(second.watch)!r}: {text}"


def _within(inner: Path | None, outer: Path | None) -> bool:
    return inner is not None and outer is not None and inner.is_relative_to(outer)


def _real(values: list[object], base: Path) -> list[Path | None]:
    """Resolve links as far as file systems answer; a dead share must not stop any command."""
    paths = [
        base / value if isinstance(value, str) and value.strip() and "\0" not in value else None
        for value in values
    ]
    # os.path.realpath follows what exists and never fails for what does not (yet).
    resolved = answered(_PATIENCE, *(partial(os.path.realpath, path or base) for path in paths))
    return [
        None if path is None else Path(real or os.path.normpath(path))
        for path, real in zip(paths, resolved, strict=True)
    ]
