"""How one camera's files come in: events as they happen, and scans that find what events missed."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from asi_watch.config.model import CameraConfig
from asi_watch.live.messages import FolderRead, Found, Inbox, ScanDone
from asi_watch.live.watching.observer import Observer, WatchError, file_system_of, is_remote
from asi_watch.live.watching.scanner import MOST_WATCHES, FolderScanner, Moment, Portion
from asi_watch.logs import event, failure

log = logging.getLogger(__name__)

# Seconds, where nothing else is said.
_SCAN_EVERY = 4.0
_POLL_EVERY = 2.0
_ROOT_EVERY = 2.0
_LIST_ALL_EVERY = 600.0
_PASS_SLICE, _PASS_PAUSE = 0.05, 0.2
_LONGEST_PAUSE = 600.0
# A scan may take a twentieth of the time, a pass over all folders a hundredth.
_SCAN_SHARE, _PASS_SHARE = 20.0, 100.0
_AFTER_WAKING = 0.05
_STEP_ENDS = 3.0
_SILENCE = 15.0
# Messages in the inbox, and events remembered during a pause.
_INBOX_FULL, _PASSED_OVER = 1000, 10_000
_COUNTED = ("scans", "passes", "found_by_scan", "overflows", "restarts", "replaced", "crashes")

_LIMIT_HINT = "raise fs.inotify.max_user_watches or fs.inotify.max_user_instances"
_OVERFLOW_HINT = "nothing is lost; if this comes often, raise fs.inotify.max_queued_events"
_ROOT_HINT = "create, mount or open it, or correct cameras.<name>.watch; looking again every 2 s"


class Intake:
    """Keeps one camera's folder under watch and hands over what comes into it.

    Parameters
    ----------
    camera : CameraConfig
    watermarks : mapping of str to int
        As the ledger has them: by folder, the modification time (ns) up to which all is done.
        Empty at the very first start, when the look-back counts.
    inbox : Inbox
        Gets `Found`, `FolderRead` after a folder's files, and `ScanDone`.
    monotonic : callable
        The clock, in seconds.
    """

    def __init__(
        self,
        camera: CameraConfig,
        watermarks: Mapping[str, int],
        inbox: Inbox,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._camera, self._config, self._inbox = camera.name, camera, inbox
        self._monotonic = monotonic
        self._due, self._thread = float("inf"), threading.Thread()
        self._every = camera.scan.every.total_seconds()
        self._scanner = FolderScanner(camera, watermarks)
        self._observer: Observer | None = None
        self._events_state = "starting"
        self._unwatched: list[str] = []
        self._limit_logged = False
        self._others = (0, "")
        self._root_identity: tuple[int, int] | None = None
        self._roots_seen: set[tuple[int, int]] = set()
        self._lost: str | None = None
        now = monotonic()
        self._first = self._scanner.first_start
        self._scan_asked = self._pass_asked = False
        self._next_scan = self._next_observer = float("-inf")
        self._next_pass, self._next_list_all = now + self._every, now + _LIST_ALL_EVERY
        self._scan_took = self._pass_took = self._waited = 0.0
        self._stepped_at = self._last_file_at = now
        self._asked_at: float | None = None
        self._silence_logged = False
        self._halt = threading.Event()
        self.paused = False
        """True between `pause` and `resume`."""
        self._passed_over: dict[str, bool] = {}
        self._counts = dict.fromkeys(_COUNTED, 0)

    def _event(self, level: int, message: str, **facts: object) -> None:
        event(log, level, message, camera=self._camera, **facts)

    def start(self) -> None:
        """Begin watching and scanning, now: what comes after this is new, whatever its age."""
        self._due = float("-inf")
        self.tick(self._monotonic())

    def tick(self, now: float) -> None:
        """Scan if that is due, in a thread: a folder that does not answer holds up nobody else.

        Parameters
        ----------
        now : float
            Monotonic time.
        """
        if self._thread.is_alive():
            self._log_silence()
        elif now >= self._due and not self.stopped:
            self._due = float("inf")
            self._thread = threading.Thread(target=self._run_step, name="scan", daemon=True)
            # Where no further thread can be started now, one will be later.
            try:
                self._thread.start()
            except RuntimeError:
                self._due = now

    def stop(self) -> None:
        """End watching and scanning; no message is sent after this returns."""
        self._halt.set()
        # A folder that does not answer is not waited for: nothing is sent after its answer.
        if self._thread.is_alive() and not self._silence():
            self._thread.join(_STEP_ENDS)
        self._stop_observer()

    def pause(self) -> None:
        """Hand over nothing more: scans wait where they are, events are remembered."""
        self.paused = True

    def resume(self) -> None:
        """Go on; what events reported meanwhile is handed over now."""
        if not self.paused:
            return
        self.paused = False
        passed_over, self._passed_over = self._passed_over, {}
        now = self._monotonic()
        for path, settled in passed_over.items():
            self._inbox.put_event(self._camera, path, settled, now)
        self.request_scan()

    def request_scan(self) -> None:
        """Look at every folder soon: something may have been missed."""
        self._scan_asked = self._pass_asked = True
        self._due = float("-inf")

    @property
    def stopped(self) -> bool:
        """True once `stop` was called."""
        return self._halt.is_set()

    @property
    def state(self) -> str:
        """What `status` shows: events, polling and why, or what is wrong with the folder."""
        return self._silence() or self._lost or self._events_state

    def facts(self) -> dict[str, object]:
        """Give what `status` may show beside `state`; may be called from any thread."""
        return {
            "folders_watched": self._observer.count if self._observer is not None else 0,
            "folders_unwatched": len(self._unwatched),
            "folders_unreadable": self._scanner.unreadable,
            **self._counts,
            "scan_seconds": round(self._scan_took, 4),
            "looked_seconds_ago": round(self._monotonic() - self._stepped_at, 1),
        }

    def _run_step(self) -> None:
        pause = _ROOT_EVERY
        try:
            pause = self.step()
        # The boundary of this thread; the next step begins another.
        except Exception as error:  # noqa: BLE001
            self._counts["crashes"] += 1
            failure(log, "scan crashed", error, camera=self._camera)
            # What was listed may not have been handed over.
            self._scanner.forget_tree()
        finally:
            self._asked_at = None
            # Something may have asked for another scan meanwhile.
            self._due = min(self._due, self._monotonic() + pause)

    def step(self) -> float:
        """Look after root and events, scan, go on with a pass; return the seconds to the next."""
        now = self._stepped_at = self._asked_at = self._monotonic()
        if not self._root_is_there():
            return _ROOT_EVERY
        # Watching comes before scanning, so that nothing falls in between.
        self._look_after_events(now)
        if self._scan_asked or now >= self._next_scan:
            self._scan(now)
        self._pass(now)
        self._asked_at = None
        if self._scanner.passing:
            return _PASS_PAUSE
        return max(0.0, self._next_scan - self._monotonic())

    def _log_silence(self) -> None:
        silence = self._silence()
        if silence is not None and not self._silence_logged:
            self._event(logging.ERROR, "watch folder does not answer")
        self._silence_logged = silence is not None

    def _silence(self) -> str | None:
        asked_at = self._asked_at
        waited = 0.0 if asked_at is None else self._monotonic() - asked_at
        return f"watch folder has not answered for {waited:.0f} s" if waited > _SILENCE else None

    def _root_is_there(self) -> bool:
        """Look whether the watch folder is there, and still the same."""
        try:
            status = self._config.watch.stat()
            os.scandir(self._config.watch).close()
        except FileNotFoundError:
            return self._root_is_lost("watch folder is missing")
        # RuntimeError: a loop of symbolic links.
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return self._root_is_lost(f"watch folder is unreadable: {reason}")
        if self._lost is not None:
            self._event(logging.INFO, "watch folder is back")
            self._lost, self._scan_asked, self._pass_asked = None, True, True
        identity = (status.st_dev, status.st_ino)
        if self._root_identity not in (None, identity):
            self._root_was_replaced(identity)
        self._root_identity = identity
        self._roots_seen.add(identity)
        return True

    def _root_is_lost(self, state: str) -> bool:
        if self._lost != state:
            self._lost = state
            self._event(logging.ERROR, state, folder=self._config.watch, hint=_ROOT_HINT)
            self._stop_observer()
        return False

    def _root_was_replaced(self, identity: tuple[int, int]) -> None:
        text = "another folder in place of the watch folder, reading it whole"
        self._event(logging.WARNING, text, folder=self._config.watch)
        self._counts["replaced"] += 1
        self._stop_observer()
        self._scanner.forget_tree()
        # A share that was mounted after the daemon's first start is as new to it as to that start.
        self._first = self._scanner.nothing_below_done
        self._scan_asked = True
        if identity not in self._roots_seen:
            # Its watermarks may be those of another folder.
            self._scanner.keeps_change_times = False

    def _look_after_events(self, now: float) -> None:
        observer = self._observer
        if observer is not None:
            if observer.take_overflow():
                self._counts["overflows"] += 1
                self._scan_asked = self._pass_asked = True
                text = "events lost by the kernel, reading the folder"
                self._event(logging.WARNING, text, hint=_OVERFLOW_HINT)
            if observer.fault is None:
                return
            self._counts["restarts"] += 1
            text = "events have ended, watching again"
            self._event(logging.WARNING, text, reason=observer.fault)
            self._stop_observer()
            self._scan_asked = True
        if now >= self._next_observer:
            self._next_observer = now + self._every
            self._start_observer()

    def _start_observer(self) -> None:
        kind, mode = file_system_of(self._config.watch), self._config.watch_mode
        remote = self._scanner.remote = is_remote(kind)
        if remote and not kind.startswith(("nfs", "cifs", "smb")):
            self._scanner.keeps_change_times = False
        if mode == "polling" or (mode == "auto" and remote):
            reason = "configured" if mode == "polling" else f"{kind} gives no events"
            self._events_state = f"polling ({reason})"
            return
        observer = Observer(self._config.watch, self._seen, self._appeared, shared=not remote)
        try:
            observer.start()
        except WatchError as error:
            before, self._events_state = self._events_state, f"polling ({error})"
            if self._events_state != before:
                hint = _LIMIT_HINT if "limit" in str(error) or "Too many" in str(error) else None
                text = "no events, polling instead"
                self._event(logging.WARNING, text, reason=error, hint=hint)
            return
        self._observer = self._scanner.observer = observer
        self._scan_asked = True
        self._show_state(observer)
        self._event(logging.INFO, "watching", folder=self._config.watch)

    def _stop_observer(self) -> None:
        observer, self._observer, self._scanner.observer = self._observer, None, None
        self._unwatched = []
        self._next_observer = float("-inf")
        if observer is not None:
            observer.stop()

    def _show_state(self, observer: Observer) -> None:
        limit, count = observer.limit, len(self._unwatched)
        self._events_state = f"events ({limit}: {count} folders polled)" if limit else "events"
        if limit and not self._limit_logged:
            text = "watch limit reached, polling what cannot be watched"
            self._event(logging.WARNING, text, reason=limit, folders=count, hint=_LIMIT_HINT)
        self._limit_logged = limit is not None

    def _seen(self, path: str, settled: bool) -> None:
        if not self._config.wants(path.rpartition("/")[2]) or self.stopped:
            return
        now = self._last_file_at = self._monotonic()
        if not self.paused:
            self._inbox.put_event(self._camera, path, settled, now)
        elif len(self._passed_over) < _PASSED_OVER:
            # Beyond that the scan after the pause must do: it knows nothing of them yet.
            self._passed_over[path] = settled or self._passed_over.get(path, False)

    def _appeared(self) -> None:
        self._scan_asked = True
        self._due = float("-inf")

    def _scan(self, now: float) -> None:
        scanner, moment = self._scanner, Moment(time.time_ns(), now)
        starting, self._scan_asked = not scanner.rooted, False
        skip_before = moment.wall_ns - int(self._lookback(now) * 1e9) if self._first else None
        files = self._hand_over(scanner.scan(moment, skip_before if starting else None))
        if self._halt.is_set():
            return
        self._scan_took = self._monotonic() - now - self._waited
        if self._observer is not None:
            self._unwatched = self._observer.keep(scanner.hot()[:MOST_WATCHES])
            self._show_state(self._observer)
        pause = min(self._every, _POLL_EVERY if self._observer is None else _SCAN_EVERY)
        if starting:
            self._first &= not scanner.rooted
        else:
            pause = min(max(pause, _SCAN_SHARE * self._scan_took), _LONGEST_PAUSE)
        self._next_scan = now + pause
        self._counts["scans"] += 1
        others = scanner.not_taken()
        if files or starting or others != self._others:
            first = starting and scanner.rooted
            self._inbox.put(ScanDone(self._camera, self._scan_took, files, first, *others))
        self._others = others

    def _lookback(self, now: float) -> float:
        """Reach back to where files were last seen to come, however long the root was away."""
        configured = self._config.scan.lookback.total_seconds()
        return max(configured, now - self._last_file_at + 3600.0)

    def _pass(self, now: float) -> None:
        """Look at every folder from time to time: at its time, and on network shares into it."""
        scanner = self._scanner
        if not scanner.passing:
            if not (self._pass_asked or now >= self._next_pass):
                return
            list_all = scanner.remote and (self._pass_asked or now >= self._next_list_all)
            self._pass_asked = False
            if list_all:
                self._next_list_all = now + _LIST_ALL_EVERY
            scanner.begin_pass(list_all)
        started = self._monotonic()
        moment = Moment(time.time_ns(), now)
        self._hand_over(scanner.go_on(moment, lambda: self._monotonic() - started > _PASS_SLICE))
        self._pass_took += self._monotonic() - started - self._waited
        if not scanner.passing:
            self._counts["passes"] += 1
            self._next_pass = now + max(self._every, _PASS_SHARE * self._pass_took)
            self._pass_took = 0.0

    def _hand_over(self, portions: Iterator[Portion]) -> int:
        """Give the owner what a scan found, at the owner's pace."""
        files, self._waited = 0, 0.0
        for portion in portions:
            self._wait_for_owner()
            if self._halt.is_set():
                break
            now = self._monotonic()
            if portion.watermark_ns is not None:
                mark = (portion.folder, portion.watermark_ns, portion.skipped)
                self._inbox.put(FolderRead(self._camera, *mark))
                continue
            self._last_file_at = now
            files += len(portion.files)
            self._counts["found_by_scan"] += len(portion.files)
            self._inbox.put(Found(self._camera, portion.files, now))
        return files

    def _wait_for_owner(self) -> None:
        began = self._monotonic()
        self._asked_at = None
        while not self._halt.is_set() and (self.paused or len(self._inbox) > _INBOX_FULL):
            self._halt.wait(_AFTER_WAKING)
        self._asked_at = self._monotonic()
        self._waited += self._asked_at - began
