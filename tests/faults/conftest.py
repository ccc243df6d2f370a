from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.tally import FOLDER, Tally
from tests.integration.daemon import Site


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After a long run: what is promised, and what was counted."""
    selected = str(terminalreporter.config.option.markexpr)
    if "soak" in selected and "not soak" not in selected:
        terminalreporter.section("what is promised, and what was counted")
        for line in Tally(FOLDER).table():
            terminalreporter.write_line(line)


@pytest.fixture
def tally() -> Tally:
    return Tally(FOLDER)


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(**camera: Any) -> Site:
        folder = tmp_path / f"site{len(sites)}"
        folder.mkdir()
        sites.append(Site(folder, **camera))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()
