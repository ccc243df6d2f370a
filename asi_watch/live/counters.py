"""What has happened to files and brackets since the daemon started."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, fields
from typing import Literal

# A few hundred KB at most; what comes again is rarely older.
_REMEMBERED = 5_000

Once = Literal["names_ignored", "skipped", "parked"]


@dataclass(slots=True)
class Counters:
    """What has happened since the daemon started; every file ends in one of these."""

    files_found: int = 0
    names_ignored: int = 0
    exposures_read: int = 0
    files_unusable: int = 0
    files_vanished: int = 0
    duplicates: int = 0
    late: int = 0
    late_ignored: int = 0
    published: int = 0
    incomplete: int = 0
    revisions: int = 0
    adopted: int = 0
    skipped: int = 0
    merge_failures: int = 0
    parked: int = 0
    _counted: dict[Once, dict[Hashable, None]] = field(default_factory=dict)

    def count_once(self, name: Once, what: Hashable) -> None:
        """Count a file or a bracket that may come again, as a bracket does that is tried again."""
        known = self._counted.setdefault(name, {})
        if what in known:
            return
        if len(known) >= _REMEMBERED:
            del known[next(iter(known))]
        known[what] = None
        setattr(self, name, getattr(self, name) + 1)

    def take_back(self, name: Once, what: Hashable) -> None:
        """Count a bracket no longer that came to something after all."""
        known = self._counted.get(name, {})
        if what in known:
            del known[what]
            setattr(self, name, getattr(self, name) - 1)

    def as_dict(self) -> dict[str, int]:
        """Give the counters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name[0] != "_"}

    def take_over(self, earlier: Counters) -> None:
        """Go on where others stopped."""
        for name, count in earlier.as_dict().items():
            setattr(self, name, count)
        self._counted = earlier._counted
