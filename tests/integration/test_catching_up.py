"""After days without the daemon: what it missed is merged, though it is interrupted meanwhile."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.faults.launching import launch_sabotaged
from tests.faults.sabotage import DIED
from tests.integration.daemon import PATIENCE, SHORT, Site, slot

pytestmark = pytest.mark.integration

HOURS = 2
PER_HOUR = 10
FIVE_DAYS = 5 * 86_400.0


def test_a_backlog_of_days_is_worked_off_over_a_crash(site: Site) -> None:
    site.start()
    site.stop()
    with closing(sqlite3.connect(site.state / "ledger.sqlite3")) as db, db:
        db.execute("INSERT OR REPLACE INTO marks VALUES ('roof', '2020-01-01T00:00:00+00:00')")
    numbers = [hour * 120 + n for hour in range(HOURS) for n in range(PER_HOUR)]
    for number in numbers:
        site.take(number, range(4))
    old = time.time() - FIVE_DAYS
    for hour in range(HOURS):
        folder = site.watch / f"{slot(hour * 120):%Y/%m/%d/%H}"
        os.utime(folder, (old, old))
    # A row of today, and death at once, while most of the others have none.
    before = len(site.log_text())
    plan = {"die_at": "after the row", "slot": slot(9 * 120).isoformat(), "product": ""}
    launch_sabotaged(site, plan)
    site.until(lambda: "msg=ready" in site.log_text(before), "ready")
    site.take(9 * 120)
    assert site.process is not None
    assert site.process.wait(PATIENCE) == DIED
    done = set(site.rows())
    site.camera["bracket"] = SHORT
    site.configure()
    site.start()
    site.until(lambda: len(site.rows()) == len(numbers) + 1, "all have rows")
    assert len(done) < len(numbers)
    assert all(row.state == "published" and row.revision == 1 for row in site.rows().values())


def test_the_first_bracket_in_a_new_folder_does_not_wait_to_lie_still(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(stable_for="1min", scan={"every": "10min"})
    site.start()
    site.take(0)
    began = time.monotonic()
    site.until(lambda: site.product(0).exists(), "published")
    assert time.monotonic() - began < 60
