"""Notify the service manager of the daemon's state: ready, reloading, stopping, alive.

The protocol of ``sd_notify(3)`` is one datagram of ``KEY=value`` lines, so it is spoken here
directly: the package on the index is not kept up, the compiled ones need libsystemd to build.
"""

import os
import socket
import time

# A datagram must fit the receiver's buffer; a status line is read by people.
_STATUS_LIMIT = 512


class Notifier:
    """Notifies the service manager; does nothing when there is none.

    The daemon merges whether or not a message arrives: no method raises for a socket that is
    missing, full or gone; each returns whether it was sent.

    Parameters
    ----------
    address : str or None
        Socket path, or ``@name`` for an abstract one; as a rule ``NOTIFY_SOCKET``.
    watched : bool
        Whether the manager wants signs of life.
    """

    def __init__(self, address: str | None, watched: bool = False) -> None:
        address = address if address and address[0] in "/@" else None
        # A NUL begins the name of an abstract socket.
        self._address = "\0" + address[1:] if address and address[0] == "@" else address
        self._watched = watched
        self._last_status: str | None = None

    @classmethod
    def from_environment(cls) -> "Notifier":
        """Read what the service manager has set."""
        return cls(os.environ.get("NOTIFY_SOCKET"), "WATCHDOG_USEC" in os.environ)

    def ready(self, status: str) -> bool:
        """Say that start-up, or a reload, is finished."""
        return self._send("READY=1", status=status)

    def reloading(self) -> bool:
        """Say that a reload begins; `ready` must follow, even if the new file was refused."""
        # The time lets Type=notify-reload tell this reload's READY from an earlier one.
        monotonic_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_us}")

    def stopping(self, status: str) -> bool:
        """Say that the daemon has begun to stop."""
        return self._send("STOPPING=1", status=status)

    def status(self, text: str) -> bool:
        """Set the line that ``systemctl status`` shows; a text already shown is not sent again."""
        return _line(text) != self._last_status and self._send(status=text)

    def watchdog(self) -> bool:
        """Give a sign of life; call it from the thread whose progress it vouches for."""
        return self._watched and self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for more time to start, reload or stop, counted from now."""
        return self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _send(self, *lines: str, status: str | None = None) -> bool:
        if status is not None:
            self._last_status = _line(status)
            lines += (f"STATUS={self._last_status}",)
        if self._address is None:
            return False
        message = "\n".join(lines).encode("utf-8", "backslashreplace")
        try:
            # A new socket each time: no descriptor to keep across a restart of the manager.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message, self._address)
        except OSError:
            # Forget the status, so that the next attempt with the same text is made.
            self._last_status = None
            return False
        return True


def _line(text: str) -> str:
    """One line of at most `_STATUS_LIMIT` characters: a newline would begin another assignment."""
    line = " ".join(text.split())
    return line if len(line) <= _STATUS_LIMIT else line[: _STATUS_LIMIT - 1] + "…"
