"""Bad input by name: contents, things that are no files, and names, each put where it hurts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tests.images.pictures import ZOO as CONTENTS
from tests.images.pictures import jpeg, pillow, sky

Put = Callable[[Path], None]


def _content(make: Callable[[], bytes]) -> Put:
    def put(path: Path) -> None:
        path.write_bytes(make())

    return put


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    # A socket's address is short; the way over the open folder is, too.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _link(target: str) -> Put:
    return lambda path: path.symlink_to(target)


def _link_to_image(path: Path) -> None:
    good = path.with_suffix(".elsewhere")
    good.write_bytes(jpeg(sky(96, 96)))
    path.symlink_to(good)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)


def _unreadable(path: Path) -> None:
    path.write_bytes(jpeg(sky(96, 96)))
    path.chmod(0)


def _device(path: Path) -> None:
    os.mknod(path, 0o020666, os.makedev(1, 5))


# What takes the place of one exposure of a bracket: the others must be merged without it.
SPOILT: dict[str, Put] = {
    **{kind: _content(make) for kind, (make, _, _) in CONTENTS.items()},
    "fifo": _fifo,
    "socket": _socket,
    "link to an image": _link_to_image,
    "link to /dev/zero": _link("/dev/zero"),
    "link to nowhere": _link("/nowhere/at/all.jpg"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "sparse file of 10 GB": _sparse,
}
if os.geteuid() == 0:
    SPOILT["device"] = _device
else:
    SPOILT["unreadable"] = _unreadable

# What is an image, but does not fit the others of its bracket: the bracket cannot be merged.
MISFITS: dict[str, Put] = {
    "another size": _content(lambda: jpeg(sky(64, 64))),
    "grey among colours": _content(lambda: pillow("L")),
}

# Names that say no time or no exposure; the content is a whole image.
NAMES: dict[str, str] = {
    "month 13": "20261301090000_80.jpg",
    "day 32": "20260132090000_80.jpg",
    "hour 25": "20260621250000_80.jpg",
    "second 61": "20260621090061_80.jpg",
    "year 0": "00000101000000_80.jpg",
    "year 1": "00010101000000_80.jpg",
    "year 9999": "99991231235959_80.jpg",
    "year 1601": "16010101000000_80.jpg",
    "thirteen digits": "2026062109000_80.jpg",
    "no exposure": "20260621090000.jpg",
    "empty exposure": "20260621090000_.jpg",
    "exposure 0": "20260621090000_0.jpg",
    "negative exposure": "20260621090000_-80.jpg",
    "exposure nan": "20260621090000_nan.jpg",
    "exposure inf": "20260621090000_inf.jpg",
    "exposure beyond floats": f"20260621090000_{'9' * 230}.jpg"[:255],
    "newline": "20260621\n090000_80.jpg",
    "newline at the end": "20260621090000_80\n.jpg",
    "spaces": " 20260621090000_80 .jpg",
    "no utf-8": os.fsdecode(b"20260621\xff\xfe90000_80.jpg"),
    "255 bytes": "2" * 251 + ".jpg",
    "dots": "..20260621090000_80.jpg",
    "nothing but a suffix": ".jpg",
    "terminal colours": "\x1b[31m20260621090000_80.jpg",
    "digits of another script": "２０２６０６２１０９００００_80.jpg",
    "right to left": "\u202e20260621090000_80.jpg",
    "format string": "%s%n%x_80.jpg",
    "sql": "'; DROP TABLE brackets;--_80.jpg",
    "html": "<script>alert(1)<script>_80.jpg",
}

# Names that say a time, if an odd one: each is a bracket of its own, with too few exposures.
ODD_TIMES: dict[str, str] = {
    "year 1970": "19700101000000_80.jpg",
    "year 2038": "20380119031408_80.jpg",
    "leap day": "20240229120000_80.jpg",
}

# Folders with names as they should not be; the brackets in them are fine.
FOLDERS: dict[str, str] = {
    "newline": "new\nline",
    "no utf-8": os.fsdecode(b"\xff\xfe"),
    "255 bytes": "f" * 255,
    "spaces": "  a b  ",
    "dots": "a..b",
    "backslash": "a\\b",
    "ends like an image": "folder.jpg",
    "ends like a product": "20260621090000_hdr.jpg",
    "format string": "%s%d{0}",
}
