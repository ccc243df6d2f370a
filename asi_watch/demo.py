"""``python -m asi_watch.demo``: a simulated camera and the real daemon, watched for a minute."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asi_watch.live.ledger.ledger import FILE_NAME, Ledger
from asi_watch.live.ledger.records import BracketRecord

BRACKETS = 12
_PATIENCE = 150.0
# Above, a latency tells of the simulator and the first calibration on the same cores.
_UNHURRIED = 2.0

_CONFIG = """\
# What the demo's daemon runs on; `asi-watch check -c` prints it with every default.
state_dir: state
cameras:
  demo:
    watch: camera
    output: hdr
    without_response: wait          # the first brackets wait until a curve is calibrated from them
    bracket: {exposures: [80, 160, 320, 640, 1280]}
    # One scale for all brackets, so that a day's pictures match: as `asi-watch response show`
    # suggests it for this camera's curve.
    merge: {lnE_range: [-13.0, -4.1], gamma: 2.4}
    products: [{format: jpg, quality: 95}, {format: exr}]
    recalibrate: {every: never, brackets: 3}
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    Parameters
    ----------
    arguments : list of str, optional
        Command line; None takes the process's own.

    Returns
    -------
    int
        0 when HDR products lie there, 1 otherwise.
    """
    parser = argparse.ArgumentParser(prog="python -m asi_watch.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder, emptied first")
    parser.add_argument("--size", type=int, default=1024, help="pixels along a side")
    options = parser.parse_args(arguments)
    out: Path = options.out.resolve()
    _prepare(out)
    console = Console(stderr=True, highlight=False)
    console.print(f"A simulated all-sky camera and the real daemon, in {out}")
    with _daemon(out), _camera(out, options.size):
        records = _watch_progress(out, console)
    return _report(out, records, console)


def _prepare(out: Path) -> None:
    for name in ("camera", "hdr", "state"):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "camera").mkdir(parents=True)
    (out / "asi-watch.yaml").write_text(_CONFIG)


@contextlib.contextmanager
def _daemon(out: Path) -> Iterator[None]:
    with (out / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "asi_watch", "run", "-c", str(out / "asi-watch.yaml")],
            stderr=log,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextlib.contextmanager
def _camera(out: Path, size: int) -> Iterator[None]:
    with (out / "camera.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "asi_watch", "simulate", "--out", str(out / "camera")),
                *("--size", str(size), "--brackets", str(BRACKETS), "--speed", "10"),
                *("--interval", "30s", "--seed", "4"),
            ],
            stderr=log,
            stdout=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def _watch_progress(out: Path, console: Console) -> list[BracketRecord]:
    deadline = time.monotonic() + _PATIENCE
    records: list[BracketRecord] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        taken = progress.add_task("exposures taken ", total=5 * BRACKETS)
        merged = progress.add_task("HDR images      ", total=BRACKETS)
        while len(records) < BRACKETS and time.monotonic() < deadline:
            time.sleep(0.25)
            records = _records(out)
            frames = sum(1 for _ in (out / "camera").rglob("*.jpg"))
            progress.update(taken, completed=frames)
            progress.update(merged, completed=len(records))
    return records


def _records(out: Path) -> list[BracketRecord]:
    if not (out / "state" / FILE_NAME).exists():
        return []
    with Ledger(out / "state", read_only=True) as ledger:
        return [r for r in ledger.history() if r.state == "published"]


def _report(out: Path, records: list[BracketRecord], console: Console) -> int:
    if not records:
        console.print(f"No HDR image was made; the reason is in {out / 'daemon.log'}")
        return 1
    plots = sorted((out / "state" / "curves").rglob("*.png"))
    # The first brackets waited for the curve; the last ones show the daemon at work.
    latencies = sorted(r.latency for r in records[-3:] if r.latency is not None)
    console.print(
        f"\n{len(records)} HDR images, each a JPEG to look at and an OpenEXR radiance map:"
    )
    for record in records:
        console.print(f"  {out / 'hdr' / record.products[0]}", soft_wrap=True)
    for plot in plots:
        console.print(f"response curve, calibrated on the way:\n  {plot}", soft_wrap=True)
    console.print(f"the daemon's log:\n  {out / 'daemon.log'}", soft_wrap=True)
    if latencies and latencies[0] < _UNHURRIED:
        console.print(f"from the last exposure to the HDR image at best: {latencies[0]:.2f} s")
    else:
        console.print("this computer was busy; docs/performance.md says how fast a daemon is")
    return 0 if len(records) >= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
