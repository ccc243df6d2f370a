"""What has happened to files and brackets since the daemon started."""

from __future__ import annotations

from dataclasses import dataclass, fields


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

    def as_dict(self) -> dict[str, int]:
        """Give the counters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def take_over(self, earlier: Counters) -> None:
        """Go on where others stopped."""
        for name, count in earlier.as_dict().items():
            setattr(self, name, count)
