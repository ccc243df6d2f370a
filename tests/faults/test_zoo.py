"""All kinds of bad input through the real daemon: each is accounted for, none does harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.verdict import crashes_in
from tests.faults.zoo import FOLDERS, MISFITS, NAMES, ODD_TIMES, SPOILT
from tests.integration.daemon import EXPOSURES, Site, file_name, frames, slot

pytestmark = pytest.mark.integration

KINDS = [*SPOILT, *MISFITS, *NAMES, *ODD_TIMES, *FOLDERS]
# Brackets of a kind each, then one that must not suffer.
LAST = len(SPOILT) + len(MISFITS) + len(FOLDERS)


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(
        bracket={"exposures": EXPOSURES, "grace": "1s", "min_exposures": 3}, scan={"every": "1s"}
    )


def place(site: Site, number: int) -> Path:
    folder = site.watch / f"{slot(number):%Y/%m/%d/%H}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / file_name(number, 4)


def test_a_zoo_of_bad_input(site: Site) -> None:
    assert len(set(KINDS)) >= 40
    site.start()
    number = 0
    for put in (*SPOILT.values(), *MISFITS.values()):
        put(place(site, number))
        site.take(number, range(4))
        number += 1
    for name in (*NAMES.values(), *ODD_TIMES.values()):
        (site.watch / name).write_bytes(frames()[0])
    for name in FOLDERS.values():
        folder = site.watch / name
        folder.mkdir()
        for index in range(5):
            (folder / file_name(number, index)).write_bytes(frames()[index])
        number += 1
    # What is none of ours: left alone, and in no row.
    for name in ("notes.txt", "20260621090030_hdr.jpg", ".20260621090000_80.jpg.part"):
        (site.watch / name).write_bytes(frames()[0])
    (site.watch / "20260621090100_80.jpg").mkdir()
    site.take(LAST)
    site.until_made_of(LAST, 5)
    expected = LAST + 1 + len(ODD_TIMES)
    site.until(lambda: len(site.rows()) >= expected, "all recorded")
    site.until(lambda: site.status()["open_count"] == 0, "idle")
    judge(site, expected)


def judge(site: Site, expected: int) -> None:
    rows = site.rows()
    assert len(rows) == expected
    for number, kind in enumerate(SPOILT):
        row = rows[slot(number)]
        assert row.state == "published", (kind, row)
        assert len(row.inputs) == 4, kind
        assert [Path(r.path).name for r in row.rejected] == [file_name(number, 4)], kind
        assert row.rejected[0].reason, kind
    for number, kind in enumerate(MISFITS, len(SPOILT)):
        row = rows[slot(number)]
        assert row.state == "failed", (kind, row)
        assert row.reason
        assert "pixels" in row.reason or "grey and colour frames" in row.reason
        assert not site.product(number).exists()
    for number, kind in enumerate(FOLDERS, len(SPOILT) + len(MISFITS)):
        row = rows[slot(number)]
        assert row.complete, (kind, row)
        (product,) = row.products
        assert (site.output / product).is_file()
        assert product.startswith(FOLDERS[kind])
    counts = site.status()["counts"]
    # What is hidden is an upload that is not done: not even counted.
    assert counts["names_ignored"] >= sum(not name.startswith(".") for name in NAMES.values())
    assert counts["skipped"] == len(ODD_TIMES)
    assert site.stop() == 0
    assert crashes_in(site.log_text().splitlines()) == []


def test_files_that_grow_for_ever_or_vanish_hold_up_nobody(site: Site) -> None:
    site.start()
    stopping = threading.Event()

    def grow(path: Path) -> None:
        with path.open("wb") as file:
            file.write(frames()[4][:500])
            while not stopping.wait(0.05):
                file.write(bytes(1000))
                file.flush()

    grower = threading.Thread(target=grow, args=(place(site, 0),))
    grower.start()
    try:
        site.take(0, range(4))
        for _ in range(20):
            path = place(site, 1)
            # One that was read whole before it vanished would count.
            path.write_bytes(frames()[4][:-100])
            path.unlink()
            time.sleep(0.01)
        site.take(1, range(4))
        site.take(2)
        for number, count in enumerate((4, 4, 5)):
            site.until_made_of(number, count)
    finally:
        stopping.set()
        grower.join()
    row = site.rows()[slot(0)]
    assert [Path(r.path).name for r in row.rejected] == [file_name(0, 4)]
