"""The daemon's owner, without its signals: a ledger that fails while running, requests, reloads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asi_watch.config import parse_config
from asi_watch.config.model import Config
from asi_watch.errors import AsiWatchError
from asi_watch.live.curves.curve_keeper import CurveKeeper
from asi_watch.live.curves.recalibrator import Recalibrator
from asi_watch.live.ledger.ledger import CurveDecision, Ledger
from asi_watch.live.messages import Inbox
from asi_watch.live.operating.control import RequestRefusedError
from asi_watch.live.operating.requests import RequestDesk, RetryRequest
from asi_watch.live.sdnotify import Notifier
from asi_watch.live.service import Daemon


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    (tmp_path / "in").mkdir()
    text = (
        f"state_dir: {tmp_path}/state\nworkers: 1\ndisk: {{keep_free: null}}\n"
        f"cameras: {{roof: {{watch: {tmp_path}/in, output: {tmp_path}/out, watch_mode: polling}}}}"
    )
    return parse_config(text.encode(), "x", tmp_path).config


@pytest.fixture
def daemon(settings: Config) -> Iterator[Daemon]:
    settings.state_dir.mkdir()
    daemon = Daemon(settings, Notifier.from_environment(), lambda: settings)
    daemon._open()
    daemon._begin()
    yield daemon
    daemon._finish_work()
    daemon._close()


def test_a_stop_that_comes_during_a_reload_is_not_lost(daemon: Daemon) -> None:
    daemon._asked_to_stop = True
    daemon._reload()
    while (message := daemon._inbox.get(timeout=0)) is not None:
        daemon._handle(message, 0.0)
    assert daemon._stop == "SIGTERM"


def test_a_reload_onto_another_state_folder_is_refused(
    settings: Config, daemon: Daemon, tmp_path: Path
) -> None:
    ledger = daemon._station.ledger
    daemon._reload_settings = lambda: settings.model_copy(
        update={"state_dir": tmp_path / "elsewhere"}
    )
    daemon._reload()
    assert daemon._station.ledger is ledger


def test_a_request_is_done_by_the_owner(daemon: Daemon) -> None:
    desk = RequestDesk()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asi_watch.live.operating.requests._PATIENCE", 0.01)
        with pytest.raises(RequestRefusedError, match="busy"):
            desk.retry({"do": "retry", "failed": True})
    done: list[RetryRequest] = []
    # Whoever gave up waiting is not served afterwards.
    desk.serve(lambda request: done.append(request) or {})  # type: ignore[func-returns-value]
    assert done == []
    assert daemon._retry(RetryRequest(None, (), True, True)) == {"asked": {"roof": []}}


@pytest.mark.parametrize(
    "request_",
    [
        {"camera": 5},
        {"slots": "2026-06-21T12:00:00"},
        {"slots": ["2026"] * 1001},
        {"slots": [5]},
        {"failed": "yes"},
    ],
)
def test_requests_that_make_no_sense_are_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(AsiWatchError):
        RetryRequest.read(request_)


def test_restarts_do_not_put_recalibration_off_for_ever(settings: Config) -> None:
    camera = settings.cameras["roof"]

    def due(since_last: float) -> bool:
        recalibrator = Recalibrator(
            "roof", Path("/"), Path("/"), 3600.0, 3, camera.merge.settings, Inbox(), 0.0, since_last
        )
        return recalibrator.wants(True, 3, 10.0)

    assert not due(0.0)
    assert not due(3000.0)
    assert due(3595.0)
    assert due(1e9)
    assert not due(-1e9)  # the last one lies in the future: the clock was wrong


def test_when_the_last_calibration_was_is_in_the_ledger(settings: Config, tmp_path: Path) -> None:
    settings.state_dir.mkdir()
    with Ledger(settings.state_dir) as ledger:
        decision = CurveDecision("roof", "aa", "/aa.npz", None, "rejected", "worse", 1.0, 0.1, 3)
        ledger.record_curve(decision)
        day_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        with ledger._transaction():
            ledger._db.execute("UPDATE curves SET decided_utc = ?", (day_ago,))
        keeper = CurveKeeper(
            settings.cameras["roof"], ledger, Inbox(), tmp_path, lambda curve, waited: None, 0.0
        )
    assert keeper._recalibrator.wants(True, 10, 1.0)


def test_who_asks_twice_to_stop_does_not_want_to_wait(
    settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(settings, Notifier.from_environment(), lambda: settings)
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    daemon._on_stop_signal(15, None)
    assert codes == []
    daemon._on_stop_signal(15, None)
    assert codes == [1]
