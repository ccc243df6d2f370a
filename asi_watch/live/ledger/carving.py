"""Records cut out of a damaged SQLite file, page by page, asking nothing of its structure.

SQLite gives up a table where a page on the way to its rows is damaged, and a whole file whose
first page is. Here every page that still looks like one with records yields those that make
sense, wherever it lies. The file format: https://www.sqlite.org/fileformat2.html. Only read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from asi_watch.live.ledger.write_ahead import committed_pages

Value = int | float | str | bytes | None

_MAGIC = b"SQLite format 3\0"
_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_LONGEST_RECORD = 2 << 20
_PAGE_SIZES = [1 << n for n in range(9, 17)]
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


@dataclass(frozen=True, slots=True)
class CarvedRecord:
    """One record: its values, and its rowid if it is of a table that has them."""

    values: tuple[Value, ...]
    rowid: int | None


class _NonsenseError(Exception):
    """These bytes are no record."""


def carve(path: Path, page_size: int, progress: Callable[[], None]) -> Iterator[CarvedRecord]:
    """Yield every record of a file, and of the journal beside it, that still makes sense.

    First those of the file as its journal leaves it, then what lies below the journal's pages:
    the journal may be another file's. Records that were replaced or deleted may be among them.

    Parameters
    ----------
    path : Path
        The database; its journal is ``PATH-wal``.
    page_size : int
        Holds if neither the file nor the journal says another.
    progress : callable
        Called after every page.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        journal, journal_page_size = committed_pages(Path(f"{path}-wal"))
        size = _page_size(file) or journal_page_size or page_size
        below = _Pages(file, size, {})
        views = [below]
        if journal and journal_page_size == size:
            views.insert(0, _Pages(file, size, journal))
        for view in views:
            free = view.free_pages()
            numbers = range(1, view.count + 1) if view is views[0] else sorted(journal)
            for number in numbers:
                if number not in free:
                    yield from _records(view, number)
                progress()


def _page_size(file: BinaryIO) -> int | None:
    header = os.pread(file.fileno(), 100, 0)
    if not header.startswith(_MAGIC) or len(header) < 100:
        return None
    (size,) = struct.unpack_from(">H", header, 16)
    size = 1 << 16 if size == 1 else size
    return size if size in _PAGE_SIZES else None


class _Pages:
    """The pages of a database, some of which a journal replaces."""

    def __init__(self, file: BinaryIO, size: int, journal: dict[int, bytes]) -> None:
        self._file = file
        self.size = size
        self._journal = journal
        # A cut-off last page counts: what is left of it may hold records.
        pages = -(-os.fstat(file.fileno()).st_size // size)
        self.count = max([pages, *journal])

    def page(self, number: int) -> bytes:
        """Return a page; a missing rest is zero."""
        if number in self._journal:
            return self._journal[number]
        page = os.pread(self._file.fileno(), self.size, (number - 1) * self.size)
        return page.ljust(self.size, b"\0")

    def free_pages(self) -> set[int]:
        """Pages that the file itself calls free: what they hold is out of date."""
        header = self.page(1)
        free: set[int] = set()
        if not header.startswith(_MAGIC):
            return free
        (trunk,) = struct.unpack_from(">I", header, 32)
        while 1 < trunk <= self.count and trunk not in free:
            free.add(trunk)
            page = self.page(trunk)
            trunk, count = struct.unpack_from(">II", page)
            if count <= self.size // 4 - 2:
                free.update(struct.unpack_from(f">{count}I", page, 8))
        return free


def _records(pages: _Pages, number: int) -> Iterator[CarvedRecord]:
    page = pages.page(number)
    start = 100 if number == 1 else 0
    kind = page[start]
    if kind not in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
        return
    (cells,) = struct.unpack_from(">H", page, start + 3)
    pointers = start + (12 if kind == _INDEX_INTERIOR else 8)
    for i in range(min(cells, (pages.size - pointers) // 2)):
        (at,) = struct.unpack_from(">H", page, pointers + 2 * i)
        try:
            yield _cell(pages, page, kind, at)
        except (_NonsenseError, IndexError, struct.error, UnicodeDecodeError):
            continue


def _cell(pages: _Pages, page: bytes, kind: int, at: int) -> CarvedRecord:
    if kind == _INDEX_INTERIOR:
        at += 4
    length, at = _varint(page, at)
    rowid = None
    if kind == _TABLE_LEAF:
        rowid, at = _varint(page, at)
    if not 2 <= length <= _LONGEST_RECORD:
        raise _NonsenseError
    return CarvedRecord(_values(_payload(pages, page, kind, at, length)), rowid)


def _payload(pages: _Pages, page: bytes, kind: int, at: int, length: int) -> bytes:
    usable = pages.size
    most = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if length <= most:
        payload = page[at : at + length]
    else:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= most else least
        payload = page[at : at + local]
        (following,) = struct.unpack_from(">I", page, at + local)
        seen: set[int] = set()
        while len(payload) < length and 1 < following <= pages.count and following not in seen:
            seen.add(following)
            overflow = pages.page(following)
            (following,) = struct.unpack_from(">I", overflow)
            payload += overflow[4 : 4 + length - len(payload)]
    if len(payload) != length:
        raise _NonsenseError
    return payload


def _values(payload: bytes) -> tuple[Value, ...]:
    header, at = _varint(payload, 0)
    if header > len(payload):
        raise _NonsenseError
    values: list[Value] = []
    body = header
    while at < header:
        kind, at = _varint(payload, at)
        value, body = _value(payload, kind, body)
        values.append(value)
    if at != header or body != len(payload):
        raise _NonsenseError
    return tuple(values)


def _value(payload: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind in (0, 8, 9):
        return (None if kind == 0 else kind - 8), at
    if kind in _INTEGER_BYTES:
        end = at + _INTEGER_BYTES[kind]
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if kind == 7:
        (number,) = struct.unpack_from(">d", payload, at)
        return float(number), at + 8
    if kind < 12:
        raise _NonsenseError
    end = at + (kind - 12) // 2
    if end > len(payload):
        raise _NonsenseError
    return (payload[at:end].decode() if kind % 2 else payload[at:end]), end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(at, at + 8):
        value = value << 7 | data[i] & 0x7F
        if data[i] < 0x80:
            return value, i + 1
    return value << 8 | data[at + 8], at + 9
