"""Reading products back as data: radiance, what of it is valid, and where it comes from."""

import io
import os
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.errors import AsiWatchError
from asi_watch.files import open_regular, shown
from asi_watch.products.embed import find_provenance
from asi_watch.products.gain_map import GAIN_MAP_WHITE, read_gain_map
from asi_watch.products.provenance import Provenance, ProvenanceError
from asi_watch.products.radiance import CHANNEL_NAMES

_MOST_BYTES = 2 << 30
_PNG = b"\x89PNG\r\n\x1a\n"


class ProductError(AsiWatchError, ValueError):
    """A file that is no radiance product, or a damaged one."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductData:
    """A radiance product; arrays have shape (H, W, C), channels B, G, R or one."""

    radiance: NDArray[np.float32]  # linear, relative, per millisecond of exposure
    # 0 valid, 1 too dark in every exposure, 2 saturated in every exposure; None if not stored.
    validity: NDArray[np.uint8] | None
    uncertainty: NDArray[np.float32] | None  # standard deviation of ln radiance; None if not stored
    provenance: Provenance


def read_product(path: str | os.PathLike[str]) -> ProductData:
    """Read a product of asi-watch that holds radiance: exr, tiff, hdr, or jpg with a gain map.

    The radiance of a gain map has errors of some hundredths of a stop.

    Parameters
    ----------
    path : path-like
        ProductError if it cannot be read, holds no radiance, or is damaged.
    """
    name = shown(path)
    try:
        descriptor, status = open_regular(path)
        with os.fdopen(descriptor, "rb") as file:
            if status.st_size > _MOST_BYTES:
                raise ProductError(f"{name}: has {status.st_size} bytes, more than a product has")
            data = file.read()
        return _decoded(data, find_provenance(data[: 1 << 20]))
    except ProductError:
        raise
    except (OSError, ProvenanceError) as error:
        raise ProductError(f"{name}: {error}") from error
    # Libraries raise all kinds of errors for damaged files.
    except Exception as error:
        raise ProductError(f"{name}: cannot be read as a radiance product ({error})") from error


def _decoded(data: bytes, provenance: Provenance) -> ProductData:
    if data.startswith(b"\x76\x2f\x31\x01"):
        return _exr(data, provenance)
    if data.startswith((b"II*\0", b"MM\0*")):
        return _tiff(data, provenance)
    if data.startswith(b"#?"):
        return _hdr(data, provenance)
    white = provenance.pixels.get(GAIN_MAP_WHITE)
    if not isinstance(white, float):
        raise ValueError("holds a picture and no radiance")
    return ProductData(*read_gain_map(data, white), None, provenance)


def _exr(data: bytes, provenance: Provenance) -> ProductData:
    import OpenEXR

    file = OpenEXR.File(io.BytesIO(data), separate_channels=True)
    planes: dict[str, NDArray[Any]] = {n: one.pixels for n, one in file.channels().items()}
    names = CHANNEL_NAMES[1 if "Y" in planes else 3]
    radiance = np.stack([planes[name] for name in names], axis=-1).astype(np.float32)
    validity = uncertainty = None
    if "validity" in planes:
        packed = planes["validity"].astype(np.uint8)
        validity = np.stack([packed >> (2 * i) & 3 for i in range(len(names))], axis=-1)
    if f"uncertainty.{names[0]}" in planes:
        layers = [planes[f"uncertainty.{name}"] for name in names]
        uncertainty = np.stack(layers, axis=-1).astype(np.float32)
    return ProductData(radiance, validity, uncertainty, provenance)


def _tiff(data: bytes, provenance: Provenance) -> ProductData:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [np.atleast_3d(page.asarray())[:, :, ::-1] for page in file.pages]
    validity = pages[1] if len(pages) > 1 else None
    return ProductData(np.ascontiguousarray(pages[0]), validity, None, provenance)


def _hdr(data: bytes, provenance: Provenance) -> ProductData:
    radiance = _with_opencv(data)
    validity = None
    if "validity" in str(provenance.pixels.get("layers", "")):
        validity = _with_opencv(data[data.rindex(_PNG) :])
    return ProductData(np.asarray(radiance, np.float32), validity, None, provenance)


def _with_opencv(data: bytes) -> NDArray[Any]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("is damaged")
    return np.atleast_3d(np.asarray(pixels))
