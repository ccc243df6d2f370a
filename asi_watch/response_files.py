"""Response files: ``.npz`` with `response` (256, C) float32 in the ln domain and `metadata`."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.errors import CurveMismatchError, ResponseFileError
from asi_watch.hdr.response import (
    ChannelOrder,
    CurveProblem,
    ResponseCurve,
    as_log_response,
    judge_curve,
)

log = logging.getLogger(__name__)

FIRST_CODE, LAST_CODE = 15, 240
"""Codes compared: beyond them noise and saturation leave a curve little to stand on."""

# A response file holds 3 KB of numbers and a page of metadata; more is not one.
_MAX_FILE_BYTES = 16 * 1024 * 1024
# What a file that is made to harm can bring forth: MemoryError by an array that claims to be huge.
_NONSENSE = (
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    zipfile.BadZipFile,
)
# Files without the key come from asi_core, which sampled its images in this order.
_ORDER_WITHOUT_KEY: ChannelOrder = "RGB"


def read_response_file(path: str | Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read a response file as it stands.

    Parameters
    ----------
    path : str or Path
        The ``.npz`` file, ours or one written by asi_core.

    Returns
    -------
    response : ndarray, shape (256, C), float32
        g(z) in the ln domain, columns in the file's own channel order.
    metadata : dict
        The file's metadata; `channel_order` is always there ("RGB" where the file has none).

    Raises
    ------
    ResponseFileError
        If the file is missing, too large, damaged, or holds something else. Never unpickles.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ResponseFileError(f"{path}: larger than any response file; is it the right one?")
        raw = path.read_bytes()
        _refuse_bombs(path, raw)
        with np.load(BytesIO(raw), allow_pickle=False) as archive:
            response = as_log_response(archive["response"])
            metadata = json.loads(str(archive["metadata"])) if "metadata" in archive else {}
    except FileNotFoundError:
        raise ResponseFileError(
            f"{path}: no such response file; make one with `asi-watch calibrate`"
        ) from None
    except OSError as error:
        raise ResponseFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except KeyError:
        raise ResponseFileError(f"{path}: holds no array named 'response'") from None
    except _NONSENSE as error:
        if isinstance(error, ResponseFileError):
            raise
        raise ResponseFileError(f"{path}: not a response file: {_plainly(error)}") from error
    if not isinstance(metadata, dict):
        raise ResponseFileError(f"{path}: its metadata is not a JSON object")
    order = metadata.setdefault("channel_order", _ORDER_WITHOUT_KEY)
    if order not in ("BGR", "RGB"):
        raise ResponseFileError(f"{path}: channel_order is {order!r}; it is 'BGR' or 'RGB'")
    return response, metadata


def _plainly(error: Exception) -> str:
    """Say what is wrong; never how the file could be opened all the same."""
    if isinstance(error, zipfile.BadZipFile):
        return "it is no .npz file; `asi-watch calibrate` makes one"
    if "pickle" in str(error):
        return "it holds objects of a program instead of numbers"
    return str(error)


def _refuse_bombs(path: Path, raw: bytes) -> None:
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MAX_FILE_BYTES:
            raise ResponseFileError(f"{path}: unpacks to more than any response file holds")


def load_curve(path: str | Path) -> ResponseCurve:
    """Read a response file as a curve to merge with, channels in BGR order.

    What is odd about the curve but can be used is logged as a warning.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    ResponseCurve

    Raises
    ------
    ResponseFileError
        See `read_response_file`; also where no camera can have such a curve.
    """
    curve, problems = examine_curve(path)
    return accept_curve(curve, problems, str(path))


def examine_curve(path: str | Path) -> tuple[ResponseCurve, tuple[CurveProblem, ...]]:
    """Read a response file and judge its curve, without logging or refusing it.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    curve : ResponseCurve
        Channels in BGR order.
    problems : tuple of CurveProblem
        See `asi_watch.hdr.response.judge_curve`.

    Raises
    ------
    ResponseFileError
        See `read_response_file`.
    """
    response, metadata = read_response_file(path)
    curve = ResponseCurve(to_bgr(response, metadata["channel_order"]), metadata)
    return curve, judge_curve(curve.log_response)


def curve_of_array(response: ArrayLike, order: ChannelOrder, name: str) -> ResponseCurve:
    """Take an array as a curve to merge with, judged as those from files are.

    Parameters
    ----------
    response : array_like, shape (256, C) or (256, 1, C)
        g(z) in the ln domain.
    order : {"BGR", "RGB"}
        Of its columns.
    name : str
        What messages call it.

    Raises
    ------
    ResponseFileError
        If no camera can have such a curve.
    """
    try:
        curve = ResponseCurve(to_bgr(as_log_response(np.asarray(response)), order))
    except ValueError as error:
        raise ResponseFileError(f"{name}: {error}") from error
    return accept_curve(curve, judge_curve(curve.log_response), name)


def check_channels(curve: ResponseCurve | None, channels: int, name: str) -> None:
    """Refuse a curve whose number of channels is not that of the images.

    Parameters
    ----------
    curve : ResponseCurve or None
        None fits everything.
    channels : int
        Of the images.
    name : str
        What was to be merged, for the message.

    Raises
    ------
    CurveMismatchError
    """
    if curve is not None and curve.channels != channels:
        raise CurveMismatchError(name, curve.channels, channels)


def accept_curve(
    curve: ResponseCurve, problems: tuple[CurveProblem, ...], name: str
) -> ResponseCurve:
    """Let a judged curve pass, with its warnings logged.

    Parameters
    ----------
    curve : ResponseCurve
    problems : tuple of CurveProblem
        From `examine_curve` or `judge_curve`.
    name : str
        What messages call it.

    Raises
    ------
    ResponseFileError
        If one of the problems refuses it.
    """
    refused = refusal(problems, name)
    if refused is not None:
        raise ResponseFileError(refused)
    for problem in problems:
        log.warning("%s: %s", name, warning_of(problem))
    return curve


def refusal(problems: tuple[CurveProblem, ...], name: str) -> str | None:
    """Give the message that refuses a curve; None if it can be used."""
    texts = [problem.text for problem in problems if problem.severity == "refuse"]
    return f"{name}: not a response curve: {'; '.join(texts)}" if texts else None


def warning_of(problem: CurveProblem) -> str:
    """Give the message about a curve that can be used."""
    return f"the response curve looks wrong: {problem.text}"


def to_bgr(response: NDArray[np.float32], order: ChannelOrder) -> NDArray[np.float32]:
    """Reorder the columns of a (256, C) response from `order` to BGR."""
    return response[:, ::-1] if order == "RGB" else response


def response_bytes(response: ArrayLike, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Give a response file's content, ready to be published.

    Parameters
    ----------
    response : array_like, shape (256, C) or (256, 1, C)
        g(z) in the ln domain, columns in the order `metadata["channel_order"]` names.
    metadata : mapping, optional
        Stored as JSON; without `channel_order` the array is taken to be BGR.

    Returns
    -------
    bytes
        An ``.npz`` with `response` (256, C) float32 and `metadata` (JSON string), which
        asi_core reads too.
    """
    described = {"channel_order": "BGR", **(metadata or {})}
    buffer = BytesIO()
    arrays = {
        "response": as_log_response(response),
        "metadata": np.array(json.dumps(described, ensure_ascii=False)),
    }
    np.savez(cast(Any, buffer), **cast(Any, arrays))
    return buffer.getvalue()


@dataclass(frozen=True, slots=True, eq=False)
class CurveComparison:
    """Differences of two curves per channel (BGR), each channel's free constant removed.

    Parameters
    ----------
    difference : ndarray, shape (256, C), float64
        g of the second minus g of the first in stops, of mean 0 over the codes compared.
    rms : tuple of float
        Root mean square over the codes compared, stops.
    worst, worst_code : tuple of float, tuple of int
        Largest absolute difference there, stops, and the code where it is.
    offset : tuple of float
        The constant removed, stops.
    """

    difference: NDArray[np.float64]
    rms: tuple[float, ...]
    worst: tuple[float, ...]
    worst_code: tuple[int, ...]
    offset: tuple[float, ...]


def compare_curves(first: ResponseCurve, second: ResponseCurve) -> CurveComparison:
    """Compare two response curves.

    Parameters
    ----------
    first, second : ResponseCurve

    Returns
    -------
    CurveComparison

    Raises
    ------
    ResponseFileError
        If they differ in their number of channels.
    """
    if first.channels != second.channels:
        raise ResponseFileError(
            f"the curves cannot be compared: {first.channels} and {second.channels} channels"
        )
    g1, g2 = (curve.log_response.astype(np.float64) for curve in (first, second))
    stops = (g2 - g1) / np.log(2.0)
    seen = slice(FIRST_CODE, LAST_CODE + 1)
    offset = stops[seen].mean(axis=0)
    stops -= offset
    size = np.abs(stops[seen])
    return CurveComparison(
        difference=stops,
        rms=tuple(float(v) for v in np.sqrt((stops[seen] ** 2).mean(axis=0))),
        worst=tuple(float(v) for v in size.max(axis=0)),
        worst_code=tuple(int(v) + FIRST_CODE for v in size.argmax(axis=0)),
        offset=tuple(float(v) for v in offset),
    )
