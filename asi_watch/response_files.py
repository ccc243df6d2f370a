"""Response files: ``.npz`` with `response` (256, C) float32 in the ln domain and `metadata`."""

import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.errors import ResponseFileError
from asi_watch.hdr.response import (
    ChannelOrder,
    CurveProblem,
    ResponseCurve,
    as_log_response,
    judge_curve,
)

log = logging.getLogger(__name__)

# A response file holds 3 KB of numbers and a page of metadata; more is not one.
_MAX_FILE_BYTES = 16 * 1024 * 1024
# What a crafted file can raise; MemoryError comes from an array that claims to be huge.
_NONSENSE = (
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    zipfile.BadZipFile,
)


def read_response_file(path: str | Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read a response file as it stands: its (256, C) response and its metadata.

    Columns are in the order of `metadata["channel_order"]`, which is "RGB" where the file has
    none: asi_core, which writes such files, samples its images so.

    Parameters
    ----------
    path : str or Path
        Ours or asi_core's; never unpickled. ResponseFileError if it is missing, too large,
        damaged, or holds something else.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ResponseFileError(f"{path}: larger than any response file; is it the right one?")
        raw = path.read_bytes()
        with zipfile.ZipFile(BytesIO(raw)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_FILE_BYTES:
                raise ResponseFileError(f"{path}: unpacks to more than any response file holds")
        with np.load(BytesIO(raw), allow_pickle=False) as arrays:
            response = as_log_response(arrays["response"])
            metadata = json.loads(str(arrays["metadata"])) if "metadata" in arrays else {}
    except FileNotFoundError:
        text = f"{path}: no such response file; make one with `asi-watch calibrate`"
        raise ResponseFileError(text) from None
    except OSError as error:
        raise ResponseFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except KeyError:
        raise ResponseFileError(f"{path}: holds no array named 'response'") from None
    except ResponseFileError:
        raise
    except _NONSENSE as error:
        raise ResponseFileError(f"{path}: not a response file: {_plainly(error)}") from error
    if not isinstance(metadata, dict):
        raise ResponseFileError(f"{path}: its metadata is not a JSON object")
    order = metadata.setdefault("channel_order", "RGB")
    if order not in ("BGR", "RGB"):
        raise ResponseFileError(f"{path}: channel_order is {order!r}; it is 'BGR' or 'RGB'")
    return response, metadata


def _plainly(error: Exception) -> str:
    """Say what is wrong; never how the file could be opened all the same."""
    if isinstance(error, zipfile.BadZipFile):
        return "it is no .npz file; `asi-watch calibrate` makes one"
    return "it holds objects, not numbers" if "pickle" in str(error) else str(error)


def load_curve(path: str | Path) -> ResponseCurve:
    """Read a response file as a curve to merge with; what is odd about it is logged.

    Parameters
    ----------
    path : str or Path
        ResponseFileError as `read_response_file`, and where no camera can have such a curve.
    """
    curve, problems = examine_curve(path)
    return accept_curve(curve, problems, str(path))


def examine_curve(path: str | Path) -> tuple[ResponseCurve, tuple[CurveProblem, ...]]:
    """Read a response file and judge its curve, without logging or refusing it.

    Parameters
    ----------
    path : str or Path
        ResponseFileError as `read_response_file`.
    """
    response, metadata = read_response_file(path)
    curve = ResponseCurve(to_bgr(response, metadata["channel_order"]), metadata)
    return curve, judge_curve(curve.log_response)


def curve_of_array(response: ArrayLike, order: ChannelOrder, name: str) -> ResponseCurve:
    """Take an array as a curve to merge with, judged as those from files are.

    Parameters
    ----------
    response : array_like, shape (256, C) or (256, 1, C)
        g(z) in the ln domain; ResponseFileError if no camera can have such a curve.
    order : {"BGR", "RGB"}
        Of its columns.
    name : str
        What messages call it.
    """
    try:
        curve = ResponseCurve(to_bgr(as_log_response(np.asarray(response)), order))
    except ValueError as error:
        raise ResponseFileError(f"{name}: {error}") from error
    return accept_curve(curve, judge_curve(curve.log_response), name)


def accept_curve(
    curve: ResponseCurve, problems: Sequence[CurveProblem], name: str
) -> ResponseCurve:
    """Let a judged curve pass, with its warnings logged.

    Parameters
    ----------
    curve : ResponseCurve
    problems : sequence of CurveProblem
        From `judge_curve`; ResponseFileError if one of them refuses it.
    name : str
        What messages call it.
    """
    refused = refusal(problems, name)
    if refused is not None:
        raise ResponseFileError(refused)
    for problem in problems:
        log.warning("%s: %s", name, warning_of(problem))
    return curve


def refusal(problems: Sequence[CurveProblem], name: str) -> str | None:
    """Give the message that refuses a curve; None if it can be used.

    Parameters
    ----------
    problems : sequence of CurveProblem
    name : str
        What the message calls the curve.
    """
    texts = [problem.text for problem in problems if problem.severity == "refuse"]
    return f"{name}: not a response curve: {'; '.join(texts)}" if texts else None


def warning_of(problem: CurveProblem) -> str:
    """Give the message about a curve that can be used."""
    return f"the response curve looks wrong: {problem.text}"


def to_bgr(response: NDArray[np.float32], order: ChannelOrder) -> NDArray[np.float32]:
    """Reorder the columns of a (256, C) response from `order` to BGR."""
    return response[:, ::-1] if order == "RGB" else response


def response_bytes(response: ArrayLike, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Give the content of a response file, which asi_core reads too.

    Parameters
    ----------
    response : array_like, shape (256, C) or (256, 1, C)
        g(z) in the ln domain, columns in the order `metadata["channel_order"]` names.
    metadata : mapping, optional
        Stored as JSON; without `channel_order` the array is taken to be BGR.
    """
    described = json.dumps({"channel_order": "BGR", **(metadata or {})}, ensure_ascii=False)
    buffer = BytesIO()
    arrays = {"response": as_log_response(response), "metadata": np.array(described)}
    np.savez(cast(Any, buffer), **cast(Any, arrays))
    return buffer.getvalue()
