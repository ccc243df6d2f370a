"""The pages that SQLite's write-ahead journal holds for its database, read without SQLite.

A frame counts if its sums are right and a commit follows it, as SQLite itself decides; the rest
of a torn journal is left out. Format: https://www.sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from pathlib import Path

_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_HEADER, _FRAME = 32, 24
_MASK = 0xFFFFFFFF

Sums = tuple[int, int]


def committed_pages(path: Path) -> tuple[dict[int, bytes], int | None]:
    """Read a journal.

    Parameters
    ----------
    path : Path
        The ``-wal`` file; it need not be there.

    Returns
    -------
    pages : dict of int to bytes
        The newest committed content of every page that the journal holds.
    page_size : int or None
        None if there is no journal, or none with a sound header.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError:
        return {}, None
    if len(data) < _HEADER:
        return {}, None
    magic, _, size, _, salt, salt2, sum0, sum1 = struct.unpack_from(">8I", data)
    order = _MAGIC.get(magic)
    if order is None or size < 512 or _sums(data[:24], order, (0, 0)) != (sum0, sum1):
        return {}, None
    sums = (sum0, sum1)
    committed: dict[int, bytes] = {}
    pending: dict[int, bytes] = {}
    for at in range(_HEADER, len(data) - _FRAME - size + 1, _FRAME + size):
        number, commit, *salts, sum0, sum1 = struct.unpack_from(">6I", data, at)
        page = data[at + _FRAME : at + _FRAME + size]
        sums = _sums(page, order, _sums(data[at : at + 8], order, sums))
        if salts != [salt, salt2] or sums != (sum0, sum1):
            break
        pending[number] = bytes(page)
        if commit:
            committed |= pending
            pending.clear()
    return committed, size


def _sums(data: memoryview, order: str, sums: Sums) -> Sums:
    """Go on with a journal's sums over more data."""
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = first + even + second & _MASK
        second = second + odd + first & _MASK
    return first, second
