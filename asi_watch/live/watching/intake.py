"""How one camera's files come in: the watcher's events, and scans that find what events missed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asi_watch.config.model import CameraConfig
from asi_watch.live.messages import Found, FoundFile, Inbox, ScanDone
from asi_watch.live.watching.guard import EventGuard
from asi_watch.live.watching.scanning import TreeScanner
from asi_watch.live.watching.tree_memory import Moment
from asi_watch.live.watching.watch_root import WatchRoot
from asi_watch.live.watching.watcher import Watcher
from asi_watch.logs import failure

log = logging.getLogger(__name__)

_HEALTH_EVERY = 2.0
_POLL_EVERY = 2.0
_COMPARE_EVERY = 5.0
_SWEEP_EVERY = 600.0
_SWEEP_SLICE, _SWEEP_PAUSE = 0.05, 0.2
_LONGEST_PAUSE = 600.0
# A scan may take a twentieth of the time, a sweep a hundredth.
_SCAN_SHARE, _SWEEP_SHARE = 20.0, 100.0
_INBOX_FULL = 1000
# A dead share answers nothing for as long as it is away.
_SILENCE = 15.0
_AFTER_WAKING = 0.05
_AFTER_NEW_WATCHES = 0.2


@dataclass(slots=True)
class IntakeCounters:
    """What has happened since the daemon started."""

    scans: int = 0
    sweeps: int = 0
    found_by_scan: int = 0
    replaced: int = 0
    crashes: int = 0


class Intake:
    """The thread that keeps one camera's folder under watch and reconciles it by scans.

    Parameters
    ----------
    camera : str
    rules : CameraConfig
    wanted : callable
        Tells by its name whether a file is of interest.
    inbox : Inbox
        Where what is found goes.
    monotonic, wall_ns : callable
        The clocks, in seconds and in nanoseconds since 1970.
    watcher : callable
        Makes a `Watcher`.
    """

    def __init__(
        self,
        camera: str,
        rules: CameraConfig,
        wanted: Callable[[str], bool],
        inbox: Inbox,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        watcher: Callable[..., Watcher] = Watcher,
    ) -> None:
        self._camera, self._rules, self._wanted, self._inbox = camera, rules, wanted, inbox
        self._monotonic, self._wall_ns = monotonic, wall_ns
        self._guard = EventGuard(
            camera, rules.watch, rules.watch_mode, self._seen, self._appeared, monotonic, watcher
        )
        self._scanner = TreeScanner(
            str(rules.watch), wanted, rules.stable_for.total_seconds(), self._guard.entering
        )
        self._wake, self._halt = threading.Event(), threading.Event()
        self._scan_asked = self._sweep_asked = False
        now = monotonic()
        self._root = WatchRoot(camera, rules.watch)
        self._first, self._looking = True, False
        self._last_file_at = self._stepped_at = self._next_scan = now
        self._asked_at: float | None = None
        self._silence_told = False
        self._next_sweep = now + _SWEEP_EVERY
        self._scan_took = self._sweep_took = self._waited = 0.0
        self._thread = threading.Thread(target=self._run, name=f"intake-{camera}", daemon=True)
        self.held_back = False
        """Set by the owner while it can take nothing more: scans wait where they are."""
        self.counters = IntakeCounters()

    @property
    def state(self) -> str:
        """What `status` shows: events, polling and why, or what is wrong with the folder."""
        return self._silence() or self._root.lost or self._guard.state

    def take_silence(self) -> str | None:
        """Say once that the folder gives no answer; asked by the owner, as this thread hangs."""
        silence = self._silence()
        told, self._silence_told = self._silence_told, silence is not None
        return None if told else silence

    def _silence(self) -> str | None:
        asked_at = self._asked_at
        waited = 0.0 if asked_at is None else self._monotonic() - asked_at
        return f"watch folder has not answered for {waited:.0f} s" if waited > _SILENCE else None

    @property
    def owes_scan(self) -> bool:
        """True while something may lie in the folder that has not been handed over.

        It is lost, or new, or back, or events were; a periodic sweep counts as well.
        """
        return (
            self._looking
            or self._first
            or self._root.lost is not None
            or self._scan_asked
            or self._sweep_asked
            or self._scanner.sweeping
        )

    def start(self) -> None:
        """Begin watching and scanning."""
        self._thread.start()

    def request_scan(self) -> None:
        """Scan soon, and everything: something may have been missed."""
        self._scan_asked = self._sweep_asked = True
        self._wake.set()

    def stop(self) -> None:
        """End watching and scanning; no message is sent after this returns."""
        self._halt.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(10)
        self._guard.stop()

    def facts(self) -> dict[str, object]:
        """Give what `status` may show beside `state`; may be called from any thread."""
        guard, counters = self._guard, self.counters
        return {
            "proof": guard.method,
            "folders_watched": guard.watched,
            "folders_unwatched": len(guard.unwatched),
            "folders_unreadable": self._scanner.unreadable,
            "rebuilds": guard.rebuilds,
            "overflows": guard.overflows,
            "replaced": counters.replaced,
            "crashes": counters.crashes,
            "scans": counters.scans,
            "sweeps": counters.sweeps,
            "found_by_scan": counters.found_by_scan,
            "scan_seconds": round(self._scan_took, 4),
            "looked_seconds_ago": round(self._monotonic() - self._stepped_at, 1),
        }

    # -- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._halt.is_set():
            self._looking = True
            try:
                pause = self.step()
            # The one boundary of this thread: it must not end while the daemon lives.
            except Exception as error:  # noqa: BLE001
                self.counters.crashes += 1
                pause = _HEALTH_EVERY
                failure(log, "scan crashed", error, camera=self._camera)
            self._looking = False
            if self._wake.wait(pause):
                # Folders come in bursts; one look finds them all.
                self._halt.wait(_AFTER_WAKING)

    def step(self) -> float:
        """Do what is due: look after root and events, scan, sweep a little.

        Returns
        -------
        float
            Seconds until something is due again, if nothing wakes the thread before.
        """
        self._wake.clear()
        now = self._stepped_at = self._monotonic()
        if not self._root_is_there():
            return _POLL_EVERY
        # Watching comes before scanning, so that nothing falls in between.
        need = self._guard.look_after(now)
        self._sweep_asked |= need == "sweep"
        if need != "nothing" or self._scan_asked or self._first or now >= self._next_scan:
            self._scan(now)
        self._sweep(now)
        if self._scanner.sweeping:
            return _SWEEP_PAUSE
        return max(0.0, min(self._next_scan - self._monotonic(), _HEALTH_EVERY))

    def _root_is_there(self) -> bool:
        self._asked_at = self._monotonic()
        sight = self._root.look()
        self._asked_at = None
        if sight in ("lost", "another"):
            self._guard.stop()
        if sight == "another":
            self.counters.replaced += 1
            self._first = True
        elif sight == "back":
            self._scan_asked = self._sweep_asked = True
        return sight != "lost"

    # -- events -----------------------------------------------------------------------------

    def _seen(self, path: str, settled: bool) -> None:
        if self._wanted(path.rpartition("/")[2]):
            now = self._last_file_at = self._monotonic()
            self._inbox.put_event(self._camera, path, settled, now)

    def _appeared(self, _folder: str) -> None:
        self._scan_asked = True
        self._wake.set()

    # -- scans ------------------------------------------------------------------------------

    def _scan(self, now: float) -> None:
        first, self._scan_asked = self._first, False
        scanner, moment = self._scanner, Moment(self._wall_ns(), now)
        new_file = self._guard.scan_begins()
        scanner.trust_mtime = self._guard.method is not None and not self._guard.remote
        if first:
            scanner.trust_inodes = not self._guard.remote
            files = self._hand_over(scanner.first(moment, self._lookback(now)))
        else:
            files = self._hand_over(scanner.recent(moment), new_file)
        if self._halt.is_set():
            return
        self._first = not scanner.rooted
        self._scan_took = self._monotonic() - now - self._waited
        new_watches = self._guard.scan_over(scanner.hot())
        pause = self._interval() if first else max(self._interval(), _SCAN_SHARE * self._scan_took)
        self._next_scan = now + (_AFTER_NEW_WATCHES if new_watches else min(pause, _LONGEST_PAUSE))
        self.counters.scans += 1
        self._inbox.put(ScanDone(self._camera, self._scan_took, files, first and scanner.rooted))

    def _lookback(self, now: float) -> float:
        """Reach back to where files were last seen to come, however long the root was away."""
        return max(self._rules.scan.lookback.total_seconds(), now - self._last_file_at + 3600.0)

    def _interval(self) -> float:
        if self._guard.method is None or self._guard.unwatched:
            return min(_POLL_EVERY, self._rules.scan.every.total_seconds())
        if self._guard.method != "canary":
            return min(_COMPARE_EVERY, self._rules.scan.every.total_seconds())
        return self._rules.scan.every.total_seconds()

    def _sweep(self, now: float) -> None:
        scanner = self._scanner
        if not scanner.sweeping and (self._sweep_asked or now >= self._next_sweep):
            self._sweep_asked = False
            scanner.begin_sweep()
        if not scanner.sweeping:
            return
        started = self._monotonic()
        self._hand_over(
            scanner.sweep(
                Moment(self._wall_ns(), now),
                lambda: self._monotonic() - started > _SWEEP_SLICE,
            )
        )
        self._sweep_took += self._monotonic() - started - self._waited
        if not scanner.sweeping:
            self.counters.sweeps += 1
            self._next_sweep = now + max(_SWEEP_EVERY, _SWEEP_SHARE * self._sweep_took)
            self._sweep_took = 0.0

    def _hand_over(
        self,
        groups: Iterator[tuple[FoundFile, ...]],
        new_file: Callable[[str, float], None] = lambda path, now: None,
    ) -> int:
        """Give the owner what a scan found, at the owner's pace."""
        files, self._waited = 0, 0.0
        for found in groups:
            began = self._monotonic()
            while self.held_back or len(self._inbox) > _INBOX_FULL:
                if self._halt.wait(_AFTER_WAKING):
                    break
            if self._halt.is_set():
                break
            now = self._last_file_at = self._monotonic()
            self._waited += now - began
            files += len(found)
            self.counters.found_by_scan += len(found)
            self._inbox.put(Found(self._camera, found, now))
            for file in found:
                if file.new_name:
                    new_file(file.path, now)
        return files
