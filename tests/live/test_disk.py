from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from asi_watch.live.disk import DiskGuard, free_bytes, wait_for_room

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


def test_what_is_told_of_a_low_disk_is_of_now(tmp_path: Path) -> None:
    free = {tmp_path: 900_000}
    guard = DiskGuard(10 * FLOOR, [tmp_path], free.__getitem__)
    assert not guard.any_low()
    guard.look()
    free[tmp_path] = 5_000_000
    guard.look()
    assert guard.any_low()
    assert "5MB free" in (guard.low(tmp_path) or "")


def test_a_start_waits_for_room_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asi_watch.live.disk._LOOK_AGAIN", 0.0)
    rooms = iter([0, 0, FLOOR - 1, 2 * FLOOR])
    signs: list[int] = []
    assert wait_for_room(
        tmp_path, FLOOR, lambda: False, lambda: signs.append(1), lambda _: next(rooms)
    )
    assert len(signs) == 3
    assert [r.message for r in caplog.records] == [
        "disk nearly full: waiting to start",
        "disk has room again",
    ]
    assert not wait_for_room(tmp_path, FLOOR, lambda: True, free=lambda _: 0)


def test_a_start_does_not_wait_where_nobody_knows_how_much_room_there_is(tmp_path: Path) -> None:
    def broken(_folder: Path) -> int:
        raise OSError(5, "Input/output error")

    assert wait_for_room(tmp_path, FLOOR, lambda: False, free=broken)


def test_a_dead_share_keeps_nobody_from_looking_at_the_other_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asi_watch.live.disk._EVERY", 0.01)
    monkeypatch.setattr("asi_watch.live.disk._PATIENCE", 0.2)
    back, looked = threading.Event(), threading.Semaphore(0)
    dead, full = tmp_path / "dead", tmp_path / "full"

    def free(folder: Path) -> int:
        if folder == dead:
            back.wait(60)
        looked.release()
        return 0

    guard = DiskGuard(FLOOR, [dead, full], free)
    guard.start()
    assert guard.low(full) is not None
    for _ in range(5):
        # Asked as the owner does it, several times a second.
        for _ in range(200):
            guard.low(full)
            if looked.acquire(timeout=0.05):
                break
        else:
            pytest.fail("the other disk is not looked at any more")
    assert guard.low(dead) is None
    guard.stop()
    back.set()


def test_a_start_does_not_wait_for_the_free_space_of_a_dead_share(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    share_returns = threading.Event()
    request.addfinalizer(share_returns.set)
    monkeypatch.setattr("asi_watch.live.disk._PATIENCE", 0.05)

    def free(_: Path) -> int:
        share_returns.wait(60)
        return 0

    guard = DiskGuard(1, [tmp_path], free)
    guard.start()
    assert guard.low(tmp_path) is None
    guard.stop()
