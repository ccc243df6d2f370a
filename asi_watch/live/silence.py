"""Whether a camera is silent, fails, or has a wrong clock.

A camera is silent when no exposure has come for longer than usual at this time of its day: three
intervals, or more where larger gaps are usual. What is usual is learned from the slots in the
ledger, or stated by ``expect``. Times of day are those of the names, whatever the clock of this
machine says.
"""

import logging
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import asin, atan2, cos, degrees, radians, sin
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from asi_watch.brackets import Exposure
from asi_watch.config.model import CameraConfig
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import WAITS, BracketRecord
from asi_watch.logs import event

log = logging.getLogger(__name__)

_INTERVALS = 3
_EXTRA = 5.0
_DAY, _HOUR = 86_400.0, 3600.0
# Looked back so many days for three of which anything is known.
_DAYS_BACK, _DAYS = 8, 3
# Days begin and end with the sun and the clouds: so long before and after a time of day the camera
# must usually be at work for it to be expected then. Also more than a change to summer time.
_MARGIN = 75 * 60.0
_USUAL_GAP = 1.2
_LEARN_EVERY = _HOUR
_LOOK_EVERY = 1.0
# After a start, what came meanwhile is found first.
_FIRST_LOOK = 30.0
_FAILING = 3
_LIVE_ROWS = 5
_CLOCK_OFF = 900.0
_FUTURE = 300.0
_EPOCH = datetime(1970, 1, 1)


def _seconds(naive: datetime) -> float:
    return (naive - _EPOCH).total_seconds()


class Rhythm:
    """When a camera's brackets usually come, by the slots of the last days.

    Parameters
    ----------
    slots : sequence of int
        Seconds from 1970 on, in the clock of the names.
    """

    def __init__(self, slots: Sequence[int]) -> None:
        self._slots = np.sort(np.array(slots, np.float64))

    def patience(self, at: datetime) -> float | None:
        """Return after how many seconds without a bracket something is wrong; None: never.

        Parameters
        ----------
        at : datetime
            Naive, in the clock of the names.
        """
        days: list[NDArray[np.float64]] = []
        for back in range(1, _DAYS_BACK + 1):
            centre = _seconds(at) - back * _DAY
            # Of a day without any bracket nothing is known: the service did not run.
            if len(days) < _DAYS and self._around(centre, _DAY / 2).size:
                days.append(self._around(centre, 2 * _HOUR))
        at_work = [day for day in days if (day < -_MARGIN).any() and (day > _MARGIN).any()]
        if len(days) < 2 or len(at_work) < max(2, len(days) - 1):
            return None
        gaps = [np.diff(day[np.abs(day) < _HOUR]) for day in at_work]
        gaps = [some for some in gaps if some.size]
        if not gaps:
            return None
        usual = float(np.median(np.concatenate(gaps)))
        # Of each day the largest: one outage makes no gap usual.
        largest = float(np.median([some.max() for some in gaps]))
        return max(_INTERVALS * usual, _USUAL_GAP * largest) + _EXTRA

    def _around(self, centre: float, reach: float) -> NDArray[np.float64]:
        first, last = np.searchsorted(self._slots, [centre - reach, centre + reach])
        return self._slots[first:last] - centre


def sun_elevation(wall: datetime, latitude: float, longitude: float) -> float:
    """Return how high the sun stands, in degrees, to about 0.1 (refraction left out).

    Parameters
    ----------
    wall : datetime
        UTC.
    latitude, longitude : float
        Degrees, north and east positive.
    """
    days = (wall - datetime(2000, 1, 1, 12, tzinfo=UTC)).total_seconds() / _DAY
    anomaly = radians(357.528 + 0.9856003 * days)
    ecliptic = 280.46 + 0.9856474 * days + 1.915 * sin(anomaly) + 0.02 * sin(2 * anomaly)
    along, tilt, north = radians(ecliptic), radians(23.439), radians(latitude)
    declination = asin(sin(tilt) * sin(along))
    right_ascension = atan2(cos(tilt) * sin(along), cos(along))
    sidereal = radians(280.46061837 + 360.98564736629 * days + longitude)
    hour_angle = sidereal - right_ascension
    high = sin(north) * sin(declination) + cos(north) * cos(declination) * cos(hour_angle)
    return degrees(asin(high))


def stated_patience(camera: CameraConfig, at: datetime, wall: datetime) -> float | None:
    """Return what `Rhythm.patience` does, as the configuration's `expect` states it.

    Parameters
    ----------
    camera : CameraConfig
    at : datetime
        Naive, in the clock of the names.
    wall : datetime
        The same in UTC.
    """
    expect, place = camera.expect, camera.geometry
    if expect is None:
        return None
    patience = _INTERVALS * expect.every.total_seconds() + _EXTRA
    # The first exposure of the day has its time as well.
    for before in (timedelta(0), timedelta(seconds=patience)):
        first, last, then = expect.first, expect.last, (at - before).time()
        within = first <= then < last if first < last else then >= first or then < last
        if within and expect.sun_above is not None:
            where = (place.latitude or 0.0, place.longitude or 0.0)
            within = sun_elevation(wall - before, *where) > expect.sun_above
        if not within:
            return None
    return patience


class Silence:
    """Watches one camera's signs of life. Owner thread only; clocks are passed in.

    Parameters
    ----------
    camera : CameraConfig
    ledger : Ledger
        Only read.
    now : float
        Monotonic time.
    wall : datetime
        UTC.
    """

    def __init__(self, camera: CameraConfig, ledger: Ledger, now: float, wall: datetime) -> None:
        self._camera, self._ledger = camera, ledger
        self._rhythm = Rhythm([])
        self._minute: datetime | None = None
        self._usual: float | None = None
        # Not all cameras at once: it takes some hundredths of a second.
        self._next_learn = now + crc32(camera.name.encode()) % _FIRST_LOOK
        self._next_look = now + _FIRST_LOOK
        self._seen_at: float | None = now if camera.expect else None
        self._held_at = float("-inf")
        # What the clock of the names adds to UTC; of the last exposure.
        self._clock = wall.astimezone(camera.pattern.timezone).utcoffset() or timedelta(0)
        self._published_at: float | None = None
        self._last_exposure: datetime | None = None
        self._last_product: datetime | None = None
        self._late_since: datetime | None = None
        self._silent_at = float("-inf")
        self._recent: deque[tuple[datetime, datetime]] = deque(maxlen=_LIVE_ROWS)
        self._failed: dict[datetime, str] = {}
        self._failing = False
        self._clock_error: float | None = None
        for record in ledger.history(camera=camera.name, limit=1):
            written = max((e.mtime_ns / 1e9 for e in record.inputs), default=0.0)
            age = wall.timestamp() - written
            if 0 <= age < _DAYS_BACK * _DAY:
                self._seen_at = now - age
                self._clock = record.slot - datetime.fromtimestamp(written, UTC).replace(
                    tzinfo=None
                )

    def exposure_seen(self, exposure: Exposure, now: float, wall: datetime) -> None:
        """An exposure has come.

        Parameters
        ----------
        exposure : Exposure
        now : float
            Monotonic time.
        wall : datetime
            UTC.
        """
        self._seen_at = now
        self._last_exposure = exposure.timestamp
        self._clock = exposure.timestamp - wall.replace(tzinfo=None)

    def bracket_over(self, record: BracketRecord, now: float, wall: datetime) -> None:
        """A bracket's row was written.

        Parameters
        ----------
        record : BracketRecord
        now : float
            Monotonic time.
        wall : datetime
            UTC.
        """
        if record.state == "published":
            self._published_at, self._last_product = now, record.slot
            self._failed.clear()
        elif record.state == "failed" and not (record.reason or "").startswith(WAITS):
            self._failed[record.slot] = record.reason or ""
            while len(self._failed) > _FAILING:
                del self._failed[next(iter(self._failed))]
        if record.revision <= 1:
            self._recent.append((record.slot, wall))
            self._judge_clock(record.slot, wall)

    def tick(self, now: float, wall: datetime, *, held: bool) -> None:
        """Look whether the camera is late; log when that begins and when it ends.

        Parameters
        ----------
        now : float
            Monotonic time.
        wall : datetime
            UTC.
        held : bool
            Nothing is taken in now, for a reason that is said elsewhere.
        """
        if held:
            self._held_at = now
        if now >= self._next_learn:
            self._next_learn = now + _LEARN_EVERY
            since = self._names_now(wall) - timedelta(days=_DAYS_BACK + 1)
            self._rhythm = Rhythm(self._ledger.slots(self._camera.name, since))
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY
        self._look(now, wall)
        if (len(self._failed) == _FAILING) != self._failing:
            self._failing = not self._failing
            text = "camera's brackets fail" if self._failing else "camera's brackets fail no more"
            self._warn(text, reason=next(reversed(self._failed.values()), None))

    def _look(self, now: float, wall: datetime) -> None:
        if self._seen_at is None:
            return
        age = now - self._seen_at
        if self._late_since is not None:
            if self._seen_at > self._silent_at:
                self._late_since = None
                self._warn("camera is back", silent_for=f"{now - self._silent_at:.0f}s")
            return
        patience = self._patience(wall)
        if patience is None or min(age, now - self._held_at) <= patience:
            return
        self._silent_at = self._seen_at
        every = (patience - _EXTRA) / _INTERVALS
        self._late_since = wall - timedelta(seconds=max(0.0, age - every))
        text = "camera is silent: no exposure has come for longer than usual"
        self._warn(text, last_exposure_ago=f"{age:.0f}s", patience=f"{patience:.0f}s")

    def _patience(self, wall: datetime) -> float | None:
        at = self._names_now(wall)
        if self._camera.expect is not None:
            return stated_patience(self._camera, at, wall)
        minute = at.replace(second=0, microsecond=0)
        if minute != self._minute:
            self._minute, self._usual = minute, self._rhythm.patience(minute)
        usual = self._usual
        gaps = [(b - a).total_seconds() for (a, _), (b, _) in pairwise(self._recent)]
        # A camera that was given another interval today.
        today = float(np.median(gaps)) if gaps else 0.0
        return None if usual is None else max(usual, min(_INTERVALS * today, _HOUR))

    def _names_now(self, wall: datetime) -> datetime:
        return wall.replace(tzinfo=None) + self._clock

    def _judge_clock(self, slot: datetime, wall: datetime) -> None:
        """Compare the clock of the names with this machine's, by brackets that come live."""
        error = (self._camera.pattern.to_utc(slot) - wall).total_seconds()
        (first_slot, first_wall), (last_slot, last_wall) = self._recent[0], self._recent[-1]
        slots, walls = last_slot - first_slot, last_wall - first_wall
        # Of a backlog many come in a moment.
        live = len(self._recent) == _LIVE_ROWS and timedelta(0) < slots * 0.8 <= walls
        if error > _FUTURE or (live and abs(error) > _CLOCK_OFF):
            if self._clock_error is None:
                side = "ahead of" if error > 0 else "behind"
                text = "camera's clock is wrong, or `timezone` is"
                self._warn(text, names=f"{abs(error) / _HOUR:.1f} h {side} this machine's clock")
            self._clock_error = error
        elif self._clock_error is not None and live:
            self._clock_error = None
            self._warn("camera's clock is right again")

    def _warn(self, text: str, **facts: object) -> None:
        event(log, logging.WARNING, text, camera=self._camera.name, **facts)

    def snapshot(self, now: float, wall: datetime) -> dict[str, Any]:
        """Return this part of the camera's state.

        Parameters
        ----------
        now : float
            Monotonic time.
        wall : datetime
            UTC.
        """
        late = self._late_since

        def age(seen_at: float | None) -> float | None:
            return None if seen_at is None else round(now - seen_at, 1)

        def age_by_name(named: datetime | None) -> float | None:
            to_utc = self._camera.pattern.to_utc
            return None if named is None else round((wall - to_utc(named)).total_seconds(), 1)

        return {
            "seen_age": age(self._seen_at),
            "last_exposure_age_by_name": age_by_name(self._last_exposure),
            "last_product": self._last_product and self._last_product.isoformat(),
            "last_product_age": age(self._published_at),
            "last_product_age_by_name": age_by_name(self._last_product),
            "patience": self._patience(wall),
            "late_since": None if late is None else late.isoformat(timespec="seconds"),
            "failing": next(reversed(self._failed.values()), "") if self._failing else None,
            "clock_error": None if self._clock_error is None else round(self._clock_error),
        }
