"""``python -m benchmarks [NAME …]``: run the named benchmarks, or all of them, one by one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ALL = (
    "startup",
    "kernel",
    "growth",
    "latency",
    "saturation",
    "backlog",
    "archive",
    "profile",
    "tricks",
    "calibration",
    "accuracy",
    "gate",
    "pictures",
    "ghosts",
)


def main() -> int:
    """Run each in a process of its own, so that none inherits another's memory."""
    names = sys.argv[1:] or [n for n in ALL if (Path(__file__).parent / f"{n}.py").exists()]
    failed = []
    for name in names:
        print(f"\n== {name} ==", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
