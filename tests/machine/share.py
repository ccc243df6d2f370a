"""The folders of a camera lie on a network share, and the share goes away.

One machine is both: its kernel's NFS server exports a folder, and its kernel's NFS client mounts
that export. The camera writes on the server's side, where no event of the client's tells of it.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from asi_watch.response_files import response_bytes
from tests.machine.image import System, code_disk, disk
from tests.machine.place import EXPOSURES, SIZE, Place
from tests.machine.vm import Machine
from tests.skies import sky_bracket

log = logging.getLogger(__name__)

SHARE = Path("/mnt/share")
EXPORTED = Path("/data/export")
START = datetime(2026, 6, 21, 0, 0)
SPEED = 6
BRACKETS = 6
PATIENCE = 600.0
# Seconds: the server gives up what clients held before it was stopped.
GRACE = 10
MOUNT = "nosuid,nodev,actimeo=1,vers=4.2"


@dataclass
class Outcome:
    """What came of one scenario."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    facts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class ShareTest:
    """All scenarios, one after the other, in one machine.

    Parameters
    ----------
    system : System
    folder : Path
        For disks and logs.
    """

    def __init__(self, system: System, folder: Path) -> None:
        image = disk(folder / "share-data.img", "asi-data", 1 << 30)
        code = code_disk(folder / "code.img")
        self._machine = Machine("share", system, code, folder, data=image)
        self._place = Place(self._machine.data, SHARE / "in", SHARE / "out")
        self._hours = self._told = 0

    def run(self) -> list[Outcome]:
        """Run every scenario."""
        with self._machine as machine:
            machine.boot()
            self._prepare()
            outcomes = [
                self._scenario("share stays", "hard", self._nothing),
                self._scenario("server stops, hard mount", "hard", self._server_stops),
                self._scenario("server stops, soft mount", "soft,timeo=10,retrans=1",
                               self._server_stops),
                self._scenario("started while the server is away", "hard", self._started_without),
                self._scenario("unmounted and mounted again", "hard", self._unmounted),
            ]  # fmt: skip
            machine.shut_down()
        return outcomes

    # -- the share ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        machine = self._machine
        machine.write(str(self._place.config), self._place.configuration())
        machine.write(str(self._place.response), response_bytes(sky_bracket(SIZE).log_response))
        script = f"""
            ip link set lo up
            modprobe -a nfs nfsd
            mkdir -p {SHARE} {EXPORTED}/in {EXPORTED}/out /var/lib/nfs/sm
            touch /var/lib/nfs/etab /var/lib/nfs/rmtab
            mkdir -p /run/rpc_pipefs && mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
            mount -t nfsd nfsd /proc/fs/nfsd
            exportfs -o rw,insecure,no_root_squash,no_subtree_check,fsid=0 127.0.0.1:{EXPORTED}
            rpc.mountd -N 3
        """
        machine.run("sh", "-euc", script, limit=180)
        self._server_on()

    def _server_on(self) -> None:
        self._machine.run("rpc.nfsd", "-N", "3", "-G", str(GRACE), "-L", str(GRACE), "4")

    def _server_off(self) -> None:
        self._machine.run("rpc.nfsd", "0")

    def _mount(self, options: str) -> None:
        self._machine.run(
            "mount", "-t", "nfs4", "-o", f"{options},{MOUNT}", "127.0.0.1:/", str(SHARE), limit=180
        )

    # -- scenarios ----------------------------------------------------------------------------

    def _scenario(
        self, name: str, options: str, disturb: Callable[[Outcome, str], None]
    ) -> Outcome:
        outcome = Outcome(name)
        self._mount(options)
        with self._daemon(outcome):
            # The watch folder's first bracket shows that all is well.
            self._camera(1)
            self._until_settled(outcome, "at the beginning")
            state = self._status()["watching"]
            outcome.facts.append(state)
            if not state.startswith("polling (nfs"):
                outcome.faults.append(f"watching is {state!r}")
            disturb(outcome, options)
            self._until_settled(outcome, "in the end")
        verdict = self._judged("verdict")
        outcome.faults += verdict["faults"]
        outcome.counts.update(verdict["counts"])
        self._machine.run("umount", str(SHARE), limit=60)
        log.info("%s: %d faults, %s", name, len(outcome.faults), dict(outcome.counts))
        return outcome

    def _nothing(self, _outcome: Outcome, _options: str) -> None:
        self._camera(BRACKETS)

    def _server_stops(self, outcome: Outcome, _options: str) -> None:
        self._camera(BRACKETS, wait=False)
        time.sleep(5)
        self._server_off()
        self._wait_for_camera()
        time.sleep(20)
        outcome.facts.append("away: " + self._answers(outcome))
        self._server_on()

    def _started_without(self, outcome: Outcome, _options: str) -> None:
        self._camera(BRACKETS)
        self._server_off()
        time.sleep(20)
        began = time.monotonic()
        code = self._machine.stop("daemon", limit=120)
        outcome.facts.append(f"stopped in {time.monotonic() - began:.0f} s with code {code}")
        if code is None:
            outcome.faults.append("SIGTERM does not end the daemon while the share is away")
            self._machine.stop("daemon", number=9)
        self._start_daemon()
        self._until("msg=ready")
        time.sleep(20)
        outcome.facts.append("away: " + self._answers(outcome))
        self._server_on()

    def _until(self, text: str) -> None:
        """Wait for words of the daemon that has just been started."""
        deadline = time.monotonic() + PATIENCE
        before = self._told
        while text not in self._machine.log_text()[before:] and time.monotonic() < deadline:
            time.sleep(0.5)

    def _unmounted(self, outcome: Outcome, options: str) -> None:
        self._camera(BRACKETS, wait=False)
        time.sleep(5)
        self._machine.run("umount", "-l", str(SHARE))
        self._wait_for_camera()
        time.sleep(20)
        outcome.facts.append("away: " + self._answers(outcome))
        self._mount(options)

    def _answers(self, outcome: Outcome) -> str:
        """Ask for the status while the share is away: the daemon must answer."""
        began = time.monotonic()
        camera = self._status()
        if not camera:
            outcome.faults.append("no status while the share is away")
        return f"{camera.get('watching')}, answered in {time.monotonic() - began:.1f} s"

    # -- daemon and camera --------------------------------------------------------------------

    @contextmanager
    def _daemon(self, outcome: Outcome) -> Iterator[None]:
        machine = self._machine
        self._start_daemon()
        yield
        if (code := machine.stop("daemon", limit=120)) != 0:
            outcome.faults.append(f"the daemon ended with code {code} at SIGTERM")
        for line in machine.log_text().splitlines():
            if "crashed" in line or "Traceback" in line:
                outcome.faults.append(line)

    def _start_daemon(self) -> None:
        machine, config = self._machine, str(self._place.config)
        self._told = len(machine.log_text())
        machine.start("daemon", machine.python_path, "-m", "asi_watch", "run", "-c", config)

    def _camera(self, brackets: int, *, wait: bool = True) -> None:
        """Let the camera write brackets into the exported folder itself."""
        begin = START + timedelta(hours=self._hours)
        self._hours += 1
        machine = self._machine
        machine.start(
            "camera", machine.python_path, "-m", "asi_watch", "simulate",
            f"--out={EXPORTED / 'in'}", f"--brackets={brackets}", f"--speed={SPEED}",
            f"--size={SIZE}", f"--start={begin:%Y-%m-%d %H:%M:%S}", "--writer=mixed",
            f"--exposures={','.join(str(e) for e in EXPOSURES)}",
        )  # fmt: skip
        if wait:
            self._wait_for_camera()

    def _wait_for_camera(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._machine.running("camera") and time.monotonic() < deadline:
            time.sleep(1)

    def _status(self) -> dict[str, Any]:
        config = str(self._place.config)
        answer = self._machine.python(
            "-m", "asi_watch", "status", "-c", config, "--json", code=None, limit=120
        )
        if not answer.startswith("{"):
            return {}
        camera: dict[str, Any] = json.loads(answer)["cameras"]["roof"]
        return camera

    def _until_settled(self, outcome: Outcome, when: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            camera = self._status()
            if camera and not (camera["open_count"] or camera["backlog"]):
                left = self._judged("settled")["unsettled"]
                if not left:
                    return
            if time.monotonic() > deadline:
                outcome.faults.append(f"not settled {when}: {camera}")
                return
            time.sleep(2)

    def _judged(self, what: str) -> dict[str, Any]:
        """Judge by the server's own view of the folders: nothing of a client's memory in it."""
        folders = [str(EXPORTED / "in"), str(EXPORTED / "out")]
        answer = self._machine.python(
            "-m", "tests.machine.judging", what, str(self._place.data), *folders, limit=300
        )
        document: dict[str, Any] = json.loads(answer)
        return document
