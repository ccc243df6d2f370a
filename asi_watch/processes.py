"""How many cores this process may use, and processes for work that must not take it down.

Python looks for modules in the working directory first, and a daemon may have been started inside
the folder that a camera writes to. Children search it neither while they start nor later, end with
the daemon, and run at low priority.
"""

import contextlib
import multiprocessing
import multiprocessing.process
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
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


def spawn_pool() -> ProcessPoolExecutor:
    """Make a pool of one new interpreter that searches the working directory for no module.

    It starts when work is submitted: a function of a module of ours, with plain values.
    """
    # Making the pool starts a child as well, the one that cleans up after semaphores.
    with _starting_children():
        return _Pool(1, multiprocessing.get_context("spawn"), initializer=_start)


# Children search modules before they run code of ours. The channels of a calibration work side by
# side already; under load more threads only wait.
_ENVIRONMENT = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}
_process: Any = multiprocessing.process


class _Pool(ProcessPoolExecutor):
    def submit(self, *args: Any, **keywords: Any) -> Any:
        """Submit a call, which may start a child."""
        with _starting_children():
            return super().submit(*args, **keywords)


@contextlib.contextmanager
def _starting_children() -> Iterator[None]:
    """Set what these children are given; other children of this process are not."""
    before, folder = {name: os.environ.get(name) for name in _ENVIRONMENT}, _process.ORIGINAL_DIR
    program = sys.modules["__main__"]
    os.environ.update(_ENVIRONMENT)
    _process.ORIGINAL_DIR = "/"  # where they start
    sys.modules["__main__"] = ModuleType("__main__")  # which they do not run once more
    try:
        yield
    finally:
        sys.modules["__main__"], _process.ORIGINAL_DIR = program, folder
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
