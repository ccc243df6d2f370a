"""How much image memory open merges may hold, over all cameras."""

from __future__ import annotations

import threading


class MemoryBudget:
    """Counts bytes held. It refuses new work beyond the limit, never work that has begun.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    def has_room(self) -> bool:
        """Tell whether new work may begin."""
        return self._held < self.limit

    def change(self, difference: int) -> None:
        """Count bytes taken (positive) or given back (negative)."""
        with self._lock:
            self._held += difference
