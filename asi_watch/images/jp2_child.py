"""Decodes one JPEG 2000 picture in a process of its own, with limits on memory and time.

Run as a script, so that nothing but Pillow is imported. The header does not tell what a picture
costs: a packet costs memory even if it is empty, and tiny precincts make one for each pixel. Pixels
(L or RGB) go to standard output; a picture that cannot be decoded ends the process with `REFUSED`
and one line on standard error.
"""

import contextlib
import resource
import sys
from pathlib import Path

REFUSED = 3


def main() -> None:
    """Decode standard input; arguments: mode, bytes of memory, seconds of computing."""
    mode, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):  # where memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the caller has checked the size
    mapped = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, mapped + memory)  # on top of what the interpreter has mapped
    try:
        with Image.open(sys.stdin.buffer, formats=("JPEG2000",)) as image:
            pixels = image.convert(mode).tobytes()
    except MemoryError:
        _refuse("needs too much memory")
    except (OSError, ValueError, SyntaxError) as error:
        # The message of an unidentified image holds an address.
        _refuse("" if isinstance(error, UnidentifiedImageError) else str(error))
    sys.stdout.buffer.write(pixels)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, most))


def _refuse(reason: str) -> None:
    sys.stderr.write(reason)
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
