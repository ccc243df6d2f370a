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
from asi_watch.processes import merge_threads, usable_cores
from asi_watch.products import ProductSpec
from tests.hdr.brackets import curve, settings

SERVICE = "/system.slice/asi-watch.service"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight cores, and the process in the group of a service without a limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "own").write_text(f"0::{SERVICE}\n")
    (tmp_path / f"groups{SERVICE}").mkdir(parents=True)
    return tmp_path


def limited(machine: Path, limit: str, group: str = SERVICE) -> int:
    (machine / f"groups{group}/cpu.max").write_text(limit)
    return usable_cores(machine / "own", machine / "groups")


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        ("max 100000\n", 8),
        ("50000 100000\n", 1),  # CPUQuota=50%
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("2000000 100000\n", 8),
        ("", 8),
        ("nonsense", 8),
        ("0 100000", 8),
        ("1 0", 8),
    ],
)
def test_a_quota_counts(machine: Path, limit: str, wanted: int) -> None:
    assert limited(machine, limit) == wanted


def test_the_tightest_group_above_counts(machine: Path) -> None:
    limited(machine, "400000 100000")
    assert limited(machine, "300000 100000", "/system.slice") == 3
    assert limited(machine, "100000 100000", "/") == 1


def test_what_a_container_says_of_itself(machine: Path) -> None:
    (machine / "own").write_text("0::/\n")
    assert limited(machine, "200000 100000", "/") == 2


def test_without_groups_the_affinity_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "12:cpu:/x\n", "0::/../elsewhere\n", "0::/gone\n"):
        (machine / "own").write_text(text)
        assert usable_cores(machine / "own", machine / "groups") == 8, text
    assert usable_cores(machine / "none", machine / "groups") == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert usable_cores(machine / "none", machine / "groups") == 1


def test_half_a_core_starts_one_thread_everywhere(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usable_cores, "__defaults__", (machine / "own", machine / "groups"))
    sizes: list[int] = []

    def pool(threads: int, **names: str) -> ThreadPoolExecutor:
        sizes.append(threads)
        return ThreadPoolExecutor(threads, **names)

    encoding = importlib.import_module("asi_watch.products.encode")
    for module in (encoding, weighted_merge):
        monkeypatch.setattr(module, "ThreadPoolExecutor", pool)
    config = parse_config(b"cameras: {roof: {watch: a, output: b}}", "x", machine).config

    def threads() -> tuple[int, list[int]]:
        sizes.clear()
        merge = open_merge(settings(), curve(), (64, 64, 3), threads=merge_threads())
        merge.add(np.zeros((64, 64, 3), np.uint8), 1.0)
        encoding.encode_jpeg(ProductSpec("jpg"), merge.picture())
        return config.worker_count, list(sizes)

    limited(machine, "max 100000")
    assert threads() == (8, [2, 2])
    limited(machine, "50000 100000")
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
