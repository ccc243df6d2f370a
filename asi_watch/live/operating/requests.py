"""What commands ask of the running daemon: checked in the control thread, done by the owner."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asi_watch.errors import AsiWatchError
from asi_watch.live.ledger.ledger import Which
from asi_watch.live.operating.control import Answer, Request, RequestRefusedError
from asi_watch.live.records import naive_time

_PATIENCE = 4.0
_MOST_SLOTS = 1000


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """Try these brackets again (see `Ledger.ask_again`); `camera` None: of every camera."""

    camera: str | None
    slots: tuple[datetime, ...]
    failed: bool = False
    skipped: bool = False
    published: bool = False
    since: datetime | None = None
    until: datetime | None = None

    @property
    def which(self) -> Which:
        """All but the slots, as the ledger takes it."""
        return {
            "failed": self.failed,
            "skipped": self.skipped,
            "published": self.published,
            "since": self.since,
            "until": self.until,
        }

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> RetryRequest:
        """Read a request, trusting nothing in it.

        Raises
        ------
        RequestRefusedError
            If it makes no sense.
        """
        camera, slots = request.get("camera"), request.get("slots", [])
        if camera is not None and not isinstance(camera, str):
            raise RequestRefusedError("camera must be a name")
        if not isinstance(slots, list) or len(slots) > _MOST_SLOTS:
            raise RequestRefusedError(f"slots must be a list of at most {_MOST_SLOTS}")
        flags = [request.get(name, False) for name in ("failed", "skipped", "published")]
        if not all(isinstance(flag, bool) for flag in flags):
            raise RequestRefusedError("failed, skipped and published are true or false")
        ends = [request.get(name) for name in ("since", "until")]
        try:
            times = tuple(naive_time(slot) for slot in slots)
            since, until = (None if end is None else naive_time(end) for end in ends)
        except (TypeError, ValueError):
            raise RequestRefusedError("a slot is a time such as 2026-06-21T12:00:00") from None
        failed, skipped, published = flags
        return cls(camera, times, failed, skipped, published, since, until)

    def asked_of(self, cameras: Sequence[str]) -> list[str]:
        """Return the names of the cameras that are meant.

        Raises
        ------
        RequestRefusedError
            If there is no such camera.
        """
        if self.camera is None:
            return list(cameras)
        if self.camera not in cameras:
            raise RequestRefusedError(f"no camera {self.camera!r}; there is {', '.join(cameras)}")
        return [self.camera]


class RequestDesk:
    """Hands requests from the control thread to the owner, and its answers back."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[RetryRequest, Future[Answer]]] = queue.SimpleQueue()

    def retry(self, request: Request) -> Answer:
        """Have a retry done by the owner; called from the control thread."""
        future: Future[Answer] = Future()
        self._waiting.put((RetryRequest.read(request), future))
        try:
            return future.result(_PATIENCE)
        except TimeoutError:
            future.cancel()
            raise RequestRefusedError("the daemon is busy; try again") from None

    def serve(self, do: Callable[[RetryRequest], Answer]) -> None:
        """Do what is waiting; called by the owner."""
        while True:
            try:
                request, future = self._waiting.get_nowait()
            except queue.Empty:
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(do(request))
            except AsiWatchError as error:
                future.set_exception(error)
