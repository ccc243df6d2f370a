"""Response files: ``.npz`` with `response` (256, C) float32 in the ln domain and `metadata`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.errors import ResponseFileError
from asi_watch.hdr.response import ChannelOrder, ResponseCurve, as_log_response

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

    Raises
    ------
    ResponseFileError
        See `read_response_file`.
    """
    response, metadata = read_response_file(path)
    return ResponseCurve(to_bgr(response, metadata["channel_order"]), metadata)


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
