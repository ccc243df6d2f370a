"""Somebody deletes the state folder under the running daemon, or parts of it, or puts another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.verdict import crashes_in
from tests.integration.daemon import SHORT, Site, slot

pytestmark = pytest.mark.integration

BRACKET = {**SHORT, "min_exposures": 3}


def everything(state: Path) -> None:
    shutil.rmtree(state)


def only_the_ledger(state: Path) -> None:
    (state / "ledger.sqlite3").unlink()


def ledger_and_journal(state: Path) -> None:
    for file in state.glob("ledger*"):
        file.unlink()


def only_the_lock(state: Path) -> None:
    (state / "lock").unlink()


def moved(state: Path) -> None:
    state.rename(state.with_name("moved"))


def an_older_ledger(state: Path) -> None:
    """A backup is played back without the daemon being stopped."""
    shutil.copy(state / "ledger.sqlite3", state / "backup")
    (state / "backup").replace(state / "ledger.sqlite3")


WAYS = [
    everything,
    only_the_ledger,
    an_older_ledger,
    *(pytest.param(way, marks=pytest.mark.soak) for way in (ledger_and_journal, only_the_lock)),
    pytest.param(moved, marks=pytest.mark.soak),
]


@pytest.mark.parametrize("take_away", WAYS)
def test_a_state_folder_that_is_taken_away_is_made_anew(
    make_site: Callable[..., Site], take_away: Callable[[Path], None]
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    site.start()
    for number in range(3):
        site.take(number)
    for number in range(3):
        site.until_published(number)
    site.take(3, [0])
    site.until(lambda: site.row(3) is not None, "skipped")
    before = site.rows()
    take_away(site.state)
    site.take(4)
    site.until(lambda: 'msg="state folder made anew"' in site.log_text(), "made anew")
    site.until_published(4)
    rows = site.rows()
    published = {at: row for at, row in before.items() if row.state == "published"}
    # Of a backup the products tell the rest; what was skipped is looked at again when found.
    kept = published if take_away is an_older_ledger else before
    assert {at: (r.state, r.revision, r.inputs) for at, r in rows.items() if at in kept} == {
        at: (r.state, r.revision, r.inputs) for at, r in kept.items()
    }
    assert site.until_answered()["state_made_anew"] is not None
    if take_away is everything:
        site.until(lambda: "made anew at" in site.run("status").stdout, "told")
        # One daemon a folder, as before.
        assert site.run("run").returncode == 3
    site.take(5)
    site.until_published(5)
    assert site.stop() == 0
    site.start()
    site.take(6)
    site.until_published(6)
    assert site.stop() == 0
    log = site.log_text()
    assert log.count("level=error") == 1
    for number in range(7):
        if number != 3:
            # Nothing is merged twice.
            assert log.count(f"{site.product(number).name} ") == 1
            assert site.rows()[slot(number)].revision == 1
    assert crashes_in(log.splitlines()) == []


def test_a_daemon_whose_state_folder_cannot_be_made_anew_ends_with_the_reason(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(bracket=BRACKET)
    site.start()
    site.take(0)
    site.until_published(0)
    shutil.rmtree(site.state)
    site.state.write_text("in the way")
    assert site.process is not None
    assert site.process.wait(30) == 1
    site.process = None
    assert "state folder was taken away" in site.log_text()
    assert str(site.state) in site.log_text().splitlines()[-1]
    site.state.unlink()
    before = site.product(0).read_bytes()
    site.start()
    site.until(lambda: site.row(0) is not None, "known again")
    assert site.stop() == 0
    assert site.product(0).read_bytes() == before
