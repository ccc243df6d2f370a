"""Stops and reloads that come at a bad time: during the start, or while merges take too long."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.launching import launch, start_sabotaged
from tests.faults.verdict import crashes_in
from tests.integration.daemon import Site

pytestmark = pytest.mark.integration

BRACKETS = 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_or_reload_over_its_time_abandons_merges_and_makes_nothing_twice(
    make_site: Callable[..., Site], number: signal.Signals
) -> None:
    site = make_site(products=[{"format": "exr"}, {"format": "jpg"}])
    site.configure(shutdown_timeout="1s", workers=2)
    start_sabotaged(site, {"slow": 3.0})
    for bracket in range(BRACKETS):
        site.take(bracket)
    site.until(lambda: bool(list(site.output.rglob("*_hdr.*"))), "begun")
    began = time.monotonic()
    if number is signal.SIGHUP:
        site.reload()
    else:
        # 1: merges were abandoned. They end with the process, in no way of their own.
        assert site.stop(number) == 1
        assert time.monotonic() - began < 30
        site.start()
    for bracket in range(BRACKETS):
        assert site.until_published(bracket).revision == 1
    assert site.stop() in (0, 1)
    assert site.leftovers() == []
    log = site.log_text()
    published = Counter(re.findall(r'msg="bracket published".*?slot=(\S+)', log))
    assert len(published) == BRACKETS
    assert set(published.values()) == {1}
    assert crashes_in(log.splitlines()) == []


def minds_hangups(pid: int) -> bool:
    """Tell whether a process blocks SIGHUP or handles it; the interpreter itself does neither."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line[:6] in _MASKS]
    return any(mask >> (signal.SIGHUP - 1) & 1 for mask in masks)


_MASKS = ("SigBlk", "SigCgt")


@pytest.mark.parametrize("seconds", [0.0, 0.4])
def test_a_reload_during_the_start_is_done_after_it(site: Site, seconds: float) -> None:
    launch(site)
    process = site.process
    assert process is not None
    site.until(lambda: minds_hangups(process.pid), "the first lines of the program")
    time.sleep(seconds)
    process.send_signal(signal.SIGHUP)
    site.until(lambda: "msg=ready" in site.log_text(), "ready")
    site.take(0)
    site.until_published(0)
    assert process.poll() is None
    assert site.stop() == 0
