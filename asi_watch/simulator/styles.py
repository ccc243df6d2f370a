"""How cameras and their programs name and write their files, in the simulator."""

import datetime as dt
import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from asi_watch.simulator.lens import Floats
from asi_watch.simulator.sensor import BLACK, WHITE, Camera

_APP1, _COMMENT = 0xE1, 0xFE
_EXIF_FOLDER, _EXPOSURE_TIME, _TAKEN, _MAKE = 0x8769, 0x829A, 0x9003, 0x010F
# RGGB: in these places of each square of four pixels a filter lets pass the channel (BGR).
_FILTERS = (((0, 0), 2), ((0, 1), 1), ((1, 0), 1), ((1, 1), 0))
_FITS_BLOCK, _FITS_CARD = 2880, 80

Encode = Callable[[Camera, Floats, float, dt.datetime], bytes]
"""Takes a picture of radiance, at an exposure in µs and a time, and gives the file's content."""


@dataclass(frozen=True)
class Style:
    """What the files of a camera are like."""

    encode: Encode
    pattern: str = "{timestamp:%Y%m%d%H%M%S}_{exposure}"
    folders: str = "%Y/%m/%d/%H"
    suffix: str = ".jpg"
    exposures_us: tuple[float, ...] = (80.0, 160.0, 320.0, 640.0, 1280.0)
    labels: Mapping[str, float] = field(default_factory=dict)  # in µs; none: names have numbers
    real: float = 1.0  # how much longer exposures are than their names, or their setting, say
    processed: str = ""  # label of a picture that the camera itself adds to each bracket


def _jpeg(camera: Camera, radiance: Floats, exposure_us: float, _taken: dt.datetime) -> bytes:
    return camera.encode(camera.expose(radiance, exposure_us))


def _jpeg_with_exif(
    camera: Camera, radiance: Floats, exposure_us: float, taken: dt.datetime
) -> bytes:
    exif = Image.Exif()
    exif[_MAKE] = "simulated"
    exif.get_ifd(_EXIF_FOLDER).update(
        {
            _EXPOSURE_TIME: IFDRational(round(exposure_us), 1_000_000),
            _TAKEN: f"{taken:%Y:%m:%d %H:%M:%S}",
        }
    )
    data = _jpeg(camera, radiance, exposure_us, taken)
    return _with_segment(data, _APP1, exif.tobytes())


def _mobotix(camera: Camera, radiance: Floats, exposure_us: float, taken: dt.datetime) -> bytes:
    lines = (
        *("#:M1IMG", "VER=1.0", "TYP=DIR", "PRD=MOBOTIX", "NAM=simulated"),
        *(f"DAT={taken:%Y-%m-%d}", f"TIM={taken:%H:%M:%S}.000", "TZN=UTC"),
        *(f"EXP={exposure_us:.0f}", "LXR=120", "#:M1IMGEND", "\0"),
    )
    data = _jpeg(camera, radiance, exposure_us, taken)
    return _with_segment(data, _COMMENT, "\n".join(lines).encode())


def _with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Add a segment behind the first one, which readers want to be JFIF's."""
    end = 4 + int.from_bytes(jpeg[4:6])
    return jpeg[:end] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + jpeg[end:]


def _png16(camera: Camera, radiance: Floats, exposure_us: float, _taken: dt.datetime) -> bytes:
    return cv2.imencode(".png", camera.expose_linear(radiance, exposure_us))[1].tobytes()


def _bayer(camera: Camera, radiance: Floats, exposure_us: float) -> NDArray[np.uint16]:
    codes = camera.expose_linear(radiance, exposure_us)
    raw = np.empty(codes.shape[:2], np.uint16)
    for (row, column), channel in _FILTERS:
        raw[row::2, column::2] = codes[row::2, column::2, channel]
    return raw


def _fits(camera: Camera, radiance: Floats, exposure_us: float, taken: dt.datetime) -> bytes:
    """Write a raw frame as INDI programs do: FITS, rows from the top."""
    raw = _bayer(camera, radiance, exposure_us)
    values = {
        "SIMPLE": "T",
        "BITPIX": 16,
        "NAXIS": 2,
        "NAXIS1": raw.shape[1],
        "NAXIS2": raw.shape[0],
        "BZERO": 32768,
        "BSCALE": 1,
        "EXPTIME": exposure_us / 1e6,
        "BAYERPAT": "'RGGB    '",
        "DATE-OBS": f"'{taken:%Y-%m-%dT%H:%M:%S}'",
        "ROWORDER": "'TOP-DOWN'",
    }
    cards = [f"{key:8}= {value!s:>20}".ljust(_FITS_CARD) for key, value in values.items()]
    header = "".join([*cards, "END".ljust(_FITS_CARD)]).encode("ascii")
    pixels = (raw.astype(np.int32) - 32768).astype(">i2").tobytes()
    return b"".join(
        part + fill * (-len(part) % _FITS_BLOCK) for part, fill in ((header, b" "), (pixels, b"\0"))
    )


def _dng(camera: Camera, radiance: Floats, exposure_us: float, taken: dt.datetime) -> bytes:
    """Write a raw frame as a DNG of the Raspberry Pi's kind."""
    raw = _bayer(camera, radiance, exposure_us)
    import tifffile  # imported late: few simulations write such files

    file = io.BytesIO()
    matrix = [part for one in np.eye(3).ravel() for part in (int(one) * 10_000, 10_000)]
    tags = [
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, "s", 0, "simulated", True),  # UniqueCameraModel
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern: RGGB
        (50714, "I", 1, BLACK, True),  # BlackLevel
        (50717, "I", 1, WHITE, True),  # WhiteLevel
        (50721, "2i", 9, matrix, True),  # ColorMatrix1
        (33434, "2I", 1, (round(exposure_us), 1_000_000), True),  # ExposureTime
    ]
    with tifffile.TiffWriter(file) as writer:
        writer.write(
            raw, photometric="cfa", extratags=tags, datetime=taken, software=None, metadata=None
        )
    return file.getvalue()


_SECONDS = "{timestamp:%Y%m%d_%H%M%S}"
_PROFILES = {"short": 80.0, "middle": 320.0, "long": 1280.0}
STYLES: Mapping[str, Style] = {
    "plain": Style(_jpeg),
    "mobotix": Style(_mobotix, real=1.04),
    "eko": Style(
        _jpeg,
        folders="%Y%m%d",
        exposures_us=(500.0, 2000.0),
        labels={"02": 500.0, "0": 2000.0},
        processed="11",
    ),
    "rpicam": Style(_jpeg_with_exif, pattern=f"{_SECONDS}_{{exposure}}us", real=0.97),
    "linear-png": Style(_png16, suffix=".png"),
    "rpicam-raw": Style(_dng, pattern=_SECONDS, suffix=".dng", real=0.97),
    "indi-allsky": Style(_jpeg_with_exif, pattern=f"ccd1_{_SECONDS}", folders="%Y%m%d/day/%d_%H"),
    "indi-allsky-fits": Style(
        _fits, pattern=f"ccd1_{_SECONDS}", folders="%Y%m%d/day/%d_%H", suffix=".fit"
    ),
    "allsky": Style(_jpeg_with_exif, pattern="image-{timestamp:%Y%m%d%H%M%S}", folders="%Y%m%d"),
    "ip-camera": Style(
        _jpeg,
        pattern="roof_{exposure}_{timestamp:%y-%m-%d_%H-%M-%S}",
        folders="%Y%m%d",
        exposures_us=tuple(_PROFILES.values()),
        labels=_PROFILES,
    ),
}
