from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asi_watch.config import parse_config
from asi_watch.config.model import CameraConfig
from asi_watch.live.ledger.ledger import (
    FILE_NAME,
    CurveDecision,
    Ledger,
    LedgerDamagedError,
    LedgerFullError,
)
from asi_watch.live.ledger.product_rows import products_of
from asi_watch.live.ledger.rebuilding import move_aside, open_ledger
from asi_watch.live.records import BracketRecord, RejectedFile
from asi_watch.live.sdnotify import Notifier
from asi_watch.live.service import Daemon
from asi_watch.response_files import response_bytes
from tests.live.products import NOON, STEP, camera_at, product
from tests.skies import sky_bracket


@pytest.fixture
def camera(tmp_path: Path) -> CameraConfig:
    (tmp_path / "state").mkdir()
    return camera_at(tmp_path)


def opened(tmp_path: Path, camera: CameraConfig, **more: Any) -> tuple[Ledger, int | None]:
    found = open_ledger(tmp_path / "state", (camera,), **more)
    return found.ledger, found.rebuilt


def test_a_sound_ledger_is_opened_and_hears_of_the_newest_products(
    tmp_path: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path, camera)[0].close()
    monkeypatch.setattr("asi_watch.live.ledger.asking_products._WELL_KNOWN", 3)
    for number in (0, 4, 5, 6):
        product(camera, number, revision=2)
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt is None
    assert [(r.slot, r.revision, r.late) for r in ledger.history()] == [
        (NOON + n * STEP, 2, 1) for n in (0, 4, 5, 6)
    ]
    # Three in a row that it knows, and it knows the rest: what is older is not looked at.
    with ledger._transaction():
        ledger._db.execute("DELETE FROM brackets WHERE slot = ?", (NOON.isoformat(),))
    product(camera, 7)
    ledger.close()
    ledger, _ = opened(tmp_path, camera)
    assert [r.slot for r in ledger.history()] == [NOON + n * STEP for n in (4, 5, 6, 7)]
    ledger.close()


def test_a_missing_ledger_is_made_from_the_products(tmp_path: Path, camera: CameraConfig) -> None:
    for number in range(3):
        path = product(camera, number, revision=1 + number)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt == 3
    row = ledger.get("roof", NOON + 2 * STEP)
    assert row is not None
    assert (row.state, row.revision, row.complete, row.expected) == ("published", 3, True, 3)
    assert row.products == ("2026/06/21/20260621120100_hdr.jpg",)
    assert row.knows("2026/06/21/20260621120100_80.jpg", (100, 7))
    # When they were made, not when they were read: the look-back at start depends on it.
    last = ledger.last_change("roof")
    assert last is not None
    assert last.timestamp() == 1_700_000_002
    ledger.close()


def test_a_damaged_ledger_is_kept_aside_under_a_name_that_is_free(
    tmp_path: Path, camera: CameraConfig
) -> None:
    state = tmp_path / "state"
    for suffix in ("", "-wal", "-shm"):
        (state / f"{FILE_NAME}{suffix}").write_bytes(b"rubbish" * 1000)
    assert move_aside(state).name == f"{FILE_NAME}.damaged-1"
    (state / FILE_NAME).write_bytes(b"rubbish" * 1000)
    product(camera, 0)
    ledger, rebuilt = opened(tmp_path, camera)
    ledger.close()
    assert rebuilt == 1
    names = {p.name for p in state.iterdir()}
    assert {f"{FILE_NAME}.damaged-{n}" for n in (1, 2)} < names
    assert f"{FILE_NAME}.damaged-1-wal" in names


def test_the_newest_come_first_and_time_is_bounded(tmp_path: Path, camera: CameraConfig) -> None:
    old = camera.scan.lookback.total_seconds() + 100
    for number, age in ((0, old), (1, old), (3000, old), (89_999, 50.0), (90_000, 0.0)):
        product(camera, number, age=age)
    slots = [found.record.slot for found in products_of(camera) if found.record is not None]
    assert slots == sorted(slots, reverse=True)
    ledger, rebuilt = opened(tmp_path, camera, time_limit=-1)
    # Those as young as the look-back at start, and the one that showed where it ends.
    assert rebuilt == 3
    assert [r.slot for r in ledger.history()] == sorted(slots[:3])
    ledger.close()


def test_the_curve_in_use_stays_in_use(tmp_path: Path, camera: CameraConfig) -> None:
    folder = tmp_path / "state" / "curves" / "roof"
    folder.mkdir(parents=True)
    (folder / "c0ffee.npz").write_bytes(response_bytes(sky_bracket(32).log_response))
    product(camera, 0, curve="older")
    product(camera, 1, curve="c0ffee")
    ledger, _ = opened(tmp_path, camera)
    adopted = ledger.adopted_curve("roof")
    assert adopted is not None
    assert (adopted.curve_id, adopted.base_id) == ("c0ffee", None)
    ledger.close()


# -- salvaged rows and products ---------------------------------------------------------------


def failed(number: int, **changes: Any) -> BracketRecord:
    slot = NOON + number * STEP
    record = BracketRecord("roof", slot, "failed", 1, attempts=8, reason="sizes differ")
    return replace(record, **changes)


def test_what_only_the_ledger_knew_outlives_its_damage(
    tmp_path: Path, camera: CameraConfig
) -> None:
    ledger, _ = opened(tmp_path, camera)
    product(camera, 0)
    unusable = RejectedFile("a/x_80.jpg", 3, 4, "ends too soon")
    for record in (
        failed(1, rejected=(unusable,)),
        failed(2, attempts=3),
        failed(3, state="skipped", revision=0, reason="2 of 5"),
        # The products say otherwise of this one.
        failed(0, rejected=(unusable,), late=2),
    ):
        ledger.record(record)
    ledger.ask_again("roof", slots=[NOON + 3 * STEP], failed=False, skipped=False)
    curve = CurveDecision("roof", "aa", "/aa.npz", None, "rejected", "worse", 0.2, 0.1, 3)
    ledger.record_curve(curve)
    ledger.record_offset("roof", NOON, timedelta(seconds=3))
    before = ledger.history()
    ledger.close()
    state = tmp_path / "state"
    (state / FILE_NAME).write_bytes(b"\0" * 100 + (state / FILE_NAME).read_bytes()[100:])
    found = open_ledger(state, (camera,))
    with found.ledger as ledger:
        assert found.moved_to is not None
        assert ledger.history()[1:] == before[1:]
        (row, *_) = ledger.history()
        assert (row.state, row.late, row.rejected) == ("published", 2, (unusable,))
        assert [r.slot for r in ledger.to_retry("roof", 8)] == [NOON + n * STEP for n in (2, 3)]
        assert [replace(c, decided_utc="") for c in ledger.curves("roof")] == [curve]
        assert ledger.offsets("roof") == [(NOON, timedelta(seconds=3))]
        assert not ledger.unfinished


def test_a_ledger_that_makes_no_sense_in_use_is_not_believed_again(
    tmp_path: Path, camera: CameraConfig
) -> None:
    ledger, _ = opened(tmp_path, camera)
    for number in range(1, 4):
        ledger.record(failed(number))
    with ledger._transaction():
        ledger._db.execute(
            "UPDATE brackets SET inputs = '[{' WHERE slot = ?", ((NOON + STEP).isoformat(),)
        )
    ledger.close()
    ledger, rebuilt = opened(tmp_path, camera, distrusted=True)
    assert rebuilt == 2
    assert [r.slot for r in ledger.history()] == [NOON + 2 * STEP, NOON + 3 * STEP]
    ledger.close()


def test_a_start_looks_at_what_it_needs(tmp_path: Path, camera: CameraConfig) -> None:
    nonsense = {
        "UPDATE brackets SET updated_utc = 'soon'": "brackets",
        "UPDATE brackets SET timings = '['": "brackets",
        "UPDATE brackets SET revision = 'two'": "brackets",
        """UPDATE brackets SET rejected = '[{"path": 1}]'""": "brackets",
        "UPDATE offsets SET since = 'soon'": "offsets",
        "UPDATE curves SET path = x'00'": "curves",
    }
    for count, update in enumerate(nonsense, 1):
        ledger, _ = opened(tmp_path, camera)
        ledger.record(failed(count))
        ledger.record_offset("roof", NOON, timedelta(0))
        ledger.record_curve(
            CurveDecision("roof", "aa", "/aa.npz", None, "adopted", "first", None, None, 3)
        )
        with ledger._transaction():
            ledger._db.execute(update)
        ledger.close()
        found = open_ledger(tmp_path / "state", (camera,))
        assert found.moved_to is not None, update
        with found.ledger as ledger:
            ledger.last_change("roof")
            ledger.history()


def test_a_rebuild_that_was_cut_short_goes_on_at_the_next_start(
    tmp_path: Path, camera: CameraConfig
) -> None:
    for number in range(3):
        product(camera, number)
    state = tmp_path / "state"
    (state / FILE_NAME).write_bytes(b"rubbish" * 1000)
    found = open_ledger(state, (camera,), stopping=lambda: True)
    assert found.rebuilt == 1
    assert found.ledger.unfinished
    found.ledger.close()
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt == 2
    assert len(ledger.history()) == 3
    ledger.close()
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt is None
    ledger.close()


def test_few_damaged_files_are_kept(tmp_path: Path, camera: CameraConfig) -> None:
    state = tmp_path / "state"
    for _ in range(7):
        (state / FILE_NAME).write_bytes(b"rubbish" * 1000)
        opened(tmp_path, camera)[0].close()
    kept = sorted(p.name for p in state.glob("*.damaged-*") if p.name[-1].isdigit())
    assert kept == [f"{FILE_NAME}.damaged-{n}" for n in range(3, 8)]


def test_a_ledger_of_last_week_hears_what_happened_since(
    tmp_path: Path, camera: CameraConfig
) -> None:
    product(camera, 0)
    ledger, _ = opened(tmp_path, camera)
    ledger.close()
    product(camera, 0, revision=3)
    for number in range(1, 4):
        product(camera, number, revision=number)
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt is None
    assert [r.revision for r in ledger.history()] == [3, 1, 2, 3]
    ledger.close()


def test_a_product_that_was_deleted_or_replaced_leaves_its_row_alone(
    tmp_path: Path, camera: CameraConfig
) -> None:
    paths = [product(camera, number) for number in range(4)]
    ledger, _ = opened(tmp_path, camera)
    before = ledger.history()
    ledger.close()
    paths[0].unlink()
    paths[1].write_bytes(b"something else")
    product(camera, 2, name="yard")
    paths[3].write_bytes(paths[0].read_bytes() if paths[0].exists() else paths[2].read_bytes())
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt is None
    assert ledger.history() == before
    ledger.close()


def test_a_full_disk_does_not_keep_the_daemon_from_starting(
    tmp_path: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path, camera)[0].close()
    product(camera, 0)

    def full(*_: object) -> None:
        raise LedgerFullError("database or disk is full")

    monkeypatch.setattr(Ledger, "record_all", full)
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt is None
    assert ledger.history() == []
    ledger.close()


def test_whoever_waits_hears_that_something_goes_on(tmp_path: Path, camera: CameraConfig) -> None:
    product(camera, 0)
    calls: list[None] = []
    opened(tmp_path, camera, alive=lambda: calls.append(None))[0].close()
    assert calls == [None]  # once a second at most


def test_the_daemon_does_not_believe_a_ledger_again_that_failed_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    text = (
        f"state_dir: {tmp_path}/state\nworkers: 1\ndisk: {{keep_free: null}}\n"
        f"cameras: {{roof: {{watch: {tmp_path}/in, output: {tmp_path}/out, watch_mode: polling}}}}"
    )
    settings = parse_config(text.encode(), "x", tmp_path).config
    settings.state_dir.mkdir()
    daemon = Daemon(settings, Notifier(None), lambda: settings)
    daemon._open()
    daemon._begin()
    try:
        for number in range(1, 4):
            daemon._station.ledger.record(failed(number))
        with daemon._station.ledger._transaction():
            daemon._station.ledger._db.execute(
                "UPDATE brackets SET timings = '[' WHERE slot LIKE '%:01:30'"
            )
        with pytest.raises(LedgerDamagedError) as caught:
            daemon._station.ledger.get("roof", NOON + 3 * STEP)
        daemon._open_anew(caught.value, now=1000.0)
        assert [r.slot for r in daemon._station.ledger.history()] == [NOON + STEP, NOON + 2 * STEP]
        assert (settings.state_dir / f"{FILE_NAME}.damaged-1").exists()
    finally:
        daemon._finish_work()
        daemon._close()


def test_the_products_of_a_dead_share_are_read_when_it_is_back(
    tmp_path: Path, camera: CameraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    product(camera, 0)
    monkeypatch.setattr("asi_watch.live.ledger.rebuilding.answered", lambda *_: [None])
    opened = open_ledger(tmp_path, (camera,))
    opened.ledger.close()
    assert opened.rebuilt == 0
    monkeypatch.undo()
    opened = open_ledger(tmp_path, (camera,))
    opened.ledger.close()
    assert opened.rebuilt == 1
