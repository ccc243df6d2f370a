"""Proof that events arrive. A watch can be deaf while every thread of it is alive.

Two proofs, since not every watch folder may be written to:

- a *canary*: a dot-file is made in the watch folder and removed, and its event is waited for;
- *comparison*: every file that a scan finds in a watched folder must have been told by an event.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from urllib.parse import quote

PATIENCE = 2.0
"""Seconds an event may take."""

_PATIENCE_IN_A_FLOOD = 30.0
_CANARY_EVERY = 60.0
_REMEMBERED = 100_000
_PENDING = 1000


class Canary:
    """A dot-file whose event proves the way from the kernel to the handler.

    Parameters
    ----------
    root : Path
        The watch folder.
    camera : str
        Part of the file's name; what a killed daemon left behind is taken over by the next.
    """

    def __init__(self, root: Path, camera: str) -> None:
        self.name = f".asi-watch-canary-{quote(camera, safe='')[:100]}"
        self._path = root / self.name
        self._sent_at: float | None = None
        self._late = False
        self.refused: str | None = None
        """Why the file cannot be made, None if it can."""

    def send(self, now: float) -> None:
        """Make the file and remove it; without the right to do so, note why in `refused`."""
        self._sent_at, self._late, self.refused = now, False, None
        try:
            self._path.unlink(missing_ok=True)
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._path.unlink()
        except OSError as error:
            self._sent_at = None
            self.refused = error.strerror or str(error)

    def heard(self) -> None:
        """Take note that an event came: this file's, or any other's."""
        self._sent_at = None

    def is_silent(self, now: float) -> bool:
        """Tell whether the event is overdue; true at the second look that finds it so."""
        if self._sent_at is None or now - self._sent_at < PATIENCE:
            return False
        # A process that was stopped finds every wait over at once: it gets a second look.
        silent, self._late = self._late, True
        return silent


class EventProof:
    """Judges whether the events of one watcher can be trusted.

    `told` may be called from any thread, everything else from one.

    Parameters
    ----------
    canary : Canary
    now : float
        Monotonic time.
    """

    def __init__(self, canary: Canary, now: float) -> None:
        self._canary = canary
        self._lock = threading.Lock()
        self._told: set[int] = set()
        self._told_before: set[int] = set()
        self._pending: dict[str, float] = {}
        self._overdue = False
        self._overran = False
        self._heard_at = self._sent_at = now - _CANARY_EVERY

    def told(self, path: str, now: float) -> bool:
        """Take note of an event; false for the canary's own, which is nobody else's business."""
        self._heard_at = now
        self._canary.heard()
        if path == self._canary.name:
            return False
        with self._lock:
            if len(self._told) < _REMEMBERED:
                self._told.add(hash(path))
            else:
                self._overran = True
        return True

    def found(self, path: str, now: float) -> None:
        """Take note that a scan found a new file in a folder that was watched before it came."""
        if not self._was_told(path) and len(self._pending) < _PENDING:
            self._pending.setdefault(path, now)

    def scan_over(self) -> None:
        """Forget the events before the scan before: what they told of has been found."""
        with self._lock:
            self._told_before, self._told = self._told, set()
            if self._overran:
                self._pending.clear()
            self._overran = False

    def excuse(self) -> None:
        """Hold nothing against the watch: events are known to have been lost."""
        self._pending.clear()

    @property
    def method(self) -> str:
        """Name the proof in use."""
        return "comparison" if self._canary.refused else "canary"

    def judge(self, now: float) -> str | None:
        """Say why the events cannot be trusted, None if nothing speaks against them."""
        self._pending = {p: at for p, at in self._pending.items() if not self._was_told(p)}
        # While events stream in, the one that is missing may still be on its way.
        patience = _PATIENCE_IN_A_FLOOD if now - self._heard_at < 1.0 else PATIENCE
        overdue = any(now - at >= patience for at in self._pending.values())
        overdue_before, self._overdue = self._overdue, overdue
        # A process that was stopped gets a second look, as with the canary.
        if overdue and overdue_before:
            return f"{len(self._pending)} new files came without an event"
        if self._canary.is_silent(now):
            return f"no event of our own test file within {PATIENCE:g} s"
        # Real events are proof enough; the canary speaks when the camera is silent.
        if now - max(self._heard_at, self._sent_at) >= _CANARY_EVERY:
            self._sent_at = now
            self._canary.send(now)
        return None

    def _was_told(self, path: str) -> bool:
        with self._lock:
            return self._overran or hash(path) in self._told or hash(path) in self._told_before
