"""When a curve is calibrated, and that its process can neither hang the daemon nor run uploads."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.config import parse_config
from asi_watch.live.curves import recalibration
from asi_watch.live.curves.gate import CalibrationRequest, CalibrationVerdict
from asi_watch.live.curves.recalibration import Recalibration
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.live.messages import CalibrationDone, Inbox

NOON = datetime(2026, 6, 21, 12)
DAY = 86_400.0
ROW = BracketRecord("roof", NOON, "published", inputs=(Exposure("a_80.jpg", NOON, 80.0, 1, 1),))


def make(folder: Path, inbox: Inbox, **more: str) -> Recalibration:
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    text = f"cameras: {{roof: {{watch: {folder}/in, output: {folder}/out{keys}}}}}"
    camera = parse_config(text.encode(), "x", folder).config.cameras["roof"]
    return Recalibration(camera, folder, inbox, 0.0, since_last=DAY / 2)


def outcome(inbox: Inbox) -> CalibrationDone:
    message = inbox.get(timeout=60)
    assert isinstance(message, CalibrationDone)
    return message


def test_it_is_due_as_configured_whatever_restarts(tmp_path: Path) -> None:
    daily = make(tmp_path, Inbox())
    assert daily.is_due(5, 0, DAY / 2 - 1) is None
    assert daily.is_due(5, 0, DAY / 2 + 1) == "next"
    assert daily.is_due(0, 0, DAY) is None
    assert make(tmp_path, Inbox(), recalibrate="{every: never}").is_due(5, 0, 100 * DAY) is None
    assert daily.is_due(5, 3, 0.0) == "first"
    assert daily.is_due(0, 2, 0.0) is None
    assert make(tmp_path, Inbox(), recalibrate="{brackets: 1}").is_due(0, 1, 0.0) == "first"
    never = {"recalibrate": "{every: never}"}
    assert make(tmp_path, Inbox(), **never).is_due(0, 3, 0.0) == "first"
    pinned = make(tmp_path, Inbox(), **never, response=str(tmp_path / "curve.npz"))
    assert pinned.is_due(5, 3, 100 * DAY) is None


def test_a_process_reports_why_there_is_no_curve_and_runs_no_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    one = make(tmp_path, inbox)
    one.start([ROW], (), 0.0)
    assert one.running
    assert one.is_due(0, 5, 0.0) is None
    message = outcome(inbox)
    assert message.report is None
    assert "a_80.jpg" in message.reason
    one.finished()
    assert not one.running
    assert one.is_due(0, 5, 1.0) is None
    assert one.is_due(0, 5, 100.0) == "first"
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    function = {"dies": dies, "fails": fails}.get(how, hangs)
    monkeypatch.setattr(recalibration, "calibrate_candidate", function)
    inbox = Inbox()
    one = make(tmp_path, inbox)
    one.start([ROW], (), 0.0)
    if how == "stopped":
        began = time.monotonic()
        one.stop()
        assert time.monotonic() - began < 10
        assert not one.running
        return
    if how == "hangs":
        one.tick(1.0)
        assert one.running
        one.tick(1000.0)
    message = outcome(inbox)
    one.finished()
    assert message.report is None
    assert ("KeyError" if how == "fails" else "was ended") in message.reason
