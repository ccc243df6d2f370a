"""The disk of the power cuts loses what it should lose, and nothing else."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.volatile_disk import BLOCK, VolatileDisk

SIZE = 16 * BLOCK
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FORCED = 1
OPTION = 0x49484156454F5054


class Client:
    """As little of an NBD client as will do."""

    def __init__(self, address: Path) -> None:
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line.settimeout(10)
        self._line.connect(str(address))
        assert self._receive(18)[:8] == b"NBDMAGIC"
        self._line.sendall(struct.pack(">I", 3) + struct.pack(">QII", OPTION, 1, 0))
        self.size, _ = struct.unpack(">QH", self._receive(10))

    def ask(self, kind: int, offset: int = 0, data: bytes = b"", flags: int = 0) -> int:
        """Send a request; gives the error of the answer."""
        self.send(kind, offset, data, flags)
        _, error, _ = struct.unpack(">IIQ", self._receive(16))
        return int(error)

    def send(self, kind: int, offset: int = 0, data: bytes = b"", flags: int = 0) -> None:
        head = struct.pack(">IHHQQI", 0x25609513, flags, kind, 7, offset, len(data))
        self._line.sendall(head + data)

    def read(self, offset: int, length: int) -> bytes:
        self._line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, READ, 7, offset, length))
        self._receive(16)
        return self._receive(length)

    def write(self, offset: int, data: bytes, flags: int = 0) -> None:
        assert self.ask(WRITE, offset, data, flags) == 0

    def flush(self) -> None:
        assert self.ask(FLUSH) == 0

    def answers(self, seconds: float) -> bool:
        self._line.settimeout(seconds)
        try:
            return bool(self._line.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return False

    def close(self) -> None:
        self._line.close()

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self._line.recv(length - len(data))
            assert part, "hung up"
            data += part
        return data


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[VolatileDisk]:
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    with VolatileDisk(image, tmp_path / "s") as disk:
        yield disk


def content(tmp_path: Path) -> bytes:
    return (tmp_path / "image").read_bytes()


def test_only_what_was_flushed_survives(medium: VolatileDisk, tmp_path: Path) -> None:
    client = Client(medium.address)
    assert client.size == SIZE
    client.write(0, b"a" * 100)
    client.flush()
    client.write(50, b"b" * (2 * BLOCK))
    assert client.read(40, 30) == b"a" * 10 + b"b" * 20
    client.close()
    assert medium.cut(random.Random(1), kept=0.0) == (3, 3)
    assert content(tmp_path) == b"a" * 100 + bytes(SIZE - 100)


def test_a_forced_write_survives_alone(medium: VolatileDisk, tmp_path: Path) -> None:
    client = Client(medium.address)
    client.write(BLOCK, b"x" * BLOCK)
    client.write(3 * BLOCK, b"y" * BLOCK, FORCED)
    client.close()
    medium.cut(random.Random(1), kept=0.0)
    expected = bytearray(SIZE)
    expected[3 * BLOCK : 4 * BLOCK] = b"y" * BLOCK
    assert content(tmp_path) == expected


def test_blocks_reach_the_medium_in_no_order(medium: VolatileDisk, tmp_path: Path) -> None:
    client = Client(medium.address)
    client.write(0, b"z" * SIZE)
    client.close()
    unflushed, lost = medium.cut(random.Random(1), kept=0.5)
    there = [content(tmp_path)[at : at + BLOCK] for at in range(0, SIZE, BLOCK)]
    assert unflushed == 16
    assert there.count(bytes(BLOCK)) == lost
    assert there.count(b"z" * BLOCK) == 16 - lost
    assert 0 < lost < 16
    assert there != sorted(there)


def test_a_frozen_disk_keeps_silent_until_nobody_can_hear_it(
    medium: VolatileDisk, tmp_path: Path
) -> None:
    client = Client(medium.address)
    medium.freeze(after=1)
    client.write(0, b"a" * 10, FORCED)
    client.send(WRITE, 0, b"b" * 10, FORCED)
    assert medium.frozen(10)
    assert not client.answers(0.05)
    medium.release()
    assert client.answers(10)
    client.close()
    medium.cut(random.Random(1), kept=1.0)
    assert content(tmp_path)[:10] == b"a" * 10


def test_it_works_again_after_a_cut(medium: VolatileDisk, tmp_path: Path) -> None:
    client = Client(medium.address)
    medium.freeze()
    client.send(FLUSH)
    assert medium.frozen(10)
    client.close()
    medium.cut(random.Random(1), kept=0.0)
    client = Client(medium.address)
    client.write(0, b"again")
    client.flush()
    client.close()
    assert content(tmp_path)[:5] == b"again"
