"""What the daemon says of itself: numbers gathered by the owner thread, read by `status`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from asi_watch.live.records import BracketRecord

_RECENT = 200


@dataclass(slots=True)
class CameraHealth:
    """Recent life of one camera."""

    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    last: dict[str, Any] | None = None
    last_error: dict[str, str] | None = None

    def bracket_over(self, record: BracketRecord) -> None:
        """Take note of a bracket's row."""
        self.last = {
            "slot": record.slot.isoformat(),
            "state": record.state,
            "complete": record.complete,
            "exposures": len(record.inputs),
            "latency": record.latency,
            "products": list(record.products),
        }
        if record.latency is not None:
            self.latencies.append(record.latency)
        if record.state != "published":
            self.error(f"bracket {record.slot:%Y-%m-%d %H:%M:%S} {record.state}: {record.reason}")

    def error(self, text: str) -> None:
        """Remember the latest thing that went wrong."""
        self.last_error = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "what": text}

    def latency(self) -> dict[str, float] | None:
        """Percentiles of the recent latencies in seconds, None before the first."""
        if not self.latencies:
            return None
        p50, p95, worst = np.percentile(self.latencies, [50, 95, 100])
        return {"p50": round(p50, 3), "p95": round(p95, 3), "max": round(worst, 3)}
