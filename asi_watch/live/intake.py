"""How one camera's files come in: the watcher's events, and scans that find what events missed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asi_watch.live.inbox import Found, Inbox, ScanDone
from asi_watch.live.scanning import TreeScanner
from asi_watch.live.watcher import Watcher, WatchError
from asi_watch.logs import event, failure

log = logging.getLogger(__name__)

WatchMode = Literal["auto", "events", "polling"]

# inotify sees only what this machine writes; on these another machine may be the writer.
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs")
_POLL_EVERY = 2.0
_AFTER_NEW_FOLDER = 0.3
_RECENT_WINDOW = 900.0


@dataclass(frozen=True, slots=True)
class IntakeRules:
    """How a camera's folder is watched; times in seconds."""

    root: Path
    mode: WatchMode
    lookback: float
    every: float
    stable_for: float


class Intake:
    """The thread that keeps one camera's folder under watch and reconciles it by scans.

    Parameters
    ----------
    camera : str
    rules : IntakeRules
    wanted : callable
        Tells by its name whether a file is of interest.
    inbox : Inbox
        Where what is found goes.
    """

    def __init__(
        self, camera: str, rules: IntakeRules, wanted: Callable[[str], bool], inbox: Inbox
    ) -> None:
        self._camera = camera
        self._rules = rules
        self._wanted = wanted
        self._inbox = inbox
        self._scanner = TreeScanner(str(rules.root), wanted)
        self._watcher: Watcher | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._missing = False
        self._thread = threading.Thread(target=self._run, name=f"intake-{camera}", daemon=True)
        self.state = "starting"
        """What `status` shows: events, polling and why, or what is missing."""

    def start(self) -> None:
        """Begin watching and scanning."""
        self._thread.start()

    def request_scan(self) -> None:
        """Scan soon: something may have been missed."""
        self._wake.set()

    def stop(self) -> None:
        """End watching and scanning; no message is sent after this returns."""
        self._stopping = True
        self._wake.set()
        self._thread.join(10)
        if self._watcher is not None:
            self._watcher.stop()

    # -- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        first = True
        while not self._stopping:
            self._wake.clear()
            try:
                # Watching comes before scanning, so that nothing falls in between.
                self._look_after_watcher()
                first = not self._scan(first) and first
            # The one boundary of this thread: it must not end while the daemon lives.
            except Exception as error:  # noqa: BLE001
                failure(log, "scan crashed", error, camera=self._camera)
            if self._wake.wait(self._pause()):
                # Let the folder that woke us fill a little before it is read.
                time.sleep(_AFTER_NEW_FOLDER)

    def _pause(self) -> float:
        return (
            self._rules.every if self._watcher is not None else min(_POLL_EVERY, self._rules.every)
        )

    def _scan(self, first: bool) -> bool:
        if not self._rules.root.is_dir():
            self._root_is_missing()
            return False
        self._missing = False
        started = time.monotonic()
        files = 0
        window = self._rules.lookback if first else max(_RECENT_WINDOW, 3 * self._rules.every)
        for found in self._scanner.scan(time.time_ns(), window, self._rules.stable_for):
            if self._stopping:
                return False
            files += len(found)
            self._inbox.put(Found(self._camera, found, time.monotonic()))
        seconds = time.monotonic() - started
        self._inbox.put(ScanDone(self._camera, seconds, files, first))
        return True

    def _root_is_missing(self) -> None:
        self.state = "watch folder is missing"
        if not self._missing:
            self._missing = True
            event(
                log,
                logging.ERROR,
                "watch folder is missing",
                camera=self._camera,
                folder=self._rules.root,
                hint="create it, or correct cameras.<name>.watch; looking again every 2 s",
            )

    def _look_after_watcher(self) -> None:
        if self._watcher is not None:
            fault = self._watcher.fault()
            if fault is None:
                return
            event(log, logging.WARNING, "watch lost", camera=self._camera, reason=fault)
            self._watcher.stop()
            self._watcher = None
        if self._rules.mode == "polling":
            self.state = "polling (configured)"
            return
        kind = file_system_of(self._rules.root)
        if self._rules.mode == "auto" and kind.startswith(_NETWORK_FILE_SYSTEMS):
            self.state = f"polling ({kind} gives no events)"
            return
        self._start_watcher()

    def _start_watcher(self) -> None:
        watcher = Watcher(self._rules.root, self._seen, lambda _folder: self._wake.set())
        before = self.state
        try:
            watcher.start()
        except WatchError as error:
            self.state = f"polling ({error})"
            if self.state != before:
                event(
                    log,
                    logging.WARNING,
                    "no events, polling instead",
                    camera=self._camera,
                    reason=str(error),
                )
            return
        self._watcher = watcher
        self.state = "events"
        event(log, logging.INFO, "watching", camera=self._camera, folder=self._rules.root)

    def _seen(self, path: str, settled: bool) -> None:
        if self._wanted(path.rpartition("/")[2]):
            self._inbox.put_event(self._camera, path, settled, time.monotonic())


def file_system_of(path: Path) -> str:
    """Name the type of the file system a path lies on, "" where it cannot be told.

    Parameters
    ----------
    path : Path
        Need not exist; its nearest mount point counts.
    """
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    resolved = path.resolve()
    best, kind = -1, ""
    for line in lines:
        fields = line.split(" ")
        mount = Path(fields[1].encode("utf-8", "surrogateescape").decode("unicode_escape"))
        if len(mount.parts) > best and resolved.is_relative_to(mount):
            best, kind = len(mount.parts), fields[2]
    return kind
