"""A virtual machine that can be cut off from its power, and the line to its agent."""

from __future__ import annotations

import base64
import json
import queue
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.machine.agent import PYTHON
from tests.machine.image import System, no_kvm

BOOT_SECONDS = 300.0
# no_timer_check: an emulated timer may be late where this computer is busy.
KERNEL = (
    "root=LABEL=asi-root rootfstype=ext4 ro init=/sbin/asi-init console=ttyS0 panic=-1"
    " no_timer_check"
)


class MachineError(AssertionError):
    """The machine, or a program in it, did not do what it was asked for."""


class Machine:
    """One machine on its own disks; switched on by `boot`, and off by `cut` or `shut_down`.

    Parameters
    ----------
    name : str
    system : System
    code : Path
        Disk with the project.
    folder : Path
        For logs: ``<name>-kernel.log`` and ``<name>-<n>.log``, what programs printed after the
        n-th start.
    data : Path or None
        Image of a data disk, or socket of a `VolatileDisk`.
    """

    def __init__(
        self, name: str, system: System, code: Path, folder: Path, *, data: Path | None = None
    ) -> None:
        self.name = name
        self.data = Path("/data")
        self.python_path = PYTHON
        self.logs: list[Path] = []
        self._system = system
        self._code = code
        self._folder = folder
        self._disk = data
        self._process: subprocess.Popen[bytes] | None = None
        self._short = tempfile.TemporaryDirectory(prefix="asi-vm-")
        self._number = 0

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.cut()
        self._short.cleanup()

    # -- power --------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on, wait for the agent and mount the data disk."""
        log = self._folder / f"{self.name}-{len(self.logs)}.log"
        self.logs.append(log)
        port = Path(self._short.name) / "port"
        kernel_log = (self._folder / f"{self.name}-kernel.log").open("ab")
        with kernel_log:
            self._process = subprocess.Popen(
                self._command(port, log),
                stdin=subprocess.DEVNULL,
                stdout=kernel_log,
                stderr=kernel_log,
            )
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {0: queue.Queue()}
        self._socket = self._connected(port)
        threading.Thread(target=self._listen, args=(self._socket,), daemon=True).start()
        deadline = time.monotonic() + BOOT_SECONDS
        while self._answers[0].empty():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"{self.name} did not start: see {kernel_log.name}")
            time.sleep(0.05)
        if self._disk is not None:
            self.run("mount", "LABEL=asi-data", "/data")

    def cut(self) -> None:
        """Cut the power: nothing that its memory holds is kept."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        self._socket.close()

    def shut_down(self) -> None:
        """Unmount the data disk and switch it off."""
        assert self._process is not None
        self._send({"do": "off"})
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            raise MachineError(f"{self.name} does not switch off") from None
        self._process = None
        self._socket.close()

    # -- inside -------------------------------------------------------------------------------

    def run(self, *argv: str, limit: float = 60, code: int | None = 0) -> str:
        """Run a program inside; `code` is the exit code it must have, None for any."""
        answer = self._ask({"do": "run", "argv": list(argv), "limit": limit}, limit + 20)
        if answer["code"] is None:
            raise MachineError(f"{self.name}: {argv} not done after {limit:g} s")
        if code is not None and answer["code"] != code:
            raise MachineError(f"{self.name}: {argv} gave {answer['code']}:\n{answer['out']}")
        return str(answer["out"])

    def python(self, *argv: str, limit: float = 60, code: int | None = 0) -> str:
        """Run the machine's Python."""
        return self.run(PYTHON, *argv, limit=limit, code=code)

    def start(self, name: str, *argv: str) -> None:
        """Start a program that goes on."""
        self._ask({"do": "start", "name": name, "argv": list(argv)})

    def running(self, name: str) -> bool:
        """Tell whether a program goes on still."""
        return self._ask({"do": "poll", "name": name}) is None

    def stop(self, name: str, number: int = 15, limit: float = 60) -> int | None:
        """Stop a program; gives its exit code, None if it does not end."""
        request = {"do": "stop", "name": name, "number": number, "limit": limit}
        value: int | None = self._ask(request, limit + 20)
        return value

    def write(self, path: str, content: bytes) -> None:
        """Write a file inside."""
        self._ask({"do": "write", "path": path, "content": base64.b64encode(content).decode()})

    def log_text(self) -> str:
        """What programs printed since the last start."""
        return self.logs[-1].read_text("utf-8", "replace")

    # -- within -------------------------------------------------------------------------------

    def _command(self, port: Path, log: Path) -> list[str]:
        system = self._system
        options = [
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-machine", "q35", *_processor(), "-smp", "2", "-m", "1536",
            "-kernel", str(system.kernel), "-initrd", str(system.initrd),
            "-append", KERNEL,
            "-serial", "stdio", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=port,path={port},server=on,wait=off",
            "-device", "virtserialport,chardev=port",
            "-chardev", f"file,id=log,path={log}", "-device", "virtserialport,chardev=log",
        ]  # fmt: skip
        drives = [
            ("root", f"file,filename={system.root},read-only=on", "raw,read-only=on"),
            ("code", f"file,filename={self._code},read-only=on", "raw,read-only=on"),
        ]
        if self._disk is not None and self._disk.is_socket():
            drives.append(("data", f"nbd,server.type=unix,server.path={self._disk}", "raw"))
        elif self._disk is not None:
            drives.append(("data", f"file,filename={self._disk}", "raw"))
        for name, file, kind in drives:
            options += [
                "-blockdev", f"driver={file},node-name={name}-file",
                "-blockdev", f"driver={kind},node-name={name},file={name}-file",
                "-device", f"virtio-blk-pci,drive={name}",
            ]  # fmt: skip
        return ["qemu-system-x86_64", *options]

    def _connected(self, port: Path) -> socket.socket:
        deadline = time.monotonic() + 20
        while True:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                line.connect(str(port))
            except (FileNotFoundError, ConnectionRefusedError):
                line.close()
            else:
                return line
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"{self.name}: the emulator did not start; see its kernel log")
            time.sleep(0.02)

    def _listen(self, line: socket.socket) -> None:
        answers = self._answers
        try:
            with line.makefile("rb") as lines:
                for text in lines:
                    document = json.loads(text)
                    answers[document.get("id", 0)].put(document)
        except (OSError, ValueError):
            return  # cut off

    def _send(self, request: dict[str, Any]) -> int:
        self._number += 1
        self._answers[self._number] = queue.Queue()
        self._socket.sendall(json.dumps({"id": self._number, **request}).encode() + b"\n")
        return self._number

    def _ask(self, request: dict[str, Any], limit: float = 30) -> Any:
        number = self._send(request)
        try:
            answer = self._answers[number].get(timeout=limit)
        except queue.Empty:
            raise MachineError(f"{self.name} did not answer: {request}") from None
        if "error" in answer:
            raise MachineError(f"{self.name}: {request['do']}: {answer['error']}")
        return answer["value"]


def _processor() -> list[str]:
    if no_kvm() is None:
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]
