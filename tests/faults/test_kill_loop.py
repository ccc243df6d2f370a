"""The daemon is killed at random moments, again and again: nothing lost, torn, or merged twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.camera import UnreliableCamera
from tests.faults.launching import launch
from tests.faults.tally import KILLS, Tally
from tests.faults.verdict import check, crashes_in, files_by_slot, unsettled
from tests.integration.daemon import EXPOSURES, Site

pytestmark = pytest.mark.integration

MIN_EXPOSURES = 3
BRACKET = {"exposures": EXPOSURES, "grace": "1s", "min_exposures": MIN_EXPOSURES}


def kill_loop(site: Site, *, brackets: int, kills: int, pause: float, seed: int) -> Counter[str]:
    """Kill the daemon `kills` times while a camera writes; settle, and judge."""
    dice = random.Random(seed)
    camera = UnreliableCamera(site.watch, brackets, pause, seed)
    camera.start()
    done = 0
    while done < kills or camera.working:
        launch(site)
        # From the first moments of the start to far into the work.
        time.sleep(dice.choice([dice.uniform(0.05, 0.9), dice.uniform(0.9, 3.0)]))
        assert site.process is not None
        assert site.process.poll() is None, site.log_text()[-3000:]
        assert site.stop(signal.SIGKILL) == -signal.SIGKILL
        done += 1
    camera.join()
    site.start()
    slots = files_by_slot(site.watch)
    site.until(lambda: not unsettled(site, slots), "settled")
    site.until(lambda: site.status()["open_count"] == 0, "idle")
    assert site.stop() == 0
    assert crashes_in(site.log_text().splitlines()) == []
    counts = check(site, slots, min_exposures=MIN_EXPOSURES)
    counts["kills"] = done
    return counts


def test_nothing_is_lost_when_it_is_killed_ten_times(make_site: Callable[..., Site]) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    counts = kill_loop(site, brackets=40, kills=10, pause=0.25, seed=1)
    assert counts["brackets"] == 40
    assert counts["published"] > 20


@pytest.mark.soak
def test_nothing_is_lost_when_it_is_killed_two_hundred_times(
    make_site: Callable[..., Site], tally: Tally
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    counts = kill_loop(site, brackets=1000, kills=200, pause=0.3, seed=2)
    tally.add(KILLS, **counts, lost=0, torn=0, merged_twice=0)
