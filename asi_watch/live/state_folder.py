"""What says that a daemon runs: its lock on the state folder, and `status.json`, which it rewrites.

The status is for every user of the machine; all else in the folder is for the service alone.
"""

import fcntl
import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from asi_watch.errors import AsiWatchError
from asi_watch.logs import event

log = logging.getLogger(__name__)

LOCK_NAME = "lock"
STATUS_NAME = "status.json"
_LARGEST = 16 << 20
_STALE_AFTER = 10.0


class AlreadyRunningError(AsiWatchError):
    """Another daemon holds the state folder."""

    exit_code = 3


class StateFolderError(AsiWatchError):
    """The state folder cannot be used, or was taken away while in use."""

    exit_code = 6


class StateLock:
    """Holds a state folder until released; the kernel releases it when the process dies."""

    def __init__(self, state_dir: Path) -> None:
        path = self._path = state_dir / LOCK_NAME
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # For this user alone: whoever can open it can hold it.
            self._file = os.open(path, flags, 0o600)
            with suppress(PermissionError):
                os.fchmod(self._file, 0o600)
        except OSError as error:
            raise StateFolderError(f"{path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise AlreadyRunningError(
                f"{state_dir} is in use by another asi-watch (process {holder or 'unknown'});"
                " stop it first, or give this one a state_dir of its own"
            ) from None
        # The number is for people; on a full disk the lock alone has to do.
        with suppress(OSError):
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()}\n".encode())

    @property
    def is_in_place(self) -> bool:
        """True while the lock lies where others look for it."""
        try:
            there = os.lstat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # it cannot be known
        return os.path.samestat(there, os.fstat(self._file))

    def release(self) -> None:
        """Let go of the folder."""
        os.close(self._file)


class NotRunningError(AsiWatchError):
    """No daemon runs on this state folder."""


class StatusFile:
    """Writes the file; owner thread only."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / STATUS_NAME
        self._process = _identity(os.getpid())
        self._fault: str | None = None

    def write(self, snapshot: dict[str, Any]) -> None:
        """Replace the file; a full disk is logged once and keeps the daemon from nothing.

        Parameters
        ----------
        snapshot : dict
            JSON-able.
        """
        # Printable ASCII: names of files may have any bytes.
        data = json.dumps({"process": self._process, **snapshot}).encode("ascii")
        # Not forced to the disk: after a power cut it means nothing.
        temporary = self._path.with_name(f".{STATUS_NAME}.new")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o644), "wb") as file:
                # Whatever the umask, which keeps everything else of the service from others.
                os.fchmod(file.fileno(), 0o644)
                file.write(data)
            temporary.replace(self._path)
            self._fault = None
        except OSError as error:
            fault = f"{self._path}: {error.strerror or error}"
            if fault != self._fault:
                event(log, logging.WARNING, "status not written", reason=fault)
            self._fault = fault

    def stopped(self, snapshot: dict[str, Any], reason: str) -> None:
        """Write the last state of a daemon that ends, and why."""
        self.write({**snapshot, "stopped": reason})


def read_status(state_dir: Path) -> tuple[dict[str, Any], float]:
    """Read the running daemon's state and its age in seconds; it is written every second.

    `NotRunningError` says what is known of the last daemon if none runs on the folder.
    """
    path, none_runs = state_dir / STATUS_NAME, f"no daemon runs on {state_dir}"
    start = "start it with `asi-watch run`"
    unread = f"{path} cannot be read"
    try:
        with path.open("rb") as file:
            snapshot = json.loads(file.read(_LARGEST))
            age = abs(time.time() - os.fstat(file.fileno()).st_mtime)
        process = snapshot["process"]
        pid = process["pid"]
    except FileNotFoundError:
        raise NotRunningError(f"{none_runs} (no {STATUS_NAME}); {start}") from None
    except OSError as error:
        remedy = "is state_dir right?"
        if isinstance(error, PermissionError):
            remedy = (
                f"run this as the user of the service, or let others in: chmod o+rx {state_dir}"
            )
        raise NotRunningError(f"{unread}: {error.strerror or error}; {remedy}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        remedy = "a daemon that runs replaces it every second, else delete it"
        raise NotRunningError(f"{unread}: it is damaged; {remedy}") from error
    at = snapshot.get("at_utc")
    if reason := snapshot.get("stopped"):
        raise NotRunningError(f"{none_runs}: it stopped at {at} ({reason}); {start}")
    # In another PID namespace the process cannot be seen, but its file is fresh.
    if is_stale(age) and _identity(pid) != process:
        raise NotRunningError(f"{none_runs}: process {pid} was last seen at {at}; {start}")
    return snapshot, age


def is_stale(age: float) -> bool:
    """Tell whether a running daemon has made no progress for too long, by its state's age."""
    return age > _STALE_AFTER


def status_line(snapshot: dict[str, Any]) -> str:
    """Return a daemon's state in one line, for the service manager.

    Parameters
    ----------
    snapshot : dict
        As `read_status` returns it.
    """
    cameras = snapshot.get("cameras", {})
    published = sum(c["counts"]["published"] for c in cameras.values())
    missing = [n for n, c in cameras.items() if c["watching"].startswith("watch folder")]
    parts = [f"{len(cameras)} cameras, {published} brackets published"]
    if snapshot.get("blocked"):
        parts.append(f"nothing is published: {snapshot['blocked']}")
    for key, what in (("paused", "paused"), ("no_place", "products find no place")):
        parts += [f"{what}: {c[key]}" for c in cameras.values() if c.get(key)][:1]
    silent = [f"{n} since {c['late_since']}" for n, c in cameras.items() if c.get("late_since")]
    if silent:
        parts.append(f"silent: {', '.join(silent)}")
    if failing := [name for name, c in cameras.items() if c.get("failing") is not None]:
        parts.append(f"brackets fail: {', '.join(failing)}")
    if missing:
        parts.append(f"watch folder missing: {', '.join(missing)}")
    if snapshot.get("reload_error"):
        parts.append("configuration not reloaded")
    return "; ".join(parts)


def _identity(pid: int) -> dict[str, Any] | None:
    """Say which process has a number: with its start, since numbers are used again."""
    try:
        # The second field is the name in parentheses, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return {"pid": pid, "started": int(fields[19])}
    except (OSError, ValueError, IndexError):
        return None
