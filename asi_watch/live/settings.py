"""What the daemon is told: plain frozen values, built from the configuration by the commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asi_watch.brackets import BracketRules
from asi_watch.hdr.merging import MergeSettings
from asi_watch.live.watching.intake import IntakeRules
from asi_watch.naming import NamePattern, is_product_name
from asi_watch.products import ProductSpec

Order = Literal["newest", "oldest"]


@dataclass(frozen=True)
class CurveRules:
    """Where a camera's curve comes from and when it is judged anew; `every` in seconds or None.

    `sky_disc`: x, y and radius in pixels; None: samples are taken from the whole picture.
    """

    response: Path | None
    without_response: Literal["mertens", "wait"]
    every: float | None
    brackets: int
    sky_disc: Literal["auto"] | tuple[float, float, float] | None = "auto"


@dataclass(frozen=True)
class RetentionLimits:
    """What is kept of one kind of files: seconds, bytes in all, bytes left free; None: no limit."""

    max_age: float | None = None
    max_size: int | None = None
    keep_free: int | None = None

    @property
    def any(self) -> bool:
        """True if there is a limit."""
        return not (self.max_age is None and self.max_size is None and self.keep_free is None)


@dataclass(frozen=True)
class RetentionRules:
    """What is deleted of a camera's files; with `dry_run` it is only told.

    With `require_product` an exposure goes only while the products stand that it was merged into.
    """

    exposures: RetentionLimits = RetentionLimits()
    products: RetentionLimits = RetentionLimits()
    dry_run: bool = True
    require_product: bool = True


@dataclass(frozen=True)
class CameraSettings:
    """One camera."""

    name: str
    output: Path
    pattern: NamePattern
    extensions: frozenset[str]
    intake: IntakeRules
    rules: BracketRules
    merge: MergeSettings
    products: tuple[ProductSpec, ...]
    curves: CurveRules
    retention: RetentionRules = RetentionRules()

    def wants(self, name: str) -> bool:
        """Tell by its name whether a file may be an exposure; uploads are hidden until done."""
        suffix = name.rpartition(".")[2].lower()
        return suffix in self.extensions and not name.startswith(".") and not is_product_name(name)


@dataclass(frozen=True)
class DaemonSettings:
    """The whole daemon; `memory_budget` and `keep_free` in bytes, `shutdown_timeout` in seconds."""

    state_dir: Path
    workers: int
    memory_budget: int
    shutdown_timeout: float
    cameras: tuple[CameraSettings, ...]
    order: Order = "oldest"
    keep_free: int | None = None
