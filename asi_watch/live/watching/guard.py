"""Keeps the events of a watch folder trustworthy: begins them, judges them, begins them anew."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from asi_watch.live.watching.liveness import Canary, EventProof
from asi_watch.live.watching.mounts import file_system_of, is_remote
from asi_watch.live.watching.watcher import Seen, Watcher, WatchError
from asi_watch.logs import event

log = logging.getLogger(__name__)

WatchMode = Literal["auto", "events", "polling"]
Need = Literal["nothing", "scan", "sweep"]

_BACKOFF, _LONGEST_BACKOFF, _HEALTHY_AFTER = 2.0, 600.0, 600.0

_LIMIT_HINT = (
    "raise fs.inotify.max_user_watches, fs.inotify.max_user_instances or the service's TasksMax"
)
_DEAF_HINT = "nothing is lost, polling finds it; if this comes again, set watch_mode: polling"
_OVERFLOW_HINT = "nothing is lost; if this comes often, raise fs.inotify.max_queued_events"


class EventGuard:
    """Owns one camera's watcher and decides whether its events can be trusted.

    Called by the intake thread only; `seen` and `folder_appeared` are called by watchdog's.

    Parameters
    ----------
    camera : str
    root : Path
    mode : {"auto", "events", "polling"}
    seen : callable
        Told of files as `Watcher` tells them, without our own test file.
    folder_appeared : callable
    monotonic : callable
        Seconds.
    make_watcher : callable
        Makes a `Watcher`.
    """

    def __init__(
        self,
        camera: str,
        root: Path,
        mode: WatchMode,
        seen: Seen,
        folder_appeared: Callable[[str], None],
        monotonic: Callable[[], float],
        make_watcher: Callable[..., Watcher] = Watcher,
    ) -> None:
        self._camera, self._root, self._mode = camera, root, mode
        self._seen, self._folder_appeared = seen, folder_appeared
        self._monotonic, self._make_watcher = monotonic, make_watcher
        self._watcher: Watcher | None = None
        self._proof: EventProof | None = None
        self._retry_at = self._since = float("-inf")
        self._backoff = 0.0
        self._watched_at_scan: set[str] = set()
        self._told_limit = False
        self.state = "starting"
        """Events or polling, and why."""
        self.remote = False
        """True where files may appear without an event: network shares and the like."""
        self.unwatched: list[str] = []
        """Folders that files may come into and that could not be watched."""
        self.rebuilds = 0
        self.overflows = 0

    # -- life -------------------------------------------------------------------------------

    def look_after(self, now: float) -> Need:
        """Judge the events, begin them anew where needed.

        Returns
        -------
        {"nothing", "scan", "sweep"}
            What the folder itself must be read for, because events may have been missed.
        """
        need: Need = "nothing"
        watcher, proof = self._watcher, self._proof
        if watcher is not None and proof is not None:
            if watcher.take_overflow():
                self._overflowed(proof)
                need = "sweep"
            fault = watcher.fault() or proof.judge(now)
            if fault is None:
                if now - self._since > _HEALTHY_AFTER:
                    self._backoff = 0.0
                self._show_state(watcher, proof)
                return need
            self._distrust(fault, now)
            need = "scan"
        if now >= self._retry_at and self._begin(now):
            return "scan"
        return need

    def stop(self) -> None:
        """End the events; `look_after` begins them again at once."""
        watcher, self._watcher, self._proof = self._watcher, None, None
        self._watched_at_scan, self.unwatched = set(), []
        self._retry_at = float("-inf")
        if watcher is not None:
            watcher.stop()

    # -- scans ------------------------------------------------------------------------------

    def entering(self, folder: str) -> None:
        """Watch a folder that is about to be listed."""
        if self._watcher is not None:
            self._watcher.add(folder)

    def scan_begins(self) -> Callable[[str, float], None]:
        """Give what is to be told of every new file that the scan finds, with the time."""
        watched = self._watcher.folders() if self._watcher is not None else set()
        # Watched since before the last scan: what is new in there must have given an event.
        surely_told, self._watched_at_scan = watched & self._watched_at_scan, watched
        proof = self._proof

        def found(path: str, now: float) -> None:
            if proof is not None and path.rpartition("/")[0] in surely_told:
                proof.found(path, now)

        return found

    def scan_over(self, hot: list[str]) -> bool:
        """Watch the folders that files may come into now.

        Returns
        -------
        bool
            True when a folder is watched that was not: what came before, the next scan finds.
        """
        watcher, proof = self._watcher, self._proof
        if watcher is None or proof is None:
            return False
        before = watcher.folders()
        self.unwatched = watcher.keep(hot)
        proof.scan_over()
        self._show_state(watcher, proof)
        return bool(watcher.folders() - before)

    # -- what can be asked ------------------------------------------------------------------

    @property
    def method(self) -> str | None:
        """How the events are proved: canary or comparison; None without events."""
        return self._proof.method if self._proof is not None else None

    @property
    def watched(self) -> int:
        """Folders watched."""
        return self._watcher.count if self._watcher is not None else 0

    # -- inside -----------------------------------------------------------------------------

    def _begin(self, now: float) -> bool:
        kind = file_system_of(self._root)
        self.remote = is_remote(kind)
        if self._mode == "polling":
            self.state = "polling (configured)"
        elif self._mode == "auto" and self.remote:
            self.state = f"polling ({kind} gives no events)"
        else:
            return self._start_watcher(now)
        return False

    def _start_watcher(self, now: float) -> bool:
        proof = EventProof(Canary(self._root, self._camera), now)
        told = functools.partial(self._told, proof)
        watcher = self._make_watcher(self._root, told, self._folder_appeared)
        try:
            watcher.start()
        except WatchError as error:
            self._no_events(str(error), now)
            return False
        self._watcher, self._proof, self._since = watcher, proof, now
        proof.judge(now)
        self._show_state(watcher, proof)
        event(
            log,
            logging.INFO,
            "watching",
            camera=self._camera,
            folder=self._root,
            proof=proof.method,
        )
        return True

    def _no_events(self, reason: str, now: float) -> None:
        before, self.state = self.state, f"polling ({reason})"
        self._lengthen_backoff()
        self._retry_at = now + self._backoff
        if self.state != before:
            event(
                log,
                logging.WARNING,
                "no events, polling instead",
                camera=self._camera,
                reason=reason,
                hint=_LIMIT_HINT if "limit" in reason or "Too many" in reason else None,
            )

    def _told(self, proof: EventProof, path: str, settled: bool) -> None:
        if proof.told(path, self._monotonic()):
            self._seen(path, settled)

    def _overflowed(self, proof: EventProof) -> None:
        self.overflows += 1
        # What the next scan finds is nothing to hold against the watch.
        proof.excuse()
        self._watched_at_scan = set()
        event(
            log,
            logging.WARNING,
            "events lost by the kernel, reading the folder",
            camera=self._camera,
            hint=_OVERFLOW_HINT,
        )

    def _distrust(self, fault: str, now: float) -> None:
        """Give up a watcher that proved deaf; polling carries on until a new one is up."""
        self.rebuilds += 1
        self.stop()
        self.state = f"polling ({fault})"
        self._retry_at = now + self._backoff
        event(
            log,
            logging.WARNING,
            "events cannot be trusted, watching anew",
            camera=self._camera,
            reason=fault,
            again_in=f"{self._backoff:g} s",
            hint=_DEAF_HINT,
        )
        # The first time at once, then after growing pauses.
        self._lengthen_backoff()

    def _lengthen_backoff(self) -> None:
        self._backoff = min(max(_BACKOFF, 2 * self._backoff), _LONGEST_BACKOFF)

    def _show_state(self, watcher: Watcher, proof: EventProof) -> None:
        remarks = []
        if proof.method != "canary":
            remarks.append("proved by comparison with scans: no test file may be written")
        if watcher.limit is not None:
            remarks.append(f"{watcher.limit}: {len(self.unwatched)} folders polled")
        elif self.unwatched:
            remarks.append(f"{len(self.unwatched)} more folders polled")
        self.state = f"events ({'; '.join(remarks)})" if remarks else "events"
        if watcher.limit is not None and not self._told_limit:
            event(
                log,
                logging.WARNING,
                "watch limit reached, polling what cannot be watched",
                camera=self._camera,
                reason=watcher.limit,
                folders=len(self.unwatched),
                hint=_LIMIT_HINT,
            )
        self._told_limit = watcher.limit is not None
