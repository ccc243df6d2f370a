from __future__ import annotations

import logging
from pathlib import Path

import pytest

from asi_watch.live.disk import DiskGuard, free_bytes

FLOOR = 1_000_000


def test_writing_pauses_below_the_floor_and_goes_on_a_little_above_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    free = {tmp_path: FLOOR}
    guard = DiskGuard(FLOOR, [tmp_path], free.__getitem__)
    with caplog.at_level(logging.DEBUG):
        for value, paused in (
            (FLOOR, False),
            (FLOOR - 1, True),
            (FLOOR, True),
            (FLOOR - 1, True),
            (int(FLOOR * 1.05), False),
            (FLOOR, False),
        ):
            free[tmp_path] = value
            guard.look()
            assert (guard.low(tmp_path) is not None) is paused
    assert [r.message for r in caplog.records] == [
        "disk nearly full: publishing and calibrating pause",
        "disk has room again",
    ]


def test_each_folder_is_judged_by_itself(tmp_path: Path) -> None:
    full, roomy = tmp_path / "full", tmp_path / "roomy"
    guard = DiskGuard(FLOOR, [full, roomy], {full: 0, roomy: FLOOR * 9}.__getitem__)
    guard.look()
    assert guard.low(roomy) is None
    assert str(full) in (guard.low(roomy, full) or "")


def test_a_disk_that_does_not_answer_pauses_nothing(tmp_path: Path) -> None:
    def broken(_folder: Path) -> int:
        raise OSError(5, "Input/output error")

    guard = DiskGuard(FLOOR, [tmp_path], broken)
    guard.look()
    assert guard.low(tmp_path) is None


def test_without_a_floor_nothing_is_asked(tmp_path: Path) -> None:
    guard = DiskGuard(None, [tmp_path], {}.__getitem__)
    guard.start()
    assert guard.low(tmp_path) is None


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0
