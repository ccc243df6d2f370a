"""Starting a site's daemon in other ways than `Site.start`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.integration.daemon import Site


def launch(site: Site) -> None:
    """Start the daemon without waiting for it."""
    _start(site, site.command("run"))


def launch_sabotaged(site: Site, plan: dict[str, Any]) -> None:
    """Start the daemon with one thing broken (see `tests.faults.sabotage`)."""
    run = site.command("run")[3:]
    _start(site, [sys.executable, "-m", "tests.faults.sabotage", json.dumps(plan), *run])


def start_sabotaged(site: Site, plan: dict[str, Any]) -> None:
    """Start it so, and wait until it is ready."""
    launch_sabotaged(site, plan)
    site.until(lambda: "msg=ready" in site.log_text(), "ready")


def _start(site: Site, command: list[str]) -> None:
    with site.log.open("ab") as log:
        site.process = subprocess.Popen(command, stdout=log, stderr=log)
