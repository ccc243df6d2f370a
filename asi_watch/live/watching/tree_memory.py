"""What scans remember of a tree: eight bytes a name, and the files that may still change."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from asi_watch.live.messages import Signature

HOT = 24
"""Folders looked into because they changed last, those above them not counted."""

TRACKED_FOR = 900.0
"""Seconds for which a file is followed after its last change."""

# Up to so many folders every one is looked at.
_SMALL = 10 * HOT
# A name may be added in the same tick of the file system's clock as the listing before it.
_RACY = 3.0
_TRACKED = 10_000


@dataclass(frozen=True, slots=True)
class Moment:
    """The time of a scan by both clocks: `wall_ns` since 1970, `monotonic` in seconds."""

    wall_ns: int
    monotonic: float


@dataclass(slots=True)
class Folder:
    """One folder; `seen_at` is when its modification time was first seen, by the monotonic clock.

    `names` holds a hash for every name, `tracked` the signature of each file that may still
    change and when that was first seen.
    """

    mtime_ns: int
    seen_at: float
    listed_at: float
    subfolders: tuple[str, ...] = ()
    names: array[int] = field(default_factory=lambda: array("q"))
    tracked: dict[str, tuple[Signature, float]] = field(default_factory=dict)

    def must_be_listed(self, now: float, trust_mtime: bool) -> bool:
        """Tell whether names may have come without a new modification time."""
        if self.listed_at - self.seen_at <= _RACY:
            return True
        return not trust_mtime and now - self.seen_at < TRACKED_FOR

    def track(self, name: str, signature: Signature, now: float) -> None:
        """Follow a file from now on; of too many the one unchanged for longest is let go."""
        self.tracked.pop(name, None)
        self.tracked[name] = (signature, now)
        if len(self.tracked) > _TRACKED:
            del self.tracked[next(iter(self.tracked))]


class TreeMemory:
    """The folders of one tree by their paths, and which of them changed last."""

    def __init__(self) -> None:
        self.folders: dict[str, Folder] = {}
        self._hot: dict[str, None] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.folders.clear()
        self._hot.clear()

    def counts(self) -> dict[str, int]:
        """Give the sizes of what is remembered."""
        return {
            "folders": len(self.folders),
            "names": sum(len(f.names) for f in self.folders.values()),
            "tracked": sum(len(f.tracked) for f in self.folders.values()),
        }

    def changed(self, path: str) -> None:
        """Note that a folder has changed."""
        self._hot[path] = None
        if len(self._hot) > 4 * HOT:
            self._hot = dict.fromkeys(self._newest(self._hot))

    def warm_up(self) -> None:
        """Take the folders that changed last from all of them."""
        self._hot = dict.fromkeys(self._newest(self.folders))

    def hot(self) -> list[str]:
        """Name the folders that files may come into, those most lately changed first.

        The folders above each are named before it.
        """
        ordered: dict[str, None] = {"": None}
        for path in self._newest(self._hot):
            ordered.update(dict.fromkeys(_with_ancestors(path)))
        return list(ordered)

    def chain(self) -> set[str]:
        """Name the folders worth a look, and all above them."""
        chain = {""}
        for path in self.folders if len(self.folders) <= _SMALL else self._hot:
            chain.update(_with_ancestors(path))
        return chain

    def replace_subfolders(self, known: Folder, subfolders: tuple[str, ...]) -> list[str]:
        """Take in a folder's present subfolders, forget those gone, name the unknown ones."""
        gone, known.subfolders = set(known.subfolders).difference(subfolders), subfolders
        for path in gone:
            self.forget(path)
        return [path for path in subfolders if path not in self.folders]

    def forget(self, path: str) -> None:
        """Forget a folder and all below it."""
        pending = [path]
        while pending:
            gone = pending.pop()
            known = self.folders.pop(gone, None)
            self._hot.pop(gone, None)
            pending += known.subfolders if known else ()

    def _newest(self, paths: Iterable[str]) -> list[str]:
        return heapq.nlargest(HOT, (p for p in paths if p in self.folders), key=self._rank)

    def _rank(self, path: str) -> tuple[float, int, str]:
        known = self.folders[path]
        return known.seen_at, known.mtime_ns, path


def _with_ancestors(path: str) -> list[str]:
    """Name the folders from below the root down to this one."""
    parts = path.split("/") if path else []
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]
