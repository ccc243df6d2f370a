"""Radiance products: linear relative irradiance per millisecond, as files of three formats.

The merge works in ln E with exposure times in microseconds; files carry E × 1000, which puts
daylight all-sky radiances into the middle of what half floats resolve. Work goes block by block
of rows, so that only the file's own planes are image-sized. Every format says which samples are
valid: exr in a channel, tiff on a second page, hdr in a PNG behind the picture.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch.products.embed import EXR_ATTRIBUTE, describe, with_provenance
from asi_watch.products.provenance import Provenance, Scalar
from asi_watch.products.spec import ProductSpec

RADIANCE_SCALE = 1000.0
"""Radiance in files = exp(lnE) × this: per millisecond, where lnE is per microsecond."""

_LN_SCALE = np.float32(math.log(RADIANCE_SCALE))
_HALF_RANGE = (2.0**-14, 65504.0)
"""Smallest normal and largest half float: below, precision fades; above, there is only infinity."""
_HAIR = 1.001  # within that range, as exp in float32 may round outwards
_BLOCK_VALUES = 48 << 10
_COMPRESSIONS = {"none": "NO", "zip": "ZIP", "piz": "PIZ", "htj2k": "HTJ2K256"}
CHANNEL_NAMES: dict[int, tuple[str, ...]] = {1: ("Y",), 3: ("B", "G", "R")}


@dataclass(frozen=True, slots=True, eq=False)
class RadianceLayers:
    """What a radiance product holds; ValueError if shapes or types differ."""

    ln_radiance: NDArray[np.float32]  # ln E, E in 1/µs of exposure; BGR or one channel; finite
    # 0 valid, 1 too dark in every exposure, 2 saturated in every exposure.
    validity: NDArray[np.uint8] | None = None
    uncertainty: NDArray[np.floating[Any]] | None = None  # standard deviation of ln E

    def __post_init__(self) -> None:
        ln = self.ln_radiance
        if (
            ln.dtype != np.float32
            or ln.ndim != 3
            or ln.shape[2] not in CHANNEL_NAMES
            or ln.size == 0
        ):
            raise ValueError(f"ln_radiance is float32 (H, W, 1 or 3); got {ln.dtype} {ln.shape}")
        for name, layer in (("validity", self.validity), ("uncertainty", self.uncertainty)):
            if layer is not None and layer.shape != ln.shape:
                raise ValueError(f"{name} has shape {layer.shape}, ln_radiance {ln.shape}")
        if self.validity is not None and self.validity.dtype != np.uint8:
            raise ValueError(f"validity is uint8; got {self.validity.dtype}")

    def bounds(self) -> tuple[float, float]:
        """Smallest and largest radiance, in the file's unit; ValueError if one is not finite."""
        low, high = float(self.ln_radiance.min()), float(self.ln_radiance.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("ln_radiance holds values that are not finite")
        return _exp(low), _exp(high)


def _exp(ln_value: float) -> float:
    return math.inf if ln_value > 700 else math.exp(ln_value) * RADIANCE_SCALE


def _rows_of_block(ln: NDArray[np.float32]) -> int:
    return max(1, int(_BLOCK_VALUES // (ln.shape[1] * ln.shape[2])))


def _blocks(ln: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield radiance in cache-sized blocks of rows; the block's memory is used again."""
    height, width, channels = ln.shape
    rows = _rows_of_block(ln)
    scratch = np.empty((rows, width, channels), np.float32)
    for top in range(0, height, rows):
        part = ln[top : top + rows]
        block = scratch[: len(part)]
        np.add(part, _LN_SCALE, out=block)
        np.exp(block, out=block)
        yield slice(top, top + len(part)), block


def _planes(layers: RadianceLayers, *, half: bool) -> NDArray[Any]:
    """Radiance in the file's unit, shape (C, H, W), float32 or half floats (clipped to range)."""
    height, width, channels = layers.ln_radiance.shape
    planes: NDArray[Any] = np.empty((channels, height, width), np.float16 if half else np.float32)
    for rows, block in _blocks(layers.ln_radiance):
        if half:
            np.clip(block, *_HALF_RANGE, out=block)
        planes[:, rows] = block.transpose(2, 0, 1)
    return planes


_VALIDITY_CODE = "sum over channels, B first, of state * 4**i; 0 valid, 1 under, 2 over"
"""How the validity channel of an EXR packs the channels: three planes would cost thrice as much."""
_VALIDITY_TEXT = "validity of each sample: 0 valid, 1 too dark, 2 saturated in every exposure"


def encode_exr(spec: ProductSpec, layers: RadianceLayers, provenance: Provenance) -> memoryview:
    """Encode an OpenEXR file: channels B, G, R (or Y), half or float, and the layers there are.

    The provenance is the string attribute ``asiWatchProvenance``. In all formats ValueError if the
    radiance is not finite.

    Parameters
    ----------
    spec, layers, provenance
    """
    fits = _fits_half(layers)
    half = spec.pixel_type == "half" or (spec.pixel_type == "auto" and fits)
    mask = None if layers.validity is None else layers.validity.transpose(2, 0, 1)
    planes = _planes(layers, half=half)
    return encode_exr_planes(spec, planes, mask, layers.uncertainty, provenance)


def encode_exr_planes(
    spec: ProductSpec,
    radiance: NDArray[Any],
    validity: NDArray[np.uint8] | None,
    uncertainty: NDArray[np.floating[Any]] | None,
    provenance: Provenance,
) -> memoryview:
    """Encode an OpenEXR file from planes as it holds them; see `encode_exr`.

    Parameters
    ----------
    spec, provenance
    radiance : ndarray, shape (C, H, W), float16 or float32
        In the file's unit; B, G, R or one channel.
    validity : ndarray, shape (C, H, W), uint8, optional
    uncertainty : ndarray, shape (H, W, C), optional
    """
    import OpenEXR

    half = radiance.dtype == np.float16
    # PIZ is made for half floats; on full floats it takes twice the time of ZIP.
    method = "zip" if spec.compression == "piz" and not half else spec.compression
    names = CHANNEL_NAMES[len(radiance)]
    planes: dict[str, NDArray[Any]] = dict(zip(names, radiance, strict=True))
    kept = []
    if spec.validity and validity is not None:
        kept.append("validity")
        planes["validity"] = _packed_validity(validity)
    if spec.uncertainty and uncertainty is not None:
        kept.append("uncertainty")
        for i, name in enumerate(names):
            planes[f"uncertainty.{name}"] = uncertainty[:, :, i].astype(np.float16)
    noted = _noted(provenance, "half" if half else "float", kept)
    header = {
        "type": OpenEXR.scanlineimage,
        "compression": getattr(OpenEXR, f"{_COMPRESSIONS[method]}_COMPRESSION"),
        EXR_ATTRIBUTE: noted.to_json(),
        "comments": describe(noted),
        "software": noted.software,
        "capDate": noted.slot.strftime("%Y:%m:%d %H:%M:%S"),
        # OpenEXR: UTC = local time + utcOffset.
        "utcOffset": -(noted.slot - noted.slot_utc.replace(tzinfo=None)).total_seconds(),
    }
    known = {key: noted.geometry.get(key) for key in ("latitude", "longitude", "altitude")}
    header |= {key: float(value) for key, value in known.items() if isinstance(value, (int, float))}
    if isinstance(lens := noted.geometry.get("lens"), str):
        header["lensModel"] = lens
    if "validity" in kept:
        header["validityCode"] = _VALIDITY_CODE
    # The writer reads memory as if every plane were contiguous, without a word if it is not.
    channels = {name: np.ascontiguousarray(plane) for name, plane in planes.items()}
    stream = io.BytesIO()
    OpenEXR.File(header, channels, num_threads=0).write(stream)
    return stream.getbuffer()


def encode_tiff(spec: ProductSpec, layers: RadianceLayers, provenance: Provenance) -> memoryview:
    """Encode an uncompressed float32 TIFF, RGB or grey, its provenance as ImageDescription.

    Parameters
    ----------
    spec : ProductSpec
        With `validity`, a second page holds it: uint8, the same channels, zlib.
    layers : RadianceLayers
        The uncertainty is left out.
    provenance : Provenance
    """
    import tifffile

    layers.bounds()
    ln = layers.ln_radiance
    mask = layers.validity if spec.validity else None
    kind = "rgb" if ln.shape[2] == 3 else "minisblack"
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        # Strip by strip: as one array, the picture would be copied twice.
        file.write(
            (np.ascontiguousarray(_page(block[:, :, ::-1])) for _, block in _blocks(ln)),
            shape=ln.shape if ln.shape[2] == 3 else ln.shape[:2],
            dtype=np.float32,
            rowsperstrip=_rows_of_block(ln),
            photometric=kind,
            description=_noted(provenance, "float", [] if mask is None else ["validity"]).to_json(),
            software=provenance.software.encode("ascii", "backslashreplace").decode(),
            datetime=provenance.slot,
            metadata=None,
        )
        if mask is not None:
            page = _page(np.ascontiguousarray(mask[:, :, ::-1]))
            text = _VALIDITY_TEXT
            file.write(page, photometric=kind, compression="zlib", description=text, metadata=None)
    return stream.getbuffer()


def _page(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.shape[2] == 3 else pixels[:, :, 0]


def encode_hdr(spec: ProductSpec, layers: RadianceLayers, provenance: Provenance) -> bytes:
    """Encode a Radiance RGBE picture (one exponent per pixel: about 1 % steps, rounded).

    Parameters
    ----------
    spec : ProductSpec
        With `validity`, a PNG of it (uint8, channels as in the picture) follows the picture,
        which readers of the format do not look at.
    layers : RadianceLayers
        Grey is written as three equal channels, the uncertainty is left out.
    provenance : Provenance
    """
    layers.bounds()
    height, width = layers.ln_radiance.shape[:2]
    pixels = np.empty((height, width, 3), np.float32)
    for rows, block in _blocks(layers.ln_radiance):
        pixels[rows] = block
        pixels[rows] += _half_a_step(pixels[rows])
    picture = opencv_encoded(".hdr", pixels)
    if not spec.validity or layers.validity is None:
        return with_provenance(picture, _noted(provenance, "rgbe", []))
    mask = np.ascontiguousarray(np.broadcast_to(layers.validity, pixels.shape))
    noted = _noted(provenance, "rgbe", ["validity"])
    return with_provenance(picture, noted) + opencv_encoded(".png", mask).tobytes()


def opencv_encoded(
    suffix: str, picture: NDArray[Any], parameters: Sequence[int] = ()
) -> memoryview:
    """Let OpenCV encode a picture; ValueError where it cannot.

    Parameters
    ----------
    suffix, picture, parameters
        As for ``cv2.imencode``.
    """
    try:
        done, data = cv2.imencode(suffix, picture, list(parameters))
    except cv2.error as error:
        raise ValueError(f"the {suffix} could not be encoded: {error}") from None
    if not done:
        raise ValueError(f"the {suffix} could not be encoded")
    encoded: memoryview = data.data
    return encoded


def flag_beyond_half(layers: RadianceLayers) -> tuple[RadianceLayers, tuple[str, ...]]:
    """Flag what half floats cannot hold as dark or saturated; with a note where that was needed.

    Parameters
    ----------
    layers : RadianceLayers
    """
    if _fits_half(layers):
        return layers, ()
    ends = (_HALF_RANGE[0] * _HAIR, _HALF_RANGE[1] / _HAIR)
    lowest, highest = (np.float32(math.log(end / RADIANCE_SCALE)) for end in ends)
    ln = layers.ln_radiance
    before = np.zeros(ln.shape, np.uint8) if layers.validity is None else layers.validity
    beyond = (ln < lowest) + 2 * (ln > highest).astype(np.uint8)
    after = np.where(before == 0, beyond, before)
    share = float(np.mean(after != before))
    if share == 0:
        return layers, ()
    note = (
        f"{100 * max(share, 0.0001):.2g} % of the samples lie beyond what half floats hold and are"
        " flagged as invalid; pixel_type: auto or float keeps them"
    )
    return replace(layers, validity=after), (note,)


def _half_a_step(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the encoder's cutting off needs to round instead, shape (rows, W, 1)."""
    largest = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    # Rounded up, the largest channel may need the next exponent, and twice the step.
    largest += np.ldexp(np.float32(1), np.frexp(largest)[1] - 9)
    half: NDArray[np.float32] = np.ldexp(np.float32(1), np.frexp(largest)[1] - 9)
    return half[..., np.newaxis]


def _packed_validity(validity: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Pack planes of shape (C, H, W) into one."""
    code = validity[0].copy()
    for i, plane in enumerate(validity[1:], 1):
        code += plane << (2 * i)
    numbers = np.arange(256).astype(np.float16).view(np.uint16)
    # A fifth of the time of numpy's look-up, whose indices are eight bytes long.
    packed: NDArray[np.uint16] = np.asarray(cv2.LUT(code, numbers), np.uint16)
    return packed.view(np.float16).reshape(code.shape)


def _fits_half(layers: RadianceLayers) -> bool:
    low, high = layers.bounds()
    return low >= _HALF_RANGE[0] * _HAIR and high <= _HALF_RANGE[1] / _HAIR


def _noted(provenance: Provenance, number: str, kept: list[str]) -> Provenance:
    pixels: dict[str, Scalar] = {
        "content": "linear relative irradiance per millisecond of exposure",
        "scale": RADIANCE_SCALE,
        "number": number,
        "layers": " ".join(kept),
    }
    return replace(provenance, pixels={**provenance.pixels, **pixels})
