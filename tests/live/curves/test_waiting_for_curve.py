"""Brackets that wait for a curve: so many in memory, the others in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from asi_watch.brackets import Exposure
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.curves import curve_keeper
from asi_watch.live.curves.curve_keeper import CurveKeeper
from asi_watch.live.curves.curves import CurveInUse
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.messages import Inbox, MergeBracket
from asi_watch.live.workers.jobs import CameraJobs
from asi_watch.response_files import load_curve
from tests.live.curves.test_curve_keeper import Place

NOON = datetime(2026, 6, 21, 12)


class IdlePool:
    def __init__(self) -> None:
        self.jobs = 0

    def submit(self, *job: object) -> None:
        self.jobs += 1


class Urgent:
    def urgency(self, slot: datetime, step: int) -> tuple[int, int, float]:
        return (0, step, 0.0)


def merge_of(number: int) -> MergeBracket:
    slot = NOON + number * timedelta(seconds=30)
    exposures = (Exposure(f"{number}.jpg", slot, 80.0, 1, 1),)
    return MergeBracket(slot, exposures, (), None, True, 1, (), 0.0)


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CurveKeeper:
    monkeypatch.setattr(curve_keeper, "_MOST_WAITING", 30)
    place = Place(tmp_path)
    settings = place.settings(None, "[exr]")
    used: Callable[..., None] = lambda curve, waited: place.used.extend(waited)  # noqa: E731
    keeper = CurveKeeper(settings, Ledger(tmp_path), Inbox(), tmp_path, used, 0.0)
    keeper.start()
    cast(Any, keeper).place = place
    return keeper


def test_the_newest_wait_in_memory_and_the_oldest_in_the_ledger(keeper: CurveKeeper) -> None:
    pool, put_off, dropped = IdlePool(), list[datetime](), list[datetime]()
    writable = True

    def put(command: MergeBracket, why: str) -> bool:
        if writable:
            put_off.append(command.slot)
        return writable

    jobs = CameraJobs(
        "roof",
        cast(Any, None),
        cast(Any, Urgent()),
        cast(Any, pool),
        Inbox(),
        lambda: None,
        keeper.hold,
        keeper.spare,
        put,
        dropped.append,
    )
    most = max(30, keeper._settings.recalibrate.brackets)
    for number in range(most):
        jobs.merge(merge_of(number))
    assert put_off == []
    assert not keeper.has_room
    for number in range(most, 500):
        jobs.merge(merge_of(number))
    assert put_off == [merge_of(n).slot for n in range(500 - most)]
    # Nothing of them is kept in the workers' memory.
    assert len(dropped) == 500
    assert keeper.snapshot()["waiting_for_curve"] == most
    assert pool.jobs == 0
    writable = False
    jobs.merge(merge_of(500))
    # No row can be written: it stays where it is.
    assert keeper.snapshot()["waiting_for_curve"] == most + 1
    curve = ResponseCurve(np.zeros((256, 3), np.float32), {})
    keeper._use(CurveInUse(curve, Path("x.npz"), None))
    assert [m.slot for m in cast(Any, keeper).place.used] == [
        merge_of(n).slot for n in range(500 - most, 501)
    ]


def test_a_curve_whose_file_was_deleted_is_written_again(
    keeper: CurveKeeper, tmp_path: Path
) -> None:
    slopes = np.linspace(-4, 2, 256, dtype=np.float32)[:, None] * np.float32([1.0, 1.1, 1.2])
    curve = ResponseCurve(slopes, {"channel_order": "RGB", "method": "robust"})
    path = tmp_path / "state" / "curves" / "roof" / f"{curve.curve_id}.npz"
    keeper.save()
    keeper._use(CurveInUse(curve, path, None))
    keeper.save()
    again = load_curve(path)
    assert again.curve_id == curve.curve_id
    assert again.metadata["method"] == "robust"
