"""A camera that is silent, fails or has a wrong clock, by clocks that are simulated."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from asi_watch.brackets import Exposure
from asi_watch.config import parse_config
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import WAITS, BracketRecord
from asi_watch.live.silence import Silence, sun_elevation

DAY = timedelta(days=1)
START = datetime(2026, 3, 1)
EVERY = timedelta(seconds=30)


def seconds(slot: datetime) -> int:
    return int(slot.replace(tzinfo=UTC).timestamp())


class Rows:
    """The ledger's part that is asked here."""

    def __init__(self) -> None:
        self.all: list[datetime] = []
        self.last: list[BracketRecord] = []

    def slots(self, camera: str, since: datetime) -> list[int]:
        return [seconds(slot) for slot in self.all if slot >= since]

    def history(self, **_: object) -> list[BracketRecord]:
        return self.last


class World:
    """A camera and the daemon's clocks; `shift` is how wrong the clock of the names is."""

    def __init__(self, caplog: pytest.LogCaptureFixture, **more: str) -> None:
        keys = "".join(f", {key}: {value}" for key, value in more.items())
        text = f"cameras: {{roof: {{watch: /in, output: /out{keys}}}}}"
        self.config = parse_config(text.encode(), "x", Path("/")).config.cameras["roof"]
        self.log, self.rows, self.shift = caplog, Rows(), timedelta(0)
        self.wall, self.now = START.replace(tzinfo=UTC), 1000.0
        self.held = False
        self.start()

    def start(self) -> None:
        self.silence = Silence(self.config, self.rows, self.now, self.wall)  # type: ignore[arg-type]

    def pass_time(self, span: timedelta, step: float = 10.0) -> None:
        end = self.wall + span
        while self.wall < end:
            self.wall += timedelta(seconds=step)
            self.now += step
            self.silence.tick(self.now, self.wall, held=self.held)

    def bracket(self, state: Any = "published", **more: Any) -> BracketRecord:
        slot = (self.wall + self.shift).replace(tzinfo=None)
        self.rows.all.append(slot)
        one = Exposure("a.jpg", slot, 80.0, 1, int(self.wall.timestamp() * 1e9))
        self.silence.exposure_seen(one, self.now, self.wall)
        record = BracketRecord("roof", slot, state, 1, inputs=(one,), **more)
        self.silence.bracket_over(record, self.now, self.wall)
        self.rows.last = [record]
        return record

    def work(self, first: datetime, last: datetime, dice: random.Random | None = None) -> None:
        """The camera works from one time to another, by day or night as they say."""
        self.pass_time(first - self.wall.replace(tzinfo=None), 60.0)
        while self.wall.replace(tzinfo=None) < last:
            if dice is None or dice.random() > 0.01:
                self.bracket()
            self.pass_time(EVERY, EVERY.total_seconds() / 2)

    def days(self, count: int, dice: random.Random, spread: float = 0.0) -> None:
        """Days that begin and end with a sun that moves, and by the light: minutes of spread."""
        for _ in range(count):
            day = datetime.combine(self.wall.date() + DAY, time())
            moved = (day - START).days * 3.0
            ends = [dice.uniform(-spread, spread) for _ in range(2)]
            first = day + timedelta(minutes=7 * 60 - moved + ends[0])
            last = day + timedelta(minutes=17 * 60 + moved + ends[1])
            self.work(first, last, dice)

    def warnings(self) -> list[str]:
        return [r.getMessage() for r in self.log.records if r.levelno >= logging.WARNING]

    def shown(self) -> dict[str, Any]:
        return self.silence.snapshot(self.now, self.wall)


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    return World(caplog)


@pytest.mark.parametrize(
    ("days", "spread"), [pytest.param(30, 0.0, marks=pytest.mark.soak), (7, 0.0), (10, 45.0)]
)
def test_nights_and_clouds_raise_no_alert_and_a_death_by_day_does(
    world: World, days: int, spread: float
) -> None:
    dice = random.Random(days)
    world.days(days, dice, spread)
    assert world.warnings() == []
    today = datetime.combine(world.wall.date() + DAY, time())
    world.work(today + timedelta(hours=6), today + timedelta(hours=12), dice)
    assert world.warnings() == []
    world.bracket()
    died = world.now
    while not world.warnings():
        world.pass_time(timedelta(seconds=1), 1.0)
        assert world.now - died <= 3 * 30 + 10
    assert world.warnings() == ["camera is silent: no exposure has come for longer than usual"]
    late = datetime.fromisoformat(world.shown()["late_since"])
    assert abs((world.wall - late).total_seconds() - 65) < 5
    # It is said once, through the night, until the camera is back.
    world.pass_time(timedelta(hours=20), 60.0)
    assert len(world.warnings()) == 1
    world.bracket()
    world.pass_time(EVERY)
    assert world.warnings()[1:] == ["camera is back"]
    assert world.shown()["late_since"] is None


def test_a_start_notices_that_the_camera_was_silent_before(world: World) -> None:
    dice = random.Random(1)
    world.days(4, dice)
    today = datetime.combine(world.wall.date() + DAY, time())
    world.work(today + timedelta(hours=7), today + timedelta(hours=12))
    world.wall += timedelta(hours=1)
    world.now += 1.0  # the machine was started again
    world.start()
    world.pass_time(timedelta(seconds=20))
    assert world.warnings() == [], "what came meanwhile is found first"
    world.pass_time(timedelta(seconds=30))
    assert len(world.warnings()) == 1
    assert world.shown()["seen_age"] > 3600


def test_what_is_not_known_raises_no_alert(world: World) -> None:
    world.work(START + timedelta(hours=7), START + timedelta(hours=12))
    world.pass_time(3 * DAY, 60.0)
    assert world.warnings() == []


def test_while_nothing_is_taken_in_nobody_is_silent(world: World) -> None:
    world.days(3, random.Random(1))
    today = datetime.combine(world.wall.date() + DAY, time())
    world.work(today + timedelta(hours=7), today + timedelta(hours=12))
    world.held = True
    world.pass_time(timedelta(hours=1))
    world.held = False
    world.pass_time(timedelta(seconds=80))
    assert world.warnings() == []
    world.pass_time(timedelta(seconds=30))
    assert len(world.warnings()) == 1


def test_a_new_interval_is_learned_at_once(world: World) -> None:
    world.days(3, random.Random(1))
    today = datetime.combine(world.wall.date() + DAY, time())
    world.work(today + timedelta(hours=7), today + timedelta(hours=12))
    for _ in range(30):
        world.bracket()
        world.pass_time(timedelta(minutes=5))
    assert world.warnings() == [
        "camera is silent: no exposure has come for longer than usual",
        "camera is back",
    ] * (len(world.warnings()) // 2)
    assert len(world.warnings()) <= 6


@pytest.mark.parametrize(
    ("expect", "late_at"),
    [
        ("{every: 60s}", ["00:03"]),
        ("{every: 10m, from: 05:00, until: 22:00}", ["05:30"]),
        # On 1 March at 52° N, 13° E the middle of the sun rises at 06:00 UTC.
        ("{every: 10m, sun_above: 0}", ["06:29", "06:30"]),
        ("{every: 10m, from: 22:00, until: 05:00}", ["00:30"]),
    ],
)
def test_what_is_stated_needs_no_learning(
    caplog: pytest.LogCaptureFixture, expect: str, late_at: list[str]
) -> None:
    world = World(caplog, expect=expect, geometry="{latitude: 52, longitude: 13}")
    while not world.warnings():
        world.pass_time(timedelta(minutes=1), 10.0)
        assert world.wall < START.replace(tzinfo=UTC) + DAY
    assert f"{world.wall - timedelta(minutes=1):%H:%M}" in late_at


def test_a_clock_that_is_wrong_is_said_and_a_backlog_is_not(world: World) -> None:
    world.shift = -timedelta(hours=2)
    world.work(START, START + timedelta(minutes=1))
    assert world.shown()["clock_error"] is None
    world.work(world.wall.replace(tzinfo=None), START + timedelta(minutes=5))
    assert world.warnings() == ["camera's clock is wrong, or `timezone` is"]
    assert world.shown()["clock_error"] == pytest.approx(-7200, abs=60)
    world.shift = timedelta(0)
    world.work(world.wall.replace(tzinfo=None), START + timedelta(minutes=12))
    assert world.warnings()[1:] == ["camera's clock is right again"]
    # An archive is brought in: thousands of brackets in a moment.
    for number in range(100):
        world.shift = number * EVERY - 30 * DAY
        world.bracket()
        world.pass_time(timedelta(seconds=0.2), 0.1)
    assert len(world.warnings()) == 2
    world.shift = timedelta(minutes=20)
    world.bracket()
    assert len(world.warnings()) == 3, "a name in the future is never right"


def test_brackets_that_fail_one_after_another_are_said(world: World) -> None:
    for state, reason in (("failed", "a"), ("failed", f"{WAITS}room"), ("failed", "b")):
        world.bracket(state, reason=reason)
        world.pass_time(timedelta(minutes=1))
    assert world.shown()["failing"] is None
    record = world.bracket("failed", reason="sizes differ")
    world.silence.bracket_over(replace(record, attempts=2), world.now, world.wall)
    world.pass_time(timedelta(seconds=5), 1.0)
    assert world.shown()["failing"] == "sizes differ"
    world.bracket()
    world.pass_time(timedelta(seconds=5), 1.0)
    assert world.shown()["failing"] is None
    assert world.warnings() == ["camera's brackets fail", "camera's brackets fail no more"]


def test_slots_come_from_an_index(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for number, state in enumerate(("published", "failed", "skipped", "published")):
            slot = START + number * EVERY
            ledger.record(BracketRecord("roof", slot, state))  # type: ignore[arg-type]
        found = sorted(ledger.slots("roof", START + EVERY))
        assert found == [seconds(START + n * EVERY) for n in (1, 2, 3)]


def test_the_sun_stands_where_it_should() -> None:
    noon = datetime(2026, 6, 21, 12, 2, tzinfo=UTC)
    assert sun_elevation(noon, 52, 0) == pytest.approx(90 - 52 + 23.44, abs=0.1)
    assert sun_elevation(noon + DAY / 2, 52, 0) == pytest.approx(23.44 - (90 - 52), abs=0.1)
    equinox = datetime(2026, 9, 23, 6, tzinfo=UTC)
    assert sun_elevation(equinox, 0, 0) == pytest.approx(2, abs=1)
