"""The functions of ``asi_core.image.hdr.pipeline``, with their names, defaults and meaning.

A script written for that module runs after changing the one import. Exposure times are
microseconds, pixels and curves BGR; merging, encoding and publishing are done by the same code as
in the daemon.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from asi_watch.brackets import Exposure
from asi_watch.errors import AsiWatchError, BracketError, ResponseFileError
from asi_watch.files import shown
from asi_watch.hdr.disc import as_sky_disc
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.response import ChannelOrder, ResponseCurve, judge_curve
from asi_watch.merge_bracket import Bracket, MergePlan, MergeRefusedError, compose
from asi_watch.pipeline import archive
from asi_watch.pipeline import find_brackets as found
from asi_watch.pipeline.curves import (
    _save_response_plot,
    calibrate_camera,
    get_lne_range,
    load_response_curve,
    save_response_curve,
)
from asi_watch.pipeline.find_brackets import EXPOSURE_AT_END as _EXPO_RE
from asi_watch.pipeline.find_brackets import ArchiveBracket, ArchiveRules
from asi_watch.pipeline.find_brackets import exposure_of_name as _parse_exposure_from_name
from asi_watch.products.encode import encode_merge
from asi_watch.products.publish import OutputFolder
from asi_watch.products.spec import Format, ProductSpec
from asi_watch.response_files import accept_curve, curve_of_array, load_curve

if TYPE_CHECKING:
    from pandas.core.groupby import DataFrameGroupBy

__all__ = [
    "_EXPO_RE",
    "_group_files_by_time",
    "_parse_exposure_from_name",
    "_save_response_plot",
    "calibrate_camera",
    "create_and_save_hdr",
    "get_lne_range",
    "load_response_curve",
    "process_directory",
    "process_hdr_series",
    "process_timestamp",
    "save_response_curve",
]

log = logging.getLogger(__name__)

_FORMATS = {**{name: name for name in get_args(Format)}, "jpeg": "jpg", "tif": "tiff"}


def _group_files_by_time(
    directory: str | Path, round_ts_to: str = "30s"
) -> DataFrameGroupBy[Any, Any]:
    """Group image files found in directory by rounded timestamp (e.g. every 30 s).

    Gives a pandas groupby over `timestamp_rounded`, with the columns `filepath` (str, `directory`
    included) and `timestamp`. Names without a timestamp are counted in the log.

    Parameters
    ----------
    directory : str or Path
        Sub-folders are searched too. Products (``*_hdr.*``) are left out.
    round_ts_to : str
        Length of a slot, e.g. ``30s`` or ``1min``; timestamps are rounded down.
    """
    found.slot_length(round_ts_to)
    root = os.fspath(Path(directory))
    times = {path: found.parse_timestamp(path) for path in found.walk_images(root)}
    nameless = [path for path in times if times[path] is None]
    found.Nameless("timestamp", len(nameless), next(iter(nameless), "")).log()
    taken = {f"{root}/{path}": time for path, time in times.items() if time is not None}
    frame = pd.DataFrame(
        {
            # Of objects: names may hold bytes that pandas' own strings cannot.
            "filepath": pd.Series(list(taken), dtype=object),
            "timestamp": pd.Series(list(taken.values()), dtype="datetime64[ns]"),
        }
    )
    frame["timestamp_rounded"] = frame["timestamp"].dt.floor(round_ts_to)
    frame = frame.sort_values(["timestamp", "filepath"], kind="stable", ignore_index=True)
    return frame.groupby("timestamp_rounded")


def create_and_save_hdr(
    img_series: Iterable[NDArray[np.uint8]],
    exposure_times: Iterable[float],
    output_path: str | Path,
    **kwargs_merging: Any,
) -> None:
    """Merge images of one bracket and save the result; BracketError or PublishError if it fails.

    Parameters
    ----------
    img_series : iterable of ndarray, shape (H, W, C), uint8, BGR
    exposure_times : iterable of float
        One per image, microseconds.
    output_path : str or Path
        The suffix chooses: ``.jpg`` an 8-bit picture, ``.png`` and ``.jp2`` a 16-bit picture,
        ``.exr``, ``.tiff`` and ``.hdr`` linear radiance (relative irradiance per millisecond).
    **kwargs_merging
        Those of `asi_watch.hdr.merge_settings.MergeSettings`, with `algorithm="debevec"` unless
        given, `response` (g(z) in the ln domain, (256, C), or a curve), its `channel_order`
        ("BGR" or "RGB"), and `filetype`. Without a `response`, `debevec` calibrates on the images
        themselves, `mertens` needs none (and gives no radiance), the others refuse.
    """
    choices = _choices(kwargs_merging, "debevec")
    target = Path(output_path)
    spec = _product_of(target.suffix)
    if choices.product not in (None, spec):
        raise ValueError(f"filetype {kwargs_merging['filetype']!r} does not fit {shown(target)}")
    archive._check_products(choices.settings, choices.curves, (spec,))
    images, name = list(img_series), shown(target)
    times = _checked_arrays(images, list(exposure_times), name)
    slot = found.parse_timestamp(target.name) or datetime(1970, 1, 1)
    exposures = tuple(
        Exposure(f"array {i}", slot, time, images[i].nbytes) for i, time in enumerate(times)
    )
    output = OutputFolder(target.parent)
    plan = MergePlan("", "", output, choices.settings, (spec,))
    bracket = Bracket(slot, exposures, complete=True)
    try:
        composed = compose(plan, bracket, images, choices.curves)
        made = encode_merge(spec, composed.merge, composed.provenance)
    except (MergeRefusedError, ValueError, cv2.error) as error:
        raise BracketError(f"{name} not made: {error}") from error
    for left_out in composed.left_out:
        log.warning("%s made without %s: %s", name, left_out.path, left_out.reason)
    for note in dict.fromkeys((*composed.provenance.notes, *made.notes)):
        log.warning("%s: %s", name, note)
    output.publish(made.data, target.name)


def _checked_arrays(images: list[NDArray[np.uint8]], given: list[Any], name: str) -> list[float]:
    """Return the exposure times as numbers, if they and the images make a bracket."""
    times = [_exposure_us(time, f"{name} not made") for time in given]
    reason = next(_faults_of_arrays(images, times), None)
    if reason is not None:
        raise BracketError(f"{name} not made: {reason}")
    return times


def _faults_of_arrays(images: list[NDArray[np.uint8]], times: list[float]) -> Iterator[str]:
    if len(images) != len(times):
        yield f"{len(images)} images, {len(times)} exposure times"
    if len(images) < 2:
        yield "one exposure only" if images else "no images"
    if len(set(times)) == 1:
        yield f"all exposure times are equal ({times[0]:g} µs)"
    for number, image in enumerate(images):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            kind = getattr(image, "dtype", type(image).__name__)
            yield f"image {number} is {kind}, not an array of uint8"
        elif image.shape != images[0].shape:
            yield f"image {number} has the shape {image.shape}, image 0 {images[0].shape}"
        elif image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
            yield f"images are (H, W, 1 or 3); these are {image.shape}"


def process_timestamp(
    timestamp_group: tuple[Hashable, pd.Series[Any]],
    root_dir: str | Path,
    target_dir: str | Path,
    **kwargs_merging: Any,
) -> bool:
    """Merge all images of one timestamp: True, or an AsiWatchError that names the file.

    Parameters
    ----------
    timestamp_group : (timestamp, Series)
        As ``asi_files.groupby(level=0)`` gives them. Else TypeError.
    root_dir, target_dir, **kwargs_merging
        As for `process_hdr_series`.
    """
    if not isinstance(timestamp_group, tuple) or len(timestamp_group) != 2:
        raise TypeError(
            "timestamp_group is (timestamp, Series), as asi_files.groupby(level=0) gives them;"
            f" got {type(timestamp_group).__name__}"
        )
    timestamp, group = timestamp_group[0], _series(timestamp_group[1])
    merger = _series_merger(root_dir, target_dir, kwargs_merging)
    bracket = _bracket_of_group(timestamp, group, os.fspath(Path(root_dir)))
    found._log_superseded([bracket])
    outcome = merger.merge(bracket)
    if outcome.error is not None:
        raise outcome.error
    archive._log_outcome(outcome, Counter())
    return True


def process_hdr_series(
    asi_files: pd.Series[Any],
    root_dir: str | Path,
    target_dir: str | Path,
    n_workers: int = 0,
    **kwargs_merging: Any,
) -> pd.Series[Any]:
    """Merge a table of images.

    Gives a Series named `created_hdr`: for each timestamp the path of its HDR file, None where it
    could not be made, for a reason that is in the log.

    Parameters
    ----------
    asi_files : Series
        Index (timestamp, exposure time in microseconds), values paths relative to `root_dir`;
        rows that lack one of them are named in the log. Else TypeError or ValueError.
    root_dir, target_dir : str or Path
        Pictures are written as ``%Y%m%d%H%M%S_hdr.jpg`` below `target_dir`, in the sub-folder of
        their bracket's first image.
    n_workers : int
        Threads; 0 merges in the calling thread.
    **kwargs_merging
        Those of `create_and_save_hdr`, `response_file`, and `force` (replace whatever stands).
        Without any response the brackets are merged by `debevec`, calibrating on each bracket
        itself; with one, by `debevec_custom`.
    """
    table = _checked_table(asi_files)
    root = os.fspath(Path(root_dir))
    merger = _series_merger(root_dir, target_dir, kwargs_merging)
    timestamps: list[Any] = []
    made: dict[datetime, str] = {}
    brackets: list[ArchiveBracket] = []
    for timestamp, group in table.groupby(level=0):
        timestamps.append(timestamp)
        try:
            brackets.append(_bracket_of_group(timestamp, group, root))
        except AsiWatchError as error:
            log.warning("bracket %s not merged: %s", timestamp, error)
    found._log_superseded(brackets)
    for outcome in archive._merge_all(brackets, merger, n_workers):
        if outcome.products:
            made[outcome.slot] = os.fspath(outcome.products[0])
    index = pd.Index(timestamps, name=table.index.names[0])
    paths = [made.get(_slot_of_timestamp(timestamp)) for timestamp in timestamps]
    return pd.Series(paths, index=index, name="created_hdr", dtype=object)


def process_directory(
    directory: str | Path,
    save_dir: str | Path,
    round_ts_to: str = "30s",
    response_file: str | Path | None = None,
    **kwargs: Any,
) -> None:
    """Make an HDR image of every bracket in a directory; a summary is logged at the end.

    A bad bracket is logged with its reason and does not stop the rest. A missing folder, one
    without usable images (BracketError) and a bad curve (ResponseFileError) raise.

    Parameters
    ----------
    directory : str or Path
        Images named ``YYYYmmddHHMMSS_<EXPO>.<ext>``, sub-folders included.
    save_dir : str or Path
        As in `process_hdr_series`; it may be `directory` or lie in it.
    round_ts_to : str
        Length of a slot, e.g. ``30s`` or ``1min``.
    response_file : str or Path, optional
        Pictures show the range of ln E that it names, unless `lnE_range` is given (None: what the
        exposures of each bracket can tell, per channel). Without a file, and without `response`,
        a curve is calibrated from the directory, in memory.
    **kwargs
        Those of `create_and_save_hdr`, with `algorithm="debevec_custom"` unless given. Further:
        `n_workers` (default one per core), `leave_out_unreadable` and `force` as in
        `asi_watch.pipeline.merge_archive`.
    """
    workers, force = kwargs.pop("n_workers", None), kwargs.pop("force", False)
    leave_out = kwargs.pop("leave_out_unreadable", False)
    if response_file is not None and kwargs.get("algorithm") not in ("debevec", "mertens"):
        kwargs = {**_range_of_file(response_file), **kwargs}
    choices = _choices(kwargs, "debevec_custom", response_file)
    summary = archive.merge_archive(
        directory,
        save_dir,
        rules=ArchiveRules(round_to=found.slot_length(round_ts_to)),
        settings=choices.settings,
        curves=choices.curves,
        products=(choices.product or ProductSpec("jpg"),),
        workers=workers,
        leave_out_unreadable=leave_out,
        force=force,
    )
    level = logging.INFO if summary.flawless else logging.WARNING
    log.log(level, "%s", summary.sentence())


def _range_of_file(response_file: str | Path) -> dict[str, Any]:
    """Read the range of ln E that a response file names, as asi_core and `calibrate_camera` do."""
    limits = load_curve(response_file).metadata.get("lnE_range")
    if limits is None:
        return {}
    try:
        low, high = map(float, limits)
        return {"lnE_range": MergeSettings("mertens", lnE_range=(low, high)).lnE_range}
    except (TypeError, ValueError):
        text = f"lnE_range is not (low, high): {limits!r}; give lnE_range, or None"
        raise ResponseFileError(f"{shown(response_file)}: {text}") from None


class _Choices(NamedTuple):
    """What a caller asked for: settings, curve (BGR) if any, and the product of `filetype`."""

    settings: MergeSettings
    curves: tuple[ResponseCurve, ...]
    product: ProductSpec | None


def _choices(
    kwargs: dict[str, Any], algorithm: str, response_file: str | Path | None = None
) -> _Choices:
    given = {"algorithm": algorithm, **kwargs}
    response, order = given.pop("response", None), given.pop("channel_order", None)
    filetype, limits = given.pop("filetype", None), given.pop("lnE_range", None)
    if response_file is not None:
        if response is not None:
            raise ValueError("give response or response_file, not both")
        if order is not None:
            raise ValueError("channel_order belongs to response; a response file tells its own")
        response = load_curve(response_file)
    if order not in (None, *get_args(ChannelOrder)):
        raise ValueError(f"channel_order is 'BGR' or 'RGB'; got {order!r}")
    if limits is not None:
        if len(limits) != 2:
            raise ValueError(f"lnE_range is (low, high); got {limits!r}")
        given["lnE_range"] = (float(limits[0]), float(limits[1]))
    settings = MergeSettings(**{**given, "sky_disc": as_sky_disc(given.get("sky_disc"))})
    product = None if filetype is None else _product_of(filetype)
    if response is None:
        return _Choices(settings, (), product)
    if isinstance(response, ResponseCurve):
        # Warnings were logged when it was loaded.
        impossible = [p for p in judge_curve(response.log_response) if p.severity == "refuse"]
        curve = accept_curve(response, tuple(impossible), "response")
    else:
        curve = curve_of_array(response, order or "BGR", "response")
    return _Choices(settings, (curve,), product)


def _product_of(filetype: str) -> ProductSpec:
    name = _FORMATS.get(filetype.lower().lstrip("."))
    if name is None:
        raise ValueError(f"file type {filetype!r} is none of .{', .'.join(_FORMATS)}")
    return ProductSpec(cast(Format, name))


def _series_merger(
    root_dir: str | Path, target_dir: str | Path, kwargs_merging: dict[str, Any]
) -> archive.BracketMerger:
    kwargs = dict(kwargs_merging)
    response_file, force = kwargs.pop("response_file", None), kwargs.pop("force", False)
    has_response = response_file is not None or kwargs.get("response") is not None
    choices = _choices(kwargs, "debevec_custom" if has_response else "debevec", response_file)
    products = (choices.product or ProductSpec("jpg"),)
    archive._check_products(choices.settings, choices.curves, products)
    plan = MergePlan(
        camera=Path(root_dir).resolve().name,
        root=os.fspath(Path(root_dir)),
        output=OutputFolder(target_dir),
        settings=choices.settings,
        products=products,
        replace=force,
    )
    return archive.BracketMerger(plan, choices.curves)


def _checked_table(asi_files: Any) -> pd.Series[Any]:
    table = _series(asi_files)
    if table.index.nlevels != 2:
        raise ValueError("asi_files needs an index of two levels: timestamp and exposure time")
    stamps, times = (table.index.get_level_values(level) for level in (0, 1))
    if pd.api.types.is_numeric_dtype(stamps) and not pd.api.types.is_numeric_dtype(times):
        raise ValueError(
            "the levels of the index are swapped: the timestamp comes first, then the exposure"
            " time; .swaplevel() helps"
        )
    lost = table[stamps.isna()]
    if len(lost):
        path = lost.iloc[0]
        example = shown(os.fspath(path)) if isinstance(path, str | os.PathLike) else repr(path)
        log.warning("%d rows without a timestamp are left out, e.g. %s", len(lost), example)
    return table


def _bracket_of_group(timestamp: Any, group: pd.Series[Any], root: str) -> ArchiveBracket:
    """Build the bracket of one timestamp; exposure times are in the last level of the index."""
    slot = _slot_of_timestamp(timestamp)
    exposures = {e.path: e for e in _exposures(slot, group, root)}
    if not exposures:
        raise BracketError(f"{timestamp}: no images")
    return found._bracket_of(slot, list(exposures.values()), root)


def _slot_of_timestamp(timestamp: Any) -> datetime:
    stamp = pd.Timestamp(timestamp)
    if pd.isna(stamp):
        raise BracketError(f"{timestamp!r} is no timestamp")
    return stamp.tz_localize(None).floor("us").to_pydatetime()


def _exposures(slot: datetime, group: pd.Series[Any], root: str) -> Iterator[Exposure]:
    times = group.index.get_level_values(-1)
    for time, path in zip(times, group.to_numpy(dtype=object), strict=True):
        if not isinstance(path, str | os.PathLike):
            log.warning("bracket %s: no file for the exposure time %s, but %r", slot, time, path)
            continue
        name = _below(os.fspath(path), root)
        yield Exposure(name, found.parse_timestamp(name) or slot, _exposure_us(time, shown(name)))


def _below(path: str, root: str) -> str:
    if not os.path.isabs(path):  # noqa: PTH117 - names may hold undecodable bytes
        return path
    try:
        return os.fspath(PurePath(path).relative_to(os.path.abspath(root)))  # noqa: PTH100
    except ValueError:
        raise BracketError(f"{shown(path)}: is not below root_dir ({shown(root)})") from None


def _exposure_us(value: Any, name: str) -> float:
    try:
        time = float(value)
    except (TypeError, ValueError):
        time = float("nan")
    if not (np.isfinite(time) and time > 0):
        raise BracketError(f"{name}: {value!r} is no positive exposure time in microseconds")
    return time


def _series(table: Any) -> pd.Series[Any]:
    if isinstance(table, pd.Series):
        return table
    hint = "; take one of its columns" if isinstance(table, pd.DataFrame) else ""
    raise TypeError(f"a pandas Series of paths is wanted; got {type(table).__name__}{hint}")
