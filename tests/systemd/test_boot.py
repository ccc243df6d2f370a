"""The unit and install.sh under a real systemd, booted in a container of its own.

Asked for by ``make test-systemd`` (root and systemd-nspawn needed): the first run makes a Debian
system of some 400 MB and fetches wheels, both kept in ``ASI_WATCH_BOOT_CACHE`` (default
``~/.cache/asi-watch-boot``); after that a run takes two to three minutes, without a network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.systemd import inside

REPOSITORY = Path(__file__).parents[2]
RUNNER = """\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=file:/ci/output.txt
StandardError=inherit
ExecStart=/usr/bin/python3 /ci/inside.py
ExecStopPost=/bin/systemctl --no-block exit 0
"""
PACKAGES = "systemd,systemd-sysv,dbus,procps,libpam-systemd,python3-venv,gcc,libc6-dev,python3-dev"


def reason_to_skip() -> str | None:
    if os.environ.get("ASI_WATCH_BOOT_TEST") != "1":
        return "boots a system: run make test-systemd"
    if os.geteuid() != 0:
        return "booting a container needs root"
    tools = ("systemd-nspawn", "mmdebstrap")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"not on this machine: {', '.join(missing)}" if missing else None


pytestmark = [
    pytest.mark.systemd,
    pytest.mark.skipif(reason_to_skip() is not None, reason=reason_to_skip() or ""),
]


def run(*command: str | Path, limit: float = 900) -> None:
    subprocess.run(
        [str(part) for part in command], check=True, timeout=limit, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def machine() -> Path:
    """A Debian 12 with systemd, made once."""
    cache = Path(os.environ.get("ASI_WATCH_BOOT_CACHE", Path.home() / ".cache" / "asi-watch-boot"))
    root = cache / "bookworm"
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = cache / "bookworm.new"
        shutil.rmtree(fresh, ignore_errors=True)
        run("mmdebstrap", "-q", "--variant=minbase", f"--include={PACKAGES}", "bookworm", fresh)
        fresh.rename(root)
    return root


@pytest.fixture(scope="module")
def wheels(machine: Path) -> Path:
    """All that pip needs inside, where there is no network."""
    target = machine.parent / "wheels"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"], "wheel"]
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--dest", target, "--python-version=3.11", "--only-binary=:all:", *wanted,
    )  # fmt: skip
    return target


@pytest.fixture(scope="module")
def results(
    machine: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What came of each check inside; a check not reached is missing."""
    shared = tmp_path_factory.mktemp("boot")
    shutil.copy(inside.__file__, shared / "inside.py")
    (shared / "runner.service").write_text(RUNNER)
    ramp = np.linspace(0, 90, 320 * 240, dtype=np.float32).reshape(240, 320, 1).repeat(3, axis=2)
    for number in range(len(inside.EXPOSURES)):
        frame = np.clip(ramp * 2**number, 0, 255).astype(np.uint8)
        cv2.imwrite(str(shared / f"frame{number}.jpg"), frame)
    run(
        "systemd-nspawn", "--quiet", "-D", machine, "--volatile=overlay", "--register=no",
        "--keep-unit", "--private-network", "-M", f"asi-watch-test-{os.getpid()}",
        f"--bind={shared}:/ci", f"--bind-ro={REPOSITORY}:/source", f"--bind-ro={wheels}:/wheels",
        f"--bind-ro={shared}/runner.service:/etc/systemd/system/runner.service",
        "--console=read-only", "-b", "--",
        "systemd.unit=multi-user.target", "systemd.wants=runner.service",
    )  # fmt: skip
    print((shared / "output.txt").read_text())
    found: dict[str, str] = json.loads((shared / "results.json").read_text())
    return found


@pytest.mark.parametrize("name", [check.__name__ for check in inside.CHECKS])
def test_under_a_real_systemd(results: dict[str, str], name: str) -> None:
    if problem := results.get(name, "not reached"):
        pytest.fail(problem, pytrace=False)
