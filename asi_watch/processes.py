"""Processes for work that must not take the daemon down, or run what strangers uploaded.

Python looks for modules in the working directory first, and a daemon may have been started inside
the folder that a camera writes to. Children search it neither while they start nor later, end with
the daemon, and run at low priority.
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any


def spawn_pool(workers: int = 1) -> ProcessPoolExecutor:
    """Make a pool of new interpreters that search the working directory for no module.

    They start when work is submitted: a function of a module of ours, with plain values.

    Parameters
    ----------
    workers : int
    """
    # The channels of a calibration work side by side already; under load more threads only wait.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ["PYTHONSAFEPATH"] = "1"  # children search modules before they run code of ours
    multiprocessing.process.ORIGINAL_DIR = "/"  # type: ignore[attr-defined] # where they start
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_start)


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name that multiprocessing calls
        """Start without running the program once more that this process runs."""
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = program


class _Context(SpawnContext):
    Process = _Process


def _start() -> None:
    os.chdir("/")
    with contextlib.suppress(OSError):  # a unit may forbid it; then it runs at normal priority
        os.nice(10)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
