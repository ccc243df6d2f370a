"""Reading and merging within the memory budget."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asi_watch.buffers import BufferPool
from asi_watch.config import parse_config
from asi_watch.config.model import MergeConfig
from asi_watch.hdr.merging import merge_memory
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.messages import MergeBracket, ProductKept, ReadFile, ReadOk
from asi_watch.live.workers.merger import MemoryBudget, Merger
from asi_watch.merge_bracket import Failed, Published
from asi_watch.products import read_provenance
from tests.skies import EXPOSURES_US, jpeg_bracket

NOON = datetime(2026, 6, 21, 12)
SIZE = 64
FRAME = SIZE * SIZE * 3


class Bench:
    def __init__(self, folder: Path, budget: int) -> None:
        text = f"cameras: {{roof: {{watch: {folder}/in, output: {folder}/out}}}}"
        config = parse_config(text.encode(), "x", folder).config
        settings = config.cameras["roof"]
        self.folder = folder
        (folder / "in").mkdir()
        self.budget = MemoryBudget(budget)
        buffers = BufferPool(0)
        self.merger = Merger(settings, self.budget, buffers)
        self.frames = jpeg_bracket(SIZE)

    def read(self, number: int, exposure: float) -> ReadOk:
        slot = NOON + number * timedelta(seconds=30)
        path = f"{slot:%Y%m%d%H%M%S}_{int(exposure)}.jpg"
        (self.folder / "in" / path).write_bytes(self.frames[int(exposure)])
        outcome = self.merger.read(ReadFile(slot, path, slot, exposure, None, True))
        assert isinstance(outcome, ReadOk)
        return outcome

    def merge(self, number: int, read: list[ReadOk], **more: Any) -> Any:
        slot = NOON + number * timedelta(seconds=30)
        command = MergeBracket(slot, tuple(r.exposure for r in read), expected=5, complete=True)
        return self.merger.merge(replace(command, **more), 0.0)


def test_many_brackets_that_grow_together_stay_within_the_budget(tmp_path: Path) -> None:
    budget = 6 * len(EXPOSURES_US) * FRAME
    bench = Bench(tmp_path, budget)
    read: dict[int, list[ReadOk]] = {n: [] for n in range(12)}
    for exposure in EXPOSURES_US:
        for number in read:
            read[number].append(bench.read(number, exposure))
        # A bracket may begin while there is any room; it is charged whole.
        assert bench.budget.held <= budget
        assert len(bench.merger._held) <= 7
    for number, frames in read.items():
        assert isinstance(bench.merge(number, frames), Published)
    assert bench.budget.held == 0
    products = sorted((tmp_path / "out").glob("*.jpg"))
    assert len(products) == 12


@pytest.mark.parametrize(
    ("number", "blocked"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, True), (errno.EMFILE, False)],
)
def test_a_full_disk_is_no_fault_of_the_bracket_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, blocked: bool
) -> None:
    bench = Bench(tmp_path, 1 << 24)
    read = [bench.read(0, exposure) for exposure in EXPOSURES_US]
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 100:
            return write(descriptor, memoryview(data)[:50])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", full)
    failed = bench.merge(0, read)
    monkeypatch.undo()
    assert isinstance(failed, Failed)
    assert (failed.kind == "output") is blocked
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []
    assert bench.budget.held == 0
    assert isinstance(bench.merge(0, read), Published)


def test_a_product_stands_that_has_more_exposures(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 1 << 24)
    read = [bench.read(0, exposure) for exposure in EXPOSURES_US]
    first = bench.merge(0, read)
    assert isinstance(first, Published)
    product = tmp_path / "out" / first.products[0]
    before = product.read_bytes()
    # Whatever the row says: that of a revision which failed, or none at all.
    for more in ({"revision": 2, "folder": "."}, {"revision": 1}):
        outcome = bench.merge(0, read[1:], **more)
        assert isinstance(outcome, ProductKept)
        assert outcome.record.inputs == tuple(replace(r.exposure, inode=0) for r in read)
        assert (outcome.record.state, outcome.record.revision) == ("published", 1)
        assert outcome.record.products == first.products
        assert product.read_bytes() == before
    assert isinstance(bench.merge(0, [], folder="."), ProductKept)
    product.unlink()
    assert bench.merge(0, read[3:], folder=".", min_exposures=3).kind == "few"
    assert isinstance(bench.merge(0, read[1:], revision=2), Published)


def rename(bench: Bench, name: str, **more: Any) -> None:
    """Give the camera another name, as an edit of its configuration would."""
    settings = bench.merger._settings.model_copy(update={"name": name, **more})
    bench.merger = Merger(settings, bench.budget, BufferPool(0))


def test_a_renamed_camera_keeps_its_products(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 1 << 24)
    read = [bench.read(0, exposure) for exposure in EXPOSURES_US[:4]]
    product = tmp_path / "out" / bench.merge(0, read).products[0]
    before = product.read_bytes()
    rename(bench, "lab")
    adopted = bench.merge(0, read)
    assert isinstance(adopted, Published)
    assert adopted.adopted
    fewer = bench.merge(0, read[1:])
    assert isinstance(fewer, ProductKept)
    assert fewer.record.camera == "lab"
    assert product.read_bytes() == before
    # And what comes late to it makes a revision: it is this camera's own.
    late = [*read, bench.read(0, EXPOSURES_US[4])]
    assert isinstance(bench.merge(0, late), Published)
    assert read_provenance(product).camera == "lab"


def test_the_product_of_another_camera_is_never_overwritten(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 1 << 24)
    read = [bench.read(0, exposure) for exposure in EXPOSURES_US]
    product = tmp_path / "out" / bench.merge(0, read).products[0]
    before = product.read_bytes()
    rename(bench, "lab")
    # The same names, other files.
    others = [bench.read(0, exposure) for exposure in EXPOSURES_US]
    for merged in (others, others[1:]):
        refused = bench.merge(0, merged)
        assert isinstance(refused, Failed)
        assert refused.kind == "taken"
        assert product.name in refused.reason
        assert "'roof'" in refused.reason
        assert "asi-watch retry" in refused.reason
        assert product.read_bytes() == before
    # Once adopted it is ours, though its exposures were copied anew since.
    adopted = {"earlier": tuple(r.exposure for r in read), "revision": 2}
    assert isinstance(bench.merge(0, others, **adopted), Published)


@pytest.mark.parametrize("name", ["roof", "lab"])
def test_no_fallback_replaces_what_was_made_with_a_curve(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path, 1 << 24)
    linear = np.repeat(np.log(np.arange(1, 257) / 129.0)[:, None], 3, axis=1)
    bench.merger.use_curves((ResponseCurve(linear.astype(np.float32), {}),))
    read = [bench.read(0, exposure) for exposure in EXPOSURES_US[:4]]
    first = bench.merge(0, read)
    assert first.curve_id is not None
    product = tmp_path / "out" / first.products[0]
    before = product.read_bytes()
    rename(bench, name)
    late = [*read, bench.read(0, EXPOSURES_US[4])]
    for merged, revision in ((read, 2), (late, 1), (late, 2)):
        kept = bench.merge(0, merged, revision=revision, folder=".")
        assert isinstance(kept, ProductKept)
        assert kept.record.curve_id == first.curve_id
        assert "response curve" in kept.why
        assert product.read_bytes() == before
        assert bench.budget.held == 0
    # Where the camera is to merge so, it is no fallback.
    mertens = MergeConfig(algorithm="mertens")
    rename(bench, name, merge=mertens)
    assert isinstance(bench.merge(0, late), Published)


HOUR = 3600.0


@pytest.mark.parametrize(
    ("written_ago", "slot_ago", "told", "expected"),
    [
        (8 * HOUR, 8 * HOUR, False, 8 * HOUR),
        (8 * HOUR, 8 * HOUR, True, 20.0),
        (5.0, 8 * HOUR, False, 5.0),
        # Clocks that are wrong: of the computer that wrote, or a copy that looks older than it is.
        (-60.0, 0.0, False, 20.0),
        (400 * HOUR, 8 * HOUR, False, 20.0),
        (10 * HOUR, 8 * HOUR, False, 10 * HOUR),
    ],
)
def test_a_latency_counts_from_when_the_last_exposure_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written_ago: float,
    slot_ago: float,
    told: bool,
    expected: float,
) -> None:
    bench = Bench(tmp_path, 1 << 24)
    read = [bench.read(0, exposure) for exposure in EXPOSURES_US[:3]]
    now = NOON.replace(tzinfo=UTC).timestamp() + slot_ago
    stamps = [now - written_ago - seconds for seconds in (2.0, 0.0, 1.0)]
    for one, stamp in zip(read, stamps, strict=True):
        os.utime(tmp_path / "in" / one.exposure.path, (stamp, stamp))
    read = [
        ReadOk(replace(r.exposure, mtime_ns=(tmp_path / "in" / r.exposure.path).stat().st_mtime_ns))
        for r in read
    ]
    monkeypatch.setattr(time, "time", lambda: now)
    made = bench.merge(0, read, seen_by_event=told, arrived=time.monotonic() - 20.0)
    assert isinstance(made, Published)
    latency = made.timings["latency"]
    assert latency == pytest.approx(expected, abs=15.0)
    assert (latency < 20.0) == (expected < 20.0)


def test_merges_that_run_together_stay_within_the_budget(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 100)
    budget, running, most = bench.budget, [0], [0]
    lock = threading.Lock()

    def merge(nbytes: int) -> None:
        with budget.merging(nbytes):
            with lock:
                running[0] += min(nbytes, 100)
                most[0] = max(most[0], running[0])
            time.sleep(0.01)
            with lock:
                running[0] -= min(nbytes, 100)

    threads = [threading.Thread(target=merge, args=(n,)) for n in (60, 30, 70, 500, 40, 60, 10, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert 50 <= most[0] <= 100


def test_a_merge_claims_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, 1 << 24)
    claims: list[int] = []
    merging = bench.budget.merging
    monkeypatch.setattr(bench.budget, "merging", lambda n: claims.append(n) or merging(n))
    read = [bench.read(0, exposure) for exposure in EXPOSURES_US]
    bench.merge(0, read)
    assert claims == [merge_memory("mertens", (SIZE, SIZE, 3), len(EXPOSURES_US))]


def test_merges_go_on_beside_one_that_hangs() -> None:
    budget = MemoryBudget(100, patience=0.2)
    with budget.merging(100):
        with budget.merging(100):
            began = time.monotonic()
            with budget.merging(40):
                pass
        # The first is no longer waited for.
        for _ in range(20):
            with budget.merging(100):
                pass
    assert time.monotonic() - began < 2
