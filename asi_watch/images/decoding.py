"""Decoding whole image files to BGR pixels, each format as strictly as its decoder allows."""

from __future__ import annotations

import io

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.buffers import Allocate
from asi_watch.images.headers import Header, HeaderError
from asi_watch.images.integrity import check_png

__all__ = ["decode_jp2", "decode_jpeg", "decode_png"]


def decode_jpeg(data: bytes, header: Header, allocate: Allocate) -> NDArray[np.uint8]:
    """Decode a JPEG; every warning of the decoder is an error.

    Parameters
    ----------
    data : bytes
        The whole file.
    header : Header
        What `read_header` found in it.
    allocate : callable
        Gives the memory for the pixels.

    Returns
    -------
    ndarray, shape (H, W, C), uint8

    Raises
    ------
    HeaderError
        If it is damaged.
    """
    shape = (header.height, header.width, header.channels)
    flat = allocate(header.height * header.width * header.channels)[: np.prod(shape)]
    try:
        decoded = simplejpeg.decode_jpeg(
            data, "BGR" if header.channels == 3 else "GRAY", buffer=flat, strict=True
        )
    except ValueError as error:
        raise HeaderError(f"is damaged ({_clause(error)})") from None
    if decoded.shape != shape:
        raise HeaderError("decodes to another size than its header claims")
    return flat.reshape(shape)


def decode_png(data: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode a PNG after checking all of its bytes; alpha is left out.

    Parameters
    ----------
    data, header
        As for `decode_jpeg`.

    Returns
    -------
    ndarray, shape (H, W, C), uint8

    Raises
    ------
    HeaderError
        If it is incomplete or damaged.
    """
    check_png(data)
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise HeaderError("is damaged (the PNG does not decode)")
    return _shaped(np.asarray(decoded), header)


def decode_jp2(data: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode a JPEG 2000 picture.

    Parameters
    ----------
    data, header
        As for `decode_jpeg`.

    Returns
    -------
    ndarray, shape (H, W, C), uint8

    Raises
    ------
    HeaderError
        If the decoder refuses it.
    """
    # Pillow raises where OpenCV writes to the process's standard error. Neither can see damage
    # inside the code blocks: JPEG 2000 has no checksums.
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as image:
            decoded = np.asarray(image.convert("RGB" if header.channels == 3 else "L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise HeaderError(f"is damaged ({_clause(error)})") from None
    if header.channels == 3:
        decoded = decoded[:, :, ::-1]
    return _shaped(decoded, header)


def _shaped(decoded: NDArray[np.generic], header: Header) -> NDArray[np.uint8]:
    """Give decoded pixels their one shape, leaving alpha out."""
    if decoded.dtype != np.uint8 or decoded.shape[:2] != (header.height, header.width):
        raise HeaderError("decodes to another size or depth than its header claims")
    if decoded.ndim == 2:
        decoded = decoded[:, :, np.newaxis]
    if decoded.shape[2] < header.channels:
        raise HeaderError("decodes to fewer channels than its header claims")
    return np.ascontiguousarray(decoded[:, :, : header.channels], np.uint8)


def _clause(error: Exception) -> str:
    """Return the first line of a decoder's message, short enough for a log line."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
