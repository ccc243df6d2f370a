"""A disk that is really full: nothing partial, nothing lost, and on again when there is room."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.launching import launch, start_sabotaged
from tests.faults.verdict import check, crashes_in, decode_strictly, files_by_slot, unsettled
from tests.integration.daemon import EXPOSURES, GRACE, Site

pytestmark = pytest.mark.integration

BRACKET = {"exposures": EXPOSURES, "grace": GRACE, "min_exposures": 3}
SIZE = 4 << 20
NOT_WRITTEN = "ledger cannot be written: nothing is published"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 4 MiB over a folder."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def mounted() -> Iterator[Callable[[Path], None]]:
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(small_disk(folder))


def fill(folder: Path, leave: int) -> Path:
    """Fill a file system up to `leave` bytes, rounded to pages."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(0, file.tell() - leave))
    return filler


def finish(site: Site) -> None:
    slots = files_by_slot(site.watch)
    site.until(lambda: not unsettled(site, slots), "settled")
    site.until(lambda: all(r.state == "published" for r in site.rows().values()), "published")
    site.until(lambda: site.status()["open_count"] == 0, "idle")
    assert site.stop() == 0
    assert crashes_in(site.log_text().splitlines()) == []
    check(site, slots, min_exposures=3)


@pytest.mark.soak
def test_a_full_output_at_every_amount_of_room(
    make_site: Callable[..., Site], mounted: Callable[[Path], None]
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"}, products=[{"format": "png"}])
    site.configure(disk={"keep_free": None})
    mounted(site.output)
    site.start()
    site.take(0)
    size = (site.output / site.until_published(0).products[0]).stat().st_size
    # None at all, enough for the folders, for half of the file, and for all but its last page.
    rooms = [0, 8192, size // 2, size - 1]
    for number, leave in enumerate(rooms, 1):
        filler = fill(site.output, leave)
        before = len(site.log_text())
        # In an hour of its own: its folder has to be made, too.
        site.take(number * 120)
        site.until(
            lambda before=before: "the disk is full" in site.log_text(before),
            f"told with {leave} bytes left",
        )
        for path in site.output.rglob("*_hdr.png"):
            decode_strictly(path)
        assert site.leftovers() == []
        filler.unlink()
        site.until_published(number * 120)
    finish(site)
    assert len(site.rows()) == 1 + len(rooms)


def test_publishing_pauses_below_the_floor_and_goes_on_by_itself(
    make_site: Callable[..., Site], mounted: Callable[[Path], None]
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    site.configure(disk={"keep_free": "1MiB"})
    mounted(site.output)
    filler = fill(site.output, 512 << 10)
    site.start()
    site.take(0)
    site.until(lambda: bool(site.status()["paused"]), "paused")
    site.until(lambda: site.status()["counts"]["exposures_read"] == 5, "read meanwhile")
    assert list(site.output.rglob("*_hdr.*")) == []
    assert {row.state for row in site.rows().values()} == {"failed"}
    filler.unlink()
    finish(site)
    (row,) = site.rows().values()
    assert (row.revision, row.attempts) == (1, 0)


AT_ONCE = {
    "asi_watch.live.retention._YOUNGEST": 0.0,
    "asi_watch.live.retention._LOOK_EVERY": 0.1,
    "asi_watch.live.retention._MORE_AFTER": 0.1,
    "asi_watch.live.retention._SEARCH_EVERY": 0.5,
}


def test_retention_makes_room_and_publishing_goes_on(
    make_site: Callable[..., Site], mounted: Callable[[Path], None]
) -> None:
    retention = {"products": {"keep_free": "1500KiB"}, "dry_run": False}
    site = make_site(bracket=BRACKET, scan={"every": "1s"}, retention=retention)
    site.configure(disk={"keep_free": "1MiB"})
    mounted(site.output)
    # Room for a handful of products above the floor, never as much as retention would like.
    fill(site.output, (1 << 20) + (100 << 10))
    start_sabotaged(site, {"constants": AT_ONCE})
    for number in range(30):
        site.take(number)
    site.until(lambda: "publishing and calibrating pause" in site.log_text(), "paused")
    for number in range(30, 40):
        site.take(number)
    site.until(lambda: len(site.rows()) == 40, "all recorded")
    site.until(lambda: all(r.state == "published" for r in site.rows().values()), "published")
    log = site.log_text()
    assert "retention deleted" in log
    assert len(list(site.watch.rglob("*.jpg"))) == 40 * len(EXPOSURES)
    gone = [s for s, row in site.rows().items() if not (site.output / row.products[0]).exists()]
    assert gone
    assert site.leftovers() == []
    assert site.stop() == 0
    assert crashes_in(site.log_text().splitlines()) == []
    # What retention deleted is not made again.
    site.start()
    site.until(lambda: "scan done" in site.log_text(len(log)), "scanned")
    assert {r.revision for r in site.rows().values()} == {1}
    assert site.stop() == 0


def test_a_full_state_dir_costs_no_row(
    make_site: Callable[..., Site], mounted: Callable[[Path], None]
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    site.configure(disk={"keep_free": None})
    site.state.mkdir()
    mounted(site.state)
    site.start()
    site.take(0)
    site.until_published(0)
    filler = fill(site.state, 0)
    for number in range(1, 41):
        site.take(number)
    site.until(lambda: NOT_WRITTEN in site.log_text(), "blocked")
    time.sleep(3)
    # Published is what fitted into pages that the ledger had already, and what was being merged.
    published = len(list(site.output.rglob("*_hdr.jpg")))
    assert published < 20
    time.sleep(2)
    # Nothing after that: inputs wait.
    assert len(list(site.output.rglob("*_hdr.jpg"))) == published
    filler.unlink()
    finish(site)
    assert {row.revision for row in site.rows().values()} == {1}


@pytest.mark.parametrize("existing", [False, True])
def test_a_start_without_any_room_for_state_waits_for_it(
    make_site: Callable[..., Site], mounted: Callable[[Path], None], existing: bool
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    site.configure(disk={"keep_free": None})
    site.state.mkdir()
    mounted(site.state)
    if existing:
        site.start()
        assert site.stop() == 0
    filler = fill(site.state, 0)
    site.take(0)
    before = len(site.log_text()) if existing else 0
    launch(site)
    site.until(lambda: "waiting to start" in site.log_text(before), "told")
    assert "msg=ready" not in site.log_text(before)
    filler.unlink()
    site.until(lambda: "msg=ready" in site.log_text(before), "ready")
    finish(site)


def test_stopping_while_it_waits_for_room(
    make_site: Callable[..., Site], mounted: Callable[[Path], None]
) -> None:
    site = make_site(bracket=BRACKET)
    site.state.mkdir()
    mounted(site.state)
    fill(site.state, 0)
    launch(site)
    site.until(lambda: "waiting to start" in site.log_text(), "told")
    assert site.stop() == 0


def test_death_while_rows_are_owed_costs_none(
    make_site: Callable[..., Site], mounted: Callable[[Path], None]
) -> None:
    site = make_site(bracket=BRACKET, scan={"every": "1s"})
    site.configure(disk={"keep_free": None})
    site.state.mkdir()
    mounted(site.state)
    site.start()
    site.take(0)
    site.until_published(0)
    filler = fill(site.state, 0)
    for number in range(1, 41):
        site.take(number)
    site.until(lambda: NOT_WRITTEN in site.log_text(), "blocked")
    time.sleep(1)
    site.close()
    filler.unlink()
    stamps = {p: p.stat().st_mtime_ns for p in site.output.rglob("*_hdr.jpg")}
    site.start()
    finish(site)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
