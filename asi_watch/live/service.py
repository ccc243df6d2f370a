"""The daemon: start → main loop → stop. One owner thread; everything else talks to its inbox."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from asi_watch import __version__
from asi_watch.config.model import Config
from asi_watch.errors import AsiWatchError
from asi_watch.live.lock import StateFolderError
from asi_watch.live.messages import (
    Inbox,
    Message,
    Reload,
    Stop,
)
from asi_watch.live.operating.control import Answer, Request, RequestRefusedError
from asi_watch.live.operating.requests import RequestDesk, RetryRequest
from asi_watch.live.operating.state_folder import StateFolder
from asi_watch.live.sdnotify import Notifier
from asi_watch.live.station import Station
from asi_watch.live.status import StatusFile, status_line
from asi_watch.logs import event

log = logging.getLogger(__name__)

_TICK = 0.2
_SNAPSHOT_EVERY = 1.0
# What stopping may take beside the workers: ending threads, settling the ledger.
_AFTER_WORKERS = 20.0
# A ledger that fails twice within so many seconds is not helped by opening it anew.
_REOPEN_AGAIN = 60.0


class Daemon:
    """The daemon in the foreground.

    Parameters
    ----------
    settings : Config
    notifier : Notifier
        Line to the service manager.
    reload_settings : callable
        Reads the configuration again; raises `AsiWatchError` when it is wrong.
    """

    def __init__(
        self,
        settings: Config,
        notifier: Notifier,
        reload_settings: Callable[[], Config],
    ) -> None:
        self._settings = settings
        self._notifier = notifier
        self._reload_settings = reload_settings
        self._inbox = Inbox()
        self._started = datetime.now(UTC)
        self._snapshot: dict[str, Any] = {}
        self._snapshot_at = float("-inf")
        self._next_tick = 0.0
        self._next_sign = 0.0
        self._stop: str | None = None
        self._asked_to_stop = False
        self._desk = RequestDesk()
        self._ledgers_rebuilt = 0
        self._state_made_anew: str | None = None
        self._reopened_at = float("-inf")

    # -- start → run → stop -----------------------------------------------------------------

    def run(self) -> int:
        """Run until a signal says stop.

        Returns
        -------
        int
            Exit code: 0 after an orderly stop, 1 when merges had to be left unfinished.

        Raises
        ------
        AlreadyRunningError, StateFolderError, LedgerError
            If the state folder cannot be used.
        """
        with ExitStack() as stack:
            self._folder = StateFolder(self._settings.state_dir)
            stack.callback(self._folder.release)
            self._take_signals()
            if not self._folder.wait_for_room(lambda: self._asked_to_stop, self._still_at_it):
                return 0
            self._open()
            stack.callback(self._close)
            self._folder.serve(self._answer)
            self._begin()
            self._main_loop()
            return self._end()

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGHUP, lambda *_: self._inbox.put(Reload()))

    def _on_stop_signal(self, number: int, _frame: object) -> None:
        if self._asked_to_stop:
            # Asked twice: whoever asks does not want to wait. The state on disk is whole anyway.
            os._exit(1)
        self._asked_to_stop = True
        self._inbox.put(Stop(signal.Signals(number).name))

    def _open(self) -> None:
        self._station = Station(
            self._settings,
            alive=self._still_at_it,
        )
        self._ledgers_rebuilt += self._station.ledger_rebuilt
        before, self._inbox = self._inbox, self._station.inbox
        while (message := before.get(timeout=0)) is not None:
            if isinstance(message, Stop | Reload):
                self._inbox.put(message)

    def _still_at_it(self) -> None:
        """Making a ledger anew takes its time: nobody may think that nothing goes on."""
        self._notifier.extend_timeout(_AFTER_WORKERS)
        self._notifier.watchdog()

    def _close(self) -> None:
        self._station.close()

    def _begin(self) -> None:
        self._station.start()
        self._take_snapshot(time.monotonic())
        event(
            log,
            logging.INFO,
            "ready",
            version=__version__,
            cameras=len(self._station.cameras),
            workers=self._settings.worker_count,
            state_dir=self._settings.state_dir,
        )
        self._notifier.ready(status_line(self._snapshot))

    def _main_loop(self) -> None:
        while self._stop is None:
            message = self._inbox.get(timeout=_TICK)
            now = time.monotonic()
            if message is not None:
                self._handle(message, now)
            if now >= self._next_tick:
                self._next_tick = now + _TICK
                self._tick(now)

    def _look_after_folder(self) -> None:
        if not self._folder.is_ours:
            raise StateFolderError(
                f"{self._settings.state_dir}: the state folder or its lock was taken away while in"
                " use; start again"
            )

    def _start_again(self, settings: Config) -> None:
        """Finish what is in flight, and begin with these settings; counts go on."""
        self._finish_work()
        earlier = self._station.cameras
        self._close()
        self._settings = settings
        self._open()
        if self._asked_to_stop:
            self._inbox.put(Stop("SIGTERM"))
        for name, camera in self._station.cameras.items():
            if name in earlier:
                camera.inherit(earlier[name])
        self._station.start()

    def _end(self) -> int:
        event(log, logging.INFO, "stopping", reason=self._stop)
        self._notifier.stopping("finishing merges in flight")
        finished = self._finish_work()
        event(log, logging.INFO, "stopped", unfinished=None if finished else "merges left undone")
        return 0 if finished else 1

    def _finish_work(self) -> bool:
        """Take in nothing more, finish the merges in flight, record them."""
        # The service manager hears that this is going on.
        self._notifier.extend_timeout(
            self._settings.shutdown_timeout.total_seconds() + _AFTER_WORKERS
        )
        finished, unheard = self._station.finish_work(self._notifier.watchdog)
        for message in unheard:
            if isinstance(message, Stop):
                self._stop = message.signal
        return finished

    # -- messages ---------------------------------------------------------------------------

    def _handle(self, message: Message, now: float) -> None:
        match message:
            case Stop(name):
                self._stop = name
            case Reload():
                self._reload()
            case _:
                self._station.handle(message, now)

    def _tick(self, now: float) -> None:
        self._station.tick(now)
        self._desk.serve(self._retry)
        if now - self._snapshot_at >= _SNAPSHOT_EVERY:
            self._look_after_folder()
            self._serve_requests()
            self._take_snapshot(now)
        interval = self._notifier.watchdog_interval
        if interval is not None and now >= self._next_sign:
            # From here, not from a timer: only an owner that makes progress is alive.
            self._next_sign = now + interval / 2
            self._notifier.watchdog()
        self._notifier.status(status_line(self._snapshot))

    def _serve_requests(self) -> None:
        for request in self._station.ledger.take_requests():
            which = dict(request.arguments)
            slots = [datetime.fromisoformat(slot) for slot in which.pop("slots")]
            for end in ("since", "until"):
                which[end] = which[end] and datetime.fromisoformat(which[end])
            asked = [
                slot
                for name, camera in self._station.cameras.items()
                if request.camera in (None, name)
                for slot in camera.retry(slots, **which)
            ]
            self._station.ledger.answer_request(request.id, f"{len(asked)} brackets", ok=True)

    def _reload(self) -> None:
        """Read the configuration again; a wrong one changes nothing."""
        self._notifier.reloading()
        try:
            settings = self._reload_settings()
            if settings.state_dir != self._settings.state_dir:
                raise AsiWatchError("state_dir cannot change while the daemon runs; restart it")
        except AsiWatchError as error:
            event(log, logging.ERROR, "configuration not reloaded", reason=str(error))
            self._notifier.ready(status_line(self._snapshot))
            return
        self._start_again(settings)
        event(log, logging.INFO, "configuration reloaded", cameras=len(self._station.cameras))
        self._notifier.ready(status_line(self._snapshot))

    # -- requests ---------------------------------------------------------------------------

    def _answer(self, request: Request) -> Answer:
        """Answer a command; called from the control thread."""
        if request["do"] == "status":
            return self._snapshot
        if request["do"] == "retry":
            return self._desk.retry(request)
        raise RequestRefusedError(f"the daemon cannot {request['do'][:40]!r}")

    def _retry(self, request: RetryRequest) -> Answer:
        asked = {}
        for name in request.asked_of(list(self._station.cameras)):
            slots = self._station.cameras[name].retry(request.slots, **request.which)
            asked[name] = [slot.isoformat() for slot in slots]
        event(log, logging.INFO, "asked to try again", brackets=sum(map(len, asked.values())))
        return {"asked": asked}

    # -- what is shown ----------------------------------------------------------------------

    def _take_snapshot(self, now: float) -> None:
        self._snapshot_at = now
        self._snapshot = {
            "version": __version__,
            "pid": os.getpid(),
            "started_utc": self._started.isoformat(timespec="seconds"),
            "at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "ledgers_rebuilt": self._ledgers_rebuilt,
            "state_made_anew": self._state_made_anew,
            "reload_error": None,
            **self._station.snapshot(),
        }
        StatusFile(self._settings.state_dir).write(self._snapshot)
