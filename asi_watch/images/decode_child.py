"""Decodes one picture in a process of its own, with limits on memory and time.

Run as a script, so that nothing but the decoder is imported. The headers of these formats do not
bound what a picture costs: a packet of JPEG 2000 costs memory even if it is empty, and a strip of a
TIFF may swell a thousandfold. The first line of standard output is JSON (shape, dtype, levels), the
samples follow: BGR or grey. A picture that cannot be decoded ends the process with `REFUSED` and
one line on standard error.
"""

import contextlib
import io
import json
import math
import resource
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any, NoReturn

REFUSED, MISSING = 3, 4
_SECONDS, _SAMPLES_PER_SECOND = 5, 1_500_000
_MEMORY, _MEMORY_PER_BYTE, _MOST_MEMORY = 64 << 20, 16, 2 << 30
# Compressions of TIFF that tifffile decodes by itself: none, and the two names of deflate.
_PLAIN = (1, 8, 32946)
_MINISBLACK, _RGB, _UINT, _FLOAT = 1, 2, 1, 3
_PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
_FORESEEN = (
    *(OSError, ValueError, SyntaxError, LookupError, TypeError, RuntimeError, Warning),
    *(zlib.error, struct.error),
)
_Decoded = tuple[Any, tuple[float | None, float | None] | None]


def main() -> None:
    """Decode standard input; arguments: kind, largest number of pixels."""
    kind, most_pixels = sys.argv[1], int(sys.argv[2])
    _limit(resource.RLIMIT_CPU, _SECONDS)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, _MOST_MEMORY + (1 << 30))  # until the header is known
    with contextlib.suppress(OSError):  # where memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    data = sys.stdin.buffer.read()
    kinds = {"jp2": _pillow, "webp": _pillow, "tiff": _tiff, "dng": _dng, "fits": _fits}
    # What is odd in a header spoils no pixel.
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", message=".*truncated")
    try:
        pixels, levels = kinds[kind](data, most_pixels)
    except MemoryError:
        _refuse("needs too much memory")
    except ImportError as error:
        sys.stderr.write(str(error.name))
        sys.exit(MISSING)
    except _FORESEEN as error:
        # The message of an unidentified image holds an address.
        _refuse("" if type(error).__name__ == "UnidentifiedImageError" else str(error))
    header = {"shape": pixels.shape, "dtype": pixels.dtype.str, "levels": levels}
    sys.stdout.buffer.write(json.dumps(header).encode("ascii") + b"\n")
    sys.stdout.buffer.write(pixels.tobytes())


def _bound(shape: tuple[int, ...], itemsize: int, most_pixels: int) -> None:
    """Limit memory, on top of what is mapped, and time to what a picture of this size may cost."""
    height, width, *_ = shape
    if not 0 < height * width <= most_pixels:
        raise ValueError(f"claims {width}×{height} pixels; the limit is {most_pixels} in all")
    size = math.prod(shape)
    memory = min(_MEMORY + _MEMORY_PER_BYTE * size * itemsize, _MOST_MEMORY)
    mapped = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, mapped + memory)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime + _SECONDS + size / _SAMPLES_PER_SECOND
    _limit(resource.RLIMIT_CPU, math.ceil(seconds))


def _pillow(data: bytes, most_pixels: int) -> _Decoded:
    import numpy as np
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the size is checked here
    with Image.open(io.BytesIO(data), formats=("JPEG2000", "WEBP")) as image:
        mode = "L" if image.mode in ("L", "LA", "1") else "RGB"
        _bound((image.height, image.width, len(mode)), 1, most_pixels)
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError("holds several pictures")
        return _bgr(np.asarray(image.convert(mode))), None


def _tiff(data: bytes, most_pixels: int) -> _Decoded:
    import cv2
    import numpy as np
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        bits, kind = page.bitspersample, int(page.sampleformat)
        if (bits, kind) not in ((8, _UINT), (16, _UINT), (32, _FLOAT)):
            raise ValueError(f"has {bits} bits per sample of kind {kind}; read are 8, 16, float 32")
        if len(file.pages) > 1 or 330 in page.tags or page.subfiletype & 1:
            raise ValueError("holds several pictures: a raw file is read as DNG alone")
        if page.photometric not in (_MINISBLACK, _RGB) or page.samplesperpixel > 4:
            raise ValueError(f"is neither grey nor RGB ({getattr(page.photometric, 'name', '?')})")
        shape = page.imagelength, page.imagewidth, page.samplesperpixel
        _bound(shape, bits // 8, most_pixels)
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if any(count <= 0 or offset + count > len(data) for offset, count in parts):
            raise ValueError("ends before its pixels do")
        plain = page.compression == 1
        if not parts or (plain and sum(c for _, c in parts) < math.prod(shape) * bits // 8):
            raise ValueError("has fewer pixels than its header claims")
        if page.compression in _PLAIN:
            pixels = page.asarray()
            if page.planarconfig == 2:
                pixels = np.moveaxis(pixels, 0, -1)
            return _bgr(pixels), None
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.shape[:2] != shape[:2] or found.itemsize * 8 != bits:
        raise ValueError("does not decode")
    return found.reshape(*shape[:2], -1)[:, :, : 1 if shape[2] < 3 else 3], None


def _dng(data: bytes, most_pixels: int) -> _Decoded:
    import cv2  # before memory is limited
    import numpy as np
    import rawpy

    cv2.setNumThreads(1)
    with rawpy.RawPy() as raw:
        try:
            raw.open_buffer(io.BytesIO(data))
            _bound((raw.sizes.raw_height, raw.sizes.raw_width, 3), 2, most_pixels)
            raw.unpack()
        except rawpy.LibRawError as error:
            text = error.args[0] if error.args else b""
            raise ValueError(text.decode() if isinstance(text, bytes) else str(text)) from None
        mosaic, white = raw.raw_image_visible, float(raw.white_level)
        blacks = [int(black) for black in raw.black_level_per_channel]
        if mosaic.ndim == 3:
            return _bgr(np.ascontiguousarray(mosaic[:, :, :3])), (float(max(blacks)), white)
        colours = raw.raw_colors_visible
        lifted = mosaic.copy()
        for index in set(np.unique(colours[:2, :2]).tolist()):
            # One black level for all: the others are lifted to the highest.
            if lift := max(blacks) - blacks[index]:
                lifted[colours == index] += lift
        names = "".join(raw.color_desc.decode("ascii")[i] for i in colours[:2, :2].ravel())
    levels = float(max(blacks)), white
    if set(names) <= {"G"} or len(set(names)) == 1:
        return lifted[:, :, None], levels
    return demosaiced(lifted, names, white), levels


def _fits(data: bytes, most_pixels: int) -> _Decoded:
    import cv2  # before memory is limited
    import numpy as np
    from astropy.io import fits

    cv2.setNumThreads(1)
    with fits.open(io.BytesIO(data), memmap=False) as units:
        unit = next((one for one in units if one.is_image and len(one.shape) in (2, 3)), None)
        if unit is None:
            raise ValueError("holds no picture")
        shape = unit.shape if len(unit.shape) == 2 else (*unit.shape[1:], unit.shape[0])
        if len(shape) == 3 and shape[2] not in (1, 3):
            raise ValueError(f"holds {shape[2]} planes; exposures have 1 or 3")
        _bound(shape, abs(unit.header["BITPIX"]) // 8, most_pixels)
        pixels = unit.data if len(unit.shape) == 2 else np.moveaxis(unit.data, 0, -1)
        white, pattern = unit.header.get("SATURATE"), unit.header.get("BAYERPAT")
        offsets = unit.header.get("XBAYROFF", 0), unit.header.get("YBAYROFF", 0)
    if pixels.dtype.kind == "i" and pixels.itemsize <= 2 and pixels.min() >= 0:
        pixels = pixels.astype(np.uint16)
    elif pixels.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise ValueError("holds values that are no numbers")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    levels = None if white is None else (None, float(white))
    if pattern is None or pixels.ndim == 3:
        return _bgr(pixels), levels
    if any(offsets):
        raise ValueError("has XBAYROFF or YBAYROFF other than 0, which is not read")
    if pixels.dtype.kind == "f":
        raise ValueError("holds a Bayer mosaic of floating-point numbers, which is not read")
    limit = float(np.iinfo(pixels.dtype).max) if white is None else float(white)
    return demosaiced(pixels, str(pattern).strip().upper(), limit), levels


def demosaiced(mosaic: Any, pattern: str, white: float) -> Any:
    """Interpolate the colours of a Bayer mosaic by OpenCV; what white has a part in stays white.

    Parameters
    ----------
    mosaic : ndarray, shape (H, W), uint8 or uint16
    pattern : str
        The colours of the first two rows and columns, such as RGGB.
    white : float
        Lowest saturated code.
    """
    import cv2
    import numpy as np

    if pattern not in _PATTERNS or min(mosaic.shape) < 4:
        raise ValueError(f"has the colour pattern {pattern}, which is not read")
    picture = cv2.cvtColor(np.ascontiguousarray(mosaic), getattr(cv2, f"COLOR_Bayer{pattern}2BGR"))
    saturated = np.asarray(mosaic >= white, np.uint8)
    if saturated.any():
        near = np.ones((3, 3), np.uint8)
        for channel, name in enumerate("BGR"):
            mine = np.zeros_like(saturated)
            for place in (i for i in range(4) if pattern[i] == name):
                here = (slice(place // 2, None, 2), slice(place % 2, None, 2))
                mine[here] = saturated[here]
            picture[cv2.dilate(mine, near) > 0, channel] = np.iinfo(mosaic.dtype).max
    return picture


def _bgr(pixels: Any) -> Any:
    """Shape (H, W, 1 or 3) in the order BGR, without alpha."""
    if pixels.ndim == 2:
        return pixels[:, :, None]
    return pixels[:, :, :1] if pixels.shape[2] < 3 else pixels[:, :, 2::-1]


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, hard))


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(reason)
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
