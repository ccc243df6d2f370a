"""A bracket as an archive holds it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from asi_watch.brackets import Exposure, why_too_many
from asi_watch.errors import BracketError
from asi_watch.files import shown

__all__ = ["ArchiveBracket"]


@dataclass(frozen=True, slots=True)
class ArchiveBracket:
    """The exposures of one slot.

    Parameters
    ----------
    slot : datetime
        Naive, in the clock of the names.
    exposures : tuple of Exposure
        Rising exposure times, each once; paths relative to the archive.
    files : int
        How many files the slot has, repeated exposures included.
    expected : int or None
        Exposures of a complete bracket, where known.
    complete : bool
        Whether all of them are there.
    superseded : tuple of (Exposure, Exposure)
        Files that are not used, and the one of the same exposure time that is.
    intervals : tuple of timedelta
        Between the beginnings of the brackets in this slot, where it holds several.
    """

    slot: datetime
    exposures: tuple[Exposure, ...]
    files: int
    expected: int | None = None
    complete: bool = False
    superseded: tuple[tuple[Exposure, Exposure], ...] = ()
    intervals: tuple[timedelta, ...] = ()

    @property
    def first(self) -> Exposure:
        """The exposure taken first."""
        return min(self.exposures, key=lambda e: (e.timestamp, e.path))

    def check_usable(self, min_exposures: int) -> None:
        """Refuse a bracket that has too little in it.

        Raises
        ------
        BracketError
            With a file of the bracket and the reason.
        """
        name, count = shown(self.first.path), len(self.exposures)
        if count == 1 and self.files > 1:
            raise BracketError(
                f"{name}: all {self.files} exposures of the bracket have the same exposure time"
                f" ({self.first.exposure_us:g} µs)"
            )
        if count == 1:
            raise BracketError(f"{name}: is the only exposure of its bracket")
        too_many = why_too_many(e.exposure_us for e in self.exposures)
        if too_many is not None:
            raise BracketError(f"{name}: {too_many}")
        if count < min_exposures:
            raise BracketError(
                f"{name}: its bracket has {count} exposures, fewer than {min_exposures}"
            )
