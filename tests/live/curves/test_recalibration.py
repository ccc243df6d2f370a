"""When a curve is calibrated, and that its process can neither hang the daemon nor run uploads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.config import parse_config
from asi_watch.live.curves import recalibration
from asi_watch.live.curves.gate import CalibrationRequest, CalibrationVerdict
from asi_watch.live.curves.recalibration import Recalibration
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import (
    WAITS_FOR_CURVE,
    WITHOUT_CURVE,
    BracketRecord,
    CurveDecision,
)
from asi_watch.live.messages import CalibrationDone, Inbox

NOON = datetime(2026, 6, 21, 12)
DAY = 86_400.0
FILE = Exposure("a_80.jpg", NOON, 80.0, 1, 1)
ROW = BracketRecord("roof", NOON, "published", complete=True, inputs=(FILE,))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    (tmp_path / "state").mkdir()
    with Ledger(tmp_path / "state") as ledger:
        long_ago = (datetime.now(UTC) - timedelta(seconds=DAY / 2)).isoformat()
        none = (None, "rejected", "x", None, None, 3, long_ago)
        ledger.record_curve(CurveDecision("roof", "aa", "/aa.npz", *none))
        yield ledger


def make(ledger: Ledger, inbox: Inbox, **more: str) -> Recalibration:
    folder = ledger.path.parents[1]
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    text = f"cameras: {{roof: {{watch: {folder}/in, output: {folder}/out{keys}}}}}"
    camera = parse_config(text.encode(), "x", folder).config.cameras["roof"]
    return Recalibration(camera, ledger, folder, inbox, 0.0)


def outcome(inbox: Inbox) -> CalibrationDone:
    message = inbox.get(timeout=60)
    assert isinstance(message, CalibrationDone)
    return message


def due(one: Recalibration, now: float) -> list[str | None]:
    return [record.reason for record in one._brackets_due(now)]


def test_it_is_due_as_configured_whatever_restarts(ledger: Ledger) -> None:
    daily = make(ledger, Inbox())
    assert due(daily, DAY) == []
    ledger.record(ROW)
    daily = make(ledger, Inbox())
    assert due(daily, DAY / 2 - 60) == []
    assert due(daily, DAY / 2 + 60) == [None]
    assert due(make(ledger, Inbox(), recalibrate="{every: never}"), 100 * DAY) == []


def test_brackets_that_no_curve_fits_are_calibrated_from_at_once(ledger: Ledger) -> None:
    lacking = [
        replace(ROW, slot=NOON + n * timedelta(minutes=1), state="failed", reason=WAITS_FOR_CURVE)
        for n in range(3)
    ]
    for record in lacking[:2]:
        ledger.record(record)
    daily = make(ledger, Inbox())
    assert due(daily, 0.0) == []
    assert len(due(make(ledger, Inbox(), recalibrate="{brackets: 1}"), 0.0)) == 1
    ledger.record(lacking[2])
    assert due(daily, 0.0) == [], "looked for again without need"
    daily.bracket_over(lacking[2])
    assert due(daily, 0.0) == [WAITS_FOR_CURVE] * 3
    never = {"recalibrate": "{every: never}"}
    assert len(due(make(ledger, Inbox(), **never), 0.0)) == 3
    response = str(ledger.path.with_name("curve.npz"))
    assert due(make(ledger, Inbox(), **never, response=response), 100 * DAY) == []


def test_a_process_reports_why_there_is_no_curve_and_runs_no_upload(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Started inside the folder that a camera writes to.
    uploaded = tmp_path / "asi_watch"
    uploaded.mkdir()
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(0)\n"
    for name in ("__init__.py", "calibrate_brackets.py"):
        (uploaded / name).write_text(code)
    (tmp_path / "numpy.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    inbox = Inbox()
    ledger.record(replace(ROW, reason=WITHOUT_CURVE))
    one = make(ledger, inbox, recalibrate="{brackets: 1}")
    one.tick({}, 0.0, may_start=True)
    assert one.running
    message = outcome(inbox)
    assert message.verdict is None
    assert "a_80.jpg" in message.reason
    one.finished()
    assert not one.running
    one.tick({}, 1.0, may_start=True)
    assert not one.running
    one.tick({}, 100.0, may_start=True)
    assert one.running
    one.stop()
    assert not (tmp_path / "ran").exists()


def dies(_: CalibrationRequest) -> CalibrationVerdict:
    os._exit(3)


def fails(_: CalibrationRequest) -> CalibrationVerdict:
    raise KeyError("nobody expected this")


def hangs(_: CalibrationRequest) -> CalibrationVerdict:
    time.sleep(1000)
    raise AssertionError


@pytest.mark.parametrize("how", ["dies", "fails", "hangs", "stopped"])
def test_a_process_that_dies_fails_or_hangs_is_reported(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    function = {"dies": dies, "fails": fails}.get(how, hangs)
    monkeypatch.setattr(recalibration, "calibrate_candidate", function)
    inbox = Inbox()
    ledger.record(ROW)
    one = make(ledger, inbox)
    one.tick({}, DAY, may_start=True)
    if how == "stopped":
        began = time.monotonic()
        one.stop()
        assert time.monotonic() - began < 10
        assert not one.running
        return
    if how == "hangs":
        one.tick({}, DAY + 1.0, may_start=True)
        assert one.running
        one.tick({}, DAY + 1000.0, may_start=True)
    message = outcome(inbox)
    one.finished()
    assert message.verdict is None
    assert ("KeyError" if how == "fails" else "was ended") in message.reason


def test_a_provisional_curve_is_replaced_soon_and_kinds_take_turns(ledger: Ledger) -> None:
    ledger.record(ROW)
    started: list[int | None] = []
    one = make(ledger, Inbox(), recalibrate="{every: 10d}")
    one._start = lambda brackets, present, _manual: started.append(  # type: ignore[method-assign]
        one._whose_turn(present, brackets)
    )
    sound = {3: ("colour.npz", False), 1: ("grey.npz", False)}
    one.tick(sound, 0.9 * DAY, may_start=True)
    assert started == []
    one.tick({3: ("colour.npz", True)}, 0.9 * DAY, may_start=True)
    assert started == [None]
    one.tick({3: ("colour.npz", True)}, 0.9 * DAY + 600, may_start=True)
    assert started == [None]
    for day in (20, 40, 60):
        one.tick(sound, day * DAY, may_start=True)
    assert sorted(map(str, started[1:3])) == ["1", "3"]
    one.tick({**sound, 1: ("grey.npz", True)}, 80 * DAY, may_start=True)
    assert started[-1] == 1
