"""``python -m asi_watch.pipeline hdr|calibration``: the options of asi_core's tools."""

import logging
import os
import sys

import click

from asi_watch.errors import AsiWatchError

# Before NumPy is there: on small matrices its threads only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_FOLDER = click.Path(exists=True, file_okay=False)
_image_dir = click.option(
    "--image_dir",
    type=_FOLDER,
    required=True,
    help="Folder of images named YYYYmmddHHMMSS_<EXPO>.<ext>, sub-folders included.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Batch work with the options of asi_core's own tools; `asi-watch merge` has more."""


@main.command("hdr")
@_image_dir
@click.option("--save_dir", type=click.Path(file_okay=False), required=True, help="For pictures.")
@click.option("--response_file", help="Response curve (.npz); mertens needs none.")
@click.option(
    "--algorithm",
    type=click.Choice(("mertens", "debevec", "debevec_custom", "debevec_exact")),
    default="mertens",
    show_default=True,
)
@click.option("--log_file", type=click.Path(dir_okay=False), help="Write the log here as well.")
def hdr(
    image_dir: str, save_dir: str, response_file: str | None, algorithm: str, log_file: str | None
) -> None:
    """Merge every bracket of a folder, as `process_directory` does."""
    _log_to(log_file)
    from asi_watch.pipeline import process_directory

    process_directory(image_dir, save_dir, response_file=response_file, algorithm=algorithm)


@main.command("calibration")
@_image_dir
@click.option("--response_file", required=True, help="Where the curve goes (.npz).")
def calibration(image_dir: str, response_file: str) -> None:
    """Calibrate a response curve from a folder, as `calibrate_camera` does."""
    _log_to(None)
    from asi_watch.pipeline import calibrate_camera

    calibrate_camera(image_dir, response_file)


def _log_to(file: str | None) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    try:
        handlers += [logging.FileHandler(file, encoding="utf-8")] if file else []
    except OSError as error:
        raise click.BadParameter(str(error), param_hint="--log_file") from error
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=handlers, force=True)


if __name__ == "__main__":
    try:
        main(prog_name="python -m asi_watch.pipeline")
    except (AsiWatchError, ValueError) as error:
        sys.exit(f"error: {error}")
