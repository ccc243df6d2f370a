"""Claims on brackets, so that several runs, on any machines, share the work on one archive.

A claim is a file in the folder that products go to, which one run alone can make. Each run shows
that it is alive by touching a file of its own. What a run has claimed that died is free again.
"""

import fcntl
import logging
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from asi_watch.files import shown

log = logging.getLogger(__name__)

_FOLDER = ".asi-watch-claims"
_TOUCHED_EVERY, _DEAD_AFTER = 15.0, 120.0  # seconds


class Claims:
    """The claims of one run, which is alive while this is entered.

    Where claims cannot be written (a read-only folder, a full disk) the run works without them.

    Parameters
    ----------
    output : Path or None
        Folder that products go to, the same for all runs that share work; None: claim nothing.
    """

    def __init__(self, output: Path | None) -> None:
        self._shared = output is not None
        self._folder = (output or Path()) / _FOLDER
        self._host = _this_boot()
        self._run = f"{self._host}.{os.getpid()}.{secrets.token_hex(4)}"
        self._mine = self._folder / f"{self._run}.run"
        self.freed = 0
        """Claims of dead runs that were removed: their temporary files lie there still."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._stay_alive, name="claims", daemon=True)

    def __enter__(self) -> "Claims":
        if not self._shared:
            return self
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                self._mine.touch()
            except FileNotFoundError:  # the last of other runs has just ended
                self._folder.mkdir(parents=True, exist_ok=True)
                self._mine.touch()
        except OSError as error:
            text = "%s: no claims can be made there (%s): another run would do the same work again"
            log.warning(text, shown(self._folder), error.strerror)
            self._shared = False
        else:
            self._thread.start()
            self.free_those_of_dead_runs()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        if not self._shared:
            return
        try:
            for claim in self._folder.glob("*.claim"):
                if _read(claim) == self._run:
                    claim.unlink(missing_ok=True)
            self._mine.unlink(missing_ok=True)
            if {path.name for path in self._folder.iterdir()} <= {"lock"}:
                (self._folder / "lock").unlink(missing_ok=True)
                self._folder.rmdir()
        except OSError:
            pass  # another run has just come, or the folder cannot be written

    def take(self, key: str) -> bool:
        """Claim one bracket; False if another run has it.

        Parameters
        ----------
        key : str
            Names the bracket, as text for a file name.
        """
        if not self._shared:
            return True
        try:
            with (self._folder / f"{key}.claim").open("x") as file:
                file.write(self._run)
        except FileExistsError:
            return False
        except OSError:
            return True  # publishing will fail for the same reason, and say so
        return True

    def release(self, key: str) -> None:
        """Give up the claim on a bracket.

        Parameters
        ----------
        key : str
        """
        if self._shared:
            with suppress(OSError):  # it is free when this run ends
                (self._folder / f"{key}.claim").unlink(missing_ok=True)

    def free_those_of_dead_runs(self) -> None:
        """Remove what runs have left that died."""
        try:
            with (self._folder / "lock").open("a") as lock:
                # One run at a time: else a claim that was just made could be removed.
                fcntl.flock(lock, fcntl.LOCK_EX)
                for claim in self._folder.glob("*.claim"):
                    run = _read(claim)
                    if self._is_dead(self._folder / f"{run}.run" if run else claim):
                        claim.unlink(missing_ok=True)
                        self.freed += 1
                for run_file in self._folder.glob("*.run"):
                    if self._is_dead(run_file):
                        run_file.unlink(missing_ok=True)
        except OSError as error:
            log.debug("claims of dead runs stay: %s", error)

    def _is_dead(self, path: Path) -> bool:
        """Tell by its file whether a run is dead, in the time of the file system's clock."""
        host, _, process = path.stem.rpartition(".")[0].rpartition(".")
        if host == self._host and process.isdecimal() and not _runs(int(process)):
            return True
        try:
            self._mine.touch()
            return self._mine.stat().st_mtime - path.stat().st_mtime > _DEAD_AFTER
        except FileNotFoundError:
            return True

    def _stay_alive(self) -> None:
        while not self._over.wait(_TOUCHED_EVERY):
            with suppress(OSError):  # the next time may do
                self._mine.touch()


def _this_boot() -> str:
    """Name the machine, and its time since it was started: processes are numbered anew then."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")[:8]
    except OSError:
        boot = secrets.token_hex(4)
    return f"{socket.gethostname()}-{boot}"


def _read(claim: Path) -> str:
    try:
        return claim.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
