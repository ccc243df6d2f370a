"""``asi-watch explain``: how a product came to be, by its provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from asi_watch.cli import _options as options
from asi_watch.errors import AsiWatchError
from asi_watch.files import shown

if TYPE_CHECKING:
    from asi_watch.brackets import Exposure
    from asi_watch.config.model import CameraConfig, Config
    from asi_watch.hdr.response import ResponseCurve
    from asi_watch.products.provenance import Provenance, Source

_EPILOG = """\b
Examples:
  asi-watch explain /srv/asi/roof-hdr/2026/06/21/20260621120000_hdr.jpg
  asi-watch explain roof-hdr/20260621120000_hdr.jpg -c /etc/asi-watch/asi-watch.yaml
"""


@click.command(epilog=_EPILOG)
@click.argument("product", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-c",
    "--config",
    "config_path",
    metavar="FILE",
    help="Where the camera's exposures and curves are: look for them, and merge them again.",
)
@click.option("--camera", metavar="NAME", help="Its camera [default: the one that it names].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(product: str, config_path: str | None, camera: str | None, as_json: bool) -> None:
    """Say how PRODUCT came to be, and with -c whether a new merge gives the same bytes.

    Nothing is written: the new merge is compared and thrown away. Exit code 1 where an exposure is
    gone or changed, or a new merge gives something else.
    """
    from asi_watch.products.embed import read_provenance

    options.echo_log()
    found = read_provenance(product)
    inputs: dict[str, str] = {}
    differences: list[str] = []
    if config_path is not None:
        configured, config = options.camera_of(config_path, camera or found.camera) or (None, None)
        assert configured is not None
        assert config is not None
        inputs = {s.path: _state(configured.watch, s) for s in found.sources}
        differences = [f"{path}: {state}" for path, state in inputs.items() if state != "there"]
        if not differences:
            differences += _compare(product, found, configured, config)
    if as_json:
        document: dict[str, Any] = {"product": product, "provenance": asdict(found)}
        if config_path is not None:
            same = not differences
            document |= {"inputs": inputs, "same_bytes": same, "differences": differences}
        click.echo(json.dumps(document, default=datetime.isoformat))
    else:
        for line in _lines(found, inputs):
            click.echo(shown(line))
        for text in dict.fromkeys(differences):
            click.secho(f"not the same again: {shown(text)}", fg="yellow")
        if config_path is not None and not differences:
            click.echo("a new merge gives the same bytes")
    if differences:
        raise SystemExit(1)


def _lines(found: Provenance, inputs: dict[str, str]) -> Iterator[str]:
    """Write a provenance as lines to read."""
    of = f" of {found.expected}" if found.expected is not None else ""
    revision = f", revision {found.revision}" if found.revision > 1 else ""
    yield f"bracket {found.slot} of camera {found.camera} ({found.slot_utc:%H:%M:%S} UTC){revision}"
    yield f"merged from {found.used}{of} exposures by {found.algorithm} ({found.software})"
    yield f"response curve {found.curve_id}" if found.curve_id else "without a response curve"
    settings = [f"{key} {value}" for key, value in found.parameters.items() if value is not None]
    yield f"settings: {', '.join(settings)}"
    for source in found.sources:
        state = f", {inputs[source.path]}" if source.path in inputs else ""
        yield f"  {source.exposure_us:>10.12g} µs  {source.path} ({source.size} bytes{state})"
    for unusable in found.unusable:
        yield f"  left out: {unusable.path}: {unusable.reason}"
    if found.unusable_more:
        yield f"  left out: {found.unusable_more} more"
    for note in found.notes:
        yield f"doubtful: {note}"


def _state(watch: Path, source: Source) -> str:
    """Say whether an exposure is there as it was."""
    try:
        status = os.lstat(watch / source.path)
    except OSError as error:
        return f"gone ({error.strerror})"
    same = (status.st_size, status.st_mtime_ns) == (source.size, source.mtime_ns)
    return "there" if same else "changed since"


def _compare(
    product: str, found: Provenance, camera: CameraConfig, config: Config
) -> Iterator[str]:
    """Merge the exposures again, and say what is not as it was."""
    curves = _curves(found, camera, config)
    known = {curve.curve_id for curve in curves}
    if found.curve_id is not None and found.curve_id not in known:
        yield f"the curve {found.curve_id} is not there any more"
    settings = camera.merge_settings
    if found.algorithm != settings.algorithm:
        yield f"algorithm: {found.algorithm}, now {settings.algorithm}"
    now = settings.parameters()
    for key in sorted({*now, *found.parameters}):
        if found.parameters.get(key) != now.get(key):
            yield f"{key}: {found.parameters.get(key)}, now {now.get(key)}"
    with TemporaryDirectory(prefix="asi-watch-") as folder:
        made = _merge(found, camera, curves, folder, Path(product))
        if isinstance(made, str):
            yield made
        elif made.read_bytes() != Path(product).read_bytes():
            yield "the new file has other bytes" + _software(made, found)


def _software(made: Path, found: Provenance) -> str:
    from asi_watch.products.embed import read_provenance

    now = read_provenance(made).software
    return "" if now == found.software else f"; it was made by {found.software}, this is {now}"


def _curves(found: Provenance, camera: CameraConfig, config: Config) -> list[ResponseCurve]:
    """Find the curve of the product: it first, then those in use."""
    from asi_watch.live.ledger.ledger import Ledger
    from asi_watch.response_files import load_curve

    curves = [file.curve for file in options.curves_in_use(camera, config).files.values()]
    try:
        with Ledger(config.state_dir, read_only=True) as ledger:
            rows = [row for row in ledger.curves(camera.name) if row.curve_id == found.curve_id]
        curves += [load_curve(row.path) for row in rows[-1:]]
    except (AsiWatchError, OSError):
        pass  # no ledger, or a curve that was deleted: those in use remain
    return sorted(curves, key=lambda curve: curve.curve_id != found.curve_id)


def _merge(
    found: Provenance, camera: CameraConfig, curves: list[ResponseCurve], folder: str, product: Path
) -> Path | str:
    """Merge the bracket once more into a folder; the product's file, or why there is none."""
    from asi_watch.frames import Frames
    from asi_watch.merge_bracket import Bracket, MergePlan, Published, merge_bracket
    from asi_watch.products.publish import OutputFolder

    specs = [p.spec for p in camera.products if p.spec.suffix == product.suffix]
    own = [
        s for s in specs if s.target(camera.name, "", found.slot, found.slot_utc) == product.name
    ]
    if not specs:
        return f"the camera has no product {product.suffix} now"
    # Into the folder alone, whatever place of its own it has.
    spec = replace((own or specs)[0], output=None, latest=False)
    plan = MergePlan(
        camera=found.camera,
        root=os.fspath(camera.watch),
        output=OutputFolder(folder),
        settings=replace(camera.merge_settings, algorithm=found.algorithm),
        products=(spec,),
        timezone=camera.pattern.timezone,
        without_response="mertens",
        replace=True,
        geometry=camera.geometry.values,
    )
    bracket = Bracket(
        slot=found.slot,
        exposures=tuple(_exposures(found, camera)),
        expected=found.expected,
        complete=found.complete,
        left_out=tuple(u for u in found.unusable if not u.is_contradicting),
        revision=found.revision,
        folder="",
    )
    done = merge_bracket(
        plan, bracket, Frames(plan.root, linear=plan.settings.sensor is not None), curves
    )
    if not isinstance(done, Published):
        return f"cannot be merged again: {done.reason}"
    return Path(folder, done.products[0])


def _exposures(found: Provenance, camera: CameraConfig) -> Iterator[Exposure]:
    """Give what the merge was given: also what it left out as contradicting."""
    from asi_watch.brackets import Exposure
    from asi_watch.cli._newest_files import stated_times

    for s in found.sources:
        nominal = s.nominal_us or 0.0
        yield Exposure(s.path, s.timestamp, s.exposure_us, s.size, s.mtime_ns, 0, nominal)
    for u in found.unusable:
        name = camera.pattern.parse(u.path) if u.is_contradicting else None
        if name is not None:
            stated = stated_times(camera.watch, [u.path]).get(u.path)
            time, nominal = camera.exposure_times.of(name.exposure_us, stated)
            signature = u.size or 0, u.mtime_ns or 0
            yield Exposure(u.path, name.timestamp, time, *signature, 0, nominal)
