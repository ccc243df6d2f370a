"""A day of brackets as fast as they can be merged, and what the daemon takes meanwhile."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from tests.integration.daemon import PATIENCE, Site, file_name, slot

HOUR = 120  # brackets
DAY = 24 * HOUR
# How many brackets the camera may be ahead: as in life, the daemon is done before the next.
_AHEAD = 1


@dataclass(frozen=True)
class Sample:
    """What the daemon took when so many simulated hours had been written."""

    hours: float
    rss_mib: float
    threads: int
    descriptors: int
    state_kib: float
    wal_kib: float
    temporaries: int


def leave_an_archive(site: Site) -> None:
    """Folders of the day before: the daemon watches the newest few dozens, and had them already."""
    for hour in range(1, 25):
        folder = site.watch / f"{slot(-hour * HOUR):%Y/%m/%d/%H}"
        folder.mkdir(parents=True)


def live_a_day(site: Site, frames: list[bytes], brackets: int, every: float) -> list[Sample]:
    """Write brackets, a few ahead of the daemon, and sample it every so many seconds."""
    samples: list[Sample] = []
    due = time.monotonic()
    for number in range(brackets):
        folder = site.watch / f"{slot(number):%Y/%m/%d/%H}"
        folder.mkdir(parents=True, exist_ok=True)
        for index, content in enumerate(frames):
            (folder / file_name(number, index)).write_bytes(content)
        _wait_for(site, number - _AHEAD)
        if time.monotonic() >= due:
            due = time.monotonic() + every
            samples.append(sample(site, number / HOUR))
    _wait_for(site, brackets - 1)
    samples.append(sample(site, brackets / HOUR))
    return samples


def _wait_for(site: Site, number: int) -> None:
    if number < 0:
        return
    deadline = time.monotonic() + PATIENCE
    product = site.product(number)
    while not product.exists():
        assert site.process is not None
        assert site.process.poll() is None, site.log_text()[-3000:]
        assert time.monotonic() < deadline, f"bracket {number} never came"
        time.sleep(0.005)


def sample(site: Site, hours: float) -> Sample:
    assert site.process is not None
    proc = Path("/proc") / str(site.process.pid)
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
    )
    return Sample(
        hours=round(hours, 3),
        rss_mib=int(status["VmRSS"].split()[0]) / 1024,
        threads=int(status["Threads"]),
        descriptors=sum(1 for _ in (proc / "fd").iterdir()),
        state_kib=sum(_sizes(site.state)) / 1024,
        wal_kib=sum(_sizes(site.state, "*-wal")) / 1024,
        temporaries=len(site.leftovers()),
    )


def _sizes(folder: Path, pattern: str = "*") -> Iterator[int]:
    return (p.stat().st_size for p in folder.glob(pattern) if p.is_file())


def of_hour(samples: list[Sample], hour: int, what: str) -> float:
    """Median over one simulated hour; hour 1 is the second."""
    values = [getattr(s, what) for s in samples if hour <= s.hours <= hour + 1]
    return float(median(values))


def least_of_hour(samples: list[Sample], hour: int, what: str) -> int:
    """Least over one simulated hour: folders are open for moments, what is left behind stays."""
    return min(getattr(s, what) for s in samples if hour <= s.hours <= hour + 1)


def save(samples: list[Sample], folder: Path) -> None:
    """Write the samples as a table and as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(s) for s in samples]
    with (folder / "day.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    shown = [name for name in rows[0] if name != "hours"]
    figure, axes = plt.subplots(len(shown), sharex=True, figsize=(7, 10), layout="constrained")
    for axis, name in zip(axes, shown, strict=True):
        axis.plot([r["hours"] for r in rows], [r[name] for r in rows], linewidth=1)
        axis.set_ylabel(name.replace("_", " "))
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("simulated hours")
    figure.savefig(folder / "day.png", dpi=120)
    plt.close(figure)
