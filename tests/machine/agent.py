"""First process of the test machine after its `init.sh`: does what the host asks for.

Standard library only. Requests come as lines of JSON through a serial port and are answered, each
by a thread of its own, so that a program that hangs on a dead share holds up nothing else. What
the programs print goes to a second port, which the host keeps: it survives the power cut.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

PYTHON = "/opt/asi/bin/python"
ENVIRONMENT = {
    "PATH": "/opt/asi/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": "/code",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",
    "MPLCONFIGDIR": "/tmp/mpl",
}


class Agent:
    """Runs programs and writes files for the host."""

    def __init__(self) -> None:
        self._port = os.open(_serial_port(1), os.O_RDWR)
        self._log = os.open(_serial_port(2), os.O_WRONLY)
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        self._send({"hello": os.uname().release})
        buffer = b""
        while True:
            data = os.read(self._port, 1 << 16)
            if not data:  # the host has not connected yet, or has gone
                time.sleep(0.02)
                continue
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                threading.Thread(target=self._answer, args=(request,), daemon=True).start()

    def _answer(self, request: dict[str, Any]) -> None:
        call = getattr(self, "do_" + request.pop("do"))
        number = request.pop("id")
        try:
            answer = {"id": number, "value": call(**request)}
        except (OSError, subprocess.SubprocessError, KeyError) as error:
            answer = {"id": number, "error": f"{type(error).__name__}: {error}"}
        self._send(answer)

    def _send(self, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._port, data) :]

    # -- what can be asked for ------------------------------------------------------------------

    def do_run(self, argv: list[str], limit: float) -> dict[str, Any]:
        """Run a program to its end."""
        # A group of its own, in files: a hanging grandchild must not hold the answer back.
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=ENVIRONMENT, start_new_session=True,
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            return {"code": None, "out": ""}
        return {"code": process.returncode, "out": out.decode("utf-8", "replace")}

    def do_start(self, name: str, argv: list[str]) -> int:
        """Start a program; what it prints goes to the log."""
        self._running[name] = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env=ENVIRONMENT, start_new_session=True,
        )  # fmt: skip
        return self._running[name].pid

    def do_poll(self, name: str) -> int | None:
        """Tell how a program ended, None while it runs."""
        return self._running[name].poll()

    def do_stop(self, name: str, number: int, limit: float) -> int | None:
        """Send a signal and wait for the end; None if it does not come."""
        self._running[name].send_signal(signal.Signals(number))
        try:
            return self._running[name].wait(limit)
        except subprocess.TimeoutExpired:
            return None

    def do_write(self, path: str, content: str) -> None:
        """Write a file (base64), making its folders."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(base64.b64decode(content))

    def do_off(self) -> None:
        """Unmount what can be, and switch the machine off."""
        for place in ("/mnt/share", "/data", "/code"):
            subprocess.run(["umount", place], check=False, timeout=20, capture_output=True)
        os.sync()
        Path("/proc/sysrq-trigger").write_text("o")


def _serial_port(number: int) -> Path:
    while True:
        for path in Path("/dev").glob(f"vport*p{number}"):
            return path
        time.sleep(0.01)


if __name__ == "__main__":
    Agent().serve()
