"""``python -m tests.faults.sabotage PLAN run -c …``: the real daemon, with one thing broken.

PLAN is JSON: ``{"die_at": STEP, "slot": ISO}`` ends the process at once, as a power cut would,
when that bracket comes to that step; ``{"fail": CALL, "errno": NAME, "times": N}`` lets a system
call fail N times in the place where products are written or exposures are read.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asi_watch.files
import asi_watch.live.ledger
import asi_watch.live.publishing
import asi_watch.products.publishing
from asi_watch.cli import main
from asi_watch.live.records import BracketRecord
from asi_watch.naming import slot_stem

DIED = 86

PUBLISH_STEPS = ("created", "written", "synced", "replaced", "published")
LEDGER_STEPS = ("before the row", "inside the transaction", "after the row")


def die() -> None:
    os._exit(DIED)


def die_at(step: str, slot: datetime, product: str) -> None:
    """Die when this bracket's product with this suffix, or its row, comes to `step`."""
    name = f"{slot_stem(slot)}{product}"
    publish = asi_watch.live.publishing.publish

    def dying_publish(data: bytes, target: Any, **options: Any) -> None:
        def checkpoint(reached: str) -> None:
            if reached == step and str(target).endswith(name):
                die()

        publish(data, target, checkpoint=checkpoint, **options)

    asi_watch.live.publishing.publish = dying_publish
    _die_around_the_row(step, slot)


def _die_around_the_row(step: str, slot: datetime) -> None:
    ledger = asi_watch.live.ledger.Ledger
    record, transaction = ledger.record, ledger._transaction
    armed: list[bool] = []

    def dying_record(self: Any, row: BracketRecord) -> None:
        ours = row.slot == slot
        if ours and step == "before the row":
            die()
        armed[:] = [ours]
        record(self, row)
        if ours and step == "after the row":
            die()

    @contextlib.contextmanager
    def dying_transaction(self: Any) -> Iterator[None]:
        with transaction(self):
            yield
            if armed == [True] and step == "inside the transaction":
                die()

    ledger.record = dying_record  # type: ignore[method-assign]
    ledger._transaction = dying_transaction  # type: ignore[assignment,method-assign]


@dataclass
class FaultyOs:
    """The `os` module with one call that fails a number of times."""

    call: str
    number: int
    times: int

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._failing(real) if name == self.call else real

    def _failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*arguments: Any, **options: Any) -> Any:
            if self.times > 0:
                self.times -= 1
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments, **options)

        return failing


def fail(call: str, name: str, times: int, where: str) -> None:
    """Let `os.call` fail in the module that publishes products, or the one that opens inputs."""
    faulty: Any = FaultyOs(call, getattr(errno, name), times)
    if where == "inputs":
        asi_watch.files.os = faulty  # type: ignore[attr-defined]
    else:
        asi_watch.products.publishing.os = faulty  # type: ignore[attr-defined]


def sabotage(plan: dict[str, Any]) -> None:
    if "die_at" in plan:
        die_at(plan["die_at"], datetime.fromisoformat(plan["slot"]), plan["product"])
    else:
        fail(plan["fail"], plan["errno"], plan["times"], plan["where"])


if __name__ == "__main__":
    sabotage(json.loads(sys.argv.pop(1)))
    sys.exit(main())
