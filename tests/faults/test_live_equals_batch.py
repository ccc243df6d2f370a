"""The daemon, whatever it went through, and one run over the folder give the same pictures."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.faults.camera import WRITERS, scene
from tests.faults.tally import SAME, Tally
from tests.images.pictures import mobotix
from tests.integration.daemon import EXPOSURES, GRACE, Site, file_name, slot

pytestmark = pytest.mark.integration

FORMATS = ("jpg", "png", "exr", "tiff")


def live_and_batch(site: Site, *, brackets: int, late: int, seed: int) -> tuple[int, int]:
    """Let frames come in random order, with restarts; then merge the same folder in one run.

    The last exposure of the first `late` brackets comes when they are published already.

    Returns
    -------
    tuple of int
        Products compared: to the byte, and (revisions, which say so in their provenance) by
        their pixels.
    """
    dice = random.Random(seed)
    frames = [(n, i) for n in range(brackets) for i in range(5) if n >= late or i < 4]
    # Shuffled near by, as frames of several brackets overlap.
    frames.sort(key=lambda f: (f[0] + dice.uniform(0, 1.5), dice.random()))
    restarts = set(dice.sample(range(len(frames)), 2))
    site.start()
    for count, (number, index) in enumerate(frames):
        write(site, number, index, dice)
        if count in restarts:
            site.stop(dice.choice([signal.SIGTERM, signal.SIGKILL]))
            site.start()
    for number in range(brackets):
        site.until_published(number)
    for number in range(late):
        write(site, number, 4, dice)
    for number in range(brackets):
        site.until_published(number, revision=2 if number < late else 1)
    assert site.stop() == 0
    batch = site.folder / "batch"
    answer = site.run("merge", str(site.watch), str(batch))
    assert answer.returncode == 0, answer.stderr
    return compare(site, batch)


def write(site: Site, number: int, index: int, dice: random.Random) -> None:
    folder = site.watch / f"{slot(number):%Y/%m/%d/%H}"
    folder.mkdir(parents=True, exist_ok=True)
    dice.choice(WRITERS)(folder / file_name(number, index), scene(number)[index])


def compare(site: Site, batch: Path) -> tuple[int, int]:
    revised = {p for row in site.rows().values() if row.revision > 1 for p in row.products}
    made = {str(p.relative_to(site.output)) for p in site.output.rglob("*") if p.is_file()}
    assert made == {str(p.relative_to(batch)) for p in batch.rglob("*") if p.is_file()}
    for name in made - revised:
        assert (site.output / name).read_bytes() == (batch / name).read_bytes(), name
    pictures = [name for name in revised if name.endswith((".jpg", ".png", ".tiff"))]
    for name in pictures:
        live, once = (cv2.imread(str(f / name), cv2.IMREAD_UNCHANGED) for f in (site.output, batch))
        assert live is not None, name
        np.testing.assert_array_equal(live, once)
    return len(made - revised), len(pictures)


def settings(grace: str) -> dict[str, object]:
    return {
        "bracket": {"exposures": EXPOSURES, "grace": grace, "min_exposures": 3},
        "scan": {"every": "1s"},
        "products": [{"format": f} for f in FORMATS],
    }


def test_the_same_bytes_whatever_the_order(make_site: Callable[..., Site]) -> None:
    same, alike = live_and_batch(make_site(**settings(GRACE)), brackets=6, late=0, seed=1)
    assert (same, alike) == (24, 0)


def test_the_same_of_slots_that_hold_two_brackets(make_site: Callable[..., Site]) -> None:
    bracket = {"exposures": EXPOSURES, "grace": "2s", "round_to": "60s"}
    site = make_site(**settings("2s") | {"bracket": bracket})
    dice = random.Random(4)
    frames = [(number, index) for number in range(4) for index in range(5)]
    dice.shuffle(frames)
    site.start()
    for number, index in frames:
        # What was written when says nothing: an archive that was copied.
        aside = site.folder / "aside.part"
        aside.write_bytes(scene(number)[index])
        os.utime(aside, (1e9, 1e9 + dice.randint(0, 99)))
        target = site.watch / file_name(number, index)
        aside.rename(target)

    def all_have_a_row() -> bool:
        rows = site.rows()
        known = [len(r.inputs) + len(r.rejected) for r in rows.values() if r.state == "published"]
        return known == [10, 10]

    site.until(all_have_a_row, "all files in a row")
    assert site.stop() == 0
    for row in site.rows().values():
        assert {e.timestamp.second for e in row.inputs} == {30, 31, 32, 33, 34}
    batch = site.folder / "batch"
    answer = site.run("merge", str(site.watch), str(batch))
    assert answer.returncode == 1, answer.stderr
    assert "2 slots held two brackets" in answer.stdout
    compare(site, batch)


def test_the_same_of_exposure_times_that_only_the_files_state(
    make_site: Callable[..., Site],
) -> None:
    """Some state nothing, or nonsense; some of these are damaged as well."""
    site = make_site(
        **settings("2s"), exposure_from="metadata", filename="{timestamp:%Y%m%d%H%M%S}"
    )
    dice = random.Random(9)
    frames = [(number, index) for number in range(5) for index in range(5)]
    dice.shuffle(frames)
    odd = {(1, 0): "", (2, 4): "0", (3, 1): "5000000000", (3, 3): ""}
    site.start()
    for number, index in frames:
        stated = f"{EXPOSURES[index] * dice.uniform(0.92, 1.08):.0f}"
        data = mobotix(scene(number)[index], odd.get((number, index), stated))
        data = data[:-300] if (number, index) == (3, 3) else data
        folder = site.watch / f"{slot(number):%Y/%m/%d/%H}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{file_name(number, index).partition('_')[0]}.jpg").write_bytes(data)
    rows = [site.until_published(number) for number in range(5)]
    # Damage is tried once more, at the end of the grace.
    assert [len(row.inputs) for row in rows] == [5, 4, 4, 3, 5]
    assert site.stop() == 0
    batch = site.folder / "batch"
    answer = site.run("merge", str(site.watch), str(batch))
    assert answer.returncode == 1, answer.stderr
    assert "4 files cannot be used" in answer.stdout
    assert compare(site, batch) == (20, 0)


def test_what_a_merge_left_out_is_known_to_row_and_product(make_site: Callable[..., Site]) -> None:
    """Nothing is merged again for it: not by a scan, after a lost ledger, nor by a second run."""
    site = make_site(**settings(GRACE))
    content = scene(0)
    site.take(0)
    for index in (1, 2):
        path = site.watch / f"{slot(0):%Y/%m/%d/%H}" / file_name(0, index)
        path.write_bytes(content[3 - index])
    site.start()
    row = site.until_published(0)
    left_out = {r.path: r.signature for r in row.rejected if r.is_contradicting}
    assert left_out
    assert len(row.inputs) == 5 - len(left_out)
    assert not row.complete
    assert site.run("history", "--verify").returncode == 0
    assert site.stop() == 0
    log = site.log_text()
    assert "left_out=" in next(x for x in log.splitlines() if "bracket published" in x)
    made = site.product(0).stat().st_mtime_ns
    for name in site.state.glob("ledger.sqlite3*"):
        name.unlink()
    site.start()
    found = site.until_published(0)
    site.take(1)
    site.until_published(1)
    assert site.stop() == 0
    now = site.row(0)
    assert now is not None
    assert (now.revision, now.late, now.inputs) == (1, 0, found.inputs)
    assert {r.path: r.signature for r in now.rejected} == left_out
    assert site.product(0).stat().st_mtime_ns == made
    batch = site.folder / "batch"
    for words in ("merged", "already"):
        answer = site.run("merge", str(site.watch), str(batch))
        assert words in answer.stdout + answer.stderr
    compare(site, batch)


@pytest.mark.soak
def test_the_same_bytes_of_many_brackets(make_site: Callable[..., Site], tally: Tally) -> None:
    same, alike = live_and_batch(make_site(**settings(GRACE)), brackets=200, late=0, seed=2)
    more, revised = live_and_batch(make_site(**settings("3s")), brackets=40, late=20, seed=3)
    tally.add(SAME, products=same + more, revisions=alike + revised, differences=0)
