"""This computer in place of a machine: only the disk loses its power.

Where no machine can be run at full speed, the data disk alone is real: a `VolatileDisk`, mounted
here by way of FUSE (nbdfuse, of libnbd-bin) and a loop device. At the cut all programs are stopped,
the disk takes nothing more, the programs are killed, and what the kernel still holds for the disk
is thrown away with the mount. What is left is what the same programs would leave in a machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from tests.machine.image import copy_code
from tests.machine.vm import MachineError
from tests.machine.volatile_disk import VolatileDisk

TOOLS = ("nbdfuse", "losetup", "mkfs.ext4", "e2fsck")


def missing() -> list[str]:
    """What this computer lacks, each with the remedy."""
    lacks = [f"{tool} is not installed" for tool in TOOLS if shutil.which(tool) is None]
    lacks += [f"{d} is not there" for d in ("/dev/fuse", "/dev/loop0") if not Path(d).exists()]
    return [*lacks, "mounting needs root"] if os.geteuid() != 0 else lacks


class MountedDisk:
    """Answers to the same calls as a `Machine`, with the programs of this computer.

    Parameters
    ----------
    folder : Path
        For logs, the code, and the place of the mount.
    medium : VolatileDisk
    """

    def __init__(self, folder: Path, medium: VolatileDisk) -> None:
        self.data = folder / "mnt"
        self.data.mkdir()
        self.python_path = sys.executable
        self.logs: list[Path] = []
        self._folder = folder
        self._code = copy_code(folder / "code")
        self._medium = medium
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._device = ""

    def __enter__(self) -> MountedDisk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self.cut()

    # -- power --------------------------------------------------------------------------------

    def boot(self) -> None:
        """Attach the disk and mount it."""
        self.logs.append(self._folder / f"programs-{len(self.logs)}.log")
        export = self._folder / "export"
        export.touch()
        with (self._folder / "nbdfuse.log").open("ab") as log:
            self._server = subprocess.Popen(
                ["nbdfuse", str(export), "--unix", str(self._medium.address)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while not export.stat().st_size:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise MachineError("nbdfuse does not show the disk")
            time.sleep(0.02)
        self._device = self.run("losetup", "--direct-io=on", "-f", "--show", str(export)).strip()
        self.run("mount", self._device, str(self.data))

    def cut(self) -> None:
        """Stop everything at once, and forget what has not come to the disk."""
        for process in self._running.values():
            _signal(process, signal.SIGSTOP)
        self._medium.freeze()
        for process in self._running.values():
            _signal(process, signal.SIGKILL)
        # The kernel finds the disk failing: that is what it should find.
        self._medium.release()
        for process in self._running.values():
            process.wait()
        self._running.clear()
        self._detach()

    def shut_down(self) -> None:
        """Unmount the disk."""
        self._detach()

    def _detach(self) -> None:
        # What a killed program left running is gone in a moment, but not at once.
        deadline = time.monotonic() + 30
        while self.data.is_mount() and time.monotonic() < deadline:
            self.run("umount", str(self.data), code=None)
            time.sleep(0.05)
        self.run("losetup", "-d", self._device)
        assert self._server is not None
        self._server.terminate()
        self._server.wait(30)
        self._server = None

    # -- programs -----------------------------------------------------------------------------

    def run(self, *argv: str, limit: float = 60, code: int | None = 0) -> str:
        """Run a program; `code` is the exit code it must have, None for any."""
        seen = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=limit, check=False, cwd=self._code,
        )  # fmt: skip
        if code is not None and seen.returncode != code:
            raise MachineError(f"{argv} gave {seen.returncode}:\n{seen.stdout}")
        return seen.stdout

    def python(self, *argv: str, limit: float = 60, code: int | None = 0) -> str:
        """Run this Python."""
        return self.run(sys.executable, *argv, limit=limit, code=code)

    def start(self, name: str, *argv: str) -> None:
        """Start a program that goes on."""
        with self.logs[-1].open("ab") as log:
            self._running[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._code,
                start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def running(self, name: str) -> bool:
        """Tell whether a program goes on still."""
        return self._running[name].poll() is None

    def stop(self, name: str, number: int = signal.SIGTERM, limit: float = 60) -> int | None:
        """Stop a program; gives its exit code, None if it does not end."""
        process = self._running.pop(name)
        process.send_signal(number)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Write a file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)

    def log_text(self) -> str:
        """What programs printed since the last start."""
        return self.logs[-1].read_text("utf-8", "replace") if self.logs[-1].exists() else ""


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)
