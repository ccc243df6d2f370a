"""Threads for the cores that the process may use, and children that run nothing foreign."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from asi_watch.config.loading import parse_config
from asi_watch.hdr import weighted_merge
from asi_watch.hdr.merging import open_merge
from asi_watch.processes import merge_threads
from asi_watch.products import ProductSpec
from tests.hdr.brackets import curve, settings


def test_one_core_starts_one_thread_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def pool(threads: int, **names: str) -> ThreadPoolExecutor:
        sizes.append(threads)
        return ThreadPoolExecutor(threads, **names)

    encoding = importlib.import_module("asi_watch.products.encode")
    for module in (encoding, weighted_merge):
        monkeypatch.setattr(module, "ThreadPoolExecutor", pool)
    config = parse_config(b"cameras: {roof: {watch: a, output: b}}", "x", tmp_path).config

    def threads() -> tuple[int, list[int]]:
        sizes.clear()
        merge = open_merge(settings(), curve(), (64, 64, 3), threads=merge_threads())
        merge.add(np.zeros((64, 64, 3), np.uint8), 1.0)
        encoding.encode_jpeg(ProductSpec("jpg"), merge.picture())
        return config.worker_count, list(sizes)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert threads() == (8, [2, 2])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    # One thread of its own for the strips; the rest is done by the thread that asks.
    assert threads() == (1, [1])


# -- child processes ---

# As a console script without a guard: a child that ran it once more would print twice.
_PROGRAM = """
import os, sys
sys.path.remove(os.path.dirname(__file__))  # as in a script that lies elsewhere
from asi_watch.processes import spawn_pool
print("the program runs", flush=True)
with spawn_pool() as pool:
    print(pool.submit(os.getcwd).result())
print("PYTHONSAFEPATH" in os.environ)
"""


def test_children_run_nothing_from_the_working_directory(tmp_path: Path) -> None:
    for name in ("multiprocessing", "pickle", "runpy", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('uploaded code runs')")
    (tmp_path / "program.py").write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "the program runs\n/\nFalse\n"), done.stderr
