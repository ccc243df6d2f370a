"""A disk with a volatile cache: what was not flushed may be gone after a power cut.

Killing a virtual machine alone loses only what its kernel had not sent to the disk yet. A real
disk loses more: it acknowledges writes that lie in its own memory, and puts them on the medium in
whatever order it likes, unless it is told to flush. This disk does the same. It speaks NBD
(https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md) to one machine at a time.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType

BLOCK = 4096
_OPTION_MAGIC = 0x49484156454F5054
_REPLY_MAGIC = 0x3E889045565A9
_REQUEST = struct.Struct(">IHHQQI")
_ANSWER = struct.Struct(">IIQ")
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _ABORT, _GO = 1, 2, 7
_ACK, _INFO, _UNSUPPORTED = 1, 3, 0x80000001
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_FUA = 1
_FLAGS = 1 | 4 | 8  # has flags, may flush, may force single writes


class VolatileDisk:
    """Serves a raw image on a socket; writes stay in memory until they are flushed.

    Parameters
    ----------
    image : Path
        What is on the medium.
    address : Path
        Of the socket; short, as socket addresses are.
    """

    def __init__(self, image: Path, address: Path) -> None:
        self.address = address
        self._image = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._image).st_size
        self._cache: dict[int, bytearray] = {}
        self._idle = threading.Event()
        self._idle.set()
        self._until_freeze: int | None = None
        self._frozen, self._released = threading.Event(), threading.Event()
        self.flushes = 0
        address.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(address))
        self._listener.listen(1)
        threading.Thread(target=self._accept, name="disk", daemon=True).start()

    def __enter__(self) -> VolatileDisk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._listener.close()
        os.close(self._image)

    def freeze(self, after: int = 0) -> None:
        """Do nothing more, and answer nothing more: the power is gone.

        Parameters
        ----------
        after : int
            So many writes and flushes are done before.
        """
        self._until_freeze = after
        if not after:
            self._frozen.set()

    def frozen(self, limit: float) -> bool:
        """Wait until that has come, for so many seconds at most."""
        return self._frozen.wait(limit)

    def release(self) -> None:
        """Let whoever still waits for an answer hear of an error."""
        self._frozen.set()
        self._released.set()

    def cut(self, dice: random.Random, kept: float) -> tuple[int, int]:
        """Lose the cache, but for blocks that happened to reach the medium, in no order.

        Parameters
        ----------
        dice : random.Random
        kept : float
            Probability of each unflushed block to be on the medium, 0…1.

        Returns
        -------
        tuple of int
            Blocks of 4 KB that were not flushed, and how many of them are lost.
        """
        self.release()
        assert self._idle.wait(30), "the machine is still there"
        self._until_freeze = None
        self._frozen.clear()
        self._released.clear()
        unflushed, lost = len(self._cache), 0
        for block in sorted(self._cache):
            if dice.random() < kept:
                os.pwrite(self._image, self._cache[block], block * BLOCK)
            else:
                lost += 1
        self._cache.clear()
        return unflushed, lost

    # -- the medium and its cache -------------------------------------------------------------

    def _load(self, block: int) -> bytes | bytearray:
        held = self._cache.get(block)
        return os.pread(self._image, BLOCK, block * BLOCK) if held is None else held

    def _read(self, offset: int, length: int) -> bytes:
        first, last = offset // BLOCK, -(-(offset + length) // BLOCK)
        if not any(block in self._cache for block in range(first, last)):
            return os.pread(self._image, length, offset)
        whole = b"".join(self._load(block) for block in range(first, last))
        return whole[offset - first * BLOCK :][:length]

    def _write(self, offset: int, data: bytes, force: bool) -> None:
        view = memoryview(data)
        while view:
            block, start = divmod(offset, BLOCK)
            part = view[: BLOCK - start]
            content = bytearray(self._load(block))
            content[start : start + len(part)] = part
            self._cache[block] = content
            if force:
                os.pwrite(self._image, self._cache.pop(block), block * BLOCK)
            view, offset = view[len(part) :], offset + len(part)

    def _flush(self) -> None:
        for block, content in self._cache.items():
            os.pwrite(self._image, content, block * BLOCK)
        self._cache.clear()
        self.flushes += 1

    def _gone(self) -> bool:
        """Tell whether the power is gone; says so only when nobody listens any more."""
        if not self._frozen.is_set() and self._until_freeze is not None:
            self._until_freeze -= 1
            if self._until_freeze < 0:
                self._frozen.set()
        if self._frozen.is_set():
            self._released.wait()
            return True
        return False

    # -- the protocol ---------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._idle.clear()
            try:
                with connection:
                    if _negotiated(connection, self._size):
                        self._serve(connection)
            except (ConnectionError, EOFError):
                pass  # the machine was killed
            finally:
                self._idle.set()

    def _serve(self, connection: socket.socket) -> None:
        while True:
            head = _REQUEST.unpack(_receive(connection, _REQUEST.size))
            _, flags, kind, handle, offset, length = head
            answer = b""
            if kind == _DISCONNECT:
                return
            data = _receive(connection, length) if kind == _WRITE else b""
            failed = kind != _READ and self._gone()
            if kind == _READ:
                answer = self._read(offset, length)
            elif kind == _WRITE and not failed:
                self._write(offset, data, bool(flags & _FUA))
            elif kind == _FLUSH and not failed:
                self._flush()
            error = errno.EIO if failed else 0
            connection.sendall(_ANSWER.pack(0x67446698, error, handle) + answer)


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(data)


def _negotiated(connection: socket.socket, size: int) -> bool:
    """Agree on the only export there is."""
    greeting = b"NBDMAGIC" + struct.pack(">QH", _OPTION_MAGIC, _FIXED_NEWSTYLE | _NO_ZEROES)
    connection.sendall(greeting)
    _receive(connection, 4)
    export = struct.pack(">QH", size, _FLAGS)
    while True:
        _, option, length = struct.unpack(">QII", _receive(connection, 16))
        _receive(connection, length)
        if option == _EXPORT_NAME:
            connection.sendall(export)
            return True
        if option == _GO:
            connection.sendall(_reply(option, _INFO, struct.pack(">H", 0) + export))
        connection.sendall(_reply(option, _ACK if option in {_GO, _ABORT} else _UNSUPPORTED))
        if option in {_GO, _ABORT}:
            return bool(option == _GO)


def _reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", _REPLY_MAGIC, option, kind, len(data)) + data
