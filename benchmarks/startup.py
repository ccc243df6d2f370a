"""CPU time of the commands that a person waits for, and the daemon's way to READY."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.daemon import configure, start_daemon
from benchmarks.reporting import median, save, show

ROUNDS = 7


def cpu_of(command: list[str]) -> float:
    """CPU seconds (user and system) of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Run the benchmark."""
    asi_watch = [sys.executable, "-m", "asi_watch"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = configure(folder, 1)
        commands = {
            "python itself": [sys.executable, "-c", "pass"],
            "asi-watch --help": [*asi_watch, "--help"],
            "asi-watch check": [*asi_watch, "check", "-c", str(config)],
        }
        times: dict[str, list[float]] = {title: [] for title in commands}
        ready = []
        for _ in range(ROUNDS):
            for title, command in commands.items():
                times[title].append(cpu_of(command))
            started = time.monotonic()
            daemon = start_daemon(config, folder / "log")
            ready.append(time.monotonic() - started)
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
    rows = [(title, f"{median(values):.2f} s CPU") for title, values in times.items()]
    rows.append(("daemon start → ready", f"{median(ready):.2f} s"))
    show(f"start-up, median of {ROUNDS}", ("what", "time"), rows)
    result = {title: median(values) for title, values in times.items()}
    print("written:", save("startup", {**result, "ready": median(ready)}))


if __name__ == "__main__":
    main()
