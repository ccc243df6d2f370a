"""System calls that fail: the daemon says so, leaves nothing behind, and does it later."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from tests.faults.launching import start_sabotaged
from tests.faults.verdict import check, crashes_in, files_by_slot, unsettled
from tests.integration.daemon import EXPOSURES, Site, file_name, slot

pytestmark = pytest.mark.integration

CALLS = ("open", "write", "fsync", "replace")
ERRORS = {
    "ENOSPC": "the disk is full",
    "EIO": "the disk reports an input/output error",
    "EROFS": "the file system is read-only",
}
CASES = list(product(CALLS, ERRORS))
BRACKET = {"exposures": EXPOSURES, "grace": "1s", "min_exposures": 3}


def settle(site: Site) -> None:
    slots = files_by_slot(site.watch)
    site.until(lambda: not unsettled(site, slots), "settled")
    site.until(lambda: all(r.state == "published" for r in site.rows().values()), "published")
    site.until(lambda: site.status()["open_count"] == 0, "idle")
    assert site.stop() == 0
    assert crashes_in(site.log_text().splitlines()) == []
    check(site, slots, min_exposures=3)


def test_every_call_of_publishing_fails_once_in_every_way(make_site: Callable[..., Site]) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    faults: list[dict[str, Any]] = []
    for number, (call, error) in enumerate(CASES):
        site.take(number)
        name = site.product(number).name
        faults.append({"file": name, "call": call, "errno": error, "times": 1})
    start_sabotaged(site, {"products": faults})
    site.until(lambda: site.status()["counts"]["merge_failures"] == len(CASES), "each failed once")
    settle(site)


def test_an_exposure_that_cannot_be_read_for_a_while_is_not_lost(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    errors = ("EIO", "EACCES", "ESTALE", "ENOMEM")
    faults = []
    for number, error in enumerate(errors):
        site.take(number)
        name = file_name(number, 2)
        faults.append({"file": name, "call": "open", "errno": error, "times": 1})
    start_sabotaged(site, {"inputs": faults})
    settle(site)
    assert all(site.rows()[slot(n)].complete for n in range(len(errors)))
    assert len(re.findall("cannot be read", site.log_text())) >= len(errors)


@pytest.mark.parametrize("left", [4, 1])
def test_a_revision_that_failed_before_a_restart_is_never_made_of_less(
    make_site: Callable[..., Site], left: int
) -> None:
    """Its row does not know any more what the product is made of; the product does."""
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    site.start()
    site.take(0, range(4))
    made = site.until_published(0)
    assert site.stop() == 0
    before = site.product(0).read_bytes()
    name = site.product(0).name
    site.take(0, [4])
    fault = {"file": name, "call": "replace", "errno": "EROFS", "times": 1000}
    start_sabotaged(site, {"products": [fault]})
    site.until(lambda: site.rows()[slot(0)].state == "failed", "revision failed")
    site.close()
    for index in range(5 - left):
        (site.watch / f"{slot(0):%Y/%m/%d/%H}" / file_name(0, index)).unlink()
    site.start()
    if left == 4:
        # As many as the product has, with the late one: that is no less.
        row = site.until_published(0, revision=2)
        assert len(row.inputs) == 4
    else:
        row = site.until_published(0)
        assert row.revision == 1
        assert {e.path for e in row.inputs} == {e.path for e in made.inputs}
        assert site.product(0).read_bytes() == before
        late = [r for r in row.rejected if r.path.endswith(file_name(0, 4))]
        assert "the product that stands has more exposures" in late[0].reason
    site.until(lambda: site.status()["open_count"] == 0, "idle")
    assert site.stop() == 0


def test_status_ends_in_4_while_products_find_no_place_not_for_a_refused_reload(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(bracket=BRACKET)
    fault = {"file": site.product(0).name, "call": "replace", "errno": "EROFS", "times": 2}
    start_sabotaged(site, {"products": [fault]})
    good = site.config.read_text()
    site.config.write_text(good + "colour: blue\n")
    assert site.process is not None
    site.process.send_signal(signal.SIGHUP)
    site.until(lambda: "not reloaded" in site.run("status").stdout, "shown")
    site.config.write_text(good)
    assert site.run("status").returncode == 0
    site.take(0)
    site.until(lambda: site.run("status").returncode == 4, "known")
    assert "roof: products find no place" in site.run("status").stdout
    site.until_published(0)
    site.until(lambda: site.run("status").returncode == 0, "in order again")
    assert site.stop() == 0
