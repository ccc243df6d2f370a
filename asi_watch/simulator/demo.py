"""`make demo`: a simulated camera and the real daemon, watched for a minute."""

import argparse
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asi_watch.live.ledger.ledger import FILE_NAME, Ledger
from asi_watch.live.ledger.records import BracketRecord

_BRACKETS = 12
_TIME_LIMIT = 150.0
_CONFIG = """\
# What the demo's daemon runs on; `asi-watch check -c` prints it with every default.
state_dir: state
cameras:
  demo:
    watch: camera
    output: hdr
    without_response: wait          # the first brackets wait until a curve is calibrated from them
    bracket: {exposures: [80, 160, 320, 640, 1280]}
    products: [{format: jpg, quality: 95}, {format: exr}]
    recalibrate: {every: never, brackets: 3}
"""


def main() -> int:
    """Run the demo; the exit code is 0 when HDR products lie there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder, emptied first")
    parser.add_argument("--size", default="1024", help="pixels along a side")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    for name in ("camera", "hdr", "state"):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "camera").mkdir(parents=True)
    (out / "asi-watch.yaml").write_text(_CONFIG)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"A simulated all-sky camera and the real daemon, in {out}")
    size = ("--size", options.size, "--brackets", str(_BRACKETS))
    camera = ("simulate", "--out", str(out / "camera"), *size, "--speed", "10", "--seed", "4")
    with _started(out, "run", "-c", str(out / "asi-watch.yaml")), _started(out, *camera):
        records = _watch_progress(out, console)
    if not records:
        console.print(f"No HDR image was made; the reason is in {out / 'run.log'}")
        return 1
    console.print(f"\n{len(records)} HDR images, each a JPEG and an OpenEXR radiance map:")
    for record in records:
        console.print(f"  {out / 'hdr' / record.products[0]}")
    for plot in sorted((out / "state" / "curves").rglob("*.png")):
        console.print(f"response curve, calibrated on the way:\n  {plot}")
    console.print(f"the daemon's log:\n  {out / 'run.log'}")
    return 0 if len(records) >= 3 else 1


@contextlib.contextmanager
def _started(out: Path, *arguments: str) -> Iterator[None]:
    """Run one command of asi-watch meanwhile."""
    command = [sys.executable, "-m", "asi_watch", *arguments]
    log = out / f"{arguments[0]}.log"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.terminate()


def _watch_progress(out: Path, console: Console) -> list[BracketRecord]:
    deadline = time.monotonic() + _TIME_LIMIT
    records: list[BracketRecord] = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        taken = progress.add_task("exposures taken ", total=5 * _BRACKETS)
        merged = progress.add_task("HDR images      ", total=_BRACKETS)
        while len(records) < _BRACKETS and time.monotonic() < deadline:
            time.sleep(0.25)
            if (out / "state" / FILE_NAME).exists():
                with Ledger(out / "state", read_only=True) as ledger:
                    records = [r for r in ledger.history() if r.state == "published"]
            progress.update(taken, completed=len(list((out / "camera").rglob("*.jpg"))))
            progress.update(merged, completed=len(records))
    return records


if __name__ == "__main__":
    sys.exit(main())
