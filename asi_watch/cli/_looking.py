"""What lies in a camera's folders now, read as the daemon would read it: for `asi-watch check`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asi_watch.config.document import Way
from asi_watch.config.model import CameraConfig
from asi_watch.files import shown
from asi_watch.naming import NamePattern, ParsedName, is_product_name, unclear_labels

if TYPE_CHECKING:
    from asi_watch.hdr.response import CurveProblem, ResponseCurve
    from asi_watch.images.headers import Header

__all__ = [
    "FilesFound",
    "disc_warnings",
    "hints",
    "look_into",
    "name_warnings",
    "names_as_read",
    "response_fault",
    "response_warnings",
]

_MOST_FILES = 200
_MOST_OF_A_FOLDER = 50
_MOST_FOLDERS = 300
_MOST_HEADER = 1 << 20
_PATIENCE = 5.0
_OTHER_TEMPLATES = (
    "{timestamp:%Y%m%d%H%M%S}_{exposure}",
    "{timestamp:%Y%m%d_%H%M%S}_{exposure}",
    "{timestamp:%Y-%m-%d_%H-%M-%S}_{exposure}",
    "{timestamp:%Y%m%dT%H%M%S}_{exposure}",
)


@dataclass(frozen=True, slots=True)
class FilesFound:
    """Some of the newest files of a watch folder: what their names say, and which say nothing.

    Paths are relative to the folder.
    """

    fitting: tuple[tuple[str, ParsedName], ...]
    misfits: tuple[str, ...]


def look_into(camera: CameraConfig) -> FilesFound:
    """Read the names of some of a camera's newest files; none where its folder gives no answer."""
    from asi_watch.files import answered

    (names,) = answered(_PATIENCE, lambda: list(_newest_files(camera)))
    pattern = camera.pattern
    fitting, misfits = [], []
    for path in names or []:
        parsed = pattern.parse(path)
        if parsed is None:
            misfits.append(path)
        else:
            fitting.append((path, parsed))
    fitting.sort(key=lambda item: item[1].timestamp, reverse=True)
    return FilesFound(tuple(fitting), tuple(misfits))


def names_as_read(name: str, found: FilesFound) -> Iterator[str]:
    """Say how the newest names are understood, a line each."""
    count = len(found.fitting) + len(found.misfits)
    if not count:
        return
    yield f"{name}: {len(found.fitting)} of the {count} newest files fit `filename`"
    for path, parsed in found.fitting[:3]:
        yield f"  {shown(path)} is from {parsed.timestamp}, exposed {parsed.exposure_us:g} µs"


def name_warnings(camera: CameraConfig, found: FilesFound) -> Iterator[tuple[Way, str]]:
    """Find names that do not fit, labels that are taken for times, times nobody expects."""
    count = len(found.fitting) + len(found.misfits)
    if found.misfits:
        which = "none" if not found.fitting else f"{len(found.misfits)}"
        fit = "fits" if not found.fitting else "do not fit"
        example = found.misfits[0].rpartition("/")[2]
        text = f"{which} of the {count} newest files {fit} {camera.filename!r}, such as"
        yield ("filename",), f"{text} {shown(example)!r}{_better(camera, example)}"
    names = [path for path, _ in found.fitting] + list(found.misfits)
    labels = unclear_labels(names) - set(camera.exposure_labels)
    if labels and not camera.exposure_labels:
        some = ", ".join(repr(label) for label in sorted(labels)[:3])
        text = f"the newest names end in {some}: labels, it seems, not times; say what they mean"
        yield ("exposure_labels",), f'{text}, such as {{"0": 2000, "02": 500}}'
    expected = camera.expected_exposures_us
    times = Counter(parsed.exposure_us for _, parsed in found.fitting)
    if isinstance(expected, tuple) and times and not set(times) & set(expected):
        some = ", ".join(f"{time:g}" for time in sorted(times)[:6])
        text = f"none of them is in the newest files' names, which say {some} µs"
        yield ("bracket", "exposures"), text


def disc_warnings(camera: CameraConfig, found: FilesFound) -> Iterator[tuple[Way, str]]:
    """Find sky discs that have nothing of the newest picture inside."""
    given = {"merge": camera.merge.sky_disc, "recalibrate": camera.recalibrate.sky_disc}
    discs = {section: disc for section, disc in given.items() if isinstance(disc, tuple)}
    if not discs or not found.fitting:
        return
    from asi_watch.files import answered
    from asi_watch.hdr.disc import SkyDisc

    path = camera.watch / found.fitting[0][0]
    (header,) = answered(_PATIENCE, partial(_header, path))
    if header is None:
        return
    for section, disc in discs.items():
        try:
            SkyDisc(*disc).mask((header.height, header.width))
        except ValueError as error:
            yield (section, "sky_disc"), f"{error} ({shown(found.fitting[0][0])})"


def response_fault(camera: CameraConfig, found: FilesFound) -> str | None:
    """Say why the response file cannot be used; None if it can, or is not there, or not read.

    A file that this user may not read is not judged: the daemon may be another.
    """
    from asi_watch.files import answered

    path = camera.response
    if path is None or camera.merge.algorithm == "mertens":
        return None
    (fault,) = answered(_PATIENCE, partial(_response_fault, path, camera, found))
    return fault


def response_warnings(camera: CameraConfig, _found: FilesFound) -> Iterator[tuple[Way, str]]:
    """Say what is odd about a response curve that can be used all the same."""
    path = camera.response
    if path is None or camera.merge.algorithm == "mertens":
        return
    from asi_watch.files import answered
    from asi_watch.response_files import warning_of

    (problems,) = answered(_PATIENCE, partial(_curve_problems, path))
    for problem in problems or ():
        yield ("response",), f"{path}: {warning_of(problem)}"


def _curve_problems(path: Path) -> tuple[CurveProblem, ...]:
    from asi_watch.errors import ResponseFileError
    from asi_watch.response_files import examine_curve, refusal

    try:
        _, problems = examine_curve(path)
    except ResponseFileError:
        return ()
    return () if refusal(problems, "") else problems


def hints(camera: CameraConfig) -> list[str]:
    """Say what the settings leave to be wished for (`merge_hints`), by the response file."""
    from asi_watch.cli._scale import merge_hints
    from asi_watch.files import answered

    merge, path = camera.merge, camera.response
    curve = None if path is None else answered(_PATIENCE, partial(_usable_curve, path))[0]
    formats = [product.format for product in camera.products]
    scaled = merge.lnE_range is not None
    return list(merge_hints(merge.algorithm, scaled=scaled, curve=curve, formats=formats))


def _usable_curve(path: Path) -> ResponseCurve | None:
    from asi_watch.errors import ResponseFileError
    from asi_watch.response_files import examine_curve, refusal

    try:
        curve, problems = examine_curve(path)
    except ResponseFileError:
        return None
    return None if refusal(problems, "") else curve


def _response_fault(path: Path, camera: CameraConfig, found: FilesFound) -> str | None:
    from asi_watch.errors import ResponseFileError
    from asi_watch.response_files import examine_curve, refusal

    with path.open("rb"):  # an OSError: not there, or not to be read
        pass
    try:
        curve, problems = examine_curve(path)
    except ResponseFileError as error:
        return str(error)
    if (impossible := refusal(problems, str(path))) is not None:
        return impossible
    for name, _ in found.fitting[:1]:
        header = _header(camera.watch / name)
        if header is not None and header.channels != curve.channels:
            return (
                f"{path}: is a curve of {curve.channels} channels, and the camera's images have"
                f" {header.channels} ({shown(name)})"
            )
    return None


def _header(path: Path) -> Header | None:
    from asi_watch.images.headers import HeaderError, read_header

    try:
        with path.open("rb") as file:
            return read_header(file.read(_MOST_HEADER))
    except (OSError, HeaderError):
        return None


def _better(camera: CameraConfig, name: str) -> str:
    for template in _OTHER_TEMPLATES:
        labels = camera.exposure_labels
        if NamePattern(template, camera.exposure_unit, labels, camera.timezone).parse(name):
            return f"; did you mean {template!r}?"
    return ""


def _newest_files(camera: CameraConfig) -> Iterator[str]:
    """Go through a bounded part of the folder, in falling order of names: dates come last."""
    left, folders = _MOST_FILES, [""]
    for _ in range(_MOST_FOLDERS):
        if not folders or left <= 0:
            return
        below = folders.pop()
        subfolders, names = _listed(camera, below)
        folders += [f"{below}{name}/" for name in subfolders]
        for name in names[: min(left, _MOST_OF_A_FOLDER)]:
            left -= 1
            yield f"{below}{name}"


def _listed(camera: CameraConfig, below: str) -> tuple[list[str], list[str]]:
    subfolders, names = [], []
    try:
        with os.scandir(camera.watch / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    subfolders.append(entry.name)
                elif entry.name.rpartition(".")[2].lower() in camera.extensions:
                    names.append(entry.name)
    except OSError:
        return [], []
    names = [name for name in names if not is_product_name(name)]
    return sorted(subfolders), sorted(names, reverse=True)
