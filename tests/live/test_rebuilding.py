from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from asi_watch.cli._settings import camera_settings
from asi_watch.config import parse_config
from asi_watch.live.ledger import FILE_NAME, Ledger
from asi_watch.live.rebuilding import move_aside, open_ledger, products_of
from asi_watch.live.settings import CameraSettings
from asi_watch.products import ProductSpec, Provenance, Source, encode, publish
from asi_watch.responses import response_bytes
from tests.skies import sky_bracket

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
PIXELS = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def camera(tmp_path: Path) -> CameraSettings:
    text = f"cameras: {{roof: {{watch: {tmp_path}/in, output: {tmp_path}/out}}}}"
    (tmp_path / "state").mkdir()
    return camera_settings(
        "roof", parse_config(text.encode(), "x", tmp_path).config.cameras["roof"]
    )


def product(
    camera: CameraSettings,
    number: int,
    *,
    revision: int = 1,
    phase: float = 0,
    slot: datetime | None = None,
    algorithm: str = "debevec_custom",
    name: str = "roof",
    curve: str | None = None,
    suffix: str = "jpg",
) -> Path:
    slot = slot or NOON + number * STEP
    times = [NOON + number * STEP + timedelta(seconds=phase + i) for i in range(3)]
    provenance = Provenance(
        camera=name,
        slot=slot,
        slot_utc=slot.replace(tzinfo=UTC),
        sources=tuple(
            Source(f"2026/{t:%Y%m%d%H%M%S}_{80 * 2**i}.jpg", 80.0 * 2**i, t, 100 + i, 7)
            for i, t in enumerate(times)
        ),
        algorithm=algorithm,
        parameters={},
        curve_id=curve,
        expected=3,
        complete=True,
        revision=revision,
        software="test",
    )
    target = camera.output / f"{slot:%Y/%m/%d}" / f"{slot:%Y%m%d%H%M%S}_hdr.{suffix}"
    dtype = np.uint8 if suffix == "jpg" else np.uint16
    spec = ProductSpec("jpg") if suffix == "jpg" else ProductSpec("png")
    publish(encode(spec, PIXELS.astype(dtype), provenance), target, root=camera.output)
    return target


def opened(tmp_path: Path, camera: CameraSettings, **more: float) -> tuple[Ledger, int | None]:
    found = open_ledger(tmp_path / "state", (camera,), **more)  # type: ignore[arg-type]
    return found.ledger, found.rebuilt


def test_a_sound_ledger_is_opened_and_nothing_read(tmp_path: Path, camera: CameraSettings) -> None:
    Ledger(tmp_path / "state").close()
    product(camera, 0)
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt is None
    assert ledger.history() == []
    ledger.close()


def test_a_missing_ledger_is_made_from_the_products(tmp_path: Path, camera: CameraSettings) -> None:
    for number in range(3):
        path = product(camera, number, revision=1 + number)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    ledger, rebuilt = opened(tmp_path, camera)
    assert rebuilt == 3
    row = ledger.get("roof", NOON + 2 * STEP)
    assert row is not None
    assert (row.state, row.revision, row.complete, row.expected) == ("published", 3, True, 3)
    assert row.products == ("2026/06/21/20260621120100_hdr.jpg",)
    assert row.knows("2026/20260621120100_80.jpg", (100, 7))
    # When they were made, not when they were read: the look-back at start depends on it.
    last = ledger.last_change("roof")
    assert last is not None
    assert last.timestamp() == 1_700_000_002
    ledger.close()


def test_a_damaged_ledger_is_kept_aside_under_a_name_that_is_free(
    tmp_path: Path, camera: CameraSettings
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


def test_what_is_no_whole_product_of_this_camera_gives_no_row(
    tmp_path: Path, camera: CameraSettings
) -> None:
    product(camera, 0, name="yard")
    torn = product(camera, 1)
    torn.write_bytes(torn.read_bytes()[:20])
    (torn.parent / "20260621130000_hdr.jpg").mkdir()
    (torn.parent / "20260621130030_hdr.jpg").symlink_to(torn)
    os.mkfifo(torn.parent / "20260621130100_hdr.jpg")
    assert list(products_of(camera)) == []


def test_a_bracket_that_lacks_a_format_is_left_to_be_merged_again(camera: CameraSettings) -> None:
    both = replace(camera, products=(ProductSpec("jpg"), ProductSpec("png")))
    product(both, 0)
    product(both, 1)
    product(both, 1, suffix="png")
    product(both, 2, revision=2)
    product(both, 2, revision=1, suffix="png")
    (row,) = products_of(both)
    assert row.slot == NOON + STEP
    assert len(row.products) == 2


def test_fusion_gives_no_radiance_and_is_whole_without(camera: CameraSettings) -> None:
    both = replace(camera, products=(ProductSpec("jpg"), ProductSpec("exr")))
    product(both, 0, algorithm="mertens")
    product(both, 1)
    assert [r.slot for r in products_of(both)] == [NOON]


def test_the_newest_come_first_and_time_is_bounded(tmp_path: Path, camera: CameraSettings) -> None:
    for number in (0, 1, 3000, 90_000):
        product(camera, number)
    slots = [r.slot for r in products_of(camera)]
    assert slots == sorted(slots, reverse=True)
    ledger, rebuilt = opened(tmp_path, camera, time_limit=-1)
    assert rebuilt == 1
    assert ledger.get("roof", slots[0]) is not None
    ledger.close()


def test_learned_slots_come_back_with_the_rows(tmp_path: Path, camera: CameraSettings) -> None:
    learning = replace(camera, rules=replace(camera.rules, learn_offset=True))
    for number in range(3):
        product(learning, number, phase=28, slot=NOON + (number + 1) * STEP)
    ledger, _ = opened(tmp_path, learning)
    ((since, offset),) = ledger.offsets("roof")
    assert since == NOON + timedelta(seconds=28)
    assert offset < timedelta(0)
    ledger.close()


def test_the_curve_in_use_stays_in_use(tmp_path: Path, camera: CameraSettings) -> None:
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
