"""What a configuration would do on this machine: folders that must not meet, and warnings."""

import os
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple

from asi_watch.config.document import Way
from asi_watch.config.model import RADIANCE_FORMATS, CameraConfig, Config
from asi_watch.config.values import format_duration
from asi_watch.files import answered
from asi_watch.naming import MICROSECONDS_PER_UNIT, NamePattern

# Seconds that the file systems of all folders together, and that one camera's, may take to answer.
_FOLDERS_ANSWER_WITHIN, _CAMERA_ANSWERS_WITHIN = 2.0, 5.0
_MISSING = "is missing"


class _Folders(NamedTuple):
    """One camera's folders, with links resolved; None where the file gives no path."""

    name: str
    section: Mapping[str, Any]
    watch: Path | None
    output: Path | None


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
    state = data.get("state_dir", str(Config.model_fields["state_dir"].default))
    named = [state, *(c.get(key) for c in described.values() for key in ("watch", "output"))]
    state_dir, *folders = _real(named, base)
    cameras = [
        _Folders(name, camera, *folders[2 * number : 2 * number + 2])
        for number, (name, camera) in enumerate(described.items())
    ]
    for name, _, watch, output in cameras:
        if output is not None and output == watch:
            text = f"{str(output)!r} is the watched folder itself; give the products their own"
            yield ("cameras", name, "output"), text
        if _within(state_dir, watch):
            text = f"lies in the folder that camera {name} watches; give the state its own"
            yield ("state_dir",), f"{str(state_dir)!r} {text}"
    for first, second in combinations(cameras, 2):
        yield from _problems_of_two(first, second)


def _problems_of_two(first: _Folders, second: _Folders) -> Iterator[tuple[Way, str]]:
    if first.output is not None and first.output == second.output:
        text = f"camera {first.name} writes there too; give every camera its own"
        yield ("cameras", second.name, "output"), f"{str(second.output)!r}: {text}"
    for one, other in ((first, second), (second, first)):
        # A folder that two cameras watch is reported below.
        if _within(other.output, one.watch) and other.output != other.watch:
            text = f"{str(other.output)!r} lies in the folder that camera {one.name} watches"
            yield ("cameras", other.name, "output"), f"{text}; its products would be seen there"
    nested = _within(first.watch, second.watch) or _within(second.watch, first.watch)
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
            )
            for section in sections
        )
    except (ValueError, TypeError, AttributeError):
        return sections[0].get("filename") == sections[1].get("filename")  # refused for itself
    return first.shares_names_with(second)


def _within(inner: Path | None, outer: Path | None) -> bool:
    return inner is not None and outer is not None and inner.is_relative_to(outer)


def _real(values: list[object], base: Path) -> list[Path | None]:
    """Resolve links as far as file systems answer; a dead share must not stop any command."""
    paths = [
        base / value if isinstance(value, str) and value.strip() and "\0" not in value else None
        for value in values
    ]
    # os.path.realpath follows what exists and never fails for what does not (yet).
    resolved = answered(
        _FOLDERS_ANSWER_WITHIN, *(partial(os.path.realpath, path or base) for path in paths)
    )
    return [
        None if path is None else Path(real or os.path.normpath(path))
        for path, real in zip(paths, resolved, strict=True)
    ]


# -- warnings --------------------------------------------------------------------------------


def find_warnings(
    config: Config, adopted: Collection[str] = frozenset()
) -> Iterator[tuple[Way, str]]:
    """Look at the folders and settings of a valid configuration: what could be meant otherwise.

    Parameters
    ----------
    config : Config
    adopted : collection of str
        Cameras that have a curve which the daemon has calibrated.
    """
    if not _writable(config.state_dir):
        yield ("state_dir",), f"{_quoted(config.state_dir)} cannot be written by this user"
    for name, camera in config.cameras.items():
        found = [_folders_if_they_answer(camera), _times(camera), _clock(camera)]
        found += [_missing_response(camera) if name in adopted else _response(camera)]
        for way, text in chain(*found, _retention(camera, config.disk.keep_free)):
            yield ("cameras", name, *way), text


def _folders_if_they_answer(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    (found,) = answered(_CAMERA_ANSWERS_WITHIN, lambda: list(_folders(camera)))
    if found is None:
        yield (), f"{_quoted(camera.watch)} or {_quoted(camera.output)} does not answer"
    else:
        yield from found


def _folders(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    watch, output = camera.watch, camera.output
    state = _state(watch, os.R_OK | os.X_OK)
    if state == _MISSING and any(place.is_file() for place in watch.parents):
        pass  # a problem for `check`, as a file in its place is
    elif state == _MISSING:
        yield ("watch",), f"{_quoted(watch)} does not exist yet; the daemon waits for it"
    elif state and (":" in state or watch.is_dir()):
        yield ("watch",), f"{_quoted(watch)} {state}"
    if not _writable(output):
        yield ("output",), f"{_quoted(output)} cannot be written by this user"
    if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(watch)):
        text = "lies in the watched folder; products are told apart by their names, at some cost"
        yield ("output",), f"{_quoted(output)} {text}"


def _response(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    response = camera.response
    if camera.merge.algorithm == "mertens":
        if response is not None:
            yield ("response",), "mertens uses no response curve"
        return
    if response is not None:
        (state,) = answered(_CAMERA_ANSWERS_WITHIN, partial(_state, response, os.R_OK))
        if state is None:
            state = "is on a share that gives no answer"
        if state and state != _MISSING:
            yield ("response",), f"{_quoted(response)} {state}"
        if state != _MISSING:
            return
    there = "is given" if response is None else f"is at {_quoted(response)} yet"
    waiting = camera.without_response == "wait"
    then = "brackets wait for it" if waiting else "brackets are merged by mertens meanwhile"
    text = f"no response curve {there}: one is calibrated from the first brackets; {then}"
    yield ("response",), text
    radiance = [p.format for p in camera.products if p.format in RADIANCE_FORMATS]
    if radiance and not waiting:
        text = f"no {' and no '.join(radiance)} is written before there is a response curve;"
        text += " brackets of the last two days are then merged again"
        yield ("products",), text


def _missing_response(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    """Find a `response` that names no file while the daemon has a curve of its own."""
    response = camera.response
    if response is None or camera.merge.algorithm == "mertens":
        return
    if answered(_CAMERA_ANSWERS_WITHIN, partial(_state, response, os.R_OK))[0] == _MISSING:
        text = "the curve that the daemon has adopted is used instead; is the name right?"
        yield ("response",), f"{_quoted(response)} does not exist; {text}"


def _state(path: Path, access: int) -> str:
    """Say what is wrong with a file or folder; nothing if it can be used so."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError as error:
        return f"cannot be read by this user: {error.strerror}"
    return "" if os.access(path, access) else "cannot be read by this user"


def _times(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    bracket, times = camera.bracket, camera.expected_exposures_us
    round_to = format_duration(bracket.round_to)
    if timedelta(days=1) % bracket.round_to:
        text = f"{round_to} does not divide a day; slots are counted from 1970 and shift every day"
        yield ("bracket", "round_to"), text
    if bracket.grace > bracket.round_to:
        text = f"{format_duration(bracket.grace)} is longer than round_to ({round_to})"
        yield ("bracket", "grace"), f"{text}; brackets wait while later ones arrive"
    if not isinstance(times, tuple):
        return
    key: Way = ("bracket", "exposures")
    never = "no bracket can ever be complete"
    open_for = sum(times) / 1e6
    if open_for > bracket.round_to.total_seconds():
        text = f"the exposures last {open_for:g} s together, round_to is {round_to}"
        yield key, f"{text}: {never}"
    unit = MICROSECONDS_PER_UNIT[camera.exposure_unit]
    labelled = {float(value * unit) for value in camera.exposure_labels.values()}
    odd = ", ".join(
        f"{time / unit:.12g}"
        for time in times
        if (time not in labelled if labelled else time % unit)
    )
    if odd and labelled:
        yield key, f"{odd} has no label in exposure_labels; is it written as a number?"
    elif odd:
        yield key, f"{odd} is never in a name, which holds whole numbers: {never}"


def _clock(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    zone, january = camera.pattern.timezone, datetime(datetime.now().year, 1, 1)
    offsets = {zone.utcoffset(january + timedelta(days=day)) for day in range(0, 366, 5)}
    if len(offsets) > 1:
        text = (
            f"{camera.timezone!r} changes its offset within the year: an hour of names occurs "
            "twice in autumn; better a camera clock with a fixed offset, such as Etc/GMT-1"
        )
        yield ("timezone",), text


def _retention(camera: CameraConfig, floor: int | None) -> Iterator[tuple[Way, str]]:
    retention = camera.retention
    exposures, products = retention.exposures.max_age, retention.products.max_age
    if retention.require_product and exposures and products and products < exposures:
        text = (
            f"{format_duration(products)} is shorter than exposures.max_age: without their products"
            " exposures are kept; set retention.require_product to false if both are to go"
        )
        yield ("retention", "products", "max_age"), text
    for kind in ("exposures", "products"):
        keep_free = getattr(retention, kind).keep_free
        if floor is not None and keep_free is not None and keep_free <= floor:
            text = "is no more than disk.keep_free: publishing pauses before anything is deleted"
            yield ("retention", kind, "keep_free"), text


def _writable(folder: Path) -> bool:
    """Tell whether a folder can be written, or made in the nearest one that exists."""
    for place in (folder, *folder.parents):
        if place.exists():
            # That a file is no folder is no question of who the user is.
            return not place.is_dir() or os.access(place, os.W_OK | os.X_OK)
    return False


def _quoted(path: Path) -> str:
    return repr(str(path))
