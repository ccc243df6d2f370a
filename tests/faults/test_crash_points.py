"""Death at every step of publishing and recording: the next life heals it, and merges once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from asi_watch.products import read_provenance
from tests.faults.launching import launch_sabotaged
from tests.faults.sabotage import DIED, LEDGER_STEPS, PUBLISH_STEPS
from tests.faults.tally import CRASHES, Tally
from tests.faults.verdict import check, decode_strictly, files_by_slot, unsettled
from tests.integration.daemon import EXPOSURES, PATIENCE, Site, slot

pytestmark = pytest.mark.integration

PRODUCTS = (".jpg", ".png")
POINTS = [*product(PUBLISH_STEPS, PRODUCTS), *((step, "") for step in LEDGER_STEPS)]
# From here on the product is whole and in place: the next life adopts it.
LAST = (("replaced", ".png"), ("published", ".png"))
ADOPTED = {*LAST, ("before the row", ""), ("inside the transaction", "")}


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(
        products=[{"format": "jpg"}, {"format": "png"}],
        bracket={"exposures": EXPOSURES, "grace": "1s", "min_exposures": 3},
        scan={"every": "1s"},
    )


def die_once(site: Site, step: str, suffix: str, number: int) -> None:
    plan = {"die_at": step, "product": suffix, "slot": slot(number).isoformat()}
    launch_sabotaged(site, plan)
    assert site.process is not None
    assert site.process.wait(PATIENCE) == DIED, site.log_text()[-3000:]
    site.process = None
    # What stands under a product's name is whole at every moment.
    for path in site.output.rglob("*_hdr.*"):
        decode_strictly(path)
        read_provenance(path)


def heal(site: Site) -> None:
    site.start()
    slots = files_by_slot(site.watch)
    site.until(lambda: not unsettled(site, slots), "settled")
    site.until(lambda: site.status()["open_count"] == 0, "idle")
    assert site.stop() == 0
    check(site, slots, min_exposures=3)


def test_death_at_every_step_of_a_new_bracket(site: Site) -> None:
    site.log.touch()
    for number, (step, suffix) in enumerate(POINTS):
        site.take(number)
        before = len(site.log_text())
        die_once(site, step, suffix, number)
        there = [site.product(number, s[1:]).exists() for s in PRODUCTS]
        if (step, suffix) in ADOPTED or step == "after the row":
            assert there == [True, True], (step, suffix)
        assert "Traceback" not in site.log_text(before)
    whole = [n for n, point in enumerate(POINTS) if point in ADOPTED]
    stamps = {n: site.product(n).stat().st_mtime_ns for n in whole}
    heal(site)
    rows = site.rows()
    assert {row.revision for row in rows.values()} == {1}
    assert {n: site.product(n).stat().st_mtime_ns for n in stamps} == stamps
    for number, point in enumerate(POINTS):
        if point in ADOPTED:
            # Nobody knows how long it took. Others may be adopted too, where a later death came
            # between product and row.
            assert rows[slot(number)].latency is None, point


@pytest.mark.soak
def test_death_at_every_step_of_a_revision(site: Site, tally: Tally) -> None:
    site.start()
    for number in range(len(POINTS)):
        site.take(number, range(4))
    for number in range(len(POINTS)):
        site.until_published(number)
    site.stop()
    for number, (step, suffix) in enumerate(POINTS):
        site.take(number, range(4, 5))
        die_once(site, step, suffix, number)
    heal(site)
    assert {(r.revision, r.complete, r.late) for r in site.rows().values()} == {(2, True, 1)}
    tally.add(CRASHES, points=len(POINTS), wrong=0)
