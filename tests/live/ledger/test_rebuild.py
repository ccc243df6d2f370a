"""A ledger that is damaged or lost: aside it goes, then the newest sound backup, then products."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asi_watch.config.model import CameraConfig
from asi_watch.live.ledger import rebuild, schema
from asi_watch.live.ledger.ledger import FILE_NAME, SUSPECT_NAME, LedgerDamagedError, LedgerError
from asi_watch.live.ledger.rebuild import BACKUP_DIR, Backups, open_ledger, products_of
from asi_watch.live.ledger.records import BracketRecord, RejectedFile
from tests.live.products import NOON, STEP, camera_at, product


@pytest.fixture
def camera(tmp_path: Path) -> CameraConfig:
    (tmp_path / "state").mkdir()
    return camera_at(tmp_path)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def failed(number: int, **changes: Any) -> BracketRecord:
    slot = NOON + number * STEP
    record = BracketRecord("roof", slot, "failed", 1, attempts=8, reason="sizes differ")
    return replace(record, **changes)


def rows(state: Path, camera: CameraConfig, **more: Any) -> list[BracketRecord]:
    with open_ledger(state, (camera,), **more) as ledger:
        return ledger.history()


def destroy(state: Path) -> None:
    path = state / FILE_NAME
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def test_a_missing_ledger_is_made_from_the_products(state: Path, camera: CameraConfig) -> None:
    for number in range(3):
        path = product(camera, number, revision=1 + number)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    with open_ledger(state, (camera,)) as ledger:
        assert ledger.rebuilt
        assert len(ledger.history()) == 3
        row = ledger.get("roof", NOON + 2 * STEP)
        last = ledger.last_change("roof")
    assert row is not None
    assert (row.state, row.revision, row.complete, row.expected) == ("published", 3, True, 3)
    assert row.products == ("2026/06/21/20260621120100_hdr.jpg",)
    assert row.knows("2026/06/21/20260621120100_80.jpg", (100, 7))
    # When they were made, not when they were read.
    assert last is not None
    assert last.timestamp() == 1_700_000_002
    # A sound ledger asks no product.
    product(camera, 7)
    with open_ledger(state, (camera,)) as ledger:
        assert not ledger.rebuilt
        assert len(ledger.history()) == 3


def test_a_damaged_ledger_goes_aside_and_the_backup_and_the_products_give_the_rows(
    state: Path, camera: CameraConfig
) -> None:
    unusable = RejectedFile("a/x_80.jpg", 3, 4, "ends too soon")
    with open_ledger(state, (camera,)) as ledger:
        ledger.record(failed(1, rejected=(unusable,)))
        ledger.record(failed(0, rejected=(unusable,), late=2))
        ledger.record(failed(2, revision=3))
        ledger.set_folder_watermarks("roof", {"2026": 5})
        before = ledger.history()
        assert Backups(state).make() is not None
        ledger.record(failed(3))
        ledger.set_folder_watermarks("roof", {"2027": 6})
    product(camera, 0)
    product(camera, 2, revision=2)
    product(camera, 4)
    destroy(state)
    with open_ledger(state, (camera,)) as ledger:
        found = {r.slot: r for r in ledger.history()}
        # What the backup did not know is read again: its watermark is older as well.
        assert ledger.folder_watermarks("roof") == {"2026": 5}
    assert list(found) == [NOON + n * STEP for n in (0, 1, 2, 4)]
    assert found[NOON + STEP] == before[1]
    assert found[NOON + 2 * STEP] == before[2], "its product is of an earlier revision"
    row = found[NOON]
    assert (row.state, row.late, row.rejected) == ("published", 2, (unusable,))
    assert (state / f"{FILE_NAME}.damaged-1").exists()
    assert not (state / "rebuild").exists()


def test_of_two_backups_the_newest_sound_one_counts(state: Path, camera: CameraConfig) -> None:
    with open_ledger(state, (camera,)) as ledger:
        ledger.record(failed(1))
        older = Backups(state).make()
    assert older is not None
    newer = older.with_name("ledger-99990101T000000Z.sqlite3")
    newer.write_bytes(older.read_bytes()[:20_000])
    destroy(state)
    assert [r.slot for r in rows(state, camera)] == [NOON + STEP]


@pytest.mark.parametrize("seed", range(8))
def test_bytes_overwritten_anywhere_keep_no_daemon_from_starting(
    state: Path, camera: CameraConfig, seed: int
) -> None:
    rng = random.Random(seed)
    for number in range(4):
        product(camera, number)
    with open_ledger(state, (camera,)) as ledger:
        for number in range(4, 400):
            ledger.record(failed(number))
        Backups(state).make()
    path = state / FILE_NAME
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 3, 30])):
        at, size = rng.randrange(len(content)), rng.choice([1, 64, 4096])
        content[at : at + size] = rng.randbytes(len(content[at : at + size]))
    path.write_bytes(content)
    with open_ledger(state, (camera,)) as ledger:
        try:
            found = len(ledger.history())
        except LedgerDamagedError:
            # Found in use: the next start believes it.
            assert (state / SUSPECT_NAME).exists()
            found = 0
    if found < 395:
        with open_ledger(state, (camera,)) as ledger:
            found = len(ledger.history())
    assert found >= 395


def test_damage_found_in_use_is_believed_at_the_next_start(
    state: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_CHECK_SECONDS", -1.0)
    monkeypatch.setattr(schema, "_CHECK_STEPS", 10)
    with open_ledger(state, (camera,)) as ledger:
        for number in range(300):
            ledger.record(failed(number))
        Backups(state).make()
    path = state / FILE_NAME
    content = bytearray(path.read_bytes())
    rest = 9 * 8192
    content[rest:] = b"\x5a" * len(content[rest:])
    path.write_bytes(content)
    with open_ledger(state, (camera,)) as ledger, pytest.raises(LedgerDamagedError):
        ledger.history()
    assert (state / SUSPECT_NAME).exists()
    assert len(rows(state, camera)) == 300
    assert not (state / SUSPECT_NAME).exists()


@pytest.mark.parametrize("there", [None, b""])
def test_a_journal_whose_database_is_gone_is_not_thrown_away(
    state: Path, camera: CameraConfig, there: bytes | None
) -> None:
    with open_ledger(state, (camera,)) as ledger:
        ledger.record(failed(0))
        journal = (state / f"{FILE_NAME}-wal").read_bytes()
    (state / FILE_NAME).unlink()
    (state / f"{FILE_NAME}-wal").write_bytes(journal)
    if there is not None:
        (state / FILE_NAME).write_bytes(there)
    rows(state, camera)
    assert (state / f"{FILE_NAME}.damaged-1-wal").read_bytes() == journal


def test_a_rebuild_that_is_killed_starts_again(
    state: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        product(camera, number)
    (state / FILE_NAME).write_bytes(b"rubbish" * 1000)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rebuild, "_force_to_disk", killed)
        open_ledger(state, (camera,))
    assert not (state / FILE_NAME).exists()
    assert len(rows(state, camera)) == 3


def test_few_damaged_files_are_kept(state: Path, camera: CameraConfig) -> None:
    for _ in range(7):
        (state / FILE_NAME).write_bytes(b"rubbish" * 1000)
        (state / f"{FILE_NAME}-wal").write_bytes(b"rubbish")
        rows(state, camera)
    kept = sorted(p.name for p in state.glob("*.damaged-*") if p.name[-1].isdigit())
    assert kept == [f"{FILE_NAME}.damaged-{n}" for n in range(3, 8)]


def test_the_newest_come_first_and_time_is_bounded(
    state: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "_ROWS_AT_ONCE", 1)
    for number in (0, 1, 3000, 89_999, 90_000):
        product(camera, number)
    slots = [found.slot for found in products_of(camera)]
    assert slots == sorted(slots, reverse=True)
    assert [r.slot for r in rows(state, camera, time_limit=-1)] == slots[:1]


def test_a_dead_share_keeps_no_daemon_from_starting(
    state: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    product(camera, 0)
    monkeypatch.setattr(rebuild, "answered", lambda *_: [None])
    assert rows(state, camera) == []


def test_whoever_waits_learns_that_it_goes_on(state: Path, camera: CameraConfig) -> None:
    product(camera, 0)
    calls: list[None] = []
    open_ledger(state, (camera,), alive=lambda: calls.append(None)).close()
    assert calls


# -- backups ----------------------------------------------------------------------------------


def test_a_backup_is_made_daily_checked_and_two_are_kept(state: Path, camera: CameraConfig) -> None:
    with open_ledger(state, (camera,)) as ledger:
        ledger.record(failed(0))
        backups = Backups(state, every=100.0)
        for now in (0.0, 1.0, 5000.0):
            backups.tick(now)
            if backups._thread is not None:
                backups._thread.join()
        (made,) = (state / BACKUP_DIR).iterdir()
        assert made.stat().st_mode & 0o777 == 0o600
        for number in range(3):
            made.rename(made.with_name(f"ledger-2020010{number}T000000Z.sqlite3"))
            made = Backups(state).make() or made
        names = sorted(p.name for p in (state / BACKUP_DIR).iterdir())
        assert len(names) == 2
        assert names[0] == "ledger-20200102T000000Z.sqlite3"
        old = time.time() - 101
        for path in (state / BACKUP_DIR).iterdir():
            os.utime(path, (old, old))
        ledger.record(failed(1))
        backups.tick(10_000.0)
        backups.stop()
    newest = max((state / BACKUP_DIR).iterdir())
    with closing(sqlite3.connect(newest)) as db:
        (count,) = db.execute("SELECT count(*) FROM brackets").fetchone()
    assert count in (1, 2)


def test_rows_are_written_while_a_backup_is_made(
    state: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backups, "_PAGES", 1)
    with open_ledger(state, (camera,)) as ledger:
        for number in range(100):
            ledger.record(failed(number))
        backups = Backups(state)
        backups.tick(0.0)
        number = 100
        while backups._thread is not None and backups._thread.is_alive():
            ledger.record(failed(number))
            number += 1
        assert len(ledger.history()) == number
    (made,) = (state / BACKUP_DIR).iterdir()
    with closing(sqlite3.connect(made)) as db:
        (count,) = db.execute("SELECT count(*) FROM brackets").fetchone()
    assert 100 <= count <= number


def test_a_backup_under_way_does_not_hold_up_a_stop(
    state: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backups, "_PAGES", 1)
    monkeypatch.setattr(Backups, "_PAUSE", 5.0)
    with open_ledger(state, (camera,)):
        backups = Backups(state)
        backups.tick(0.0)
        began = time.monotonic()
        backups.stop()
        assert time.monotonic() - began < 4
    assert list((state / BACKUP_DIR).iterdir()) == []


def test_a_damaged_ledger_takes_the_place_of_no_sound_backup(
    state: Path, camera: CameraConfig
) -> None:
    with open_ledger(state, (camera,)) as ledger:
        for number in range(300):
            ledger.record(failed(number))
    sound = Backups(state).make()
    path = state / FILE_NAME
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 8192 * 8192
    content[middle : middle + 8192] = b"\x5a" * 8192
    path.write_bytes(content)
    with pytest.raises(LedgerDamagedError, match="restart the daemon"):
        Backups(state).make()
    assert list((state / BACKUP_DIR).iterdir()) == [sound]
    assert len(rows(state, camera)) == 300


def test_a_full_disk_is_told_and_earlier_backups_stay(
    state: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ledger(state, (camera,)).close()
    Backups(state).make()

    def full(folder: Path) -> os.statvfs_result:
        return os.statvfs_result((1, 1, 0, 0, 0, 0, 0, 0, 0, 0))

    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(OSError, match="too little space"):
        Backups(state).make()
    assert len(list((state / BACKUP_DIR).iterdir())) == 1


def test_a_state_folder_that_cannot_be_written_is_named(
    state: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(LedgerError, match="cannot be rebuilt"):
        open_ledger(state, (camera,))
