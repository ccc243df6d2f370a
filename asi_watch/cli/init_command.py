"""``asi-watch init``: a configuration for the pictures that lie in a folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median, median_low
from typing import TYPE_CHECKING, Any

import click
import yaml

from asi_watch.brackets import Exposure, brackets_among, slot_of
from asi_watch.cli import _options as options
from asi_watch.cli._newest_files import (
    NameGuess,
    find_newest,
    guess_names,
    newest_names,
    slot_offset,
    stated_times,
)
from asi_watch.config import camera_section
from asi_watch.config.loading import parse_config
from asi_watch.config.model import CameraConfig
from asi_watch.config.values import DEEP_EXTENSIONS, READABLE_EXTENSIONS, format_duration
from asi_watch.errors import AsiWatchError, ImageError
from asi_watch.files import answered, counted, shown
from asi_watch.naming import MICROSECONDS_PER_UNIT

if TYPE_CHECKING:
    from asi_watch.hdr.disc import SkyDisc

_EPILOG = """\b
Examples:
  asi-watch init /srv/asi/roof -o roof.yaml
  asi-watch init /srv/asi/roof --camera roof --camera-data camera_data.yaml -o roof.yaml --yes
"""
_ANSWER_WITHIN = 30.0
# Enough to see days, where the newest files are of a night.
_NAMES, _HEADERS, _PICTURES = 8000, 100, 5
_ALIKE = 0.1  # exposure times of one step of the bracket, stated by the files, lie so close
_USUAL = 0.8
_ALONE = 10


class InitError(AsiWatchError):
    """A folder that no configuration can be made for."""


@dataclass(slots=True)
class Draft:
    """What was found out of a camera, and what is only guessed."""

    folder: Path
    name: str
    guess: NameGuess
    values: dict[str, Any] = field(default_factory=dict)
    """Keys of the camera's section, in the order of the file."""
    notes: dict[str, str] = field(default_factory=dict)
    """What to say of a key, in a comment above it."""
    zone_seen: bool = False
    """Whether the time zone was seen, by the times of the files or in the names."""
    hints: list[str] = field(default_factory=list)
    """Lines of comment at the end of the section."""


@click.command(epilog=_EPILOG)
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--camera", metavar="NAME", help="Name of the camera  [default: the folder's].")
@click.option("--camera-data", "description", metavar="FILE", help="As asi_core describes it.")
@click.option("-o", "--output", "target", metavar="FILE", required=True, help="The YAML file.")
@click.option("--yes", is_flag=True, help="Ask nothing: take what was found.")
def command(
    folder: str, camera: str | None, description: str | None, target: str, yes: bool
) -> None:
    """Look at the pictures in FOLDER and write a commented configuration that works for them.

    Found are the pattern of the names, where exposure times stand and in which unit, interval and
    offset of the brackets, the time zone by the times of the files, the sky disc. What cannot be
    known is asked, or stated in the file. FILE is never overwritten.
    """
    options.echo_log()
    file = Path(target).absolute()
    if file.exists():
        raise click.UsageError(f"{target} exists; move it away, or give another name")
    watch = Path(folder).absolute()
    draft = _draft(watch, _camera_name(camera or watch.name))
    if description is not None:
        _describe(draft, Path(description).absolute())
    if not yes:
        _ask(draft)
    text = _write(draft, file)
    loaded = parse_config(text.encode("utf-8", "surrogateescape"), target, file.parent)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}") from error
    (configured,) = loaded.config.cameras.values()
    for line in find_newest(configured).lines():
        click.echo(line)
    for note in draft.notes.values():
        click.echo(f"note: {note}")
    click.echo(f"written to {shown(target)}; next: asi-watch check -c {shown(target)}")


def _draft(watch: Path, name: str) -> Draft:
    """Find out what the pictures of a folder tell."""
    (paths,) = answered(_ANSWER_WITHIN, lambda: list(newest_names(watch, None, _NAMES)))
    kinds = Counter(path.rpartition(".")[2].lower() for path in paths or ())
    extensions = [kind for kind in READABLE_EXTENSIONS if kinds[kind]]
    # A camera may write raw files beside its pictures.
    extensions = [k for k in extensions if k not in DEEP_EXTENSIONS] or extensions
    pictures = [p for p in paths or () if p.rpartition(".")[2].lower() in extensions]
    if not pictures:
        known = ", ".join(READABLE_EXTENSIONS)
        raise InitError(f"{shown(watch)} holds no pictures of the kinds {known}")
    guess = guess_names(pictures)
    if guess is None:
        raise InitError(
            f"{shown(watch)}: no date with time of day in the names, such as {shown(pictures[0])};"
            " asi-watch tells by it which exposures belong together"
        )
    draft = Draft(watch, name, guess)
    draft.values |= {"watch": str(watch), "output": f"{watch}-hdr", "filename": guess.filename}
    default = CameraConfig.model_fields["extensions"].default
    if not set(extensions) <= set(default):
        draft.values["extensions"] = extensions
    if set(extensions) <= {"dng", "fits", "fit", "fts"}:
        draft.values["response"] = "linear"
        draft.notes["response"] = "what the codes of a linear camera mean is said by merge.sensor"
    stated = stated_times(watch, pictures[:_HEADERS])
    _exposures_of_names(draft, stated, pictures)
    _brackets(draft, _files(draft, pictures, stated))
    _zone(draft)
    _pictures(draft)
    return draft


# -- exposures ---------------------------------------------------------------------------------


def _exposures_of_names(draft: Draft, stated: dict[str, float], pictures: Sequence[str]) -> None:
    """Say where exposure times come from: names, files, or labels."""
    guess = draft.guess
    if guess.kind == "none":
        if not stated:
            raise InitError(
                f"{shown(pictures[0])}: neither the names nor the files (EXIF) state exposure times"
            )
        draft.values["exposure_from"] = "metadata"
        draft.notes["exposure_from"] = "the names hold no exposure time; the files state it (EXIF)"
    elif guess.kind == "label":
        _labels(draft, stated, pictures)
    else:
        unit = _unit(guess, stated)
        draft.values["exposure_unit"] = unit
        if guess.kind == "number" and not stated:
            text = f"guessed: the numbers {', '.join(guess.tokens[:6])} are taken for {unit}"
            draft.notes["exposure_unit"] = text


def _unit(guess: NameGuess, stated: dict[str, float]) -> str:
    """Find the unit by which the names say what the files state; else the guessed one."""
    pattern = re.compile(re.escape(guess.tokens[-1]))
    times = [time for path, time in stated.items() if pattern.search(path)]
    if guess.kind != "number" or not times:
        return guess.unit
    ratio = median(times) / float(guess.tokens[-1])
    return min(MICROSECONDS_PER_UNIT, key=lambda u: abs(MICROSECONDS_PER_UNIT[u] / ratio - 1))


def _labels(draft: Draft, stated: dict[str, float], pictures: Sequence[str]) -> None:
    """Find what labels mean: by what the files state, else by how bright the pictures are."""
    tokens = draft.guess.tokens
    of_label: dict[str, list[str]] = {token: [] for token in tokens}
    for path in pictures:
        ends = re.split(r"[-_.]", path.rpartition("/")[2].rpartition(".")[0])
        token = next((token for token in tokens if token in ends[-2:]), None)
        if token is not None:
            of_label[token].append(path)
    times = {
        token: median(known)
        for token, paths in of_label.items()
        if (known := [stated[path] for path in paths if path in stated])
    }
    if len(times) < len(tokens):
        times = _times_by_brightness(draft.folder, of_label)
        draft.notes["exposure_labels"] = (
            "GUESSED by the brightness of the pictures: write the times set in the camera (µs);"
            " null leaves a label's files out"
        )
        draft.values["exposure_labels"] = {}  # above what depends on it
        draft.values["merge"] = {"algorithm": "mertens"}
        draft.notes["merge"] = "needs no exposure times; with the true ones take debevec_exact"
    draft.values["exposure_labels"] = {token: _plain(time) for token, time in times.items()}


def _times_by_brightness(watch: Path, of_label: dict[str, list[str]]) -> dict[str, float]:
    """Guess relative exposure times: those of a sensor with gamma 2.2, from 100 µs on."""
    from asi_watch.images import read_image

    light = {}
    for token, paths in of_label.items():
        means = []
        for path in paths[:_PICTURES]:
            with suppress(ImageError):
                means.append(float(read_image(watch / path).pixels.mean()))
        light[token] = (median(means) if means else 1.0) ** 2.2
    darkest = min(light.values()) or 1.0
    times: dict[str, float] = {}
    for token in sorted(light, key=lambda token: light[token]):
        least = 1.2 * max(times.values(), default=80.0)  # two labels never have one time
        times[token] = float(round(max(least, 100 * light[token] / darkest)))
    return {token: times[token] for token in of_label}


def _camera(draft: Draft) -> CameraConfig:
    """Give the camera that the draft describes so far."""
    section = draft.values | {"output": "/output"}
    text = yaml.safe_dump({"cameras": {"draft": section}}).encode("utf-8", "surrogateescape")
    return parse_config(text, "draft", Path("/")).config.cameras["draft"]


def _files(draft: Draft, pictures: Sequence[str], stated: dict[str, float]) -> list[Exposure]:
    """Read the names by the draft, with exposure times that names leave to the files."""
    pattern = _camera(draft).pattern
    found = []
    for path in pictures:
        parsed = pattern.parse(path)
        if parsed is not None:
            time = parsed.exposure_us or stated.get(path, 0.0)
            found += [Exposure(path, parsed.timestamp, time)] if time > 0 else []
    # Those that the files state differ a little from bracket to bracket.
    steps: list[list[float]] = []
    for time in sorted(file.exposure_us for file in found):
        if not steps or time > steps[-1][0] * (1 + _ALIKE):
            steps.append([])
        steps[-1].append(time)
    usual = {time: median_low(step) for step in steps for time in step}
    return [Exposure(f.path, f.timestamp, usual[f.exposure_us]) for f in found]


# -- brackets, clock, pictures -----------------------------------------------------------------


def _brackets(draft: Draft, files: list[Exposure]) -> None:
    """Find interval, offset and exposures of the brackets."""
    files = _in_company(files)
    brackets = brackets_among(files)
    bracket: dict[str, Any] = {}
    steps = [b[0].timestamp - a[0].timestamp for a, b in pairwise(brackets)]
    if not steps:
        draft.values["bracket"] = {"round_to": "30s", "min_exposures": 2}
        text = "guessed: there are too few brackets in the folder to see their interval"
        draft.notes["bracket"] = text
        return
    interval = timedelta(seconds=max(1, round(median_low(steps).total_seconds())))
    bracket["round_to"] = format_duration(interval)
    cut = sum(len({slot_of(f.timestamp, interval) for f in one}) > 1 for one in brackets)
    offset = slot_offset([f.timestamp for f in files], interval) if cut else None
    if offset:
        bracket["offset"] = format_duration(offset)
    counts = Counter(time for one in brackets for time in {f.exposure_us for f in one})
    usual = sorted(time for time, n in counts.items() if n >= _USUAL * (len(brackets) - 2))
    if len(brackets) > 2 and len(usual) > 1:
        unit = MICROSECONDS_PER_UNIT[draft.values.get("exposure_unit", "us")]
        # Guessed times will be replaced: then their number alone says when a bracket is complete.
        guessed = "GUESSED" in draft.notes.get("exposure_labels", "")
        bracket["exposures"] = len(usual) if guessed else [_plain(t / unit) for t in usual]
    bracket["min_exposures"] = max(2, min(3, len(usual)))
    bracket["grace"] = format_duration(min(timedelta(seconds=10), interval / 2))
    draft.values["bracket"] = bracket
    lasts = max(one[-1].timestamp - one[0].timestamp for one in brackets)
    draft.notes["bracket"] = (
        f"seen: {counted(len(usual), 'exposure')} every {format_duration(interval)},"
        f" within {lasts.total_seconds():g} s"
    )


def _in_company(files: list[Exposure]) -> list[Exposure]:
    """Leave out exposure times that are taken alone, as a camera may do by night."""
    moments = sorted((file.timestamp, file.exposure_us) for file in files)
    gaps: dict[float, list[timedelta]] = {time: [] for _, time in moments}
    for (before, one), (after, other) in pairwise(moments):
        for time in (one, other):
            gaps[time].append(after - before if one != other else timedelta.max)
    # Each has two neighbours; the first and the last of a bracket one within it.
    usual = {time: sorted(spans)[len(spans) // 4] for time, spans in gaps.items() if spans}
    nearest = min(usual.values(), default=timedelta(0))
    kept = {
        time for time, gap in usual.items() if gap <= _ALONE * max(nearest, timedelta(seconds=1))
    }
    return [file for file in files if file.exposure_us in kept]


def _plain(number: float) -> float | int:
    short = float(f"{number:.6g}")
    return int(short) if short == int(short) else short


def _zone(draft: Draft) -> None:
    """Guess the time zone of the names by the times the files were written at."""
    draft.zone_seen = True
    if draft.guess.zone:
        draft.values["timezone"] = "UTC"
        draft.notes["timezone"] = "the names state their offset; slots are counted in this zone"
        return
    ahead = find_newest(_camera(draft)).ahead()
    if ahead is not None and not timedelta(hours=-12) <= ahead <= timedelta(hours=14):
        ahead = None  # copied since, without the times at which they were written
    hours = 0 if ahead is None else round(ahead / timedelta(hours=1))
    draft.values["timezone"] = f"Etc/GMT{-hours:+d}" if hours else "UTC"
    if ahead is None:
        draft.zone_seen = False
        text = "guessed: the times of the files do not tell the zone of the names"
    else:
        text = "by the times the files were written at; Etc/GMT-1 is one hour ahead of UTC"
    draft.notes["timezone"] = text


def _pictures(draft: Draft) -> None:
    """Look for the sky disc in some pictures."""
    disc = _disc(draft)
    if disc is not None:
        circle = [round(disc.x), round(disc.y), round(disc.radius)]
        draft.hints.append("merge only what is inside the sky disc that the pictures show:")
        draft.hints.append(f"merge: {{sky_disc: {circle}}}")


def _disc(draft: Draft) -> SkyDisc | None:
    from asi_watch.hdr.disc import find_sky_disc
    from asi_watch.images import read_image

    images: list[Any] = []
    for path in list(newest_names(draft.folder))[: 4 * _PICTURES]:
        with suppress(ImageError):
            pixels = read_image(draft.folder / path).pixels
            if not images or pixels.shape == images[0].shape:
                images.append(pixels)
    return find_sky_disc(images) if images else None


def _describe(draft: Draft, path: Path) -> None:
    """Leave to the camera's description what it says, unless the pictures say otherwise."""
    try:
        described = camera_section.section_of(path)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="--camera-data") from error
    draft.values["camera_data"] = str(path)
    draft.notes["camera_data"] = "asi_core's description of the camera: what is not given here"
    if zone := described.get("timezone"):
        if draft.zone_seen and zone != draft.values["timezone"]:
            draft.notes["timezone"] += f"; the description of the camera says {zone}"
        else:
            del draft.values["timezone"], draft.notes["timezone"]
    if "merge" in described:
        draft.hints.clear()


# -- questions and the file --------------------------------------------------------------------


def _camera_name(text: str) -> str:
    name = re.sub("[^A-Za-z0-9_-]+", "-", text).strip("-_")[:64]
    return name or "camera"


def _ask(draft: Draft) -> None:
    """Ask what only people know; an empty answer takes what was found."""
    draft.name = _camera_name(click.prompt("Name of the camera", draft.name))
    for key, question in (
        ("output", "Folder for the HDR pictures"),
        ("timezone", "Time zone of the names (UTC, Etc/GMT-1 is one hour ahead)"),
    ):
        if key in draft.values:
            draft.values[key] = click.prompt(question, draft.values[key])
    if "exposure_unit" in draft.notes:
        choice = click.Choice(list(MICROSECONDS_PER_UNIT))
        found = draft.values["exposure_unit"]
        draft.values["exposure_unit"] = click.prompt("Unit of the exposures", found, type=choice)


def _write(draft: Draft, file: Path) -> str:
    """Write the file: what was found, each doubtful key with a comment."""
    state = Path("/var/lib/asi-watch")
    if os.getuid() != 0 and not os.access(state, os.W_OK):
        state = file.parent / "asi-watch-state"
    lines = [
        f"# Written by `asi-watch init` from the pictures in {shown(draft.folder)}.",
        "# Check it with `asi-watch check -c FILE`; docs/configuration.md explains every key.",
        *_yaml("state_dir", str(state)),
        "",
        "cameras:",
        f"  {draft.name}:",
    ]
    for key, value in draft.values.items():
        if key in draft.notes:
            lines.append(f"    # {draft.notes[key]}")
        lines += [f"    {line}" for line in _yaml(key, value)]
    lines += [f"    # {hint}" for hint in draft.hints]
    lines.append(
        "    # without a response: FILE.npz, a curve is calibrated from the first brackets"
    )
    return "\n".join(lines) + "\n"


def _yaml(key: str, value: Any) -> list[str]:
    flow = None if isinstance(value, dict | list) else False
    text = yaml.safe_dump(
        {key: value}, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=90
    )
    return str(text).splitlines()
