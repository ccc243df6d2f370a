"""The real daemon on a ledger that was damaged, replaced or lost: it starts, and loses nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from asi_watch.live.ledger.ledger import FILE_NAME, Ledger
from asi_watch.live.ledger.rebuild import Backups
from tests.faults.verdict import check, crashes_in, files_by_slot, unsettled
from tests.integration.daemon import EXPOSURES, Site, file_name, frames, slot

pytestmark = pytest.mark.integration

BRACKETS = 8
LATE, SKIPPED, HALF = 1, 2, 3


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(
        bracket={"exposures": EXPOSURES, "grace": "2s", "min_exposures": 3}, scan={"every": "1s"}
    )


def live_a_little(site: Site) -> None:
    """Brackets of all kinds, a copy of the state from half of the time, death by SIGKILL."""
    site.start()
    site.take(LATE, range(4))
    site.take(SKIPPED, range(2))
    site.take(HALF, range(4))
    half = site.watch / f"{slot(HALF):%Y/%m/%d/%H}" / file_name(HALF, 4)
    half.write_bytes(frames()[4][:900])
    for number in (LATE, SKIPPED, HALF):
        site.until(lambda n=number: site.row(n) is not None, "recorded")  # type: ignore[misc]
    assert site.stop() == 0
    shutil.copytree(site.state, site.folder / "backup")
    site.start()
    site.take(LATE, range(4, 5))
    site.until_published(LATE, revision=2)
    for number in {*range(BRACKETS)} - {LATE, SKIPPED, HALF}:
        site.take(number)
        site.until_published(number)
    assert site.stop(signal.SIGKILL) == -signal.SIGKILL
    shutil.rmtree(site.folder / "killed", ignore_errors=True)
    shutil.copytree(site.state, site.folder / "killed", ignore=shutil.ignore_patterns("*.sock"))


def header_destroyed(site: Site) -> None:
    fold_journal_in(site)
    path = site.state / FILE_NAME
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def journal_deleted(site: Site) -> None:
    (site.state / f"{FILE_NAME}-wal").unlink()


def backup_of_last_week(site: Site) -> None:
    shutil.rmtree(site.state)
    shutil.copytree(site.folder / "backup", site.state)


def journal_torn(site: Site) -> None:
    journal = site.state / f"{FILE_NAME}-wal"
    os.truncate(journal, journal.stat().st_size // 2)


def journal_over_a_backup(site: Site) -> None:
    shutil.copy(site.folder / "backup" / FILE_NAME, site.state)


def page_overwritten(site: Site) -> None:
    fold_journal_in(site)
    path = site.state / FILE_NAME
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(random.Random(1).randbytes(8192))


def truncated(site: Site) -> None:
    fold_journal_in(site)
    os.truncate(site.state / FILE_NAME, (site.state / FILE_NAME).stat().st_size * 2 // 3)


def byte_that_is_no_utf8(site: Site) -> None:
    """One bit of a row's text: the file itself is sound, and a start looks at it as it is."""
    with closing(sqlite3.connect(site.state / FILE_NAME)) as db, db:
        db.execute("UPDATE brackets SET updated_utc = CAST(x'ff' AS TEXT), reason = x'fe'")


def senseless_row(site: Site) -> None:
    with closing(sqlite3.connect(site.state / FILE_NAME)) as db, db:
        db.execute("UPDATE brackets SET inputs = '[{' WHERE slot = ?", (slot(LATE).isoformat(),))


def header_destroyed_after_a_backup(site: Site) -> None:
    Backups(site.state).make()
    header_destroyed(site)


def text(site: Site) -> None:
    (site.state / FILE_NAME).write_text("notes\n" * 1000)


def emptied(site: Site) -> None:
    (site.state / FILE_NAME).write_bytes(b"")


def lost(site: Site) -> None:
    for part in site.state.glob(f"{FILE_NAME}*"):
        part.unlink()


def fold_journal_in(site: Site) -> None:
    with closing(sqlite3.connect(site.state / FILE_NAME)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


SHORT = (header_destroyed_after_a_backup, journal_deleted, byte_that_is_no_utf8)
LONG = (
    header_destroyed,
    backup_of_last_week,
    journal_torn,
    journal_over_a_backup,
    page_overwritten,
    truncated,
    senseless_row,
    text,
    emptied,
    lost,
)


def heals(site: Site, damage: Callable[[Site], None]) -> None:
    """Damage the state as it was when the daemon was killed; start; compare everything."""
    shutil.rmtree(site.state)
    shutil.copytree(site.folder / "killed", site.state)
    products = {p: p.stat().st_mtime_ns for p in site.output.rglob("*.jpg")}
    damage(site)
    before = len(site.log_text())
    site.start()
    slots = files_by_slot(site.watch)
    site.until(lambda: not unsettled(site, slots), f"settled after {damage.__name__}")
    site.until(lambda: site.status()["open_count"] == 0, "idle")
    assert site.stop() == 0
    assert crashes_in(site.log_text()[before:].splitlines()) == []
    check(site, slots, min_exposures=3)
    assert site.rows()[slot(LATE)].revision == 2
    after = {p: p.stat().st_mtime_ns for p in site.output.rglob("*.jpg")}
    assert after == products, f"merged again after {damage.__name__}"


def test_a_ledger_that_was_damaged_costs_no_exposure_and_no_second_merge(site: Site) -> None:
    live_a_little(site)
    for damage in SHORT:
        heals(site, damage)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_all_kinds_of_damage(site: Site) -> None:
    live_a_little(site)
    for damage in (*SHORT, *LONG):
        heals(site, damage)


def test_what_a_daemon_cannot_help_ends_it_with_a_reason(site: Site) -> None:
    site.state.mkdir()
    (site.state / FILE_NAME).mkdir()
    answer = site.run("run")
    assert answer.returncode == 5
    assert "is no file; move it out of the way" in answer.stderr
    (site.state / FILE_NAME).rmdir()
    with Ledger(site.state) as ledger:
        ledger._db.execute("PRAGMA user_version = 99")
    answer = site.run("run")
    assert answer.returncode == 5
    assert "written by a newer asi-watch" in answer.stderr
    assert "Traceback" not in answer.stderr
