"""``asi-watch merge``: a folder or an archive merged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asi_watch.cli import _options as options
from asi_watch.cli._options import SLOT, stopped_by_signal
from asi_watch.config.model import CameraConfig, Config, MergeConfig, ProductConfig, ToneConfig
from asi_watch.errors import AsiWatchError, ResponseFileError
from asi_watch.files import shown

if TYPE_CHECKING:
    from asi_watch.hdr.merge_settings import MergeSettings
    from asi_watch.hdr.response import ResponseCurve
    from asi_watch.pipeline.archive import ArchiveSummary
    from asi_watch.products import ProductSpec

_INTERRUPTED = 130
_ALGORITHMS = ("debevec_exact", "debevec_custom", "debevec", "mertens", "linear")
_OPERATORS = ("photographic", "gamma", "reinhard", "drago", "mantiuk", "local")
_FORMATS = ("jpg", "png", "jp2", "exr", "tiff", "hdr")
_EPILOG = """\b
Examples:
  asi-watch merge /srv/asi/2026/06/21 hdr --response roof.npz
  asi-watch merge /srv/asi hdr --response roof.npz --format jpg --format exr --workers 4
  asi-watch merge /srv/asi hdr -c /etc/asi-watch/asi-watch.yaml --camera roof
  asi-watch merge pictures hdr --algorithm mertens --round-to 1min
  asi-watch merge /srv/asi hdr --response roof.npz --since 2026-06-21 --until 2026-06-22 --dry-run

Ctrl-C finishes the brackets in work; the same command goes on later. Several runs of it, on one or
several machines with the same folders, share the work.
"""


@click.command(epilog=_EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.argument("output", metavar="OUT", type=click.Path(file_okay=False))
@options.names_options
@click.option(
    "--response",
    metavar="FILE",
    help="The camera's response curve. Without any, one is calibrated from DIR for this run.",
)
@click.option(
    "--curves",
    "history",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="The camera's curves over the years, as state_dir/curves/NAME keeps them: each bracket is"
    " merged with the newest that was made before it.",
)
@click.option("--algorithm", type=click.Choice(_ALGORITHMS), help="[default: debevec_exact]")
@click.option(
    "--format",
    "formats",
    type=click.Choice(_FORMATS),
    multiple=True,
    help="What is written for every bracket; may be given several times  [default: jpg].",
)
@click.option("--quality", type=click.IntRange(1, 100), help="JPEG quality  [default: 95].")
@click.option(
    "--weight-type", type=click.Choice(("triangle", "sine", "noise")), help="[default: triangle]"
)
@click.option(
    "--deghost",
    type=click.Choice(("off", "weights", "align")),
    help="Where clouds moved between the exposures, let the middle one count, or move them back"
    "  [default: weights].",
)
@click.option("--low-clip", type=click.IntRange(0, 254), help="[default: 5]")
@click.option("--high-clip", type=click.IntRange(1, 255), help="[default: 250]")
@click.option(
    "--tone",
    "operator",
    type=click.Choice(_OPERATORS),
    help="How radiance is shown in pictures  [default: photographic].",
)
@click.option("--gamma", type=float, help="Of all operators but photographic  [default: 2.2].")
@click.option(
    "--lne-range",
    "lnE_range",
    type=(float, float),
    metavar="LOW HIGH",
    help="ln E shown as black (photographic: as the middle) and as white, for one scale over all"
    " brackets. With --gamma or --lne-range alone, pictures are shown by gamma.",
)
@click.option(
    "--sky-disc",
    metavar="none|X,Y,RADIUS",
    callback=options.reads(options.read_disc),
    help="Merge only what is inside this circle: column and row of its centre and its radius in"
    " pixels; outside pictures are black. calibrate prints the disc that it finds  [default: none,"
    " or the configuration's].",
)
@click.option(
    "--min-exposures",
    type=click.IntRange(2),
    help="Brackets with fewer are not merged  [default: 2, or the configuration's].",
)
@click.option(
    "--strict", is_flag=True, help="Do not merge what is left of a bracket with damaged images."
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace whatever stands in OUT, and merge even with a curve, calibrated from DIR, that"
    " cannot explain the images.",
)
@click.option("--since", type=SLOT, metavar="TIME", help="Only slots from this one on.")
@click.option("--until", type=SLOT, metavar="TIME", help="Only slots before this one.")
@options.slots_option
@click.option("--dry-run", is_flag=True, help="Say what would be merged, and write nothing.")
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what became of every bracket, as .csv or .json.",
)
@click.option("--workers", type=click.IntRange(0), help="Threads  [default: one per core].")
def command(
    directory: str,
    output: str,
    config_path: str | None,
    camera: str | None,
    round_to: timedelta | None,
    exposure_unit: str | None,
    response: str | None,
    history: str | None,
    formats: tuple[str, ...],
    quality: int | None,
    min_exposures: int | None,
    strict: bool,
    force: bool,
    since: datetime | None,
    until: datetime | None,
    slots: tuple[datetime, ...],
    workers: int | None,
    **merge_options: Any,
) -> None:
    """Merge the brackets of the folder or archive DIR, once, into OUT.

    Sub-folders are kept. OUT may be DIR itself or lie in it: products (..._hdr.*) are never taken
    for exposures. Products that exist already, made in the same way from the same files, are
    left as they are. With -c and --camera everything is done as the daemon would, with the curve
    that it uses.

    Exit codes: 0 every bracket merged from all its exposures, 1 something could not be merged or
    read, is missing or contradicts the rest, or brackets share a slot, 2 wrong usage, 130
    interrupted.
    """
    # Imported here: `--help` must not wait for OpenCV.
    from asi_watch.pipeline import RunChoices, merge_archive
    from asi_watch.pipeline.find_brackets import LINEAR_EXTENSIONS

    options.echo_log()
    found = options.camera_of(config_path, camera)
    configured = found[0] if found else None
    rules = options.archive_rules(configured, round_to, exposure_unit, min_exposures)
    run_options = {name: merge_options.pop(name) for name in ("dry_run", "report")}
    given = {key: value for key, value in merge_options.items() if value is not None}
    if response == "linear":
        given["algorithm"], response = "linear", None
    if given.get("algorithm") == "linear" and configured is None:
        rules = replace(rules, extensions=LINEAR_EXTENSIONS)
    products = _products(configured, formats, quality)
    # A run does not wait: what the daemon keeps waiting for a curve is named as not merged.
    mertens = configured is not None and configured.without_response == "mertens"
    try:
        settings = _settings(configured, given)
        with stopped_by_signal() as stop:
            summary = merge_archive(
                directory,
                output,
                rules=rules,
                settings=settings,
                curves=_curves(found, response, history),
                products=products,
                camera=configured.name if configured else None,
                geometry=configured.geometry.values if configured else None,
                workers=workers,
                leave_out_unreadable=not strict,
                without_response="mertens" if mertens else "refuse",
                force=force,
                run=RunChoices(since, until, frozenset(slots), stop=stop, **run_options),
            )
    except AsiWatchError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _finish(summary, settings, products)


def _finish(summary: ArchiveSummary, settings: MergeSettings, products: list[ProductSpec]) -> None:
    """Say what was done, and end in the exit code that says so."""
    click.echo(summary.sentence())
    if summary.skipped:
        click.echo("the same command goes on with the brackets that are left", err=True)
        raise click.exceptions.Exit(_INTERRUPTED)
    if summary.merged or summary.stood:
        written = [str(spec.format) for spec in products]
        if (hint := options.radiance_hint(settings.algorithm, written)) is not None:
            click.echo(hint, err=True)
    if not summary.flawless:
        raise click.exceptions.Exit(1)


def _settings(camera: CameraConfig | None, given: dict[str, Any]) -> MergeSettings:
    """Change a camera's settings, or the defaults, by what the command line gives."""
    from asi_watch.hdr.disc import as_sky_disc

    settings = camera.merge_settings if camera else MergeConfig().settings(ToneConfig())
    if "sky_disc" in given:
        disc = given["sky_disc"]
        given["sky_disc"] = None if disc == "none" else as_sky_disc(disc)
    operator = given.pop("operator", None)
    if operator is None and {"gamma", "lnE_range"} & given.keys():
        operator = "gamma"  # the only one of version 0.1
    tone = settings.tone if operator is None else replace(settings.tone, operator=operator)
    return replace(settings, tone=tone, **given)


def _products(
    camera: CameraConfig | None, formats: tuple[str, ...], quality: int | None
) -> list[ProductSpec]:
    if quality is not None and formats and "jpg" not in formats:
        raise click.UsageError("--quality is for --format jpg")
    configs = [
        ProductConfig.model_validate({"format": name})
        for name in dict.fromkeys(formats or ("jpg",))
    ]
    if camera is not None and not formats:
        configs = list(camera.products)
    better = {} if quality is None else {"quality": quality}
    return [(c.model_copy(update=better) if c.format == "jpg" else c).spec for c in configs]


def _curves(
    found: tuple[CameraConfig, Config] | None, response: str | None, history: str | None
) -> Sequence[ResponseCurve]:
    """Give the curves asked for, or those that the daemon uses."""
    from asi_watch.pipeline.curves import load_curve_history
    from asi_watch.response_files import load_curve

    if response is not None and history is not None:
        raise click.UsageError("give --response or --curves, not both")
    if history is not None:
        return load_curve_history(history)
    if response is not None:
        return [load_curve(response)]
    if found is None:
        return []
    choice = options.curves_in_use(*found)
    if not choice.files and (choice.fault or choice.missing):
        text = f"{found[0].response} does not exist; without any, a curve is calibrated"
        raise ResponseFileError(choice.fault or text)
    chosen = [choice.files[channels] for channels in sorted(choice.files, reverse=True)]
    for file in chosen:
        click.echo(f"curve {file.curve.curve_id} {shown(file.path)}", err=True)
    return [file.curve for file in chosen]
