"""How many cores this process may use, and processes for work that must not take it down.

Python looks for modules in the working directory first, and a daemon may have been started inside
the folder that a camera writes to. Children search it neither while they start nor later, end with
the daemon, and run at low priority.
"""

import contextlib
import multiprocessing.process
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

_MOST_MERGE_THREADS = 2  # more gain nothing: the work is bound by memory


def usable_cores() -> int:
    """Count the cores of the affinity mask (``taskset``, ``CPUAffinity=``)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


def merge_threads() -> int:
    """Threads that one merge should start: two where there are cores for them."""
    return min(_MOST_MERGE_THREADS, usable_cores())


def spawn_pool(workers: int = 1) -> ProcessPoolExecutor:
    """Make a pool of new interpreters that search the working directory for no module.

    They start when work is submitted: a function of a module of ours, with plain values.

    Parameters
    ----------
    workers : int
    """
    # Making the pool starts a child as well, the one that cleans up after semaphores.
    with _environment_of_children():
        return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_start)


# Children search modules before they run code of ours. The channels of a calibration work side by
# side already; under load more threads only wait.
_ENVIRONMENT = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}
_process: Any = multiprocessing.process


@contextlib.contextmanager
def _environment_of_children() -> Iterator[None]:
    """Set what these children are given; other children of this process are not."""
    before, folder = {name: os.environ.get(name) for name in _ENVIRONMENT}, _process.ORIGINAL_DIR
    os.environ.update(_ENVIRONMENT)
    _process.ORIGINAL_DIR = "/"  # where they start
    try:
        yield
    finally:
        _process.ORIGINAL_DIR = folder
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name that multiprocessing calls
        """Start without running the program once more that this process runs."""
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            with _environment_of_children():
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
