"""24 simulated hours: memory, threads and file descriptors stay flat."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.launching import start_sabotaged
from tests.faults.soaking import (
    DAY,
    HOUR,
    Sample,
    least_of_hour,
    leave_an_archive,
    live_a_day,
    of_hour,
    save,
)
from tests.faults.tally import DAY as DAY_LIVED
from tests.faults.tally import FOLDER, Tally
from tests.faults.verdict import check, crashes_in, files_by_slot
from tests.integration.daemon import EXPOSURES, Site
from tests.skies import jpeg_bracket

pytestmark = [pytest.mark.integration, pytest.mark.soak]

MOST_GROWTH = 1.05
# A day passes in minutes: what is kept for a quarter of an hour is kept for as much less.
FASTER = {"asi_watch.live.watching.scanner._FOLLOWED_FOR": 1.0}


def change(samples: list[Sample], what: str) -> str:
    return f"{least_of_hour(samples, 1, what)} → {least_of_hour(samples, 23, what)}"


def test_a_day_leaves_no_trace_in_memory(
    make_site: Callable[..., Site], tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the unit has it: few heaps, and large blocks outside of them.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "262144")
    site = make_site(bracket={"exposures": EXPOSURES, "grace": "10s", "min_exposures": 3})
    by_exposure = jpeg_bracket(128)
    leave_an_archive(site)
    start_sabotaged(site, {"constants": FASTER})
    samples = live_a_day(site, [by_exposure[t] for t in EXPOSURES], DAY, every=1.0)
    site.until(lambda: site.status()["open_count"] == 0, "idle")
    assert site.stop() == 0
    save(samples, FOLDER)
    slots = files_by_slot(site.watch)
    counts = check(site, slots, min_exposures=3)
    assert crashes_in(site.log_text().splitlines()) == []
    first, last = of_hour(samples, 1, "rss_mib"), of_hour(samples, 23, "rss_mib")
    tally.add(
        DAY_LIVED,
        brackets=counts["published"],
        growth=f"{100 * (last / first - 1):+.1f} %",
        from_mib=round(first, 1),
        to_mib=round(last, 1),
        threads=change(samples, "threads"),
        descriptors=change(samples, "descriptors"),
    )
    # The goal is 5 % from hour 2 on; docs/reliability.md says how far it is reached. That it comes
    # to rest, and no bracket leaves anything behind, is asserted of the second half of the day.
    assert last <= MOST_GROWTH * of_hour(samples, 12, "rss_mib")
    for what in ("threads", "descriptors"):
        assert least_of_hour(samples, 23, what) <= least_of_hour(samples, 1, what), what
    assert max(s.wal_kib for s in samples) < 8192
    # A row takes its place and nothing more does.
    growth = of_hour(samples, 23, "state_kib") - of_hour(samples, 1, "state_kib")
    assert growth < 4 * (DAY - HOUR)
    assert samples[-1].temporaries == 0
