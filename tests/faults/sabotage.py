"""``python -m tests.faults.sabotage PLAN run -c …``: the real daemon, with one thing broken.

PLAN is JSON: ``{"die_at": STEP, "slot": ISO}`` ends the process at once, as a power cut would,
when that bracket comes to that step; ``{"products": […], "inputs": […]}`` lets system calls fail
where products are written and where exposures are opened (see `Faults`); ``{"deadly": [PART, …]}``
kills the process whenever it decodes or encodes for a file with that in its name; ``{"slow":
SECONDS}`` lets every product take so long; ``{"constants": {NAME: VALUE}}`` sets constants of
modules.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import asi_watch.files
import asi_watch.frames
import asi_watch.live.ledger.ledger
import asi_watch.merge_bracket
from asi_watch.cli import main
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.naming import ProductName

# The package has a function of the same name.
PUBLISH: Any = importlib.import_module("asi_watch.products.publish")

DIED = 86

PUBLISH_STEPS = ("created", "written", "synced", "replaced", "published")
STEP_OF_CALL = {"open": "created", "write": "written", "fsync": "synced", "replace": "replaced"}
LEDGER_STEPS = ("before the row", "inside the transaction", "after the row")


def die() -> None:
    os._exit(DIED)


def die_at(step: str, slot: datetime, product: str) -> None:
    """Die when this bracket's product with this suffix, or its row, comes to `step`."""
    name, target = f"{ProductName().stem(slot)}{product}", _note_targets()

    def reach(reached: str) -> None:
        if reached == step and getattr(target, "now", "").endswith(name):
            die()

    class StepOs:
        """The `os` module, which tells of the steps of publishing."""

        def __getattr__(self, call: str) -> Any:
            real = getattr(os, call)
            reached = STEP_OF_CALL.get(call)
            if reached is None:
                return real

            def told(*arguments: Any, **options: Any) -> Any:
                result = real(*arguments, **options)
                reach(reached)
                return result

            return told

    fsync_folder = PUBLISH.fsync_folder

    def dying_fsync_folder(descriptor: int) -> None:
        fsync_folder(descriptor)
        reach("published")

    PUBLISH.os = StepOs()
    PUBLISH.fsync_folder = dying_fsync_folder
    _die_around_the_row(step, slot)


def _note_targets() -> threading.local:
    """Let each thread note, as `now`, which product it is publishing."""
    target = threading.local()
    publish = PUBLISH.OutputFolder.publish

    def noting_publish(self: Any, data: bytes, path: Any) -> None:
        target.now = str(path)
        publish(self, data, path)

    PUBLISH.OutputFolder.publish = noting_publish
    return target


def _die_around_the_row(step: str, slot: datetime) -> None:
    ledger = asi_watch.live.ledger.ledger.Ledger
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


class Faults:
    """Which calls of the `os` module still have to fail, for which file, and how.

    Each fault is ``{"file": PART_OF_NAME, "call": NAME, "errno": NAME, "times": N}``.
    """

    def __init__(self, faults: list[dict[str, Any]]) -> None:
        self._faults = faults
        self._lock = threading.Lock()

    def strike(self, call: str, file: str) -> None:
        """Raise if this call is to fail for this file."""
        with self._lock:
            for fault in self._faults:
                if fault["call"] == call and fault["file"] in file and fault["times"] > 0:
                    fault["times"] -= 1
                    number = getattr(errno, fault["errno"])
                    raise OSError(number, os.strerror(number))


class FaultyOs:
    """The `os` module, some calls of which fail; `about` names the file a call is for."""

    def __init__(self, faults: Faults, about: Callable[[tuple[Any, ...]], str]) -> None:
        self._faults = faults
        self._about = about

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if not callable(real):
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            self._faults.strike(name, self._about(arguments))
            return real(*arguments, **options)

        return call


def fail_products(faults: list[dict[str, Any]]) -> None:
    """Let calls fail where products are written."""
    target = _note_targets()
    faulty: Any = FaultyOs(Faults(faults), lambda _: getattr(target, "now", ""))
    PUBLISH.os = faulty


def fail_inputs(faults: list[dict[str, Any]]) -> None:
    """Let calls fail where exposures are opened."""
    faulty: Any = FaultyOs(Faults(faults), lambda arguments: str(arguments[0]) if arguments else "")
    asi_watch.files.os = faulty  # type: ignore[attr-defined]


def kill_at(parts: list[str]) -> None:
    """Die as from a crash of a decoder or the want of memory, each time this is worked on."""
    read_image = asi_watch.frames.read_image
    encode_merge = asi_watch.merge_bracket.encode_merge

    def strike(name: str) -> None:
        if any(part in name for part in parts):
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly_read(path: Any, **options: Any) -> Any:
        strike(os.fspath(path))
        return read_image(path, **options)

    def deadly_encode(spec: Any, merge: Any, provenance: Any, **options: Any) -> Any:
        strike(ProductName().stem(provenance.slot))
        return encode_merge(spec, merge, provenance, **options)

    asi_watch.frames.read_image = deadly_read
    asi_watch.merge_bracket.encode_merge = deadly_encode


def slow_down(seconds: float) -> None:
    """Let every product take so long to encode."""
    encode_merge = asi_watch.merge_bracket.encode_merge

    def slow_encode(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return encode_merge(*arguments, **options)

    asi_watch.merge_bracket.encode_merge = slow_encode


def sabotage(plan: dict[str, Any]) -> None:
    if "die_at" in plan:
        die_at(plan["die_at"], datetime.fromisoformat(plan["slot"]), plan["product"])
    for name, value in plan.get("constants", {}).items():
        module, _, constant = name.rpartition(".")
        setattr(importlib.import_module(module), constant, value)
    if "deadly" in plan:
        kill_at(plan["deadly"])
    if "slow" in plan:
        slow_down(plan["slow"])
    if "products" in plan:
        fail_products(plan["products"])
    fail_inputs(plan.get("inputs", []))


if __name__ == "__main__":
    sabotage(json.loads(sys.argv.pop(1)))
    sys.exit(main())
