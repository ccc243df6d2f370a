"""Somebody deletes the state folder under the running daemon, or parts of it, or replaces it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.live.ledger.records import BracketRecord
from tests.faults.verdict import crashes_in
from tests.integration.daemon import SHORT, Site, slot

pytestmark = pytest.mark.integration

LEDGER, STATE_FOLDER = 5, 6
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
    shutil.copy(state / "ledger.sqlite3", state / "older")
    (state / "older").replace(state / "ledger.sqlite3")


WAYS = [
    everything,
    only_the_ledger,
    an_older_ledger,
    *(pytest.param(way, marks=pytest.mark.soak) for way in (ledger_and_journal, only_the_lock)),
    pytest.param(moved, marks=pytest.mark.soak),
]


def what(row: BracketRecord) -> object:
    """Say what a row says, but for what products do not name."""
    return row.state, row.revision, [(e.path, e.signature) for e in row.inputs]


@pytest.mark.parametrize("take_away", WAYS)
def test_a_state_folder_that_is_taken_away_ends_the_daemon_and_the_next_start_recovers(
    make_site: Callable[..., Site], take_away: Callable[[Path], None]
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    site.start()
    for number in range(3):
        site.take(number)
    for number in range(3):
        site.until_published(number)
    before = site.rows()
    take_away(site.state)
    assert site.process is not None
    only_ledger = take_away in (only_the_ledger, an_older_ledger, ledger_and_journal)
    assert site.process.wait(30) == (LEDGER if only_ledger else STATE_FOLDER)
    site.process = None
    assert str(site.state) in site.log_text().splitlines()[-1]
    assert "while in use" in site.log_text()
    site.take(3)
    site.start()
    site.until_published(3)
    site.until(lambda: set(before) <= set(site.rows()), "known again")
    rows = site.rows()
    assert {at: what(r) for at, r in rows.items() if at in before} == {
        at: what(r) for at, r in before.items()
    }
    assert site.stop() == 0
    log = site.log_text()
    for number in range(4):
        # Nothing is merged twice.
        assert log.count(f"{site.product(number).name} ") == 1
        assert rows[slot(number)].revision == 1
    assert crashes_in(log.splitlines()) == []


def test_a_state_folder_that_cannot_be_made_again_refuses_the_start(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(bracket=BRACKET)
    site.start()
    site.take(0)
    site.until_published(0)
    shutil.rmtree(site.state)
    site.state.write_text("in the way")
    assert site.process is not None
    assert site.process.wait(30) == STATE_FOLDER
    site.process = None
    refused = site.run("run")
    assert refused.returncode == STATE_FOLDER
    assert refused.stderr.count("is a file, not a folder; name another folder") == 1
    site.state.unlink()
    before = site.product(0).read_bytes()
    site.start()
    site.until(lambda: site.row(0) is not None, "known again")
    assert site.stop() == 0
    assert site.product(0).read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_every_user_may_ask_for_the_status_and_is_refused_the_rest_with_a_remedy() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        site = Site(folder, bracket=BRACKET)
        site.start()
        try:
            assert stat.S_IMODE(site.state.stat().st_mode) == 0o755
            assert as_nobody(site, "status").exit_code == 0
            refused_with_a_remedy(site)
            site.state.chmod(0o700)
            answer = as_nobody(site, "status")
            assert answer.exit_code == 1
            assert "run this as the user of the service, or let others in" in answer.output
            refused_with_a_remedy(site)
        finally:
            assert site.stop() == 0


def refused_with_a_remedy(site: Site) -> None:
    for command in (("history",), ("history", "--verify"), ("retry", "--all-failed")):
        answer = as_nobody(site, *command)
        assert answer.exit_code == 1
        assert "run this as the user of the service" in answer.output
        assert isinstance(answer.exception, SystemExit)


def as_nobody(site: Site, name: str, *rest: str) -> Result:
    # First as itself: what a command imports may lie where others cannot read.
    CliRunner().invoke(main, [name, "-c", str(site.config), *rest])
    os.seteuid(65534)
    try:
        return CliRunner().invoke(main, [name, "-c", str(site.config), *rest])
    finally:
        os.seteuid(0)
