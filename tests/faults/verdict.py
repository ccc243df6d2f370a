"""What must be true of a site at the end, whatever happened to it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from PIL import Image

from asi_watch.brackets import Exposure, chosen_files, slot_of
from asi_watch.errors import ImageError
from asi_watch.images import read_image
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.naming import NamePattern
from asi_watch.products import read_provenance
from tests.integration.daemon import Site

PATTERN = NamePattern("{timestamp:%Y%m%d%H%M%S}_{exposure}", "us", {}, "UTC")
STEP = timedelta(seconds=30)


@dataclass
class OnDisk:
    """The files of one slot as they lie in the watch folder."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    usable: list[Exposure] = field(default_factory=list)

    @property
    def chosen(self) -> dict[float, Exposure]:
        """What is to be merged."""
        return chosen_files(self.usable)


def files_by_slot(watch: Path) -> dict[datetime, OnDisk]:
    """All exposures of a watch folder, and which of them are whole."""
    slots: dict[datetime, OnDisk] = defaultdict(OnDisk)
    for path in sorted(watch.rglob("*.jpg")):
        named = PATTERN.parse(path.name)
        if named is None:
            continue
        there = slots[slot_of(named.timestamp, STEP)]
        status = path.lstat()
        name = str(path.relative_to(watch))
        there.files[name] = (status.st_size, status.st_mtime_ns)
        try:
            read_image(path)
        except ImageError:
            continue
        there.usable.append(
            Exposure(name, named.timestamp, named.exposure_us, status.st_size, status.st_mtime_ns)
        )
    return dict(slots)


def unsettled(site: Site, slots: dict[datetime, OnDisk]) -> list[str]:
    """Files of which the ledger does not say yet what became of them."""
    rows = site.rows()
    return [
        name
        for slot, there in slots.items()
        for name, signature in there.files.items()
        if slot not in rows or not rows[slot].knows(name, signature)
    ]


def check(site: Site, slots: dict[datetime, OnDisk], *, min_exposures: int) -> Counter[str]:
    """Compare folder, ledger and products; returns counts for the table.

    Every exposure on disk is in its bracket's row. Every bracket with enough exposures has one
    product, whole, made from the files that are to be chosen, and its row says the same. No
    revision came without a late exposure. Nothing was merged twice. Nothing lies about.
    """
    rows = site.rows()
    assert unsettled(site, slots) == []
    counts = Counter(brackets=len(slots), exposures=sum(len(s.files) for s in slots.values()))
    for slot, there in slots.items():
        row = rows[slot]
        if len(there.chosen) < min_exposures:
            assert row.state == "skipped", row
            counts["skipped"] += 1
            continue
        assert row.state == "published", row
        wanted = {(e.path, e.size, e.mtime_ns) for e in there.chosen.values()}
        assert {(e.path, e.size, e.mtime_ns) for e in row.inputs} == wanted
        check_products(site, row)
        assert row.revision - 1 <= row.late, f"revised without a late exposure: {row}"
        counts["published"] += 1
        counts["revisions"] += row.revision - 1
    made = {str(p.relative_to(site.output)) for p in site.output.rglob("*") if p.is_file()}
    assert made == {p for row in rows.values() for p in row.products}
    assert site.leftovers() == []
    assert merged_twice(site) == []
    return counts


def check_products(site: Site, row: BracketRecord) -> None:
    """Each product of a row decodes strictly, and names exactly the inputs of the row."""
    assert row.products
    for product in row.products:
        path = site.output / product
        decode_strictly(path)
        provenance = read_provenance(path)
        assert provenance.slot == row.slot
        assert provenance.revision == row.revision
        assert {(s.path, s.size, s.mtime_ns, s.exposure_us) for s in provenance.sources} == {
            (e.path, e.size, e.mtime_ns, e.exposure_us) for e in row.inputs
        }


def decode_strictly(path: Path) -> None:
    """Raise where a product is not whole."""
    if path.suffix == ".jpg":
        read_image(path)
    elif path.suffix in {".png", ".jp2"}:
        # Pillow checks the sums of all chunks, and refuses streams that end early.
        with Image.open(path) as image:
            image.load()


_MERGED = re.compile(r'msg="bracket published".*? slot=(\S+)(?:.*? revision=(\d+))?.*? latency=')


def merged_twice(site: Site) -> list[str]:
    """Slots merged twice under one revision, says the log (an adopted one has no latency)."""
    seen = Counter((m[1], m[2] or "1") for m in _MERGED.finditer(site.log_text()))
    return [f"{slot} revision {revision}" for (slot, revision), n in seen.items() if n > 1]


def crashes_in(lines: Iterable[str]) -> list[str]:
    """Lines of a log that tell of an error nobody foresaw."""
    return [line for line in lines if "crashed" in line or "Traceback" in line]
