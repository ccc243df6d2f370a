"""Files and brackets that the process dies of, each time: quarantined, and taken up again."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from asi_watch.live.workers.quarantine import SOLITARY_FAILURES
from tests.faults.launching import launch_sabotaged
from tests.integration.daemon import EXPOSURES, PATIENCE, Site, file_name, slot

pytestmark = pytest.mark.integration

# The first makes it a suspect, which then runs alone.
DEATHS = 1 + SOLITARY_FAILURES
BRACKET = {"exposures": EXPOSURES, "grace": "1s", "min_exposures": 3}


def settles(site: Site, before: int) -> bool:
    """Wait until all three brackets have their rows, or the process has died."""
    process, site.process = site.process, None
    assert process is not None

    def done() -> bool:
        return "msg=ready" in site.log_text(before) and len(site.rows()) == 3

    site.until(lambda: process.poll() is not None or done(), "dead or done")
    if process.poll() is None:
        site.process = process
        return True
    assert process.wait(PATIENCE) == -signal.SIGKILL
    return False


def live_through(site: Site, deadly: list[str]) -> int:
    """Start the daemon again and again, as systemd does, until it stays; returns its deaths."""
    for deaths in range(3 * DEATHS):
        before = len(site.log_text()) if site.log.exists() else 0
        launch_sabotaged(site, {"deadly": deadly})
        if settles(site, before):
            return deaths
    raise AssertionError(f"it dies for ever: {site.log_text()}")


def test_a_file_that_kills_the_decoder_is_quarantined_and_its_bracket_is_not(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    for number in range(3):
        site.take(number)
    # A death while another's row is being written counts for nobody.
    assert live_through(site, [file_name(1, 2)]) >= DEATHS
    rows = site.rows()
    assert {row.state for row in rows.values()} == {"published"}
    assert [len(rows[slot(n)].inputs) for n in range(3)] == [5, 4, 5]
    (rejected,) = rows[slot(1)].rejected
    assert rejected.path.endswith(file_name(1, 2))
    assert (
        rejected.reason
        == "quarantined: the daemon died while reading it, alone; tried again after a day"
    )
    assert site.log_text().count("the last process died during this task") >= DEATHS
    assert site.stop() == 0


def test_a_bracket_that_kills_the_merge_is_parked_until_somebody_asks(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    for number in range(3):
        site.take(number)
    assert live_through(site, [f"{slot(1):%Y%m%d%H%M%S}_hdr"]) >= DEATHS
    rows = site.rows()
    assert [rows[slot(n)].state for n in range(3)] == ["published", "failed", "published"]
    assert (
        rows[slot(1)].reason
        == "quarantined: the daemon died while merging it, alone; tried again after a day"
    )
    assert site.stop() == 0
    site.start()
    assert site.row(1) == rows[slot(1)]
    site.until(
        lambda: "1 bracket is tried again" in site.run("retry", "--all-failed").stdout, "asked"
    )
    row = site.until_published(1)
    assert (len(row.inputs), row.revision) == (5, 1)
    assert site.stop() == 0
