"""What a configuration would do on this machine: folders that must not meet, and warnings."""

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from asi_watch.config.model import CameraConfig, Config
from asi_watch.config.values import Way, format_duration
from asi_watch.files import answered
from asi_watch.naming import NamePattern, changes_within_a_year

# Seconds that the file systems of all folders together, and that one camera's, may take to answer.
_FOLDERS_ANSWER_WITHIN, _CAMERA_ANSWERS_WITHIN = 2.0, 5.0


class _Folders(NamedTuple):
    """One camera's folders, with links resolved; `outputs` by the place in its section."""

    name: str
    section: Mapping[str, Any]
    watch: Path
    outputs: Mapping[Way, Path]


def folder_problems(data: Any, base: Path) -> Iterator[tuple[Way, str]]:
    """Find folders that would feed a camera its own or another's products.

    Works on the values as read, before they are validated, so that these problems are reported
    together with all the others: pairs of key and what is wrong with it.

    Parameters
    ----------
    data : object
        The document's data, of any shape.
    base : pathlib.Path
        Where relative paths count from.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("cameras"), Mapping):
        return
    described = {n: c for n, c in data["cameras"].items() if isinstance(c, Mapping)}
    described = {n: c for n, c in described.items() if _are_paths(c.get("watch"), c.get("output"))}
    state = data.get("state_dir")
    state = state if _are_paths(state) else str(Config.model_fields["state_dir"].default)
    outputs = {name: _outputs(camera) for name, camera in described.items()}
    named = [state, *(camera["watch"] for camera in described.values())]
    named += [folder for own in outputs.values() for folder in own.values()]
    state_dir, *rest = _real(base, named)
    real = iter(rest)
    watched = {name: next(real) for name in described}
    cameras = [
        _Folders(name, described[name], watched[name], {way: next(real) for way in own})
        for name, own in outputs.items()
    ]
    for name, _, watch, own in cameras:
        for way in (way for way, output in own.items() if output == watch):
            text = f"{str(watch)!r} is the watched folder itself; give the products their own"
            yield ("cameras", name, *way), text
        if state_dir.is_relative_to(watch):
            text = f"lies in the folder that camera {name} watches; give the state its own"
            yield ("state_dir",), f"{str(state_dir)!r} {text}"
    for first, second in combinations(cameras, 2):
        yield from _problems_of_two(first, second)


def _outputs(camera: Mapping[str, Any]) -> dict[Way, str]:
    """Folders that a camera's products go to."""
    found: dict[Way, str] = {("output",): camera["output"]}
    products = camera.get("products")
    for number, product in enumerate(products if isinstance(products, list) else ()):
        if isinstance(product, Mapping) and _are_paths(product.get("output")):
            found["products", number, "output"] = product["output"]
    return found


def _problems_of_two(first: _Folders, second: _Folders) -> Iterator[tuple[Way, str]]:
    for way, output in second.outputs.items():
        if output in first.outputs.values():
            text = f"camera {first.name} writes there too; give every camera its own"
            yield ("cameras", second.name, *way), f"{str(output)!r}: {text}"
    for one, other in ((first, second), (second, first)):
        for way, output in other.outputs.items():
            # A folder that two cameras watch is reported below.
            if output.is_relative_to(one.watch) and output != other.watch:
                text = f"{str(output)!r} lies in the folder that camera {one.name} watches"
                yield ("cameras", other.name, *way), f"{text}; its products would be seen there"
    nested = first.watch.is_relative_to(second.watch) or second.watch.is_relative_to(first.watch)
    if nested and _share_names(first.section, second.section):
        text = (
            f"camera {first.name} watches the same files; give them separate folders or a filename"
            " that tells them apart"
        )
        yield ("cameras", second.name, "watch"), f"{str(second.watch)!r}: {text}"


def _share_names(*sections: Mapping[str, Any]) -> bool:
    """Tell whether one file name may be an exposure of both cameras."""
    try:
        first, second = (
            NamePattern(
                section.get("filename", CameraConfig.model_fields["filename"].default),
                section.get("exposure_unit", "us"),
                section.get("exposure_labels"),
                labels_only=section.get("exposure_labels_only", True),
                exposure_needed=False,
            )
            for section in sections
        )
    except (ValueError, TypeError, AttributeError):
        return sections[0].get("filename") == sections[1].get("filename")  # refused for itself
    return first.shares_names_with(second)


def _are_paths(*values: object) -> bool:
    return all(isinstance(value, str) and value.strip() and "\0" not in value for value in values)


def _real(base: Path, folders: list[str]) -> list[Path]:
    """Resolve links as far as file systems answer; a dead share must not stop any command."""
    paths = [base / folder for folder in folders]
    # os.path.realpath follows what exists and never fails for what does not (yet).
    calls = (partial(os.path.realpath, path) for path in paths)
    resolved = answered(_FOLDERS_ANSWER_WITHIN, *calls)
    return [Path(r or os.path.normpath(p)) for r, p in zip(resolved, paths, strict=True)]


# -- warnings --------------------------------------------------------------------------------


def find_warnings(config: Config) -> Iterator[tuple[Way, str]]:
    """Look at the folders and settings of a valid configuration: what could be meant otherwise.

    Parameters
    ----------
    config : Config
    """
    if not _writable(config.state_dir):
        yield ("state_dir",), f"{str(config.state_dir)!r} cannot be written by this user"
    for name, camera in config.cameras.items():
        (found,) = answered(_CAMERA_ANSWERS_WITHIN, partial(_folders, camera))
        if found is None:
            text = f"{str(camera.watch)!r} or {str(camera.output)!r} does not answer"
            found = [((), text)]
        for way, text in (*found, *_times(camera)):
            yield ("cameras", name, *way), text


def _folders(camera: CameraConfig) -> list[tuple[Way, str]]:
    watch, output = camera.watch, camera.output
    found: list[tuple[Way, str]] = []
    # A file in place of a folder is a problem, which `check` reports.
    if not watch.exists() and not any(place.is_file() for place in watch.parents):
        found.append((("watch",), f"{str(watch)!r} does not exist yet; the daemon waits for it"))
    elif watch.is_dir() and not os.access(watch, os.R_OK | os.X_OK):
        found.append((("watch",), f"{str(watch)!r} cannot be read by this user"))
    closed = (folder for folder in camera.outputs if not _writable(folder))
    found += [(("output",), f"{str(f)!r} cannot be written by this user") for f in closed]
    if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(watch)):
        text = "lies in the watched folder; products are told apart by their names, at some cost"
        found.append((("output",), f"{str(output)!r} {text}"))
    return found


def _writable(folder: Path) -> bool:
    """Tell whether a folder can be written, or made in the nearest one that exists."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    return not there.is_dir() or os.access(there, os.W_OK | os.X_OK)


def _times(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    bracket, round_to = camera.bracket, format_duration(camera.bracket.round_to)
    if timedelta(days=1) % bracket.round_to:
        text = f"{round_to} does not divide a day; slots are counted from 1970 and shift every day"
        yield ("bracket", "round_to"), text
    if bracket.grace > bracket.round_to:
        text = f"{format_duration(bracket.grace)} is longer than round_to ({round_to})"
        yield ("bracket", "grace"), f"{text}; brackets wait while later ones arrive"
    if changes_within_a_year(camera.pattern.timezone):
        text = (
            f"{camera.timezone!r} changes its offset within the year: an hour of names occurs "
            "twice in autumn; better a camera clock with a fixed offset, such as Etc/GMT-1"
        )
        yield ("timezone",), text
