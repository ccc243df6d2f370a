"""The daemon: start → main loop → stop. One owner thread; everything else talks to its inbox.

It never repairs or rebuilds itself while it runs: when the ledger cannot be read, or the state
folder is gone, it ends with the reason and is started again; the start is the only recovery. A
reload is a start as well: SIGHUP checks the whole new configuration, finishes the merges in flight
and executes the same command in the same process. A stop ends: when its time is over, workers are
abandoned together with the process.
"""

import logging
import os
import signal
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asi_watch import __version__
from asi_watch.buffers import BufferPool
from asi_watch.config.loading import ConfigError, read_config
from asi_watch.config.model import Config
from asi_watch.errors import AsiWatchError
from asi_watch.files import counted, folder_fault
from asi_watch.live.camera import Camera, Shared
from asi_watch.live.curves.in_use import response_fault
from asi_watch.live.disk import DiskGuard, wait_for_room
from asi_watch.live.ledger.ledger import LedgerError
from asi_watch.live.ledger.rebuild import Backups, open_ledger
from asi_watch.live.ledger.records import Request, Retry
from asi_watch.live.messages import FolderRead, Inbox, MergeDone, Message, Reload, Stop
from asi_watch.live.retention import RetentionThread
from asi_watch.live.sdnotify import Notifier
from asi_watch.live.state_folder import StateFolderError, StateLock, StatusFile, status_line
from asi_watch.live.workers.merger import MemoryBudget
from asi_watch.live.workers.pool import JobPool
from asi_watch.live.workers.quarantine import Quarantine
from asi_watch.logs import event
from asi_watch.products import OutputFolder

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)

_TICK = 0.2
_SECOND = 1.0
_QUARANTINE_EVERY = 60.0
# What stopping may take beside the workers: ending threads, writing the last rows.
_AFTER_WORKERS = 20.0
_IDLE_BUFFERS = 256 << 20
# An empty ledger with its journal.
_ROOM_TO_START = 512 << 10


class Daemon:
    """The daemon in the foreground.

    Parameters
    ----------
    config_path : Path
        Read again, whole, by a reload.
    config : Config
    notifier : Notifier
        Line to the service manager.
    """

    def __init__(self, config_path: Path, config: Config, notifier: Notifier) -> None:
        self._config_path, self._config, self._notifier = config_path, config, notifier
        self._inbox = Inbox()
        self._started = datetime.now(UTC)
        self._ending: Stop | Reload | None = None
        self._stop_signals = 0
        self._reload_error: str | None = None
        self._snapshot: dict[str, Any] = {}
        self._next_tick = self._next_second = self._next_quarantine = 0.0
        self._cameras: dict[str, Camera] = {}
        self.finished = True
        """False while workers run: if they are left behind, the process must end at once."""

    def run(self) -> Stop | Reload:
        """Run until a signal says stop, or a reload is due that the caller must carry out.

        Raises
        ------
        AlreadyRunningError, StateFolderError, LedgerError
            If the state folder or the ledger in it cannot be used, now or any more.
        """
        self._take_signals()
        try:
            with ExitStack() as stack:
                self._lock_state_folder(stack)
                asked, state_dir = lambda: self._stop_signals > 0, self._config.state_dir
                if not wait_for_room(state_dir, _ROOM_TO_START, asked, self._alive):
                    return Stop("SIGTERM")
                self._open(stack)
                self._begin()
                while self._ending is None:
                    try:
                        self._step(self._inbox.get(timeout=_TICK), time.monotonic())
                    except LedgerError:
                        self._check_state_folder()  # if it is gone, that is the reason
                        raise
                self._finish_work()
                return self._ending
        except AsiWatchError as error:
            event(log, logging.ERROR, "ended", reason=str(error))
            self._notifier.stopping(f"ended: {error}")
            for camera in self._cameras.values():
                camera.stop_intake()
            raise

    def _take_signals(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        # Blocked since the process began: what came meanwhile is handled now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._inbox.put(Reload())
            return
        self._stop_signals += 1
        if self._stop_signals > 1:
            # Asked twice: whoever asks does not want to wait. The state on disk is whole anyway.
            os._exit(1)
        self._inbox.put(Stop(signal.Signals(number).name))

    def _lock_state_folder(self, stack: ExitStack) -> None:
        path = self._config.state_dir
        try:
            # Everybody may ask for the status, whatever the umask; the other files are private.
            umask = os.umask(0o022)
            try:
                path.mkdir(parents=True, exist_ok=True, mode=0o755)
            finally:
                os.umask(umask)
            self._lock = StateLock(path)
        except (OSError, StateFolderError) as error:
            raise self._unusable_folder(path, error) from (error.__cause__ or error)
        stack.callback(self._lock.release)
        # Left behind by a process that was killed; the folder is ours alone now.
        OutputFolder(path).sweep()

    def _unusable_folder(self, path: Path, error: Exception) -> StateFolderError:
        where = f"{self._config_path}: state_dir:"
        if fault := folder_fault(path):
            text = f"{where} {str(path)!r} {fault}; name another folder, or move the file away"
            return StateFolderError(text)
        reason = str(error) if isinstance(error, StateFolderError) else f"{path}: {_why(error)}"
        user = os.geteuid()
        return StateFolderError(
            f"{where} {reason}; name a folder that user {user} may write, or make {path} and give"
            f" it to user {user}"
        )

    def _open(self, stack: ExitStack) -> None:
        """Open what the daemon works with; it is closed in the reverse order."""
        config, state_dir = self._config, self._config.state_dir
        cameras = tuple(config.cameras.values())
        self._ledger = open_ledger(state_dir, cameras, alive=self._alive)
        stack.callback(self._ledger.close)
        self._backups = Backups(state_dir)
        stack.callback(self._backups.stop)
        folders = [state_dir, *(folder for camera in cameras for folder in camera.outputs)]
        self._disk = DiskGuard(config.disk.keep_free, folders)
        self._disk.start()
        stack.callback(self._disk.stop)
        self._retention = RetentionThread(state_dir, cameras, self._disk.any_low)
        self._retention.start()
        stack.callback(self._retention.stop)
        self._pool = JobPool(config.worker_count)
        self._quarantine = Quarantine(state_dir)
        stack.callback(self._quarantine.close)
        self._budget = MemoryBudget(config.memory_budget)
        shared = Shared(
            state_dir=state_dir,
            order=config.order,
            ledger=self._ledger,
            inbox=self._inbox,
            pool=self._pool,
            budget=self._budget,
            buffers=BufferPool(min(_IDLE_BUFFERS, config.memory_budget)),
            quarantine=self._quarantine,
            disk=self._disk,
        )
        now = time.monotonic()
        self._cameras = {camera.name: Camera(camera, shared, now) for camera in cameras}
        self._status = StatusFile(state_dir)

    def _begin(self) -> None:
        self.finished = False
        self._pool.start()
        for camera in self._cameras.values():
            self._alive()
            camera.start(time.monotonic())
        self._show()
        event(
            log,
            logging.INFO,
            "ready",
            version=__version__,
            cameras=len(self._cameras),
            workers=self._config.worker_count,
            state_dir=self._config.state_dir,
        )
        self._notifier.ready(status_line(self._snapshot))

    def _alive(self) -> None:
        """Starting takes its time: the service manager must not take that for hanging."""
        self._notifier.extend_timeout(_AFTER_WORKERS)
        self._notifier.watchdog()

    def _step(self, message: Message | None, now: float) -> None:
        match message:
            case None:
                pass
            case Stop():
                self._ending = message
            case Reload():
                self._check_reload(message)
            case _:
                self._cameras[message.camera].handle(message, now)
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._tick(now)

    def _tick(self, now: float) -> None:
        self._pool.replace_hanging(now)
        for camera in self._cameras.values():
            camera.tick(now)
        self._ledger.settle(now)
        for name, count in self._inbox.take_dropped().items():
            self._cameras[name].events_dropped(count)
        if now >= self._next_second:
            self._next_second = now + _SECOND
            self._every_second(now)

    def _every_second(self, now: float) -> None:
        # From here, not from a timer: only an owner that makes progress is alive.
        self._notifier.watchdog()
        self._check_state_folder()
        self._backups.tick(now)
        if not self._ledger.blocked:
            for request in self._ledger.take_requests():
                self._answer(request)
        if now >= self._next_quarantine:
            self._next_quarantine = now + _QUARANTINE_EVERY
            self._retry_expired()
        self._show()

    def _check_state_folder(self) -> None:
        if not self._lock.is_in_place:
            raise StateFolderError(
                f"{self._config.state_dir}: the state folder or its lock was removed while in use"
            )

    def _check_reload(self, reload: Reload) -> None:
        """Read the new configuration whole; a wrong one changes nothing."""
        self._notifier.reloading()
        try:
            loaded = read_config(self._config_path)
            config, document = loaded.config, loaded.document
            if config.state_dir != self._config.state_dir:
                text = "cannot change while the daemon runs; restart it"
                raise ConfigError([document.problem(("state_dir",), text)])
            for camera in config.cameras.values():
                # The next process would merge without the curve that this one has.
                if fault := response_fault(camera):
                    way = ("cameras", camera.name, "response")
                    raise ConfigError([document.problem(way, fault)])
        except AsiWatchError as error:
            self._reload_error = str(error)
            event(log, logging.ERROR, "configuration not reloaded", reason=str(error))
            self._show()
            self._notifier.ready(status_line(self._snapshot))
            return
        self._ending = reload

    def _answer(self, request: Request) -> None:
        """Carry out what a command has left in the ledger."""
        try:
            text, ok = self._carry_out(request), True
        except AsiWatchError as error:
            text, ok = str(error), False
        if text is not None:  # else it is answered when it is done
            self._ledger.answer_request(request.id, text, ok=ok)

    def _carry_out(self, request: Request) -> str | None:
        if request.kind == "retry":
            return self._retry(request)
        if request.camera not in self._cameras:
            raise AsiWatchError(f"the daemon has no camera {request.camera!r}")
        return self._cameras[request.camera].decide_curve(request)

    def _retry(self, request: Request) -> str:
        names = list(self._cameras) if request.camera is None else [request.camera]
        if not set(names) <= set(self._cameras):
            raise AsiWatchError(f"the daemon has no camera {request.camera!r}")
        try:
            which = Retry(**request.arguments)
        except (ValueError, TypeError) as error:
            raise AsiWatchError(f"the request makes no sense: {error}") from error
        asked = [(name, slot) for name in names for slot in self._cameras[name].retry(which)]
        for name, slot in asked:
            self._quarantine.forgive(name, slot)
        event(log, logging.INFO, "asked to try again", brackets=len(asked))
        text = f"{counted(len(asked), 'bracket')} {'is' if len(asked) == 1 else 'are'} tried again"
        stays = "; a product stays as it is where an exposure of it is gone (`asi-watch history`)"
        return f"{text}{stays if which.published and asked else ''}"

    def _retry_expired(self) -> None:
        if self._ledger.blocked:
            return
        for name, slot in self._quarantine.take_expired():
            if name in self._cameras:
                self._cameras[name].retry(Retry(slots=(slot,), published=True))

    def _finish_work(self) -> None:
        """Take in nothing more, finish the merges in flight, record them."""
        reason = "reload"
        if isinstance(self._ending, Stop):
            reason = self._ending.signal
            self._notifier.stopping("finishing merges in flight")
        event(log, logging.INFO, "stopping", reason=reason)
        limit = self._config.shutdown_timeout.total_seconds()
        self._notifier.extend_timeout(limit + _AFTER_WORKERS)
        deadline = time.monotonic() + limit
        for camera in self._cameras.values():
            camera.stop_intake()
        self._pool.close()
        while not self._pool.join(min(1.0, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                break
            # What hangs must not keep the merges of other cameras from being finished.
            self._pool.replace_hanging(time.monotonic())
            self._notifier.watchdog()
        else:
            self.finished = True
        self._record_finished_merges()
        unfinished = None if self.finished else "merges abandoned, the next start takes them up"
        if isinstance(self._ending, Stop):
            self._status.stopped(self._snapshot, reason)
            event(log, logging.INFO, "stopped", unfinished=unfinished)
        else:
            event(log, logging.INFO, "restarting", unfinished=unfinished)

    def _record_finished_merges(self) -> None:
        try:
            while (message := self._inbox.get(timeout=0)) is not None:
                match message:
                    case MergeDone() | FolderRead(skipped=True):
                        self._cameras[message.camera].handle(message, time.monotonic())
                    case Stop():
                        # A reload must not outlive a stop.
                        self._ending = message
            for camera in self._cameras.values():
                camera.write_watermarks()
        except LedgerError as error:
            # Without its row a product is adopted at the next start.
            event(log, logging.ERROR, "last rows not written", reason=str(error))

    def _show(self) -> None:
        running, queued = self._pool.busy()
        self._snapshot = {
            "version": __version__,
            "pid": os.getpid(),
            "started_utc": self._started.isoformat(timespec="seconds"),
            "at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "ledger_rebuilt": self._ledger.rebuilt,
            "reload_error": self._reload_error,
            "jobs_running": running,
            "jobs_queued": queued,
            "inbox": len(self._inbox),
            "merge_memory": self._budget.held,
            "crashes": self._pool.crashes,
            "rows_pending": self._ledger.pending,
            "blocked": self._ledger.blocked,
            "cameras": {
                name: {**camera.snapshot(), **self._retention.snapshot(name)}
                for name, camera in self._cameras.items()
            },
        }
        self._status.write(self._snapshot)
        self._notifier.status(status_line(self._snapshot))


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def restart_process() -> None:
    """Execute the same command in this process; does not return.

    Signals are blocked until the new image handles them: an exec resets their handlers.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.execv(sys.executable, sys.orig_argv)
