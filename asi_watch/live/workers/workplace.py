"""What the cameras of a daemon work with together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asi_watch.buffers import BufferPool
from asi_watch.config.model import Order
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.messages import Inbox
from asi_watch.live.workers.at_work import AtWork
from asi_watch.live.workers.budget import MemoryBudget
from asi_watch.live.workers.pool import JobPool


@dataclass(frozen=True)
class Workplace:
    """What the cameras of a daemon work with together.

    Parameters
    ----------
    ledger : Ledger
    inbox : Inbox
        The owner's.
    pool : JobPool
    budget : MemoryBudget
    buffers : BufferPool
        Of images.
    at_work : AtWork
        Notes what the workers are at.
    order : {"newest", "oldest"}
        Which brackets of a backlog go first.
    curves_dir : Path
        Where adopted curves are kept, in a folder for each camera.
    """

    ledger: Ledger
    inbox: Inbox
    pool: JobPool
    budget: MemoryBudget
    buffers: BufferPool
    at_work: AtWork
    order: Order
    curves_dir: Path
