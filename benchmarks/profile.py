"""Where the daemon's CPU time goes under load: samples of the real daemon by `perf`.

Samples are taken of running threads only, native code and the kernel included, and put down to
what a thread was doing: by the library it was in, by the system call, and by the thread itself
(`py-spy dump`, once, tells the threads' names). What is left is the interpreter.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.daemon import Load, RunningDaemon, running, schedule
from benchmarks.frames import jpeg_frames
from benchmarks.reporting import result_path, save, show

_RATE = 997
_WARM_ROUNDS = 2
_PATIENCE = 600.0

PARTS = (
    ("decode the exposures", "#2b6cb0"),
    ("merge", "#c05621"),
    ("encode the picture", "#d69e2e"),
    ("read files", "#63b3ed"),
    ("write and fsync products", "#2f855a"),
    ("ledger", "#68d391"),
    ("memory given fresh by the kernel", "#e53e3e"),
    ("watch folders", "#805ad5"),
    ("owner: decide, keep books", "#b794f4"),
    ("workers: Python around it", "#a0aec0"),
    ("kernel: threads, timers, interrupts", "#4a5568"),
)


@dataclass(frozen=True)
class Sample:
    """One sample: the thread, and (symbol, library) from the inside out."""

    thread: int
    chain: tuple[tuple[str, str], ...]


def samples(text: str) -> Iterator[Sample]:
    """Read what `perf script -F tid,ip,sym,dso` prints."""
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if len(lines) < 2:
            continue
        chain = []
        for line in lines[1:]:
            found = re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line)
            if found:
                chain.append((found[1].strip(), found[2]))
        if chain:
            yield Sample(int(lines[0].split()[0]), tuple(chain))


def role(name: str | None) -> str:
    """Tell what a thread is for by its name; None: it lives for one picture's strips."""
    if name is None:
        return "strip"
    if name.startswith("worker"):
        return "worker"
    if name == "MainThread":
        return "owner"
    watching = ("inotify", "scan")
    return "watch" if name.startswith(watching) else "owner"


# What the JPEG library calls for every block and row; nothing else in those threads does so much.
_OF_JPEG = ("__memset_", "__tls_get_addr")


def part_of(sample: Sample, roles: dict[int, str]) -> str:
    """Put one sample down to a part of the work."""
    who = roles.get(sample.thread, "strip")
    symbol, library = sample.chain[0]
    if "simplejpeg" in library or (who in ("worker", "strip") and symbol.startswith(_OF_JPEG)):
        return "decode the exposures" if who == "worker" else "encode the picture"
    if "_kernel" in library and "kallsyms" not in library:
        return "merge"
    if "sqlite" in library:
        return "ledger"
    if "kernel" in library or library.startswith("["):
        return _kernel_part({name for name, _ in sample.chain}, who)
    if who in ("worker", "strip"):
        return "workers: Python around it"
    return "watch folders" if who == "watch" else "owner: decide, keep books"


_CALLS = (
    (("clear_page", "folio_zero", "do_anonymous_page", "do_huge_pmd", "page_fault", "madvise"),
     "memory given fresh by the kernel"),
    (("munmap", "unmap_"), "memory given fresh by the kernel"),
    (("sys_fsync", "sys_fdatasync", "sys_write", "sys_pwrite", "sys_rename", "do_fsync"),
     "write and fsync products"),
    (("sys_read", "sys_openat", "sys_pread", "sys_newfstatat", "sys_newlstat", "sys_statx"),
     "read files"),
)  # fmt: skip


def _kernel_part(names: set[str], who: str) -> str:
    joined = " ".join(names)
    if who == "watch":
        return "watch folders"
    for keys, part in _CALLS:
        if any(key in joined for key in keys):
            if who == "owner":
                return "ledger" if part.startswith("write") else "owner: decide, keep books"
            return part
    return "kernel: threads, timers, interrupts"


def thread_names(pid: int) -> dict[int, str]:
    """Return the Python names of the threads that live now, by their system numbers."""
    spy = Path(sys.executable).parent / "py-spy"
    command = [str(spy if spy.exists() else "py-spy"), "dump", "--json", "--pid", str(pid)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {t["os_thread_id"]: t["thread_name"] or "" for t in json.loads(done.stdout)}


def record(daemon: RunningDaemon, load: Load, data: Path) -> dict[str, Any]:
    """Drive the daemon and sample it meanwhile."""
    warm = Load(load.cameras, load.size, load.interval, _WARM_ROUNDS, settle=load.settle)
    daemon.wait(list(daemon.drive(schedule(warm))), _PATIENCE)
    names = thread_names(daemon.pid)
    steps = [s._replace(bracket=s.bracket + _WARM_ROUNDS) for s in schedule(load)]
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(_RATE), "-g"]
    perf = subprocess.Popen([*command, "-o", str(data), "-p", str(daemon.pid)])
    used = daemon.cpu()
    brackets = list(daemon.drive(steps))
    daemon.wait(brackets, _PATIENCE)
    used = daemon.cpu() - used
    perf.terminate()
    perf.wait(60)
    return {"names": names, "brackets": len(brackets), "cpu": used}


def split(data: Path, names: dict[int, str]) -> tuple[Counter[str], Counter[str]]:
    """Count the samples of each part, and of each symbol outside the JPEG library."""
    command = ["perf", "script", "-i", str(data), "-F", "tid,ip,sym,dso"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    roles = {thread: role(name) for thread, name in names.items()}
    parts: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    for sample in samples(text):
        part = part_of(sample, roles)
        parts[part] += 1
        name, library = sample.chain[0]
        symbols[f"{part}: {name} ({Path(library).name.partition('.')[0]})"] += 1
    return parts, symbols


def plot(result: dict[str, Any], path: Path) -> Path:
    """Draw the parts as bars, in ms of CPU per bracket."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.add_subplot()
    colours = dict(PARTS)
    shares = {name: share for name, share in result["shares"].items() if share > 0}
    names = sorted(shares, key=lambda name: shares[name], reverse=True)
    each = 1000 * result["cpu_per_bracket"]
    bars = axes.barh(names, [shares[n] * each for n in names], color=[colours[n] for n in names])
    axes.bar_label(bars, [f"{100 * shares[n]:.1f} %" for n in names], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"ms of CPU per bracket; {each:.0f} ms in all")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return path


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--cameras", type=int, default=4, help="[%(default)s]")
    parser.add_argument("--interval", type=float, default=4.0, help="[%(default)s s]")
    parser.add_argument("--seconds", type=float, default=60.0, help="[%(default)s]")
    parser.add_argument("--size", type=int, default=2048, help="pixels along a side [%(default)s]")
    parser.add_argument("--symbols", type=int, default=0, metavar="N", help="also the N hottest")
    options = parser.parse_args(arguments)
    beside = Path(sys.executable).parent / "py-spy"
    if not shutil.which("perf") or not (beside.exists() or shutil.which("py-spy")):
        print("left out: perf (linux-perf) and py-spy are needed")
        return
    rounds = max(1, round(options.seconds / options.interval))
    load = Load(options.cameras, options.size, options.interval, rounds)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(jpeg_frames(load.size), load.cameras) as daemon,
    ):
        data = Path(folder) / "perf.data"
        about = record(daemon, load, data)
        parts, symbols = split(data, about.pop("names"))
    total = sum(parts.values())
    shares = {name: parts[name] / total for name, _ in PARTS}
    each = about["cpu"] / about["brackets"]
    result = {**about, "samples": total, "cpu_per_bracket": each, "shares": shares}
    show(
        f"CPU of the daemon: {load.cameras} cameras of 5 × {load.size}², a bracket every"
        f" {load.interval:g} s each ({about['brackets']} brackets, {total} samples)",
        ("", "share", "ms per bracket"),
        [(name, f"{100 * s:.1f} %", f"{1000 * s * each:.1f}") for name, s in shares.items()],
    )
    for name, count in symbols.most_common(options.symbols):
        print(f"{100 * count / total:5.2f} %  {name}")
    drawn = plot(result, result_path("profile.png"))
    print("written:", save("profile", result), drawn)


if __name__ == "__main__":
    main()
