"""What `status` says of late: the newest bracket, and the latencies of live ones alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from asi_watch.live.collecting.collector import Counters
from asi_watch.live.operating.health import CameraHealth
from asi_watch.live.records import BracketRecord

SLOT = datetime(2026, 6, 21, 12)
LIVE = BracketRecord("roof", SLOT, "published", revision=1, latency=0.5)
HOUR = 3600.0


def started_ago(seconds: float, now: float) -> CameraHealth:
    health = CameraHealth()
    health._since = now - seconds
    return health


def test_a_catch_up_does_not_spoil_the_latencies() -> None:
    health = started_ago(60.0, 1000.0)
    for record in (
        LIVE,
        replace(LIVE, latency=8 * HOUR),
        replace(LIVE, latency=61.0),
        replace(LIVE, latency=9.0, revision=2),
        replace(LIVE, latency=9.0, state="failed"),
        replace(LIVE, latency=None),
    ):
        health.bracket_over(record, 1000.0)
    assert health.latency() == {"p50": 0.5, "p95": 0.5, "max": 0.5}


def test_the_last_bracket_is_the_newest_not_the_one_worked_at_last() -> None:
    health = CameraHealth()

    def last_after(minutes: float, now: float) -> str:
        slot = SLOT + timedelta(minutes=minutes)
        health.bracket_over(replace(LIVE, slot=slot), now)
        assert health.last is not None
        return str(health.last["slot"])

    assert last_after(30, 0.0) == "2026-06-21T12:30:00"
    assert last_after(0, 1.0) == "2026-06-21T12:30:00"
    assert last_after(31, 2.0) == "2026-06-21T12:31:00"
    # A camera whose clock was wrong for a while, and is right again.
    assert last_after(10_000, 3.0).startswith("2026-06-28")
    assert last_after(32, 4.0).startswith("2026-06-28")
    assert last_after(92, 4.0 + HOUR) == "2026-06-21T13:32:00"


def test_what_comes_again_is_counted_once() -> None:
    counters = Counters()
    for _ in range(3):
        counters.count_once("skipped", SLOT)
        counters.count_once("names_ignored", "a.txt")
    counters.count_once("skipped", SLOT + timedelta(minutes=1))
    counters.take_back("skipped", SLOT)
    counters.take_back("parked", SLOT)
    after = Counters()
    after.take_over(counters)
    after.count_once("names_ignored", "a.txt")
    shown = after.as_dict()
    assert (shown["skipped"], shown["names_ignored"], shown["parked"]) == (1, 1, 0)
    assert set(shown) == {name for name in shown if name[0] != "_"}


def test_what_is_remembered_is_bounded() -> None:
    counters = Counters()
    for number in range(20_000):
        counters.count_once("names_ignored", str(number))
    assert counters.names_ignored == 20_000
    assert len(counters._counted["names_ignored"]) == 5_000
