from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# As a console script without a guard: a child that ran it once more would print twice.
_PROGRAM = """
import os, sys
sys.path.remove(os.path.dirname(__file__))  # as in a script that lies elsewhere
from asi_watch.processes import spawn_pool
print("the program runs", flush=True)
with spawn_pool() as pool:
    print(pool.submit(os.getcwd).result())
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
    assert (done.returncode, done.stdout) == (0, "the program runs\n/\n"), done.stderr
