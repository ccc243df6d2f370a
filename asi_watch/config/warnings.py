"""What is allowed and yet worth a second look, with the machine as it is now."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from asi_watch.config.document import Way, written_way
from asi_watch.config.loading import LoadedConfig
from asi_watch.config.model import RADIANCE_FORMATS, CameraConfig, Config
from asi_watch.config.problems import Problem
from asi_watch.durations import format_duration
from asi_watch.naming import MICROSECONDS_PER_UNIT, parse_timezone, utc_offset_changes
from asi_watch.patience import answered

__all__ = ["find_warnings"]

# Seconds that a camera's folders may take to answer.
_PATIENCE = 5.0
_MISSING, _READABLE = "is missing", "can be read"


def find_warnings(loaded: LoadedConfig) -> list[Problem]:
    """Look at the folders and settings of a valid configuration.

    Parameters
    ----------
    loaded : LoadedConfig
        From `read_config`.

    Returns
    -------
    list of Problem
        What the daemon would run with all the same.
    """
    config, document = loaded.config, loaded.document
    found: list[tuple[Way, str]] = []
    if not _writable(config.state_dir):
        found.append(
            (("state_dir",), f"{_quoted(config.state_dir)} cannot be written by this user")
        )
    for name, camera in config.cameras.items():
        checks = (_folders_if_they_answer, _response, _times, _clock, _retention)
        found += [
            (("cameras", name, *way), text) for check in checks for way, text in check(camera)
        ]
        found += [(("cameras", name, *way), text) for way, text in _floors(config, camera)]
    return [
        Problem(document.file, document.line_of(way), written_way(way), text) for way, text in found
    ]


def _folders_if_they_answer(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    (found,) = answered(_PATIENCE, lambda: list(_folders(camera)))
    if found is None:
        yield (), f"{_quoted(camera.watch)} or {_quoted(camera.output)} does not answer"
    else:
        yield from found


def _folders(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    watch, output = camera.watch, camera.output
    try:
        kind = watch.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        yield ("watch",), f"{_quoted(watch)} does not exist yet; the daemon waits for it"
    except OSError as error:
        yield ("watch",), f"{_quoted(watch)} cannot be read by this user: {error.strerror}"
    else:
        if not stat.S_ISDIR(kind):
            yield ("watch",), f"{_quoted(watch)} is no folder"
        elif not os.access(watch, os.R_OK | os.X_OK):
            yield ("watch",), f"{_quoted(watch)} cannot be read by this user"
    if not _writable(output):
        yield ("output",), f"{_quoted(output)} cannot be written by this user"
    if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(watch)):
        text = "lies in the watched folder; products are told apart by their names, at some cost"
        yield ("output",), f"{_quoted(output)} {text}"


def _response(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    algorithm = camera.merge.algorithm
    if algorithm == "mertens":
        if camera.response is not None:
            yield ("response",), "mertens uses no response curve"
        return
    if camera.response is not None:
        (state,) = answered(_PATIENCE, partial(_state, camera.response))
        if state != _MISSING:
            if state != _READABLE:
                text = f"{_quoted(camera.response)} {state or 'is on a share that gives no answer'}"
                yield ("response",), text
            return
    state = "is given" if camera.response is None else f"is at {_quoted(camera.response)} yet"
    waiting = camera.without_response == "wait"
    then = "brackets wait for it" if waiting else "brackets are merged by mertens meanwhile"
    yield (
        ("response",),
        f"no response curve {state}: one is calibrated from the first brackets; {then}",
    )
    radiance = [p.format for p in camera.products if p.format in RADIANCE_FORMATS]
    if radiance and not waiting:
        text = f"no {' and no '.join(radiance)} is written before there is a response curve;"
        text += " brackets of the last two days are then merged again"
        yield ("products",), text


def _state(file: Path) -> str:
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError as error:
        return f"cannot be read by this user: {error.strerror}"
    return _READABLE if os.access(file, os.R_OK) else "cannot be read by this user"


def _times(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    bracket = camera.bracket
    round_to = format_duration(bracket.round_to)
    if timedelta(days=1) % bracket.round_to:
        text = f"{round_to} does not divide a day; slots are counted from 1970 and shift every day"
        yield ("bracket", "round_to"), text
    if bracket.grace > bracket.round_to:
        grace = format_duration(bracket.grace)
        text = (
            f"{grace} is longer than round_to ({round_to}); brackets wait while later ones arrive"
        )
        yield ("bracket", "grace"), text
    times = camera.expected_exposures_us
    if not isinstance(times, tuple):
        return
    open_for = timedelta(microseconds=sum(times))
    if open_for > bracket.round_to:
        text = f"the exposures last {open_for.total_seconds():g} s together, round_to is {round_to}"
        yield ("bracket", "exposures"), f"{text}: no bracket can ever be complete"
    unit = MICROSECONDS_PER_UNIT[camera.exposure_unit]
    labelled = {float(value * unit) for value in camera.exposure_labels.values()}
    strange = [f"{time / unit:g}" for time in times if labelled and time not in labelled]
    if strange:
        text = f"{', '.join(strange)} has no label in exposure_labels; is it written as a number?"
        yield ("bracket", "exposures"), text


def _clock(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    if utc_offset_changes(parse_timezone(camera.timezone), datetime.now().year):
        text = (
            f"{camera.timezone!r} changes its offset within the year: an hour of names occurs "
            "twice in autumn; better a camera clock with a fixed offset, such as Etc/GMT-1"
        )
        yield ("timezone",), text


def _retention(camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    retention = camera.retention
    exposures, products = retention.exposures.max_age, retention.products.max_age
    if not retention.require_product or exposures is None or products is None:
        return
    if products < exposures:
        text = (
            f"{format_duration(products)} is shorter than exposures.max_age: without their products"
            " exposures are kept; set retention.require_product to false if both are to go"
        )
        yield ("retention", "products", "max_age"), text


def _floors(config: Config, camera: CameraConfig) -> Iterator[tuple[Way, str]]:
    floor = config.disk.keep_free
    for kind in ("exposures", "products"):
        keep_free = getattr(camera.retention, kind).keep_free
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
