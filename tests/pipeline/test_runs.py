"""Runs over an archive that are interrupted, repeated, or many at once."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.pipeline import (
    ArchiveRules,
    ArchiveSummary,
    RunChoices,
    merge_archive,
    save_response_curve,
)
from asi_watch.pipeline import archive as module
from asi_watch.pipeline.claims import Claims
from asi_watch.pipeline.curves import load_curve_history
from asi_watch.products import ProductSpec, read_provenance
from asi_watch.response_files import load_curve
from tests.pipeline.making import EXPOSURES, products, slot, true_curve, write_archive

BRACKETS = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_archive(tmp_path / "a", BRACKETS)
    return tmp_path


def merged(folder: Path, **more: Any) -> ArchiveSummary:
    options = {"workers": 0, "curves": [true_curve()], **more}
    return merge_archive(
        folder / "a",
        folder / "b",
        rules=ArchiveRules(expected=tuple(map(float, EXPOSURES))),
        settings=MergeSettings("debevec_exact"),
        products=[ProductSpec("jpg")],
        **options,
    )


def key(number: int) -> str:
    return f"{slot(number):%Y%m%d%H%M%S%f}"


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in (folder / "b").rglob("*") if p.name.startswith(".")]


def test_two_runs_at_once_share_the_brackets(folder: Path) -> None:
    summaries: list[ArchiveSummary] = []
    runs = [
        threading.Thread(target=lambda: summaries.append(merged(folder, workers=2)))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sum(s.merged for s in summaries) == BRACKETS
    assert [s.merged + s.stood for s in summaries] == [BRACKETS, BRACKETS]
    assert len(products(folder / "b")) == BRACKETS
    assert leftovers(folder) == []


def test_a_bracket_that_another_run_has_in_work_is_left_to_it_and_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN_AFTER", 0.01)
    with Claims(folder / "b") as other:
        assert other.take(key(2))
        done: list[ArchiveSummary] = []
        run = threading.Thread(target=lambda: done.append(merged(folder)))
        run.start()
        run.join(1.0)
        while len(products(folder / "b")) < BRACKETS - 1:
            run.join(0.05)
        run.join(0.2)
        assert run.is_alive()
        other.release(key(2))
        run.join()
    assert done[0].merged == BRACKETS


@pytest.mark.parametrize("how", ["killed", "silent", "forgotten"])
def test_claims_of_a_dead_run_are_free(folder: Path, how: str) -> None:
    claims = folder / "b" / ".asi-watch-claims"
    with Claims(folder / "b") as dead:
        name = dead._run
        assert dead.take(key(0))
        assert dead.take(key(3))
        contents = {p.name: p.read_bytes() for p in claims.iterdir()}
    if how == "killed":
        process = multiprocessing.get_context("spawn").Process(target=int)
        process.start()
        process.join()
        name = name.replace(f".{os.getpid()}.", f".{process.pid}.")
    if how == "silent":
        name = f"elsewhere-1234.{os.getpid()}.0"
    claims.mkdir()
    for file in contents:
        if file.endswith(".claim"):
            (claims / file).write_text(name)
            os.utime(claims / file, (1e9, 1e9))
    if how != "forgotten":
        (claims / f"{name}.run").touch()
    if how == "silent":
        os.utime(claims / f"{name}.run", (1e9, 1e9))
    (folder / "b" / f".asi-watch-{'0' * 16}.tmp").write_bytes(b"half a product")
    assert merged(folder).merged == BRACKETS
    assert leftovers(folder) == []


def test_a_live_run_elsewhere_keeps_its_claims(folder: Path) -> None:
    claims = folder / "b" / ".asi-watch-claims"
    claims.mkdir(parents=True)
    (claims / f"{key(1)}.claim").write_text("elsewhere-1234.1.0")
    (claims / "elsewhere-1234.1.0.run").touch()
    with Claims(folder / "b") as ours:
        assert not ours.take(key(1))
        assert ours.take(key(2))
        ours.free_those_of_dead_runs()
        assert not ours.take(key(1))
    assert {p.name for p in claims.iterdir()} >= {f"{key(1)}.claim", "elsewhere-1234.1.0.run"}


def test_a_folder_that_cannot_be_written_is_merged_without_claims(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "b").mkdir()
    (folder / "b" / ".asi-watch-claims").write_bytes(b"a file in its place")
    assert merged(folder).merged == BRACKETS
    assert "no claims can be made there" in caplog.text


class _StopAfter(Executor):
    """Works in the calling thread, and has the run stopped after some brackets."""

    def __init__(self, stop: threading.Event, count: int) -> None:
        self._stop, self._left = stop, count

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        self._left -= 1
        if not self._left:
            self._stop.set()
        return future


def test_an_interrupted_run_says_what_is_left_and_the_next_one_does_it(folder: Path) -> None:
    stop = threading.Event()
    report = folder / "report.json"
    first = merged(folder, executor=_StopAfter(stop, 2), run=RunChoices(stop=stop, report=report))
    assert (first.merged, first.skipped, first.flawless) == (2, 4, False)
    assert "interrupted before 4 brackets" in first.sentence()
    states = [row["state"] for row in json.loads(report.read_text())]
    assert states == ["published"] * 2 + ["skipped"] * 4
    assert leftovers(folder) == []
    second = merged(folder)
    assert (second.merged, second.stood, second.skipped) == (4, 2, 0)


def test_a_part_of_an_archive(folder: Path) -> None:
    span = RunChoices(since=slot(1), until=slot(4))
    assert merged(folder, run=span).brackets == 3
    assert merged(folder, run=RunChoices(slots=frozenset({slot(1), slot(5)}))).brackets == 2
    assert [Path(p).name[8:14] for p in products(folder / "b")] == [
        f"{slot(n):%H%M%S}" for n in (1, 2, 3, 5)
    ]
    with_gap = folder / "a"
    next(with_gap.rglob(f"*{slot(5) + timedelta(seconds=4):%H%M%S}_1280.jpg")).unlink()
    only = merged(folder, run=RunChoices(since=slot(5)), force=True)
    assert only.incomplete == [(slot(5), (1280.0,))]


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    merged(folder, run=RunChoices(until=slot(2)))
    before = {p: p.stat().st_mtime_ns for p in (folder / "b").rglob("*")}
    summary = merged(folder, run=RunChoices(dry_run=True))
    assert (summary.merged, summary.stood) == (4, 2)
    assert summary.sentence().startswith("4 of 6 brackets would be merged, 4 files to write")
    assert {p: p.stat().st_mtime_ns for p in (folder / "b").rglob("*")} == before


def test_a_report_names_products_gaps_and_reasons(folder: Path) -> None:
    files = sorted((folder / "a").rglob("*_1280.jpg"))
    files[1].unlink()
    files[2].write_bytes(b"")
    for time in EXPOSURES[:4]:
        next((folder / "a").rglob(f"*{slot(4):%H%M}3?_{time}.jpg")).unlink()
    merged(folder, run=RunChoices(report=folder / "r.csv"), leave_out_unreadable=True)
    with (folder / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["published"] * 4 + ["failed"] + ["published"]
    assert rows[0]["products"].endswith("_hdr.jpg")
    assert rows[1]["missing_us"] == "1280.0"
    assert files[2].name in rows[2]["left_out"]
    assert "is the only exposure of its bracket" in rows[4]["reason"]
    with pytest.raises(ValueError, match=r"a report is a \.csv or \.json file"):
        merged(folder, run=RunChoices(report=folder / "r.txt"))


def test_any_executor_does(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as executor:
        summary = merged(folder, executor=executor)
    assert (summary.merged, summary.flawless) == (BRACKETS, True)


def test_a_broken_executor_ends_the_run_and_the_next_one_goes_on(folder: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        os.kill(executor.submit(os.getpid).result(), signal.SIGKILL)
        first = merged(folder, executor=executor)
    assert (first.merged, first.failures, first.skipped) == (0, [], BRACKETS)
    assert leftovers(folder) == []
    assert merged(folder).merged == BRACKETS


class _Losing(Executor):
    """Loses the workers of some brackets, so many times each."""

    def __init__(self, lost: dict[int, int]) -> None:
        self._lost = {slot(number): times for number, times in lost.items()}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._lost.get(args[0].slot, 0) > 0:
            self._lost[args[0].slot] -= 1
            future.set_exception(ConnectionError("worker gone"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_a_lost_worker_costs_a_retry_and_a_bracket_that_loses_two_fails(folder: Path) -> None:
    summary = merged(folder, executor=_Losing({1: 1, 3: 2}))
    assert (summary.merged, len(summary.failures)) == (BRACKETS - 1, 1)
    assert summary.failures[0][0] == slot(3)
    assert "ConnectionError: worker gone" in summary.failures[0][1]


def test_few_brackets_wait_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []

    class Counting(_Losing):
        _max_workers = 1

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            waiting.append(sum(1 for p in (folder / "b" / ".asi-watch-claims").glob("*.claim")))
            return super().submit(fn, *args, **kwargs)

    merged(folder, executor=Counting({}))
    assert max(waiting) <= 2


def test_each_bracket_is_merged_with_the_curve_of_its_time(folder: Path) -> None:
    g, curves = true_curve().log_response, folder / "curves"
    made = {"first": slot(1), "second": slot(3), "third": slot(9)}
    for number, (name, time) in enumerate(made.items()):
        metadata = {"timestamp_utc": f"{time:%Y-%m-%dT%H:%M:%SZ}"}
        curve = g + np.float32(0.01 * number) * np.arange(256)[:, np.newaxis] / 255
        save_response_curve(curves / f"{name}.npz", curve, metadata, save_plot=False)
    ids = {name: load_curve(curves / f"{name}.npz").curve_id for name in made}
    history = load_curve_history(curves)
    assert [curve.curve_id for curve in history] == [ids[n] for n in ("third", "second", "first")]
    summary = merged(folder, curves=history)
    assert (summary.merged, summary.flawless) == (BRACKETS, True)
    noted = [read_provenance(folder / "b" / name).curve_id for name in products(folder / "b")]
    assert noted == [ids[n] for n in ("first",) * 3 + ("second",) * 3]
    assert merged(folder, curves=history).stood == BRACKETS
    save_response_curve(curves / "old.npz", g, {}, save_plot=False)
    with pytest.raises(ValueError, match=r"old\.npz: does not say when it was made"):
        load_curve_history(curves)
    with pytest.raises(ValueError, match="no response files"):
        load_curve_history(folder / "b")
