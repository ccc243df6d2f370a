"""How many cores this process may use: fewer than the machine has, where a limit is set."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath

_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_MOST_MERGE_THREADS = 2  # more gain nothing: the work is bound by memory


def usable_cores(own_group: Path = _OWN_GROUP, groups: Path = _GROUPS) -> int:
    """Count the cores worth starting threads for, at least 1.

    Those of the affinity mask (``taskset``, ``CPUAffinity=``), or as many as the control group's
    quota keeps busy (``CPUQuota=``, a container's limit), rounded up.

    Parameters
    ----------
    own_group : Path
        The file that names this process's control group.
    groups : Path
        Where the tree of control groups (version 2) is mounted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.ceil(min(cores or 1, _quota(own_group, groups))))


def merge_threads() -> int:
    """Threads that one merge should start: two where there are cores for them."""
    return min(_MOST_MERGE_THREADS, usable_cores())


def _quota(own_group: Path, groups: Path) -> float:
    """Cores that the process's group and all groups above it may keep busy; inf: no limit."""
    try:
        lines = own_group.read_text(errors="replace").splitlines()
    except OSError:
        return math.inf
    # Version 2 has one line, and an empty list of controllers in it.
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if own is None or ".." in PurePosixPath(own).parts:
        return math.inf
    folder = groups / own.lstrip("/")
    chain = [folder, *folder.parents]
    return min(_limit(one / "cpu.max") for one in chain[: chain.index(groups) + 1])


def _limit(file: Path) -> float:
    """Read ``50000 100000`` (µs of each period) or ``max 100000`` as cores."""
    try:
        quota, period = file.read_text().split()
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
    return share if share > 0 else math.inf
